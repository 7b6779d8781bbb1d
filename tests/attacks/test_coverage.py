"""Intervals of attacks have their nominal coverage without a leak.

Models of a split are dependent and every group is scored with a fit on the
others, which the spread between groups does not show.
"""

import numpy as np

from jaxmu.attacks import intervals, likelihood, roc

PAIRS, POINTS, REPEATS = 8, 96, 120


def _null(random):
  """Scores that do not depend on the state; complementary pairs of splits."""
  mean = random.normal(0, 3, POINTS)
  scores, states, pairs = [], [], []
  for pair in range(PAIRS):
    order = random.permutation(POINTS)
    for half in (order[: POINTS // 2], order[POINTS // 2 :]):
      of_split = random.normal(size=POINTS)
      for forgotten in np.split(random.permutation(half), 2):
        state = np.full(POINTS, 2, np.int8)
        state[half] = 0
        state[forgotten] = 1
        noise = random.normal(size=POINTS)
        scores.append(mean + np.sqrt(0.7) * of_split + np.sqrt(0.3) * noise)
        states.append(state)
        pairs.append(pair)
  return np.array(scores), np.array(states), np.array(pairs)


def test_widened_intervals_cover_chance_and_plain_ones_do_not():
  random = np.random.default_rng(0)
  plain = widened = 0
  values = []
  for _ in range(REPEATS):
    score, state, pair = _null(random)
    ratio, _ = likelihood.ulira(score, state, pair)
    auc = roc.roc_report(ratio, state, pair, fprs=())['auc']
    wide = intervals.cross_fitted(auc)
    values.append(auc.value)
    plain += auc.low <= 0.5 <= auc.high
    widened += wide.low <= 0.5 <= wide.high
  assert abs(np.mean(values) - 0.5) < 3 * np.std(values) / np.sqrt(REPEATS)
  assert widened / REPEATS > 0.91
  assert plain / REPEATS < 0.9


def test_widening_is_the_factor_of_a_degenerate_u_statistic():
  by_split = np.array([0.4, 0.5, 0.6, 0.7, 0.55])
  plain = intervals.over_splits(by_split)
  wide = intervals.cross_fitted(plain)
  ratio = (wide.high - wide.low) / (plain.high - plain.low)
  np.testing.assert_allclose(ratio, np.sqrt(2 * 4 / 3))
  assert intervals.cross_fitted(wide) == wide
  excess = intervals.paired_difference(wide, wide)
  assert excess.cross_fitted and excess.value == 0


def test_variance_of_products_of_deviations():
  """The factor equals the sum over pairs of groups that it replaces."""
  random = np.random.default_rng(1)
  groups, repeats, points = 8, 20_000, 1
  deviation = random.normal(size=(repeats, groups, points))
  total = deviation.sum(axis=1, keepdims=True)
  value = (deviation * (total - deviation)).sum(axis=2)  # f64[repeats, G]
  true = value.mean(axis=1).var()
  suggested = (value.var(axis=1, ddof=1) / groups).mean()
  expected = 2 * (groups - 1) / (groups - 2)
  np.testing.assert_allclose(true / suggested, expected, rtol=0.05)
