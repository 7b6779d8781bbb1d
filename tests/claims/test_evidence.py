"""Evidence against SciPy, enumerations and plain loops."""

import itertools

import numpy as np
import pytest
from scipy import stats

from jaxmu.claims import evidence
from jaxmu.claims.evidence import FAILS, HOLDS, UNDECIDED, Evidence, Number


def test_a_verdict_needs_one_of_both_p_values():
  assert Evidence(0.02, 0.98).verdict == HOLDS
  assert Evidence(0.98, 0.02).verdict == FAILS
  assert Evidence(0.3, 0.7).verdict == UNDECIDED
  assert evidence.NONE.verdict == UNDECIDED


@pytest.mark.parametrize('below', [True, False])
@pytest.mark.parametrize('threshold', [0.4, 0.5, 0.62])
def test_a_mean_is_compared_as_by_the_t_test(below, threshold):
  values = np.random.default_rng(0).normal(0.5, 0.1, 9)
  found = evidence.about_mean(values, threshold, below=below)
  sides = [
    stats.ttest_1samp(values, threshold, alternative=side).pvalue
    for side in (('less', 'greater') if below else ('greater', 'less'))
  ]
  np.testing.assert_allclose(found, sides)
  low, high = stats.ttest_1samp(values, 0.0).confidence_interval()
  np.testing.assert_allclose(evidence.mean(values), [values.mean(), low, high])


def test_a_clipped_end_of_an_interval_does_not_shorten_it():
  whole, clipped = Number(0.9, 0.7, 1.1), Number(0.9, 0.7, 1.0)
  assert evidence.compare(clipped, 0.8, n=6, below=False) == evidence.compare(
    whole, 0.8, n=6, below=False
  )


def test_values_without_spread_are_certain():
  assert evidence.about_mean(np.ones(5), 0.5, below=True).verdict == FAILS
  assert evidence.about_mean(np.ones(5), 0.5, below=False).verdict == HOLDS
  assert evidence.about_mean(np.ones(1), 0.5, below=False) == evidence.NONE
  assert evidence.compare(Number(np.nan), 0.5, n=9, below=True) == evidence.NONE


def test_signed_ranks_are_those_of_all_signs():
  rng = np.random.default_rng(3)
  first, second = rng.normal(0, 1, 8), rng.normal(0.6, 1, 8)
  difference = first - second
  ranks = stats.rankdata(abs(difference))
  observed = ranks[difference > 0].sum()
  totals = [
    sum(r for r, up in zip(ranks, signs, strict=True) if up)
    for signs in itertools.product((False, True), repeat=8)
  ]
  found = evidence.smaller(first, second)
  assert found.false == pytest.approx(np.mean([t <= observed for t in totals]))
  assert found.true == pytest.approx(np.mean([t >= observed for t in totals]))
  assert evidence.smaller(first, first) == evidence.NONE
  five = evidence.smaller(np.arange(5.0), np.arange(5.0) + 1)
  assert five.verdict == UNDECIDED


def _naive_at_least(count, p_values):
  """Holm's procedure, step by step: how many tests it rejects at a level."""
  for level in sorted([*np.linspace(0, 1, 2001)]):
    rejected = 0
    for i, p in enumerate(sorted(p_values)):
      if p * (len(p_values) - i) > level:
        break
      rejected += 1
    if rejected >= count:
      return level
  return 1.0


@pytest.mark.parametrize('count', [1, 2, 3])
def test_a_number_of_parts_is_counted_by_holm(count):
  p_values = np.random.default_rng(count).random(4) / 4
  found = evidence.at_least(count, [Evidence(p, 1 - p) for p in p_values])
  assert found.false == pytest.approx(
    _naive_at_least(count, p_values), abs=6e-4
  )
  against = evidence.at_least(count, [Evidence(1.0, p) for p in p_values]).true
  naive = _naive_at_least(4 - count + 1, p_values)
  if count > 1:
    assert against == pytest.approx(naive, abs=6e-4)
  else:  # all four parts must be false
    assert against == max(p_values)


def test_counts_at_their_ends():
  parts = [evidence.certain(True), evidence.certain(False), evidence.NONE]
  assert evidence.at_least(0, parts).verdict == HOLDS
  assert evidence.at_least(4, parts).verdict == FAILS
  assert evidence.at_least(1, parts).verdict == HOLDS
  assert evidence.at_least(2, parts).verdict == UNDECIDED
  assert evidence.at_least(3, parts).verdict == FAILS


def test_every_part_must_hold_and_one_that_fails_suffices():
  yes, no = Evidence(0.01, 0.99), Evidence(0.99, 0.001)
  assert evidence.every([yes, yes]).false == 0.01
  assert evidence.every([yes, no, yes]).true == pytest.approx(0.003)
  assert evidence.every([yes, evidence.NONE]).verdict == UNDECIDED
  assert evidence.every([]) == evidence.NONE
  weak = Evidence(0.98, 0.02)
  assert evidence.every([weak, yes]).verdict == UNDECIDED  # corrected for two
  assert evidence.either(weak, yes).verdict == HOLDS


def test_within_needs_the_whole_interval():
  narrow, wide = Number(0.5, 0.495, 0.505), Number(0.5, 0.4, 0.6)
  outside = Number(0.56, 0.53, 0.59)
  for number, verdict in (
    (narrow, HOLDS),
    (wide, UNDECIDED),
    (outside, FAILS),
  ):
    assert evidence.within(number, 0.49, 0.51, n=8).verdict == verdict


def test_resamples_are_percentiles_and_shares():
  values = np.random.default_rng(0).normal(1, 1, 12)
  drawn = evidence.resample(lambda rows: values[rows].mean(axis=1), 12)
  rng = np.random.default_rng(0)
  naive = [
    np.mean([values[i] for i in one])
    for one in rng.integers(0, 12, (evidence.RESAMPLES, 12))
  ]
  np.testing.assert_allclose(drawn, naive)
  number = evidence.bootstrap(values.mean(), drawn)
  ordered = sorted(naive)
  assert ordered[49] <= number.low <= ordered[50]
  assert ordered[1949] <= number.high <= ordered[1950]
  found = evidence.about_resamples(drawn, 0.9, below=True)
  above = sum(one >= 0.9 for one in naive)
  assert found.false == (above + 1) / (len(naive) + 1)
  assert found.true == (len(naive) - above + 1) / (len(naive) + 1)
  ties = evidence.about_resamples(np.ones(99), 1.0, below=True)
  assert ties.verdict == FAILS
  closed = evidence.about_resamples(np.ones(99), 1.0, below=True, closed=True)
  assert closed.verdict == HOLDS


def test_deviations_have_the_interval_of_normal_values():
  rng = np.random.default_rng(0)
  inside = []
  for _ in range(2000):
    number = evidence.deviation(rng.normal(0, 0.3, 6))
    inside.append(number.low <= 0.3 <= number.high)
  assert np.mean(inside) == pytest.approx(0.95, abs=0.015)
  values = rng.normal(0, 0.3, 6)
  number = evidence.deviation(values)
  for threshold in (number.low * 0.999, number.high * 1.001):
    found = evidence.deviation_below(values, threshold)
    assert found.verdict == (HOLDS if threshold > number.value else FAILS)
  for threshold in (number.low * 1.001, number.high * 0.999):
    found = evidence.deviation_below(values, threshold)
    assert found.verdict == UNDECIDED
