"""The competition score and KLoM: examples, naive twins, floors, bounds."""

import math

import numpy as np
import pytest
from scipy import stats

from jaxmu.attacks import roc, versus_retrained


def naive_epsilon(fpr, fnr, delta=1e-5):
  if fpr == 0 and fnr == 0:
    return math.inf
  if fpr == 0 or fnr == 0:
    return 0.0
  terms = [0.0]
  for a, b in ((fpr, fnr), (fnr, fpr)):
    if 1 - delta - a > 0:
      terms.append(math.log(1 - delta - a) - math.log(b))
  return max(terms)


def naive_best(u, r, intervals):
  """Tries every threshold (and interval) one by one."""
  positive, negative = (u, r) if np.median(u) > np.median(r) else (r, u)
  pooled = np.unique(np.concatenate([u, r]))
  cuts = [*pooled, np.inf]
  found = [
    naive_epsilon(np.mean(negative >= cut), np.mean(positive < cut))
    for cut in cuts
  ]
  if intervals:
    narrow, wide = (u, r) if np.ptp(u) < np.ptp(r) else (r, u)
    for i, low in enumerate(pooled):
      for high in pooled[i:]:
        inside_narrow = np.mean((narrow >= low) & (narrow <= high))
        inside_wide = np.mean((wide >= low) & (wide <= high))
        found.append(naive_epsilon(inside_wide, 1 - inside_narrow))
  return min(max(found), 50.0)


@pytest.mark.parametrize('rule', ['exact_single', 'exact_interval'])
def test_exact_rules_equal_naive_search(rule):
  rng = np.random.default_rng(0)
  u, r = rng.normal(0.7, 0.6, (9, 6)), rng.normal(0, 1, (9, 6))
  u[:, 0] = np.round(u[:, 0])  # ties, also between the samples
  r[:, 0] = np.round(r[:, 0])
  r[:, 1] = u[:, 1] + 50  # separated
  got = versus_retrained.epsilon_per_example(u, r, rule=rule)
  expected = [
    naive_best(u[:, s], r[:, s], rule == 'exact_interval') for s in range(6)
  ]
  np.testing.assert_allclose(got, expected)
  assert got[1] == 50.0


def naive_grid(u, r):
  """The released scorer's steps for one example, threshold by threshold."""
  first, second = (r, u) if np.median(r) > np.median(u) else (u, r)
  spans = np.ptp(first), np.ptp(second)
  if min(spans) / max(spans) < 0.01:
    return 50.0
  found = []
  low, high = min(u.min(), r.min()), max(u.max(), r.max())
  for cut in np.linspace(low, high, math.ceil((high - low) * 100)):
    fpr, fnr = np.mean(second >= cut), np.mean(first < cut)
    found.append(naive_epsilon(fpr, fnr))
  narrow, wide = first, second
  if spans[0] >= spans[1]:
    narrow, wide = second, first
  width = min(spans)
  start, end = narrow.min() + width - 2, narrow.max() + 2
  for right in np.linspace(start, end, math.ceil((end - start) * 100)):
    left = np.linspace(right - width - 2, right - width + 2, 400)[:, None]
    inside, falsely = (
      ((x >= left) & (x <= right)).mean(axis=1) for x in (narrow, wide)
    )
    rates = set(zip(falsely, 1 - inside, strict=True))
    found += [naive_epsilon(fpr, fnr) for fpr, fnr in rates]
  return min(max(found), 50.0)


@pytest.mark.parametrize('models', [20, 40, 64])
def test_the_grid_is_that_of_the_released_scorer(models):
  rng = np.random.default_rng(models)
  u, r = rng.normal(0.5, 0.8, (models, 8)), rng.normal(0, 1, (models, 8))
  for example, decimals in enumerate((0, 1, 1, 2)):  # ties, also with the grid
    u[:, example] = u[:, example].round(decimals)
    r[:, example] = r[:, example].round(decimals)
  u[:, 4] = 3 * u[:, 4]
  u[:, 5] = r[:, 5] + 50  # separated
  got = versus_retrained.epsilon_per_example(u, r)
  expected = [naive_grid(u[:, s], r[:, s]) for s in range(8)]
  np.testing.assert_allclose(got, expected, rtol=1e-12)
  assert got[5] == 50.0


def test_scores_of_equal_medians_and_ranges_are_those_of_the_released_scorer():
  """Equal medians: U is positive. Equal ranges: the other one is narrow."""
  u = np.array([0.0, 0, 0, 2, 3, 3])
  r = np.array([0.0, 1, 1, 1, 3, 3])
  for one, other in ((u, r), (r, u)):
    assert np.median(one) == np.median(other) and np.ptp(one) == np.ptp(other)
    (got,) = versus_retrained.epsilon_per_example(one[:, None], other[:, None])
    assert got == pytest.approx(naive_grid(one, other), rel=1e-12)


def test_worked_example():
  r, u = np.array([0.0, 0, 0, 1]), np.array([0.0, 1, 1, 1])
  got = versus_retrained.epsilon_per_example(
    u[:, None], r[:, None], rule='exact_single'
  )
  assert got[0] == pytest.approx(math.log(2.99996))
  grid = versus_retrained.epsilon_per_example(u[:, None], r[:, None])
  assert grid[0] == pytest.approx(1.098599, abs=1e-6)
  assert versus_retrained.forget_score(grid, 4) == 0.25


def test_rates_of_zero_count_for_nothing_alone_and_everything_together():
  fpr, fnr = np.array([0.0, 0.0, 0.2, 0.5]), np.array([0.0, 0.3, 0.0, 0.5])
  got = versus_retrained.epsilon(fpr, fnr)
  np.testing.assert_array_equal(got, [math.inf, 0.0, 0.0, 0.0])


def test_peaky_rule_is_the_competitions_own():
  rng = np.random.default_rng(1)
  wide, spike = rng.normal(size=(30, 1)), np.full((30, 1), 0.001)
  spike[0] = 0.002
  assert versus_retrained.epsilon_per_example(spike, wide)[0] == 50.0
  exact = versus_retrained.epsilon_per_example(spike, wide, rule='exact_single')
  assert exact[0] < 50.0


def test_bins_and_their_disagreement():
  epsilons = np.array([0.0, 0.49, 0.5, 1.2, 6.4, 6.9, 7.0, 50.0])
  expected = [1, 1, 0.5, 0.25, 2**-12, 2**-13, 0, 0]
  got = versus_retrained.forget_score(epsilons, 512)  # 14 bins in the code
  assert got == pytest.approx(np.mean(expected))
  document = versus_retrained.forget_score(epsilons, 512, bins=13)
  assert got - document == pytest.approx(2**-13 / 8)
  assert versus_retrained.final_score(0.5, 0.9, 0.8) == pytest.approx(0.36)


def test_identical_distributions_do_not_score_one():
  rng = np.random.default_rng(2)
  u, r, other = rng.normal(size=(3, 64, 80))
  scores = {
    rule: versus_retrained.forget_score(
      versus_retrained.epsilon_per_example(u, r, rule=rule), 64
    )
    for rule in versus_retrained.RULES
  }
  assert scores['competition_grid'] == pytest.approx(0.18, abs=0.04)
  assert scores['exact_single'] == pytest.approx(0.33, abs=0.06)
  assert scores['exact_interval'] == pytest.approx(0.084, abs=0.02)
  null = versus_retrained.forget_score(
    versus_retrained.epsilon_per_example(other, r), 64
  )
  relative = versus_retrained.relative_score(scores['competition_grid'], null)
  assert relative == pytest.approx(1.0, abs=0.25)


def test_lower_bound_is_valid_where_the_plain_estimate_is_not():
  rng = np.random.default_rng(3)
  # Randomised response: the true epsilon is log 3, the values do not matter.
  u = (rng.random((200, 300)) < 0.75) + 1e-3 * rng.random((200, 300))
  r = (rng.random((200, 300)) < 0.25) + 1e-3 * rng.random((200, 300))
  bound = versus_retrained.lower_bound(u, r)
  assert (bound > math.log(3)).mean() < 0.05
  assert np.median(bound) > 0.3
  plain = versus_retrained.epsilon_per_example(u, r, rule='exact_single')
  assert (plain > math.log(3)).mean() > 0.5
  null = versus_retrained.lower_bound(u, rng.permuted(u, axis=0))
  assert (null > 0).mean() < 0.05


def test_lower_bound_sees_both_sides():
  rng = np.random.default_rng(4)
  u, r = rng.normal(2, 1, (100, 5)), rng.normal(0, 1, (100, 5))
  above, below = (
    versus_retrained.lower_bound(u, r),
    versus_retrained.lower_bound(-u, -r),
  )
  assert above.min() > 0.3 and below.min() > 0.3


def test_refusals_say_what_was_expected():
  good = np.zeros((4, 3))
  for u, r, message in (
    (good, np.zeros((4, 2)), 'same forgotten examples'),
    (good[:3], good, '3 unlearned'),
    (good * np.nan, good, 'replace_non_finite'),
  ):
    with pytest.raises(ValueError, match=message):
      versus_retrained.epsilon_per_example(u, r)
  with pytest.raises(ValueError, match='grid'):
    versus_retrained.epsilon_per_example(good, good, rule='grid')  # pyright: ignore


def test_trade_off_is_the_lower_hull():
  rng = np.random.default_rng(5)
  positives, negatives = rng.normal(1, 1, 40), rng.normal(0, 1, 50)
  fpr, fnr = roc.trade_off(positives, negatives)
  assert (fpr[0], fnr[-1]) == (0.0, 0.0)
  assert (np.diff(fpr) >= 0).all() and (np.diff(fnr) <= 0).all()
  slopes = np.diff(fnr) / np.maximum(np.diff(fpr), 1e-12)
  assert (np.diff(slopes) >= -1e-9).all()  # convex
  for cut in np.concatenate([positives, negatives]):
    a, b = np.mean(negatives >= cut), np.mean(positives < cut)
    assert np.interp(a, fpr, fnr) <= b + 1e-12


def test_gaussian_trade_off_has_its_distance_as_mu():
  grid = (np.arange(4000) + 0.5) / 4000
  x = stats.norm.ppf(grid)
  assert roc.gaussian_mu(*roc.trade_off(x + 1.7, x)) == (
    pytest.approx(1.7, abs=0.01)
  )
  assert roc.gaussian_mu(*roc.trade_off(x, x)) == pytest.approx(0)
  assert roc.gaussian_mu(*roc.trade_off(x + 99, x)) == math.inf


def test_klom_equals_loop():
  rng = np.random.default_rng(4)
  u, r = rng.normal(0.5, 1, (30, 6)), rng.normal(0, 1, (25, 6))
  u[0, 0] = 1e6  # clipped
  in_u, in_r = rng.random(u.shape) < 0.6, rng.random(r.shape) < 0.6
  in_u[0, 0] = True
  got = versus_retrained.klom(
    u, r, where=in_u, where_retrained=in_r, bins=7, clip=5.0
  )
  for n in range(6):
    a = np.clip(u[in_u[:, n], n], -5, 5)
    b = np.clip(r[in_r[:, n], n], -5, 5)
    both = np.concatenate([a, b])
    edges = np.linspace(both.min(), both.max(), 8)
    p = (np.histogram(b, edges)[0] + 0.5) / (len(b) + 3.5)
    q = (np.histogram(a, edges)[0] + 0.5) / (len(a) + 3.5)
    assert got[n] == pytest.approx(stats.entropy(p, q))


def naive_published(u, r, *, bench):
  """The public codes' steps for one example, bin by bin."""
  u = np.clip(u, -5, 5)
  first, second = u, r
  if bench:
    first, second = np.clip(r, -5, 5), u
  low = min(first.min(), second.min())
  high = max(first.max(), second.max())
  if bench and low >= high:
    high = low + 1
  edges = np.linspace(low, high, 21 if bench else 20)
  places = range(1, 21) if bench else range(20)
  p, q = (
    np.array([np.sum(np.digitize(x, edges) == i) for i in places])
    for x in (first, second)
  )
  p, q = p / p.sum(), q / q.sum()
  q = np.where((p > 0) | (not bench), np.maximum(q, 1e-5), q)
  return stats.entropy(p, q)


@pytest.mark.parametrize('variant', ['audit', 'bench'])
def test_klom_of_public_codes(variant):
  rng = np.random.default_rng(6)
  u, r = rng.normal(0.5, 1, (30, 8)), rng.normal(0, 1, (25, 8))
  u[0, 0], r[0, 1], u[0, 2] = 1e6, 7.0, -7.0  # clipped or not
  r[:, 3] += 4  # the largest is of the other kind
  r[:2, 4] = u[:, 4].max() + 1  # ties at the top
  in_u, in_r = rng.random(u.shape) < 0.7, rng.random(r.shape) < 0.7
  in_u[0, :3] = in_r[0, :3] = True
  got = versus_retrained.klom(
    u, r, where=in_u, where_retrained=in_r, variant=variant, clip=5.0
  )
  for n in range(8):
    expected = naive_published(
      u[in_u[:, n], n], r[in_r[:, n], n], bench=variant == 'bench'
    )
    assert got[n] == pytest.approx(expected, rel=1e-9), n
  with pytest.raises(ValueError, match='smoothed'):
    versus_retrained.klom(u, r, variant='code')  # pyright: ignore


def test_klom_of_public_codes_loses_constant_margins():
  same = np.ones((6, 2))
  assert np.isnan(versus_retrained.klom(same, same, variant='audit')).all()
  assert (versus_retrained.klom(same, same, variant='bench') == 0).all()
  assert (versus_retrained.klom(same, same) == 0).all()


def test_klom_of_equal_models_is_its_noise_and_of_others_more():
  rng = np.random.default_rng(5)
  first, second = rng.normal(size=(2, 40, 50))
  null = versus_retrained.klom_summary(versus_retrained.klom(first, second))
  leak = versus_retrained.klom_summary(versus_retrained.klom(first + 2, second))
  assert versus_retrained.klom(first, first).max() == 0.0
  assert 0 < null.mean < leak.mean
  assert (np.diff(null.quantiles) >= 0).all() and null.unscored == 0


def test_klom_without_models_is_unscored():
  where = np.ones((4, 3), bool)
  where[1:, 0] = False
  got = versus_retrained.klom(np.zeros((4, 3)), np.ones((4, 3)), where=where)
  np.testing.assert_array_equal(np.isnan(got), [True, False, False])
  assert versus_retrained.klom_summary(got).unscored == 1
  with pytest.raises(ValueError, match='do not fit'):
    versus_retrained.klom(np.zeros((4, 3)), np.ones((5, 3)), where=where)
