"""Times the parts of a training step, and compares its speed with the ceiling.

    python benchmarks/shares.py [--widths=8,16,64]

One ResNet-18 at 32x32 pixels on one core. The step is built up inside a
compiled loop, as training runs it: reading a batch (look up, crop, flip,
normalise), forward pass, gradients, update; each part is the difference to the
program before it, in milliseconds, the median over turns in which all programs
run. `compile` is the time to compile the whole loop, and `steps_per_compile`
how many steps that is worth. `gflops_naive` counts all kernel taps and
`gflops_live` those that meet a pixel; the ceiling is that of a large matrix
product on the same core. The table is printed and written to
benchmarks/shares.csv.
"""

import argparse
import dataclasses
import os
import pathlib
import time
from typing import Any

import flops
import jax
import jax.numpy as jnp
import jax_backend
import table
import take_turns
from jax import lax
from workload import Workload

from jaxmu import population
from jaxmu.draws import Draws
from jaxmu.methods.parts import forward, training
from jaxmu.types import Task

TABLE = pathlib.Path(__file__).with_suffix('.csv')
PARTS = ('input', 'forward', 'backward', 'update')
ROUNDS = 5
STEPS = 8  # of the compiled loop, which gets its memory once
LEAST = 0.3  # seconds of a turn
SIDE = 2048  # of the matrices that find the ceiling
BATCHES = {8: 64, 16: 128, 64: 256}


def programs(task: Task) -> dict[str, Any]:
  """Return growing parts of the step: (carry, index i32[B]) -> carry."""
  draws = Draws(jax.random.key(3)).at('epoch', 0)
  optimiser = training.sgd(0.01, 0.9, 5e-4)
  cross_entropy = training.cross_entropy(task, augment=draws)

  def read(carry, index):
    # The images are carried, so that XLA makes them all.
    variables, opt, _ = carry
    images = forward.augmented_images(task, index, jnp.float32, draws)
    return variables, opt, images

  def run(carry, index):
    variables, opt, total = carry
    value, after = cross_entropy(variables, index, draws)
    return after, opt, total + value

  def differentiate(carry, index):
    variables, opt, total = carry

    def loss(params):
      return cross_entropy({**variables, 'params': params}, index, draws)

    gradient = jax.value_and_grad(loss, has_aux=True)
    (value, after), grads = gradient(variables['params'])
    # Gradients replace the momentum, so that XLA removes none.
    opt = jax.tree.unflatten(jax.tree.structure(opt), jax.tree.leaves(grads))
    return {**after, 'params': variables['params']}, opt, total + value

  def descend(carry, index):
    variables, opt, total = carry
    fit, value = training.descend(
      cross_entropy, optimiser, training.Fit(variables, opt), index, draws
    )
    return *fit, total + value

  return dict(zip(PARTS, (read, run, differentiate, descend), strict=True))


class Loop:
  """A compiled loop over batches, and how long it took to compile."""

  def __init__(self, step: Any, carry: Any, batches: jax.Array):
    run = jax.jit(
      lambda carry, batches: lax.scan(
        lambda c, index: (step(c, index), None), carry, batches
      )[0]
    )
    begin = time.perf_counter()
    self._run = run.lower(carry, batches).compile()
    self.compile_seconds = time.perf_counter() - begin
    self._arguments = carry, batches
    self._calls = 1
    self.milliseconds()
    self._calls = max(1, int(1000 * LEAST / (STEPS * self.milliseconds())))

  def milliseconds(self) -> float:
    """Time one step."""
    begin = time.perf_counter()
    for _ in range(self._calls):
      jax.block_until_ready(self._run(*self._arguments))
    spent = time.perf_counter() - begin
    return 1000 * spent / (self._calls * STEPS)


def ceiling() -> float:
  """Return the GFLOP/s of a large matrix product in float32."""
  a = jax.random.normal(jax.random.key(0), (SIDE, SIDE))
  product = jax.jit(lambda a: a @ a)
  jax.block_until_ready(product(a))
  times = []
  for _ in range(ROUNDS):
    begin = time.perf_counter()
    jax.block_until_ready(product(a))
    times.append(time.perf_counter() - begin)
  return 2 * SIDE**3 / min(times) / 1e9


def rows_of(width: int, rounds: int) -> list[dict[str, Any]]:
  """Build up the step of one network."""
  batch = BATCHES.get(width, 64)
  workload = Workload('resnet18', {'width': width}, 1, batch, 4 * batch)
  task = jax.tree.map(jnp.asarray, jax_backend.task(workload))
  task = task.replace(
    transform=dataclasses.replace(task.transform, flip=True, crop_padding=4)
  )
  first = population.initial_variables(
    task, jax.random.split(jax.random.key(0), 1)
  )
  variables = jax.tree.map(lambda x: jnp.asarray(x[0]), first)
  images = jnp.zeros((batch, *task.dataset.image_shape))
  last = {part: jnp.float32(0) for part in PARTS} | {'input': images}
  shape = STEPS, batch
  batches = jax.random.randint(jax.random.key(1), shape, 0, workload.examples)
  loops = {
    part: Loop(step, (*training.start(variables), last[part]), batches)
    for part, step in programs(task).items()
  }
  spent: dict[str, list[float]] = {part: [] for part in PARTS}
  limits = []
  for _ in range(rounds):
    limits.append(ceiling())
    for part, loop in loops.items():
      spent[part].append(loop.milliseconds())
  counts = flops.training_step(task.model)
  whole = take_turns.spread(spent['update']).median
  limit = take_turns.spread(limits).median
  naive, live = (batch * n / whole / 1e6 for n in counts)
  compiled = loops['update'].compile_seconds
  common = {
    'compile_s': f'{compiled:.1f}',
    'steps_per_compile': f'{1000 * compiled / whole:.0f}',
    'gflops_naive': f'{naive:.0f}',
    'gflops_live': f'{live:.0f}',
    'gflops_ceiling': f'{limit:.0f}',
    'share_of_ceiling_naive': f'{naive / limit:.2f}',
    'share_of_ceiling_live': f'{live / limit:.2f}',
  }
  return _parts(f'resnet18 width {width}', batch, spent, common)


def _parts(
  model: str,
  batch: int,
  spent: dict[str, list[float]],
  common: dict[str, str],
) -> list[dict[str, Any]]:
  """Turn times of growing programs into those of their parts."""
  whole = take_turns.spread(spent['update'])
  before, rows = [0.0] * len(spent['update']), []
  for part in PARTS:
    parts = [b - a for a, b in zip(before, spent[part], strict=True)]
    each = take_turns.spread(parts)
    rows.append(_row(model, batch, part, each, each.median / whole.median, {}))
    before = spent[part]
  rows.append(_row(model, batch, 'step', whole, 1, common))
  return [{**row, **{k: row.get(k, '') for k in common}} for row in rows]


def _row(model, batch, part, each, share, more) -> dict[str, Any]:
  return {
    'model': model,
    'batch': batch,
    'part': part,
    'milliseconds': f'{each.median:.2f}',
    'low': f'{each.low:.2f}',
    'high': f'{each.high:.2f}',
    'share': f'{share:.3f}',
    **more,
  }


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--widths', default='8,16,64')
  parser.add_argument('--rounds', type=int, default=ROUNDS)
  options = parser.parse_args()
  # One core, because training gives each member one core.
  os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
  rows = []
  for width in map(int, options.widths.split(',')):
    found = rows_of(width, options.rounds)
    table.show(found)
    rows += found
  table.save(TABLE, rows)


if __name__ == '__main__':
  main()
