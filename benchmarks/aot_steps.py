"""Compiles whole epochs for TPUs that are not there.

    JAX_PLATFORMS=cpu python benchmarks/aot_steps.py

needs `pip install 'jaxmu[aot]'`. Nothing runs. Products are in bfloat16,
batches are of 256 images of 32x32 pixels, and models are trained one at a time,
the default of a TPU. The sets are those of the benchmark's split of CIFAR-10,
rounded to whole batches. Columns:

  megacycles    per model and step, by the compiler's cost model. A step is what
                training on a batch costs: three forward passes of its images.
                An epoch has as many as the method counts.
  relative      megacycles, relative to those of `original`
  images_per_s  by the clock of the TPU
  models        that are on the device
  model_mb      what each of them adds
  working_mb    working memory of the program
  gb            all memory of the program, data included
  once          megacycles per model of what is done once before the epochs:
                gradients and new weights for MSG and SalUN, predictions for
                SCRUB
  once_gb       all memory of that program

The compiler refuses programs that need more memory than a TPU has.

benchmarks/aot_steps.csv is written row by row; rows that it has are kept, so
delete it to compile all of them again.
"""

import argparse
import pathlib
from typing import Any

import jax
import jax_backend
import table
from workload import Workload

from jaxmu import hparams as hp
from jaxmu import methods, platforms, population
from jaxmu.method import Sizes
from jaxmu.study import compiled, execution

TABLE = pathlib.Path(__file__).with_suffix('.csv')
BATCH = 256
SIZES = Sizes(150 * BATCH, 17 * BATCH, 30 * BATCH, 10)
NETWORKS = {'resnet18': {'width': 64}, 'vit11m': {}}
UNLEARNING = ('ct', 'salun', 'neggrad_plus', 'msg', 'scrub')
_SIDE = 32
# Bytes of images and labels.
_DATA = (SIZES.retain + SIZES.forget + SIZES.val) * (_SIDE**2 * 3 + 4)
# Every epoch of SCRUB has both of its passes, so that all cost the same.
HPARAMS = {'scrub': {'num_ascents': 5}}
# Machine, network, method, models.
_PLACES = (('v5e', 'resnet18'), ('v6e', 'resnet18'), ('v5e', 'vit11m'))
CASES = (
  ('v5e', 'resnet18', 'original', 150),
  *(('v5e', 'resnet18', method, 8) for method in UNLEARNING),
  *((machine, network, 'original', 8) for machine, network in _PLACES[1:]),
  *(
    (machine, network, method, 8)
    for machine, network in _PLACES[1:]
    for method in UNLEARNING
  ),
  ('v6e', 'vit11m', 'original', 8),
)


def workload(network: str, method: str, size: int) -> Workload:
  """Return a population of a network that is trained with a method."""
  return Workload(
    network,
    NETWORKS[network],
    size,
    BATCH,
    SIZES.retain,
    SIZES.forget,
    SIZES.val,
    method,
    HPARAMS.get(method, {}),
    precision='bfloat16',
    augment=method == 'original',
  )


def estimate(name: str, work: Workload) -> dict[str, str]:
  """Compile an epoch and return its numbers."""
  machine = platforms.machine(name)
  layout = population.Layout(1, 1, machine.devices)
  loaded = jax_backend.lower(work, layout)
  epoch, once = loaded.epoch.compile(), loaded.init.compile()
  step = BATCH * compiled.cost(epoch).cycles / work.members / images(work)
  inputs = execution.bytes_of(loaded.members)
  account = epoch.memory_analysis()
  each = (inputs + account.output_size_in_bytes) / work.members
  return {
    'megacycles': f'{step / 1e6:.3f}',
    'images_per_s': f'{BATCH * machine.clock / step:.0f}',
    'model_mb': f'{each / 1e6:.1f}',
    'working_mb': f'{account.temp_size_in_bytes / 1e6:.1f}',
    'gb': _gigabytes(epoch, inputs),
    'once': f'{compiled.cost(once).cycles / work.members / 1e6:.3f}',
    'once_gb': _gigabytes(once, inputs),
  }


def _gigabytes(program: Any, inputs: float) -> str:
  return f'{execution.total_bytes(program, inputs, _DATA) / 1e9:.2f}'


def images(work: Workload) -> float:
  """Return how many images of training an epoch is worth."""
  method = methods.get(work.method)
  values = {**hp.defaults(method.Hparams), **work.hparams}
  passes = [
    method.card.cost({**values, 'num_epochs': epochs}, SIZES)
    for epochs in (1, 2)
  ]
  return (passes[1] - passes[0]) / 3


def relative(row: dict[str, str], rows: list[dict[str, str]]) -> str:
  """Return the cycles of a row relative to those of original training."""
  same = {'method': 'original'}
  same |= {key: row[key] for key in ('machine', 'model')}
  bases = [one for one in (*rows, row) if same.items() <= one.items()]
  return f'{float(row["megacycles"]) / float(bases[0]["megacycles"]):.2f}'


def main() -> None:
  argparse.ArgumentParser(description=__doc__).parse_args()
  # The compiler of a TPU cannot read the programs that JAX stores.
  jax.config.update('jax_enable_compilation_cache', False)
  rows = table.read(TABLE)
  for machine, network, method, size in CASES:
    work = workload(network, method, size)
    row = {
      'machine': machine,
      'model': work.label,
      'method': method,
      'models': str(size),
    }
    if table.has(rows, row):
      continue
    row |= estimate(machine, work)
    row['relative'] = relative(row, rows)
    table.append(TABLE, rows, row, f'1 x TPU {machine}, compiled, not run')
  table.show(rows)


if __name__ == '__main__':
  main()
