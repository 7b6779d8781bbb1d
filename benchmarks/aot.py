"""Compiles every formulation of convolutions for TPUs that are not there.

    JAX_PLATFORMS=cpu python benchmarks/aot.py [--cases=1]

needs `pip install 'jaxmu[aot]'`. Nothing runs. `kilocycles` is the estimate of
the compiler's cost model for the forward pass and the needed gradients of one
layer alone, in bfloat16 and per model; `megabytes` is the working memory of the
program. In chunks of 8 the layers of eight models are one batched program. The
table is written to benchmarks/aot.csv row by row; rows that it has are kept, so
delete it to compile all of them again. `--cases=N` compiles only the first N of
`CASES`. The fastest formulations in chunks of 1 are written to
jaxmu/models/conv/fastest.py, which `auto` follows on a TPU.
"""

import argparse
import functools
import pathlib
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import table

from jaxmu import models, platforms, population
from jaxmu.models import layers
from jaxmu.models.conv import choose, depthwise, fastest
from jaxmu.study import compiled

TABLE = pathlib.Path(__file__).with_suffix('.csv')
MODULE = pathlib.Path(fastest.__file__)
SIDE = 32  # of the images of a network
BATCH = 256
# Network, machine, chunk.
CASES = (
  ('resnet18 64', 'v5e', 1),
  ('vit11m', 'v5e', 1),
  ('resnet18 64', 'v6e', 1),
  ('resnet18 16', 'v5e', 1),
  ('resnet18 64', 'v5e', 8),
)
MOST_DENSE = 4  # largest side of maps for which a dense matrix is tried


class Kind(NamedTuple):
  """A convolution and how a network uses it."""

  layer: fastest.Layer
  depthwise: bool
  input_grad: bool

  @property
  def formulations(self) -> tuple[str, ...]:
    """What is worth trying."""
    if self.depthwise:
      return 'library', 'shifted'
    more = ('dense',) * (self.layer.side <= MOST_DENSE)
    more += ('blocks',) * (self.layer.channels < 8)
    return 'library', 'patches', *more


def kinds(network: str) -> list[Kind]:
  """List the different convolutions of a network."""
  name, *width = network.split()
  model = models.build(
    name,
    num_classes=10,
    image_shape=(SIDE, SIDE, 3),
    options={'width': int(*width)} if width else {},
  )
  found = {}

  def watch(call, args, kwargs, context):
    one = context.module
    if isinstance(one, layers.Conv) and context.method_name == '__call__':
      channels = 1 if one.depthwise else args[0].shape[3]
      layer = fastest.Layer(
        args[0].shape[1], channels, one.features, one.size, one.stride
      )
      found[Kind(layer, one.depthwise, one.input_grad)] = None
    return call(*args, **kwargs)

  def forward(key):
    return model.init(
      {'params': key}, jnp.zeros((1, SIDE, SIDE, 3)), train=False
    )

  with nn.intercept_methods(watch):
    jax.eval_shape(forward, jax.random.key(0))
  return list(found)


def program(kind: Kind, impl: str, x: Any, kernel: Any, dy: Any) -> Any:
  """Return the results and gradients of a layer, as training needs them."""
  run: Any = functools.partial(choose.conv, input_grad=kind.input_grad)
  if kind.depthwise:
    run = depthwise.depthwise
  padding = kind.layer.taps // 2

  def layer(x, kernel):
    kernel = kernel.astype(x.dtype)
    return run(x, kernel, stride=kind.layer.stride, padding=padding, impl=impl)

  y, pull = jax.vjp(layer, x, kernel)
  dx, dkernel = pull(dy)
  return (y, dkernel, dx) if kind.input_grad else (y, dkernel)


def estimate(
  kind: Kind, impl: str, chunk: int, machine: platforms.Machine
) -> tuple[float, float]:
  """Return the cycles per model and the bytes of working memory."""
  place = population.sharding(population.Layout(1, 1, machine.devices))
  side, channels, features, taps, stride = kind.layer
  out = (side + 2 * (taps // 2) - taps) // stride + 1
  entering = features if kind.depthwise else channels

  def array(*shape, dtype=jnp.bfloat16):
    shape = (chunk, *shape) if chunk > 1 else shape
    return jax.ShapeDtypeStruct(shape, dtype, sharding=place)

  one = functools.partial(program, kind, impl)
  with platforms.target('tpu'):
    lowered = jax.jit(jax.vmap(one) if chunk > 1 else one).lower(
      array(BATCH, side, side, entering),
      array(taps, taps, channels, features, dtype=jnp.float32),
      array(BATCH, out, out, features),
    )
  made = lowered.compile()
  cycles = compiled.cycles(made.as_text()) / chunk
  return cycles, made.memory_analysis().temp_size_in_bytes


def wanted(cases: int) -> Iterator[tuple[Kind, dict[str, str]]]:
  """Yield the first columns of the rows of the first cases.

  With each row comes its convolution.
  """
  for network, name, chunk in CASES[:cases]:
    for kind in kinds(network):
      for impl in kind.formulations:
        row = {
          'machine': name,
          **kind.layer._asdict(),
          'depthwise': '*' if kind.depthwise else '',
          'chunk': chunk,
          'formulation': impl,
        }
        yield kind, {key: str(value) for key, value in row.items()}


def best(rows: list[dict], depthwise: bool) -> dict[fastest.Layer, str]:
  """Return the formulation of least cycles of each layer, in chunks of 1.

  Over several machines, the least mean of the cycles relative to the fastest
  formulation.
  """
  cycles: dict[fastest.Layer, dict[str, dict[str, float]]] = {}
  for row in rows:
    if row['chunk'] == '1' and bool(row['depthwise']) == depthwise:
      layer = fastest.Layer(*(int(row[key]) for key in fastest.Layer._fields))
      machines = cycles.setdefault(layer, {})
      one = machines.setdefault(row['machine'], {})
      one[row['formulation']] = float(row['kilocycles'])
  found = {}
  for layer, machines in cycles.items():
    names = set.intersection(*map(set, machines.values()))
    found[layer] = min(
      sorted(names),
      key=lambda name: sum(
        one[name] / min(one.values()) for one in machines.values()
      ),
    )
  return found


def source(rows: list[dict], text: str) -> str:
  """Return the text of the module with the tables of these rows."""
  for name, only in (('TPU', False), ('TPU_DEPTHWISE', True)):
    entries = [
      f'  Layer({", ".join(map(str, layer))}): {impl!r},\n'
      for layer, impl in sorted(best(rows, only).items())
    ]
    lines = '{\n' + ''.join(entries) + '}\n'
    text = re.sub(
      rf'^({name}: .* = ){{.*?^}}\n',
      lambda match, lines=lines: match[1] + lines,
      text,
      flags=re.MULTILINE | re.DOTALL,
    )
  return text


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--cases', type=int, default=len(CASES))
  cases = parser.parse_args().cases
  # The compiler of a TPU cannot read the programs that JAX stores.
  jax.config.update('jax_enable_compilation_cache', False)
  rows = table.read(TABLE)
  for kind, row in wanted(cases):
    if table.has(rows, row):
      continue
    machine = platforms.machine(row['machine'])
    impl, chunk = row['formulation'], int(row['chunk'])
    cycles, memory = estimate(kind, impl, chunk, machine)
    row['kilocycles'] = f'{cycles / 1e3:.1f}'
    row['megabytes'] = f'{memory / 1e6:.1f}'
    hardware = f'1 x TPU {machine.name}, compiled, not run'
    table.append(TABLE, rows, row, hardware)
  MODULE.write_text(source(rows, MODULE.read_text()))
  print(f'written to {TABLE} and {MODULE}')


if __name__ == '__main__':
  main()
