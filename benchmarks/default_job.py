"""Times the training of the default job against PyTorch.

    pip install -e '.[benchmarks]'
    python benchmarks/default_job.py [--rounds=2]

The networks of `configs/msg_resnet.py`: 16 originals, 32 retrained, 32
unlearned by MSG; ResNet-18 of width 8, digits at 32x32, batch 64. jaxmu trains
a shard (8 models) at a time; PyTorch trains the same models one after another,
from the same weights on the same batches, with operations on all cores (the
better of two layouts of images) and, as a further row, with the models spread
over processes of one thread each. Backends take turns, a shard at a time; a
population's time is that of the shards that were run, scaled to all of them.
Before that both backends train an epoch at a rate too small to amplify
rounding, and must agree on its loss; losses of the last epoch are shown.
PyTorch's images are normalised before the clock starts. The table is printed
and written to benchmarks/default_job.csv.
"""

import argparse
import contextlib
import pathlib
import tempfile
import time
from typing import Any

import compare
import numpy as np
import table
import take_turns
from default_job_backends import POPULATIONS, JaxJob, TorchJob

TABLE = pathlib.Path(__file__).with_suffix('.csv')
TOLERANCE = {'original': 2e-4, 'retrain': 2e-4, **compare.LOOSE}  # relative
CHECK_RATE = 1e-5  # larger ones turn 1e-7 into 1e-3, or more, in an epoch


def backends_of(
  stack: contextlib.ExitStack,
  folder: str,
  ours: take_turns.Backend,
  facts: dict,
) -> list[take_turns.Backend]:
  """Start PyTorch's backends, with the faster of the two layouts."""
  (shared,) = ours.call('shared')
  cores = compare.cores()

  def start(layout: str, processes: int) -> take_turns.Backend:
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
    return take_turns.Backend(name, TorchJob, each, environment)

  tried = {}
  for layout in compare.LAYOUTS:
    with start(layout, 1) as backend:
      backend.call('load', 'retrain', 0, 1)
      tried[layout] = min(backend.seconds('run') for _ in range(2))
  best = min(tried, key=tried.__getitem__)
  return [
    stack.enter_context(start(best, processes))
    for processes in sorted({1, cores})
  ]


def run(rounds: int) -> list[dict[str, Any]]:
  """Run the comparison; rows of the table."""
  with contextlib.ExitStack() as stack:
    folder = stack.enter_context(tempfile.TemporaryDirectory())
    options = [{'folder': folder, 'devices': compare.cores()}]
    ours = stack.enter_context(take_turns.Backend('jaxmu', JaxJob, options))
    (facts,) = ours.call('prepare', rounds)
    backends = [ours, *backends_of(stack, folder, ours, facts)]
    rows = []
    for name in POPULATIONS:
      rows += _population(backends, name, facts[name], rounds)
    (compiled,) = ours.call('compile_seconds')
  return [*rows, *_totals(rows, compiled)]


def _population(
  backends: list[take_turns.Backend],
  name: str,
  facts: dict[str, Any],
  rounds: int,
) -> list[dict[str, Any]]:
  """Let all backends train the first shards of a population in turn."""
  shards = facts['members'][:rounds]
  apart = _differ(backends, name, len(shards[0]))
  seconds: dict[str, list[float]] = {backend.name: [] for backend in backends}
  last: dict[str, list[float]] = {backend.name: [] for backend in backends}
  for shard, members in enumerate(shards):
    for backend in backends:
      _load(backend, name, shard, len(members))
      time.sleep(take_turns.PAUSE)
      seconds[backend.name].append(backend.seconds('run'))
      last[backend.name] += [curve[-1] for curve in _curves(backend).values()]
  scale = sum(map(len, facts['members'])) / sum(map(len, shards))
  return [
    {
      'population': name,
      'models': sum(map(len, facts['members'])),
      'backend': backend,
      'seconds': f'{scale * sum(spent):.2f}',
      'speed_up': _ratio(spent, seconds['jaxmu']),
      'of_a_shard': str(take_turns.spread(spent)),
      'shards_run': f'{len(shards)} of {facts["shards"]}',
      'last_loss': f'{np.mean(last[backend]):.4f}',
      'losses_apart': f'{apart:.0e}',
      'compile_s': '',
    }
    for backend, spent in seconds.items()
  ]


def _load(
  backend: take_turns.Backend, name: str, shard: int, size: int, *rate: float
):
  backend.call(
    'load', name, shard, *(() if backend.name == 'jaxmu' else (size,)), *rate
  )


def _curves(backend: take_turns.Backend) -> dict[int, np.ndarray]:
  """Return the losses of the last run, f64[E] by member."""
  return {k: v for found in backend.call('curve') for k, v in found.items()}


def _differ(backends: list[take_turns.Backend], name: str, size: int) -> float:
  """Return how far apart the backends are after an epoch at a small rate.

  Raises:
    RuntimeError: further than rounding explains.
  """
  first = []
  for backend in backends:
    _load(backend, name, 0, size, CHECK_RATE)
    backend.call('run')
    curves = _curves(backend)
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
  """Sum the populations for each backend."""
  found, ours = [], 0.0
  for backend in dict.fromkeys(row['backend'] for row in rows):
    mine = [row for row in rows if row['backend'] == backend]
    total = sum(float(row['seconds']) for row in mine)
    ours = ours or total
    found.append(
      {
        **dict.fromkeys(rows[0], ''),
        'population': 'all',
        'models': sum(row['models'] for row in mine),
        'backend': backend,
        'seconds': f'{total:.1f}',
        'speed_up': f'{total / ours:.2f}',
        'compile_s': f'{compiled:.1f}' if backend == 'jaxmu' else '',
      }
    )
  return found


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--rounds', type=int, default=2)
  options = parser.parse_args()
  table.save(TABLE, run(options.rounds))


if __name__ == '__main__':
  main()
