"""Per-example exposure and the reference's own membership score."""

import math

import numpy as np
import pytest
from scipy import stats

from jaxmu.attacks import likelihood, log_odds, per_example
from tests.attacks import populations


def test_auc_per_example_equals_mann_whitney():
  rng = np.random.default_rng(0)
  state, group = populations.states(rng, 8, 1, 30)
  score = np.round(populations.scores(rng, state, group, shift=1.0), 1)
  got = per_example.per_example(score, state, group)
  for n in range(30):
    one, two = score[state[:, n] == 1, n], score[state[:, n] == 2, n]
    u, _ = stats.mannwhitneyu(one, two)
    assert got.auc[n] == pytest.approx(u / (len(one) * len(two)))
    spread = math.sqrt((len(one) + len(two) + 1) / 12 / len(one) / len(two))
    z = (got.auc[n] - 0.5) / spread
    assert got.p_value[n] == pytest.approx(2 * stats.norm.sf(abs(z)))


def test_no_leak_gives_no_discoveries_though_models_are_dependent():
  rng = np.random.default_rng(1)
  false_reports, small = 0, []
  for _ in range(20):
    state, group = populations.states(rng, 16, 4, 100)
    score = populations.scores(rng, state, group, within=0.9)
    got = per_example.per_example(score, state, group)
    false_reports += got.discovered.any()
    small.append((got.p_value < 0.05).mean())
  assert false_reports <= 3 and np.mean(small) < 0.06


def test_exposed_and_over_unlearned_examples_are_found():
  rng = np.random.default_rng(2)
  state, group = populations.states(rng, 32, 2, 300)
  score = populations.scores(rng, state, group)
  forgotten = state == 1
  score[:, :30] += np.where(forgotten[:, :30], 12.0, 0.0)
  score[:, 30:45] -= np.where(forgotten[:, 30:45], 12.0, 0.0)
  got = per_example.per_example(score, state, group)
  assert got.discovered[:45].mean() > 0.9
  assert got.discovered[45:].mean() < 0.05
  summary = per_example.summarise(got)
  assert summary.exposed == pytest.approx(0.1, abs=0.03)
  assert summary.over_unlearned == pytest.approx(0.05, abs=0.02)
  assert summary.above >= summary.exposed and summary.examples == 300
  assert (np.diff(summary.quantiles) >= 0).all()


def test_retain_leakage_is_the_same_view_of_other_states():
  rng = np.random.default_rng(3)
  state, group = populations.states(rng, 8, 2, 40)
  score = populations.scores(rng, state, group) + 9.0 * (state == 0)
  retained = per_example.per_example(score, log_odds.retained(state), group)
  assert np.nanmean(retained.auc) > 0.9
  forgotten = per_example.per_example(score, state, group)
  assert abs(np.nanmean(forgotten.auc) - 0.5) < 0.1


def test_examples_without_observations_are_left_out():
  state = np.full((4, 3), 2, np.int8)
  state[:2, 0] = 1
  score = np.arange(12.0).reshape(4, 3)
  got = per_example.per_example(score, state, np.arange(4))
  np.testing.assert_array_equal(np.isnan(got.auc), [False, True, True])
  assert np.isnan(got.p_value[1]) and not got.discovered.any()
  assert per_example.summarise(got).examples == 1
  nothing = per_example.per_example(score, np.zeros_like(state), np.arange(4))
  assert per_example.summarise(nothing).examples == 0


def test_benjamini_hochberg_equals_scipy():
  p = np.random.default_rng(4).random(50) ** 3
  adjusted = stats.false_discovery_control(p)
  for rate in (0.01, 0.1, 0.3):
    got = per_example.benjamini_hochberg(p, rate)
    np.testing.assert_array_equal(got, adjusted <= rate)
  with_gap = np.append(p, np.nan)
  assert not per_example.benjamini_hochberg(with_gap, 0.3)[-1]
  assert not per_example.benjamini_hochberg(np.full(3, np.nan), 0.3).any()


def test_reference_score_equals_its_loop():
  rng = np.random.default_rng(5)
  state, group = populations.states(rng, 6, 3, 30)
  correct = rng.random(state.shape) < rng.beta(2, 1, 30)
  got = likelihood.reference_ulira(correct, state)
  z = correct.astype(float)
  for m, n in np.ndindex(*state.shape):
    if state[m, n] != 1:
      assert math.isnan(got[m, n])
      continue
    one, two = z[state[:, n] == 1, n], z[state[:, n] == 2, n]
    with np.errstate(invalid='ignore', divide='ignore'):
      f = stats.norm.pdf(z[m, n], one.mean(), one.std())
      u = stats.norm.pdf(z[m, n], two.mean(), two.std())
    np.testing.assert_allclose(got[m, n], f / (f + u), equal_nan=True)
  constant = np.isnan(got[state == 1]).mean()
  assert constant > 0


def test_reference_score_loses_most_examples_of_accurate_models():
  # CIFAR-10's accuracies: .875 on average, near 1 for most examples.
  rng = np.random.default_rng(6)
  state, _ = populations.states(rng, 64, 2, 400)
  correct = rng.random(state.shape) < rng.beta(0.7, 0.1, 400)
  got = likelihood.reference_ulira(correct, state)
  assert np.isnan(got[state == 1]).mean() > 0.5
