"""Compiles training for an H100 that is not there, and counts its kernels.

    JAX_PLATFORMS=cpu python benchmarks/aot_gpu.py

needs `pip install 'jaxmu[aot-cuda]'`. Nothing runs. Each row is the epoch of a
method in bfloat16 at batch 256, with one formulation of all convolutions
(`config.model.options.conv`) and one chunk. Columns:

  grouped       convolutions in groups, which are slow on a GPU
  convolutions  all others
  products      matrix products
  loops         two are over chunks and over steps; others are in a layer
  mb_per_model  working memory of a chunk, divided by its models

Without a GPU the compiler cannot try its kernels. It may choose others for a
product or a convolution there, but a grouped convolution stays one. The table
is printed and written to benchmarks/aot_gpu.csv; rows that it has are kept, so
delete it to compile all of them again.
"""

import argparse
import itertools
import pathlib
import re
from typing import Any

import jax
import jax_backend
import table
from workload import Workload

from jaxmu import platforms, population
from jaxmu.study import compiled, execution

TABLE = pathlib.Path(__file__).with_suffix('.csv')
MACHINE = 'h100'
BATCH = 256
# Method, model, options of the model.
PROGRAMS = (
  ('original', 'resnet18', {'width': 64}),
  ('msg', 'resnet18', {'width': 64}),
  ('original', 'vit11m', {}),
)
FORMULATIONS = ('auto', 'library', 'patches')
CHUNKS = (1, 8)
OPTIONS = {'xla_gpu_autotune_level': 0}  # it would run kernels


def kernels(text: str) -> dict[str, int]:
  """Count the kernels and loops of a compiled program."""
  found = dict.fromkeys(('grouped', 'convolutions', 'products', 'loops'), 0)
  for line in text.splitlines():
    match = compiled.INSTRUCTION.match(line)
    kind = match and _kind(match['operation'], line)
    if kind:
      found[kind] += 1
  return found


def _kind(operation: str, line: str) -> str:
  """Return the column in which an instruction counts, '' for none."""
  called = re.search(r'custom_call_target="__([a-z]+)\$([a-z]+)', line)
  library, function = called.groups() if called else ('', '')
  if operation == 'convolution' or (library, function) == ('cudnn', 'conv'):
    groups = re.search(r'(feature|batch)_group_count=(\d+)', line)
    return 'grouped' if groups and int(groups[2]) > 1 else 'convolutions'
  if operation == 'dot' or library == 'cublas':
    return 'products'
  return 'loops' if operation == 'while' else ''


def measure(workload: Workload, chunk: int) -> dict[str, str]:
  """Compile an epoch in chunks; return the columns about its program."""
  machine = platforms.machine(MACHINE)
  layout = population.Layout(1, chunk, machine.devices)
  loaded = jax_backend.lower(workload, layout)
  program: Any = loaded.epoch.compile(compiler_options=OPTIONS)
  memory = execution.estimate_memory(program, 0.0, workload.members, chunk)
  counts = {name: str(n) for name, n in kernels(program.as_text()).items()}
  return counts | {'mb_per_model': f'{memory.working / chunk / 1e6:.1f}'}


def main() -> None:
  argparse.ArgumentParser(description=__doc__).parse_args()
  # What JAX stores would be read as a program of this machine.
  jax.config.update('jax_enable_compilation_cache', False)
  rows = table.read(TABLE)
  for conv, program, chunk in itertools.product(FORMULATIONS, PROGRAMS, CHUNKS):
    method, model, options = program
    workload = Workload(
      model,
      {**options, 'conv': conv},
      2 * chunk,
      BATCH,
      4 * BATCH,
      BATCH,
      BATCH,
      method,
      precision='bfloat16',
    )
    row = {
      'method': method,
      'model': workload.label,
      'formulation': conv,
      'chunk': str(chunk),
    }
    if table.has(rows, row):
      continue
    row |= measure(workload, chunk)
    hardware = f'1 x {MACHINE.upper()}, compiled, not run'
    table.append(TABLE, rows, row, hardware)
  table.show(rows)


if __name__ == '__main__':
  main()
