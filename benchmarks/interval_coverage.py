"""How often the intervals of U-LiRA contain chance where there is no leak.

  python benchmarks/interval_coverage.py --pairs=8 --repeats=300

Simulated scores that do not depend on whether a point was forgotten, with
models of one split correlated, in complementary pairs of splits. Prints how
often the plain t-interval over pairs and the widened one contain one half.
"""

import argparse

import numpy as np

from jaxmu.attacks import intervals, roc_report, ulira

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


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--pairs', type=int, default=8)
  parser.add_argument('--repeats', type=int, default=300)
  options = parser.parse_args()
  random = np.random.default_rng(0)
  values, plain, widened = [], 0, 0
  for _ in range(options.repeats):
    score, state, group = null(random, options.pairs)
    ratio, _ = ulira.ulira(score, state, group)
    auc = roc_report.roc_report(ratio, state, group, fprs=())['auc']
    wide = intervals.cross_fitted(auc)
    values.append(auc.value)
    plain += auc.low <= 0.5 <= auc.high
    widened += wide.low <= 0.5 <= wide.high
  print(
    f'{options.pairs} pairs, {options.repeats} repeats: AUC '
    f'{np.mean(values):.4f} (sd {np.std(values):.4f}); chance inside the plain '
    f'interval {plain / options.repeats:.3f}, inside the widened one '
    f'{widened / options.repeats:.3f} (promised .95)'
  )


if __name__ == '__main__':
  main()
