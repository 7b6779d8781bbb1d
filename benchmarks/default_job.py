"""Times the training of the default job against PyTorch.

    pip install -e '.[torch]'
    python benchmarks/default_job.py [--rounds=2]

The networks of `configs/msg_resnet.py`: 16 originals, 32 retrained, 32
unlearned by MSG; ResNet-18 of width 8, digits at 32x32, batch 64. jaxmu trains
a shard (8 models) at a time; PyTorch trains the same models one after another,
from the same weights on the same batches, with operations on all cores (the
better of two layouts of images) and, as a further row, with the models spread
over processes of one thread each. Sides take turns, a shard at a time; a
population's time is that of the shards that were run, scaled to all of them.
Before that both sides train an epoch at a rate so small that it does not
amplify rounding, and must agree on its loss; losses of the last epoch are
shown. PyTorch's images are normalised before the clock starts. The table is
printed and written to benchmarks/default_job.csv.
"""

import argparse
import contextlib
import pathlib
import tempfile
import time
from typing import Any

import duel
import match
import numpy as np
import table
from default_job_sides import POPULATIONS, JaxJob, TorchJob

TABLE = pathlib.Path(__file__).with_suffix('.csv')
TOLERANCE = {'original': 1e-3, 'retrain': 1e-3, **match.LOOSE}  # relative
CHECK_RATE = 1e-4  # the job's own rate makes 1e-1 of 1e-7 within ten steps


def sides_of(
  stack: contextlib.ExitStack, folder: str, ours: duel.Side, facts: dict
) -> list[duel.Side]:
  """Start PyTorch's sides; of the two layouts the one that is faster."""
  (shared,) = ours.call('shared')
  cores = match.cores()

  def start(layout: str, processes: int) -> duel.Side:
    threads = cores // processes
    options = {
      **shared,
      'folder': folder,
      'hparams': {name: facts[name]['hparams'] for name in POPULATIONS},
      'layout': layout,
      'threads': threads,
    }
    name = f'torch {layout}'
    name += f', {processes} processes' if processes > 1 else ' (counted)'
    each = [{**options, 'part': (i, processes)} for i in range(processes)]
    environment = {'OMP_NUM_THREADS': str(threads)}
    return duel.Side(name, TorchJob, each, environment)

  tried = {}
  for layout in match.LAYOUTS:
    with start(layout, 1) as side:
      side.call('load', 'retrain', 0, 1)
      tried[layout] = min(side.seconds('run') for _ in range(2))
  best = min(tried, key=tried.__getitem__)
  return [
    stack.enter_context(start(best, processes))
    for processes in sorted({1, cores})
  ]


def play(rounds: int) -> list[dict[str, Any]]:
  """Run the comparison; rows of the table."""
  with contextlib.ExitStack() as stack:
    folder = stack.enter_context(tempfile.TemporaryDirectory())
    options = [{'folder': folder, 'devices': match.cores()}]
    ours = stack.enter_context(duel.Side('jaxmu', JaxJob, options))
    (facts,) = ours.call('prepare', rounds)
    sides = [ours, *sides_of(stack, folder, ours, facts)]
    rows = []
    for name in POPULATIONS:
      rows += _population(sides, name, facts[name], rounds)
    (compiled,) = ours.call('compile_seconds')
  return [*rows, *_totals(rows, compiled)]


def _population(
  sides: list[duel.Side], name: str, facts: dict[str, Any], rounds: int
) -> list[dict[str, Any]]:
  """Let all sides train the first shards of a population in turn."""
  shards = facts['members'][:rounds]
  apart = _differ(sides, name, len(shards[0]))
  seconds: dict[str, list[float]] = {side.name: [] for side in sides}
  last: dict[str, list[float]] = {side.name: [] for side in sides}
  for shard, members in enumerate(shards):
    for side in sides:
      _load(side, name, shard, len(members))
      time.sleep(duel.PAUSE)
      seconds[side.name].append(side.seconds('run'))
      last[side.name] += [curve[-1] for curve in _curves(side).values()]
  scale = sum(map(len, facts['members'])) / sum(map(len, shards))
  return [
    {
      'population': name,
      'models': sum(map(len, facts['members'])),
      'side': side,
      'seconds': f'{scale * sum(spent):.1f}',
      'times_as_slow': _ratio(spent, seconds['jaxmu']),
      'of_a_shard': str(duel.spread(spent)),
      'shards_run': f'{len(shards)} of {facts["shards"]}',
      'last_loss': f'{np.mean(last[side]):.4f}',
      'losses_apart': f'{apart:.0e}',
      'compile_s': '',
    }
    for side, spent in seconds.items()
  ]


def _load(side: duel.Side, name: str, shard: int, size: int, *rate: float):
  side.call(
    'load', name, shard, *(() if side.name == 'jaxmu' else (size,)), *rate
  )


def _curves(side: duel.Side) -> dict[int, np.ndarray]:
  """Return the losses of the last run, f64[E] by member."""
  return {k: v for found in side.call('curve') for k, v in found.items()}


def _differ(sides: list[duel.Side], name: str, size: int) -> float:
  """Return how far apart the sides are after an epoch at a small rate.

  Raises:
    RuntimeError: further than rounding explains.
  """
  first = []
  for side in sides:
    _load(side, name, 0, size, CHECK_RATE)
    side.call('run')
    curves = _curves(side)
    first.append(np.array([curves[number][0] for number in range(size)]))
  apart = float(max(np.max(np.abs(x / first[0] - 1)) for x in first))
  if not apart < TOLERANCE[name]:
    raise RuntimeError(f'{name}: losses of an epoch differ by {apart}')
  return apart


def _ratio(spent: list[float], ours: list[float]) -> str:
  return f'{sum(spent) / sum(ours):.2f}'


def _totals(
  rows: list[dict[str, Any]], compiled: float
) -> list[dict[str, Any]]:
  """Sum the populations for each side."""
  found, ours = [], 0.0
  for side in dict.fromkeys(row['side'] for row in rows):
    mine = [row for row in rows if row['side'] == side]
    total = sum(float(row['seconds']) for row in mine)
    ours = ours or total
    found.append(
      {
        **dict.fromkeys(rows[0], ''),
        'population': 'all',
        'models': sum(row['models'] for row in mine),
        'side': side,
        'seconds': f'{total:.1f}',
        'times_as_slow': f'{total / ours:.2f}',
        'compile_s': f'{compiled:.1f}' if side == 'jaxmu' else '',
      }
    )
  return found


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--rounds', type=int, default=2)
  options = parser.parse_args()
  table.save(TABLE, play(options.rounds))


if __name__ == '__main__':
  main()
