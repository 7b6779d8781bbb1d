"""Reports over populations: averaging, pooling, refusal, pairing."""

import math

import numpy as np
import pytest

from jaxmu.attacks import intervals, roc
from tests.attacks import populations


def naive_by_split(score, state, group, metric):
  values = []
  for g in np.unique(group):
    of_split = [
      metric(s[c == 1], s[c == 2])
      for s, c, h in zip(score, state, group, strict=True)
      if h == g
    ]
    values.append(np.mean(of_split))
  return np.array(values)


@pytest.fixture(name='population')
def _population():
  rng = np.random.default_rng(0)
  state, group = populations.states(rng, 6, 2, 400)
  return rng.normal(size=state.shape) + 0.8 * (state == 1), state, group


def test_metrics_are_per_model_then_per_split(population):
  report = roc.roc_report(*population)
  for name, metric in {
    'auc': roc.auc,
    'balanced_accuracy': roc.balanced_accuracy,
    'best_balanced_accuracy': roc.best_balanced_accuracy,
    'tpr_0.1': lambda p, n: roc.tpr_at_fpr(p, n, 0.1),
  }.items():
    by_split = naive_by_split(*population, metric)
    np.testing.assert_allclose(report[name].by_split, by_split)
    expected = intervals.over_splits(by_split)
    assert report[name].value == pytest.approx(expected.value)
    assert report[name].low == pytest.approx(expected.low)
    assert report[name].pooling == 'model' and report[name].n == 6


def test_pooling_follows_the_counts(population):
  score, state, group = population  # 200 negatives a model, 400 a split
  report = roc.roc_report(score, state, group, fprs=(0.05, 0.025, 0.01, 0.001))
  assert report['tpr_0.05'].pooling == 'model'
  assert report['tpr_0.025'].pooling == 'split'
  assert report['tpr_0.01'].pooling == 'population'
  assert report['tpr_0.001'].pooling == 'refused'
  assert math.isnan(report['tpr_0.001'].value)
  assert '2400 never-seen' in report['tpr_0.001'].note


def test_population_pooling_is_one_threshold_with_a_jackknife(population):
  score, state, group = population
  got = roc.roc_report(score, state, group, fprs=(0.01,))['tpr_0.01']

  def pooled(keep):
    s, c = score[keep], state[keep]
    return roc.tpr_at_fpr(s[c == 1], s[c == 2], 0.01, refuse=False)

  whole = pooled(group >= 0)
  pseudo = [6 * whole - 5 * pooled(group != g) for g in range(6)]
  assert got.value == whole
  np.testing.assert_allclose(got.by_split, pseudo)
  spread = np.std(pseudo, ddof=1) / math.sqrt(6)
  assert got.high - whole == pytest.approx(2.570582 * spread, 1e-5)


def test_unscored_entries_and_other_states_are_ignored(population):
  score, state, group = population
  dirty = np.where(state == 0, 1e9, score)
  dirty[0] = np.nan  # a model without any scored entry
  clean = roc.roc_report(score[1:], state[1:], group[1:])
  got = roc.roc_report(dirty, state, group)
  assert got['auc'].value == pytest.approx(clean['auc'].value)


def test_threshold_none_has_no_a_priori_accuracy(population):
  assert 'balanced_accuracy' not in roc.roc_report(*population, threshold=None)


def test_splits_that_agree_get_a_binomial_interval():
  state = np.tile(np.repeat([1, 2], [10, 200]).astype(np.int8), (4, 1))
  score = np.where(state == 1, -1.0, 0.0)
  got = roc.roc_report(score, state, np.arange(4), fprs=(0.1,))
  assert got['tpr_0.1'].value == 0.0
  assert got['tpr_0.1'].high == pytest.approx(1 - 0.025 ** (1 / 40))
  assert 'binomial' in got['tpr_0.1'].note


def test_curves_average_the_curves_of_splits(population):
  score, state, group = population
  grid = np.array([0.01, 0.1, 1.0])
  got = roc.curves(score, state, group, fpr=grid)
  by_split = []
  for g in range(6):
    s, c = score[group == g], state[group == g]
    by_split.append(roc.curve(s[c == 1], s[c == 2], grid))
  np.testing.assert_allclose(got['tpr'], np.mean(by_split, 0))
  np.testing.assert_allclose(got['by_split'], by_split)
  np.testing.assert_array_equal(got['supported'], [False, True, True])
  assert got['tpr'][-1] == 1.0
  raw = roc.curves(score, state, group, fpr=grid, cross_fitted=False)
  widening = (got['high'] - got['tpr'])[1] / (raw['high'] - raw['tpr'])[1]
  assert widening == pytest.approx(math.sqrt(2 * 5 / 4))


def test_shapes_are_checked(population):
  score, state, group = population
  with pytest.raises(ValueError, match='state'):
    roc.roc_report(score[:, :-1], state, group)
  with pytest.raises(ValueError, match='one split per model'):
    roc.roc_report(score, state, group[:-1])
