"""Times the attacks at the benchmark's full size, and the plain loop.

    python benchmarks/attacks.py [--models=640 --examples=47500]

Each attack runs in a fresh process on one synthetic population of 64 splits by
10 forget sets; its time is the least of several runs, its memory the peak of
the process. The plain loop refits Gaussians with NumPy and SciPy for every
model and example; it is timed on a part of the examples and scaled, as are the
attacks marked "scaled". The table is printed and written to
benchmarks/attacks.csv.
"""

import argparse
import json
import os
import pathlib
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
import table
from scipy import stats

from jaxmu.attacks import (
  density,
  likelihood,
  per_example,
  rmia,
  roc,
  versus_retrained,
)

SPLITS = 64
TABLE = pathlib.Path(__file__).with_suffix('.csv')


def population(models: int, examples: int):
  """Make log-odds f32[P, N], states int8[P, N] and splits int[P]."""
  rng = np.random.default_rng(0)
  draws = models // SPLITS
  state = np.zeros((models, examples), np.int8)
  for pair in range(SPLITS // 2):
    order = rng.permutation(examples)
    halves = order[: examples // 2], order[examples // 2 :]
    for side in (0, 1):
      for draw, part in enumerate(np.array_split(halves[side], draws)):
        model = (2 * pair + side) * draws + draw
        state[model, halves[1 - side]] = 2
        state[model, part] = 1
  log_odds = rng.standard_normal(state.shape, np.float32)
  log_odds += 3 * rng.standard_normal(examples, np.float32)
  return log_odds, state, np.repeat(np.arange(SPLITS), draws)


def loop(log_odds, state, group, examples) -> int:
  """The plain implementation on some examples; returns how many it scored."""
  scored = 0
  for n in examples:
    for m in range(len(log_odds)):
      if state[m, n] not in (1, 2):
        continue
      keep = group != group[m]
      forgot = log_odds[keep & (state[:, n] == 1), n]
      unseen = log_odds[keep & (state[:, n] == 2), n]
      stats.norm.logpdf(log_odds[m, n], np.mean(forgot), np.std(forgot, ddof=1))
      stats.norm.logpdf(log_odds[m, n], np.mean(unseen), np.std(unseen, ddof=1))
      scored += 1
  return scored


def tasks(models: int, examples: int) -> dict[str, tuple[int, Callable]]:
  """Return name -> (examples to run on, function of a population)."""

  def with_variance(variance):
    return lambda log_odds, c, g: likelihood.ulira(
      log_odds, c, g, variance=variance
    )

  def score_of_competition(rule):
    def run(log_odds, c, g):
      del c, g
      rng = np.random.default_rng(1)
      u, r = rng.standard_normal((2, 512, log_odds.shape[1]))
      versus_retrained.epsilon_per_example(u, r, rule=rule)

    return run

  def with_population(log_odds, c, g):
    c = c.copy()
    c[:, : c.shape[1] // 20] = 3
    rmia.rmia(log_odds, c, g)

  return {
    'U-LiRA, leave one split out': (examples, with_variance('shrink')),
    'U-LiRA, leave one pair out': (
      examples,
      lambda log_odds, c, g: likelihood.ulira(log_odds, c, g // 2),
    ),
    'U-LiRA, Student': (examples, with_variance('student')),
    'LiRA offline': (examples, likelihood.lira_offline),
    'RMIA offline': (examples, with_population),
    'ROC report': (examples, roc.roc_report),
    'per-example AUC': (examples, per_example.per_example),
    'KDE': (min(examples, 400), density.kde),
    'histogram': (min(examples, 400), density.histogram),
    'competition, grid, M = 512': (
      100,
      score_of_competition('competition_grid'),
    ),
    'competition, exact single, M = 512': (
      400,
      score_of_competition('exact_single'),
    ),
    'competition, exact interval, M = 512': (
      100,
      score_of_competition('exact_interval'),
    ),
    'loop over models and examples': (min(examples, 5), None),
  }


def measure(name: str, models: int, examples: int, repeats: int) -> dict:
  """Times one task in this process."""
  size, function = tasks(models, examples)[name]
  log_odds, state, group = population(models, size if function else 200)
  if function is None:
    function = lambda log_odds, c, g: loop(log_odds, c, g, range(size))  # noqa: E731
    repeats = 1
  seconds = []
  for _ in range(repeats):
    start = time.perf_counter()
    function(log_odds, state, group)
    seconds.append(time.perf_counter() - start)
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
  return {
    'task': name,
    'models': models,
    'examples': examples,
    'seconds': min(seconds) * examples / size,
    'peak_gib': peak,
    'scaled_from': size if size < examples else '',
  }


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--models', type=int, default=640)
  parser.add_argument('--examples', type=int, default=47500)
  parser.add_argument('--repeats', type=int, default=3)
  parser.add_argument('--task', help='run one task here and print JSON')
  options = parser.parse_args()
  if options.models % SPLITS or options.examples < 1000:
    parser.error(f'models must be a multiple of {SPLITS}, examples >= 1000')
  size = options.models, options.examples
  if options.task:
    print(json.dumps(measure(options.task, *size, options.repeats)))
    return
  rows = []
  for name in tasks(*size):
    command = [sys.executable, __file__, f'--task={name}']
    command += [f'--models={size[0]}', f'--examples={size[1]}']
    command += [f'--repeats={options.repeats}']
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    rows.append(json.loads(done.stdout))
    row = rows[-1]
    part = row['scaled_from']
    note = f'scaled from {part}' if part else ''
    print(
      f'{name:38s} {row["seconds"]:10.2f} s {row["peak_gib"]:6.2f} GiB  {note}',
      flush=True,
    )
  gain = rows[-1]['seconds'] / rows[0]['seconds']
  print(
    f'U-LiRA is {gain:.0f} times faster than the loop, on '
    f'{os.cpu_count()} processors ({platform.machine()}).'
  )
  for row in rows:
    row.update({k: f'{row[k]:.3f}' for k in ('seconds', 'peak_gib')})
  table.save(TABLE, rows)


if __name__ == '__main__':
  main()
