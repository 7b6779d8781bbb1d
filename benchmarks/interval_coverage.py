"""Coverage of the intervals of U-LiRA without a leak.

  python benchmarks/interval_coverage.py [--pairs=8,16,32 --repeats=300]

Simulated scores that do not depend on whether an example was forgotten, with
models of one split correlated, in complementary pairs of splits. Prints how
often the plain t-interval over pairs and the widened one contain one half
(nominally 95%), and writes it to benchmarks/interval_coverage.csv.
"""

import argparse
import pathlib

import numpy as np
import table

from jaxmu.attacks import intervals, likelihood, roc

TABLE = pathlib.Path(__file__).with_suffix('.csv')
POINTS, FORGET_SETS, CORRELATION = 256, 2, 0.7


def null(random: np.random.Generator, pairs: int):
  """Return scores f64[P, N], states int8[P, N] and pairs i64[P]."""
  mean = random.normal(0, 3, POINTS)
  scale = np.exp(random.normal(0, 0.5, POINTS))
  scores, states, groups = [], [], []
  for pair in range(pairs):
    order = random.permutation(POINTS)
    for half in (order[: POINTS // 2], order[POINTS // 2 :]):
      of_split = np.sqrt(CORRELATION) * random.normal(size=POINTS)
      for forgotten in np.split(random.permutation(half), FORGET_SETS):
        state = np.full(POINTS, 2, np.int8)
        state[half] = 0
        state[forgotten] = 1
        noise = np.sqrt(1 - CORRELATION) * random.normal(size=POINTS)
        scores.append(mean + scale * (of_split + noise))
        states.append(state)
        groups.append(pair)
  return np.array(scores), np.array(states), np.array(groups)


def coverage(pairs: int, repeats: int) -> dict[str, object]:
  """Return a row: how often intervals over `pairs` contain chance."""
  random = np.random.default_rng(0)
  values, plain, widened = [], 0, 0
  for _ in range(repeats):
    score, state, group = null(random, pairs)
    ratio, _ = likelihood.ulira(score, state, group)
    auc = roc.roc_report(ratio, state, group, fprs=())['auc']
    wide = intervals.cross_fitted(auc)
    values.append(auc.value)
    plain += auc.low <= 0.5 <= auc.high
    widened += wide.low <= 0.5 <= wide.high
  return {
    'pairs': pairs,
    'repeats': repeats,
    'auc': f'{np.mean(values):.4f}',
    'auc_deviation': f'{np.std(values):.4f}',
    'plain': f'{plain / repeats:.3f}',
    'widened': f'{widened / repeats:.3f}',
  }


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--pairs', default='8,16,32')
  parser.add_argument('--repeats', type=int, default=300)
  options = parser.parse_args()
  counts = map(int, options.pairs.split(','))
  table.save(TABLE, [coverage(pairs, options.repeats) for pairs in counts])


if __name__ == '__main__':
  main()
