"""ROC numbers against scikit-learn, closed forms and naive loops."""

import math

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics

from jaxmu.attacks import intervals, roc


def scores(rng, n1=120, n0=300, shift=0.7, ties=False):
  positives, negatives = rng.normal(shift, 1, n1), rng.normal(0, 1, n0)
  if ties:
    return np.round(positives, 1), np.round(negatives, 1)
  return positives, negatives


def as_labels(positives, negatives):
  target = np.repeat([1, 0], [len(positives), len(negatives)])
  return target, np.concatenate([positives, negatives])


@pytest.mark.parametrize('ties', [False, True])
def test_auc_equals_scikit_learn_and_pair_counting(ties):
  positives, negatives = scores(np.random.default_rng(0), ties=ties)
  pairs = np.sign(positives[:, None] - negatives)
  got = roc.auc(positives, negatives)
  assert got == pytest.approx((pairs.mean() + 1) / 2, abs=1e-14)
  assert got == pytest.approx(
    metrics.roc_auc_score(*as_labels(positives, negatives)), abs=1e-14
  )


def test_auc_of_constant_scores_is_one_half():
  assert roc.auc(np.ones(5), np.ones(7)) == 0.5
  assert math.isnan(roc.auc(np.ones(0), np.ones(7)))


def test_threshold_is_conservative_by_count():
  negatives = np.arange(1000.0)
  for fpr in (0.01, 0.0105, 0.1, 0.5):
    threshold = roc.threshold_at_fpr(negatives, fpr)
    assert (negatives > threshold).sum() == math.floor(fpr * 1000)
  # The definition: the (floor(alpha n0) + 1)-th largest negative.
  assert roc.threshold_at_fpr(negatives, 0.01) == np.sort(negatives)[::-1][10]
  assert roc.threshold_at_fpr(negatives, 1.0) == -math.inf


def test_tied_negatives_never_exceed_the_rate():
  negatives = np.repeat([0.0, 1.0], [900, 100])
  positives = np.ones(10)
  assert roc.tpr_at_fpr(positives, negatives, 0.05) == 0.0
  assert roc.tpr_at_fpr(positives, negatives, 0.1) == 1.0


def test_tpr_is_the_best_point_of_scikit_learns_curve_below_the_rate():
  positives, negatives = scores(np.random.default_rng(3), 500, 2000)
  fpr, tpr, _ = metrics.roc_curve(
    *as_labels(positives, negatives), drop_intermediate=False
  )
  for alpha in (0.01, 0.1):
    got = roc.tpr_at_fpr(positives, negatives, alpha)
    assert got == pytest.approx(tpr[fpr <= alpha + 1e-12].max())


def test_expected_rate_without_a_leak_is_known():
  rng = np.random.default_rng(6)
  rates = [
    roc.tpr_at_fpr(rng.random(40), rng.random(140), 0.1) for _ in range(4000)
  ]
  error = np.std(rates) / math.sqrt(len(rates))
  assert abs(np.mean(rates) - 15 / 141) < 3 * error < 0.004


def test_too_few_negatives_are_refused():
  positives = np.ones(50)
  assert math.isnan(roc.tpr_at_fpr(positives, np.zeros(999), 0.01))
  assert roc.tpr_at_fpr(positives, np.zeros(1000), 0.01) == 1.0
  assert roc.tpr_at_fpr(positives, np.zeros(100), 0.1) == 1.0
  assert roc.tpr_at_fpr(positives, np.zeros(5), 0.01, refuse=False) == 1.0


def test_gaussian_closed_forms():
  # Quantile samples, so that there is no sampling error.
  grid = (np.arange(20000) + 0.5) / 20000
  d = 1.3
  negatives = stats.norm.ppf(grid)
  positives = negatives + d
  assert roc.auc(positives, negatives) == pytest.approx(
    stats.norm.cdf(d / math.sqrt(2)), abs=2e-4
  )
  for alpha in (0.001, 0.01, 0.1):
    assert roc.tpr_at_fpr(positives, negatives, alpha) == pytest.approx(
      stats.norm.cdf(d - stats.norm.isf(alpha)), abs=2e-3
    )
  accuracy = roc.balanced_accuracy(positives, negatives, d / 2)
  assert accuracy == pytest.approx(stats.norm.cdf(d / 2), abs=2e-4)
  best = roc.best_balanced_accuracy(positives, negatives)
  assert best == pytest.approx(accuracy, abs=2e-4)


def test_best_accuracy_equals_naive_search_and_is_optimistic():
  rng = np.random.default_rng(4)
  positives, negatives = scores(rng, 15, 20, shift=0.0, ties=True)
  cuts = np.concatenate([positives, negatives, [-np.inf]])
  naive = max(roc.balanced_accuracy(positives, negatives, c) for c in cuts)
  best = roc.best_balanced_accuracy(positives, negatives)
  assert best == pytest.approx(naive)
  assert naive > 0.5


def test_curve_passes_through_the_single_points():
  positives, negatives = scores(np.random.default_rng(5), 300, 2000, ties=True)
  grid = np.array([0.005, 0.01, 0.1, 1.0])
  expected = [roc.tpr_at_fpr(positives, negatives, a) for a in grid]
  np.testing.assert_allclose(roc.curve(positives, negatives, grid), expected)


def test_clopper_pearson_equals_scipy():
  for k, n in ((0, 10), (3, 10), (10, 10)):
    exact = stats.binomtest(k, n).proportion_ci(method='exact')
    got = intervals.clopper_pearson(k, n)
    np.testing.assert_allclose(got, (exact.low, exact.high), atol=1e-12)
  upper = intervals.clopper_pearson_upper(np.array([0, 3, 10]), 10)
  for k, u in zip((0, 3), upper, strict=False):
    exact = stats.binomtest(k, 10, alternative='less').proportion_ci()
    assert u == pytest.approx(exact.high)
  assert upper[2] == 1.0


def test_interval_over_splits_is_the_t_interval():
  values = np.array([0.5, 0.7, np.nan, 0.6])
  got = intervals.over_splits(values)
  known = values[[0, 1, 3]]
  expected = stats.t.interval(0.95, 2, known.mean(), stats.sem(known))
  np.testing.assert_allclose((got.low, got.high), expected)
  assert got.n == 3 and got.value == pytest.approx(0.6)
  one = intervals.over_splits(np.array([0.6]))
  assert math.isnan(one.low) and 'one split' in one.note


def test_paired_difference_uses_the_pairing():
  a = intervals.over_splits(np.array([0.5, 0.6, 0.7]))
  b = intervals.over_splits(np.array([0.4, 0.5, 0.6]))
  got = intervals.paired_difference(a, b)
  assert got.value == pytest.approx(0.1)
  assert got.high - got.low < 1e-12  # the splits differ, the difference not
  with pytest.raises(ValueError, match='3 and 2'):
    intervals.paired_difference(a, intervals.over_splits(np.array([0.1, 0.2])))
