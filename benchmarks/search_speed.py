"""Times the trials of a search: a population, one by one, and PyTorch.

    pip install -e '.[benchmarks]'
    python benchmarks/search_speed.py [--methods=msg,scrub --rounds=3]

Trials at the digits scale (ResNet-18 of width 8, 1,098 retained images, batches
of 64, 1 to 3 epochs), drawn at random from the space of each method, a third of
them for each of three originals. A trial is unlearning with its setting, three
accuracies and the population attack. The backends:

  jaxmu                    shards of a population, as in a search
  jaxmu, one at a time     one trial per call of the program
  torch                    a plain loop over the trials in the better of two
                           layouts of images, operations on all cores
  torch, N processes       a queue of trials, processes of one thread each

Both of jaxmu store every shard when it is finished. All start from the same
originals and have the same batches and noise. Before they are timed, backends
must agree on losses and accuracies of some trials at a small learning rate; at
the rates that were drawn, up to 0.1, training turns rounding into differences
of the accuracy of a trial, whose median is given (`accuracies_apart`).

Backends take turns of 50 trials, after a turn of a few to warm up; compilation
is not counted. `speed_up` is the median over turns of the backend's time
divided by jaxmu's, with the lowest and the highest turn. The table is printed
and written to benchmarks/search_speed.csv.
"""

import argparse
import contextlib
import multiprocessing
import pathlib
import statistics
import tempfile
import time
from typing import Any

import compare
import numpy as np
import table
import take_turns
from search_backends import Drawn, JaxSearch, TorchSearch

TABLE = pathlib.Path(__file__).with_suffix('.csv')
ALONE = 'jaxmu, one at a time'
TURN = 50  # trials, a generation of the reference
CHECKED = 6  # trials that are compared first
CHECK_RATE = 1e-4  # too small to amplify rounding
# Relative, of the losses of epochs. MSG renews the weights with the smallest
# gradients; among many that are nearly zero, rounding decides which these are.
TOLERANCE = {'scrub': 5e-3, **compare.LOOSE}
# Of accuracies, for the same reasons: 1 of 123 forgotten images is .008.
ACCURACY_TOLERANCE = {'scrub': 0.01, 'msg': 0.05}


def run(methods: list[str], count: int, rounds: int) -> list[dict[str, Any]]:
  """Run the comparison; rows of the table.

  Args:
    methods: their names.
    count: trials that are drawn.
    rounds: turns of each backend; they repeat when all trials were run.

  Raises:
    RuntimeError: the backends do not compute the same.
  """
  with contextlib.ExitStack() as stack:
    folder = stack.enter_context(tempfile.TemporaryDirectory())
    ours = stack.enter_context(_jaxmu('jaxmu', folder, compare.cores(), 0))
    alone = stack.enter_context(_jaxmu(ALONE, folder, 1, 1))
    rows = []
    for method in methods:
      (drawn,) = ours.call('draw', method, count)
      ours.call('record', method, folder)
      with contextlib.ExitStack() as inner:
        theirs = _torch(inner, folder, ours, method, drawn[:CHECKED])
        backends = [ours, alone, *theirs]
        apart = _check(backends, method, drawn[:CHECKED])
        seconds, median = _turns(backends, method, drawn, rounds)
      compiled = {
        backend.name: backend.call('compile_seconds', method)[0]
        for backend in (ours, alone)
      }
      size = min(TURN, count)
      found = _rows(method, size, seconds, apart, median, compiled)
      table.show(found)
      rows += found
  return rows


def _jaxmu(
  name: str, folder: str, devices: int, shard: int
) -> take_turns.Backend:
  options = {
    'folder': folder,
    'name': f'shards_{shard}',
    'devices': devices,
    'shard': shard,
  }
  return take_turns.Backend(name, JaxSearch, [options])


def _torch(
  stack: contextlib.ExitStack,
  folder: str,
  ours: take_turns.Backend,
  method: str,
  drawn: Drawn,
) -> list[take_turns.Backend]:
  """Start PyTorch's backends, with the faster of the two layouts."""
  (shared,) = ours.call('shared')
  cores = compare.cores()

  def start(layout: str, processes: int) -> take_turns.Backend:
    threads = cores // processes
    queue = multiprocessing.get_context('spawn').Value('q', 0)
    options = {
      **shared,
      'folder': folder,
      'layout': layout,
      'threads': threads,
      'next_trial': queue,
    }
    name = f'torch {layout}'
    name += f', {processes} processes' if processes > 1 else ''
    environment = {'OMP_NUM_THREADS': str(threads)}
    return take_turns.Backend(
      name, TorchSearch, [options] * processes, environment
    )

  tried = {}
  for layout in compare.LAYOUTS:
    with start(layout, 1) as backend:
      tried[layout] = min(_turn(backend, method, drawn) for _ in range(2))
  best = min(tried, key=tried.__getitem__)
  return [
    stack.enter_context(start(best, processes))
    for processes in sorted({1, cores})
  ]


def _turn(backend: take_turns.Backend, method: str, drawn: Drawn) -> float:
  """Let a backend evaluate trials; return the seconds."""
  backend.call('load', method, drawn)
  time.sleep(take_turns.PAUSE)
  return backend.seconds('run')


def _by_trial(answers: list[dict[int, np.ndarray]]) -> list[np.ndarray]:
  """Join the answers of the processes of a backend, in the order of trials."""
  found = {number: value for one in answers for number, value in one.items()}
  return [found[number] for number in sorted(found)]


def _check(
  backends: list[take_turns.Backend], method: str, drawn: Drawn
) -> dict[str, float]:
  """Return how far losses are from jaxmu's, after few epochs at a small rate.

  Raises:
    RuntimeError: losses or accuracies are further apart than rounding explains.
  """
  slow = [
    ({**setting, 'learning_rate': CHECK_RATE}, place)
    for setting, place in drawn
  ]
  losses, accuracies = [], []
  for backend in backends:
    curves = _by_trial(backend.call('losses', method, slow))
    losses.append(np.concatenate(curves))
    _turn(backend, method, slow)
    accuracies.append(np.stack(_by_trial(backend.call('measured')))[:, :3])
  apart = {}
  for backend, loss, accuracy in zip(backends, losses, accuracies, strict=True):
    apart[backend.name] = float(np.max(np.abs(loss / losses[0] - 1)))
    further = float(np.max(np.abs(accuracy - accuracies[0])))
    if (
      not apart[backend.name] < TOLERANCE[method]
      or not further < ACCURACY_TOLERANCE[method]
    ):
      raise RuntimeError(
        f'{method}, {backend.name}: losses differ by {apart[backend.name]:.1e} '
        f'of their size and accuracies by {further:.3f}'
      )
  return apart


def _turns(
  backends: list[take_turns.Backend], method: str, drawn: Drawn, rounds: int
) -> tuple[dict[str, list[float]], dict[str, float]]:
  """Time the backends in turn.

  Returns:
    Seconds of each turn, by backend; and the median over trials of the largest
    difference of three accuracies from jaxmu's.
  """
  seconds: dict[str, list[float]] = {backend.name: [] for backend in backends}
  apart: dict[str, list[float]] = {backend.name: [] for backend in backends}
  parts = [drawn[n : n + TURN] for n in range(0, len(drawn), TURN)]
  for number in range(rounds):
    accuracies = {}
    for backend in backends:
      part = parts[number % len(parts)]
      seconds[backend.name].append(_turn(backend, method, part))
      measured = np.stack(_by_trial(backend.call('measured')))
      accuracies[backend.name] = measured[:, :3]
    for name, values in accuracies.items():
      gap = np.abs(values - accuracies['jaxmu']).max(axis=1)
      apart[name] += gap.tolist()
  return seconds, {k: statistics.median(v) for k, v in apart.items()}


def _rows(
  method: str,
  size: int,
  seconds: dict[str, list[float]],
  apart: dict[str, float],
  median: dict[str, float],
  compiled: dict[str, float],
) -> list[dict[str, Any]]:
  """Make the rows of a table from the seconds of each backend's turns."""
  found = []
  for name, spent in seconds.items():
    first = name == 'jaxmu'
    found.append(
      {
        'method': method,
        'backend': name,
        **take_turns.columns(
          *('trials_per_s', size, spent, seconds['jaxmu']), decimals=2
        ),
        'turns': len(spent),
        'trials_per_turn': size,
        'compile_s': f'{compiled[name]:.1f}' if name in compiled else '',
        'losses_apart': '' if first else f'{apart[name]:.0e}',
        'accuracies_apart': '' if first else f'{median[name]:.4f}',
      }
    )
  return found


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--methods', default='msg,scrub')
  parser.add_argument('--trials', type=int, default=100)
  parser.add_argument('--rounds', type=int, default=3)
  options = parser.parse_args()
  table.save(
    TABLE, run(options.methods.split(','), options.trials, options.rounds)
  )


if __name__ == '__main__':
  main()
