"""Times reading a batch, as a share of a training step.

    python benchmarks/input_share.py [--members=8 --batch=256 --widths=64]
    python benchmarks/input_share.py --sets=utkface --batch=32
    python benchmarks/input_share.py --sets=utkface --model=tiny --widths=6 \
      --batch=32 [--mirrored]

Three compiled loops over the same batches take turns: the training step; the
same step on batches in memory that are already augmented and normalised; and
the input alone (gather, crop, flip, normalise). The share is given both ways,
from the input alone and from the difference of the two steps, with medians and
quartiles over the rounds. Pixels are random, which costs the same, so no data
set is needed. On a CPU, times are processor time on one core, which other
processes hardly affect; elsewhere they are wall-clock times. Rows are printed
and written to benchmarks/input_share.csv, where those of other cases stay.
"""

import argparse
import dataclasses
import os
import pathlib
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import table

from jaxmu import models, platforms
from jaxmu.data import batches as batches_lib
from jaxmu.data.catalog import CATALOG
from jaxmu.draws import Draws
from jaxmu.methods.parts import forward, losses, training
from jaxmu.types import Dataset, Task

TABLE = pathlib.Path(__file__).with_suffix('.csv')
STEPS = 8  # of a compiled loop
ROUNDS = 15
MOST_PIXELS = 20_000 * 32**2  # 61 MB, beyond the caches of a processor
CASE = ('set', 'model', 'width', 'batch', 'members')  # columns of a case


def make_task(name: str, network: str, width: int, batch: int) -> Task:
  """Return a task with the transform of a set and random pixels."""
  name, _, mirrored = name.partition(' ')
  entry = CATALOG[name]
  transform = entry.transform
  if mirrored:
    transform = dataclasses.replace(transform, flip=True)
  generator = np.random.default_rng(0)
  size = max(MOST_PIXELS // entry.size**2, STEPS * batch)
  size = min(entry.num_dev, size)
  shape = (size, entry.size, entry.size, 3)
  image = generator.integers(0, 256, shape, dtype=np.uint8)
  label = generator.integers(0, entry.num_classes, size).astype(np.int32)
  model = models.build(
    network, num_classes=entry.num_classes, options={'width': width}
  )
  return Task(Dataset(jnp.asarray(image), jnp.asarray(label)), model, transform)


def read(task: Task, index, draws: Draws):
  """Return a batch as training reads it."""
  return forward.augmented_images(task, index, jnp.float32, draws)


def step(task: Task, state: training.Fit, index, key):
  """Take `STEPS` training steps as the originals take them."""
  draws = Draws(key)
  loss = training.cross_entropy(task, augment=draws)
  return descend(loss, state, batches_lib.Batches(index, None), draws)


def ready_step(task: Task, state: training.Fit, batches, key):
  """Take the same steps on images that are ready."""

  def loss(variables, batch, draws):
    images, label = batch
    logits, after = forward.train_logits(task, variables, images, draws)
    return losses.cross_entropy(logits, label), after

  return descend(loss, state, batches_lib.Batches(batches, None), Draws(key))


def descend(loss: training.Loss, state: training.Fit, batches, draws: Draws):
  """Run one pass; return all results, so that XLA removes nothing."""
  sgd = training.sgd(0.01, 0.9, 5e-4)
  return training.run_epoch(loss, sgd, state, batches, draws)


def input_alone(task: Task, state: training.Fit, index, key):
  """Read the batches one after another; each replaces the one before."""
  del state
  draws = Draws(key)
  first = jnp.zeros((*index.shape[1:], *task.dataset.image_shape))
  return jax.lax.scan(
    lambda _, row: (read(task, row, draws), None), first, index
  )[0]


def compiled(function: Callable, task: Task, members: int, *arrays: Any):
  """Compile a function of one member, mapped over members, task shared."""
  one = lambda *arrays: function(task, *arrays)  # noqa: E731
  many = jax.vmap(one) if members > 1 else one
  program = jax.jit(many).lower(*arrays).compile()
  return lambda: jax.block_until_ready(program(*arrays))


def contenders(task: Task, batch: int, members: int) -> dict[str, Callable]:
  """Return the three loops on equal data."""

  def stacked(x):
    return jnp.stack([x] * members) if members > 1 else x

  key = jax.random.key(0)
  variables = models.init(task.model, key, task.dataset.image_shape)
  state = jax.tree.map(stacked, training.start(variables))
  table = np.random.default_rng(1).choice(
    task.dataset.label.shape[0], (STEPS, batch), replace=False
  )
  index = jnp.asarray(table, jnp.int32)
  images = jax.lax.map(lambda row: read(task, row, Draws(key)), index)
  ready = images, task.dataset.label[index]
  keys = jax.random.split(key, members) if members > 1 else key
  rows, ready = jax.tree.map(stacked, (index, ready))
  return {
    'step': compiled(step, task, members, state, rows, keys),
    'ready': compiled(ready_step, task, members, state, ready, keys),
    'input': compiled(input_alone, task, members, state, rows, keys),
  }


def milliseconds(run: Callable[[], Any]) -> float:
  """Time one step of a loop."""
  clock = time.process_time if platforms.is_cpu() else time.perf_counter
  begin = clock()
  run()
  return 1000 * (clock() - begin) / STEPS


def measure(
  name: str, network: str, width: int, batch: int, members: int
) -> dict[str, Any]:
  """Return one row of the table."""
  task = make_task(name, network, width, batch)
  runs = contenders(task, batch, members)
  for run in runs.values():
    run()
  rounds = [
    {kind: milliseconds(run) for kind, run in runs.items()}
    for _ in range(ROUNDS)
  ]
  times = {kind: np.array([r[kind] for r in rounds]) for kind in runs}
  shares = {
    'alone': times['input'] / times['step'],
    'difference': 1 - times['ready'] / times['step'],
  }
  case = name, network, width, batch, members
  row: dict[str, Any] = dict(zip(CASE, case, strict=True))
  for kind, values in times.items():
    row[f'{kind}_ms'] = f'{np.median(values):.3f}'
  for kind, values in shares.items():
    low, middle, high = np.quantile(100 * values, [0.25, 0.5, 0.75])
    row[f'{kind}_percent'] = f'{middle:.2f}'
    row[f'{kind}_quartiles'] = f'{low:.2f} {high:.2f}'
  return row


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--sets', default='digits,mnist,cifar10')
  parser.add_argument('--model', default='resnet18')
  parser.add_argument('--widths', default='8,16')
  parser.add_argument('--batch', type=int, default=64)
  parser.add_argument('--members', type=int, default=1)
  parser.add_argument('--mirrored', action='store_true')
  options = parser.parse_args()
  where = platforms.local_devices()[0].device_kind
  if platforms.is_cpu():
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    where = table.machine()
  rows = []
  for name in options.sets.split(','):
    for width in map(int, options.widths.split(',')):
      of = f'{name} mirrored' if options.mirrored else name
      case = of, options.model, width, options.batch, options.members
      rows.append(measure(*case))
      print(*(f'{key}={value}' for key, value in rows[-1].items()), flush=True)
  how = table.made(TABLE, where)
  table.replace(TABLE, [{**row, **how} for row in rows], CASE)


if __name__ == '__main__':
  main()
