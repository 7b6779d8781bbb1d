"""Times every formulation of every convolution of ResNet-18, and of stems.

    python benchmarks/layers.py [--sides=32 --widths=8,16,64 --batch=128]
    python benchmarks/layers.py --sides=64 --batch=64
    python benchmarks/layers.py --sides=224 --batch=32

Each number is the forward pass and the needed gradients of one layer inside a
compiled loop, as training runs it, in milliseconds of processor time on one
core: the least of several runs. `gflops` counts all taps, also those that only
meet padding, so that a formulation which skips them may exceed the peak of the
machine. The column `auto` marks the choice of `jaxmu.models.conv.choose`. The
table is printed and written to benchmarks/layers.csv, where rows for other
sides of images stay.
"""

import argparse
import functools
import os
import pathlib
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import table
from jax import lax

from jaxmu.models import layers
from jaxmu.models.conv import choose, winograd

TABLE = pathlib.Path(__file__).with_suffix('.csv')
FORMULATIONS = ('library', 'patches', 'blocks', 'columns', 'dense', 'winograd')
CASE = ('side', 'width', 'batch', 'layer')  # columns of a case
STEPS = 4  # of the compiled loop
SECONDS = 0.2  # of one timing
REPEATS = 4
MOST_GIB = 0.25  # largest structured matrix that is tried


class Layer(NamedTuple):
  """One kind of convolution and its number in the network."""

  name: str
  count: int
  side: int
  channels: int
  features: int
  taps: int
  stride: int


def network(width: int, side: int) -> list[Layer]:
  """List the convolutions of ResNet-18 for images of `side` pixels."""
  layers = [
    Layer('stem', 1, side, 3, width, 7, 2),
    Layer('stage 1', 4, side // 4, width, width, 3, 1),
  ]
  for stage in (2, 3, 4):
    before = side // 2**stage
    entry = before, width * 2 ** (stage - 2), width * 2 ** (stage - 1)
    inner = before // 2, entry[2], entry[2]
    layers += [
      Layer(f'stage {stage} entry', 1, *entry, 3, 2),
      Layer(f'stage {stage} shortcut', 1, *entry, 1, 2),
      Layer(f'stage {stage}', 3, *inner, 3, 1),
    ]
  return layers


def stems(side: int) -> list[Layer]:
  """List the first two layers of the model `tiny` and of TinyViT-11M."""
  return [
    Layer('tiny conv1', 1, side, 3, 6, 3, 2),
    Layer('tiny conv2', 1, side // 2, 6, 12, 3, 2),
    Layer('TinyViT conv1', 1, side, 3, 32, 3, 2),
    Layer('TinyViT conv2', 1, side // 2, 32, 64, 3, 2),
  ]


def milliseconds(function, *arrays) -> float:
  """Time one call of a function that returns arrays like its arguments."""

  @jax.jit
  def loop(arrays):
    step = lambda carry, _: (function(*carry), None)  # noqa: E731
    return lax.scan(step, arrays, None, length=STEPS)[0]

  jax.block_until_ready(loop(arrays))
  start = time.perf_counter()
  jax.block_until_ready(loop(arrays))
  calls = max(1, int(SECONDS / (time.perf_counter() - start)))
  times = []
  for _ in range(REPEATS):
    start = time.process_time()
    for _ in range(calls):
      jax.block_until_ready(loop(arrays))
    times.append((time.process_time() - start) / calls)
  return 1000 * min(times) / STEPS


def there_and_back(function, x, kernel, dy, *, input_grad):
  """Run a layer and its gradients; each result feeds the next step."""
  x, dy = lax.optimization_barrier((x, dy))
  y, pull = jax.vjp(function, x, kernel)
  dx, dkernel = pull(dy)
  y, dx = lax.optimization_barrier((y, dx))
  x = 0.999 * x + 1e-6 * dx if input_grad else x
  return x, 0.999 * kernel + 1e-6 * dkernel, 0.999 * dy + 1e-6 * y


def rows_of(layer: Layer, side: int, width: int, batch: int) -> list[dict]:
  """Time one layer in every formulation."""
  padding = layer.taps // 2
  out = (layer.side + 2 * padding - layer.taps) // layer.stride + 1
  keys = jax.random.split(jax.random.key(0), 3)
  x = jax.random.normal(
    keys[0], (batch, layer.side, layer.side, layer.channels)
  )
  kernel = 0.01 * jax.random.normal(
    keys[1], (layer.taps, layer.taps, layer.channels, layer.features)
  )
  dy = jax.random.normal(keys[2], (batch, out, out, layer.features))
  input_grad = layer.channels != 3
  flops = 2 * dy.size * layer.taps**2 * layer.channels * (2 + input_grad)
  chosen = choose.choose(x.shape, kernel.shape, layer.stride, padding, x.dtype)
  rows = []
  for impl in FORMULATIONS:
    matrix = 4 * (x.size // batch) * (dy.size // batch) / 2**30
    if impl == 'dense' and matrix > MOST_GIB:
      continue
    if impl == 'winograd' and not winograd.fits(
      x.shape, kernel.shape, layer.stride, padding
    ):
      continue
    function = functools.partial(
      choose.conv,
      stride=layer.stride,
      padding=padding,
      impl=impl,
      input_grad=input_grad,
    )
    step = functools.partial(there_and_back, function, input_grad=input_grad)
    spent = milliseconds(step, x, kernel, dy)
    rows.append(
      {
        'side': side,
        'width': width,
        'batch': batch,
        'layer': layer.name,
        'count': layer.count,
        'formulation': impl,
        'milliseconds': f'{spent:.3f}',
        'gflops': f'{flops / spent / 1e6:.0f}',
        'auto': '*' if impl == chosen else '',
      }
    )
  return rows


def pooling(side: int, width: int, batch: int) -> list[dict]:
  """Time the max-pooling and its gradient beside the library's."""
  x = jax.random.normal(jax.random.key(0), (batch, side // 2, side // 2, width))
  dy = jax.random.normal(
    jax.random.key(1), (batch, side // 4, side // 4, width)
  )

  def library(x):
    sides = ((0, 0), (1, 1), (1, 1), (0, 0))
    return lax.reduce_window(
      x, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), sides
    )

  def step(function, x, dy):
    y, pull = jax.vjp(function, x)
    return 0.999 * x + 1e-6 * pull(dy)[0], 0.999 * dy + 1e-6 * y

  return [
    {
      'side': side,
      'width': width,
      'batch': batch,
      'layer': 'pooling',
      'count': 1,
      'formulation': name,
      'milliseconds': f'{milliseconds(functools.partial(step, f), x, dy):.3f}',
      'gflops': '',
      'auto': '' if name == 'library' else '*',
    }
    for name, f in (('library', library), ('own', layers.max_pool))
  ]


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--sides', default='32')
  parser.add_argument('--widths', default='8,16,64')
  parser.add_argument('--batch', type=int, default=128)
  options = parser.parse_args()
  # One core: several threads would hide which formulation does less work.
  os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
  batch = options.batch
  for side in map(int, options.sides.split(',')):
    rows = []
    for layer in stems(side):
      rows += rows_of(layer, side, layer.features, batch)
    for width in map(int, options.widths.split(',')):
      for layer in network(width, side):
        rows += rows_of(layer, side, width, batch)
      rows += pooling(side, width, batch)
    table.show(rows)
    how = table.made(TABLE)
    table.replace(TABLE, [{**row, **how} for row in rows], CASE)


if __name__ == '__main__':
  main()
