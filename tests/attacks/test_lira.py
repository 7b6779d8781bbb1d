"""LiRA's relatives against loops over models and examples."""

import math

import numpy as np
import pytest
from scipy import stats

from jaxmu.attacks import likelihood, log_odds, roc
from tests.attacks import populations


@pytest.fixture(name='small', scope='module')
def _small():
  rng = np.random.default_rng(0)
  state, group = populations.states(rng, 6, 2, 14)
  return populations.scores(rng, state, group, shift=0.5), state, group


def naive_online(score, state, group):
  """The published recipe: median location, deviation per example, held out."""
  out = np.full(score.shape, np.nan)
  for m, n in np.ndindex(*score.shape):
    keep = group != group[m]
    inside = score[keep & (state[:, n] < 2), n]
    outside = score[keep & (state[:, n] == 2), n]
    if state[m, n] != 3:
      out[m, n] = stats.norm.logpdf(
        score[m, n], np.median(inside), np.std(inside, ddof=1)
      ) - stats.norm.logpdf(
        score[m, n], np.median(outside), np.std(outside, ddof=1)
      )
  return out


def test_online_equals_the_published_recipe(small):
  got, valid = likelihood.lira_online(*small)
  np.testing.assert_allclose(got, naive_online(*small), rtol=1e-9, atol=1e-9)
  assert valid.all()  # retained ones are members as well


def test_online_judges_other_models(small):
  score, state, group = small
  unlearned = score - 0.2
  got, _ = likelihood.lira_online(score, state, group, target=unlearned)
  shifted, _ = likelihood.lira_online(score + 0.2, state, group, target=score)
  np.testing.assert_allclose(got, shifted, rtol=1e-9, atol=1e-9)


def naive_offline(score, state, group):
  z = np.full(score.shape, np.nan)
  for m in range(len(score)):
    keep = group != group[m]
    out = [score[keep & (state[:, n] == 2), n] for n in range(score.shape[1])]
    tau2 = np.median([np.var(x, ddof=1) for x in out])
    for n, x in enumerate(out):
      if state[m, n] in (1, 2):
        degrees = len(x) - 1
        v = (6 * tau2 + degrees * np.var(x, ddof=1)) / (6 + degrees)
        z[m, n] = (score[m, n] - x.mean()) / math.sqrt(v)
  return z


def test_offline_equals_naive_deviations(small):
  expected = naive_offline(*small)
  one, _ = likelihood.lira_offline(*small, side='one')
  two, _ = likelihood.lira_offline(*small)
  np.testing.assert_allclose(one, expected, rtol=1e-9)
  np.testing.assert_allclose(two, abs(expected), rtol=1e-9)


def test_only_two_sided_scores_see_over_unlearning():
  rng = np.random.default_rng(1)
  state, group = populations.states(rng, 16, 2, 200)
  score = populations.scores(rng, state, group, shift=-2.0)
  auc = {}
  for side in ('one', 'two'):
    z, valid = likelihood.lira_offline(score, state, group // 2, side=side)
    auc[side] = roc.auc(z[valid & (state == 1)], z[valid & (state == 2)])
  assert auc['one'] < 0.2 and auc['two'] > 0.7


def test_lira_forget_is_the_attack_against_retrained(small):
  score, state, group = small
  retrained = score[::-1].copy()
  got, states, groups = likelihood.lira_forget(score, retrained, state, group)
  both = log_odds.against_retrained(score, retrained, state, group)
  np.testing.assert_array_equal(got, likelihood.ulira(*both)[0])
  np.testing.assert_array_equal(states, both[1])
  assert np.isnan(got[:12][state != 1]).all()
  report = roc.roc_report(got, states, groups, fprs=())
  # Positives and negatives are in different models: one ROC per split.
  assert report['auc'].pooling == 'split' and report['auc'].n == 6
  assert 0 < report['auc'].value < 1


def test_retrained_against_retrained_is_calibrated():
  rng = np.random.default_rng(2)
  values = []
  for _ in range(60):
    state, group = populations.states(rng, 8, 2, 60)
    mean, scale = rng.normal(0, 3, 60), rng.uniform(0.5, 2, 60)
    first, second = mean + scale * rng.normal(size=(2, *state.shape))
    both = log_odds.against_retrained(first, second, state, group)
    ratio, valid = likelihood.ulira(*both)
    one, two = (valid & (both[1] == kind) for kind in (1, 2))
    values.append(roc.auc(ratio[one], ratio[two]))
  error = np.std(values, ddof=1) / math.sqrt(len(values))
  assert abs(np.mean(values) - 0.5) < 3 * error and error < 0.01


def test_bad_options_are_named(small):
  with pytest.raises(ValueError, match='both'):
    likelihood.lira_offline(*small, side='both')  # pyright: ignore
  with pytest.raises(ValueError, match='student'):
    likelihood.lira_offline(*small, variance='student')
  with pytest.raises(ValueError, match='one retrained model for each'):
    likelihood.lira_forget(small[0], small[0][1:], *small[1:])


def test_arrangements_relabel_states():
  state = np.array([[0, 1, 2, 3]], np.int8)
  np.testing.assert_array_equal(log_odds.members(state), [[1, 1, 2, 3]])
  np.testing.assert_array_equal(log_odds.retained(state), [[1, 3, 2, 3]])


def test_gather_takes_equal_numbers():
  score = np.arange(12.0).reshape(4, 3)
  where = np.array([[1, 0, 0], [0, 1, 0], [1, 1, 1], [1, 0, 1]], bool)
  got, examples = log_odds.gather(score, where, 2)
  np.testing.assert_array_equal(examples, [0, 1, 2])
  np.testing.assert_array_equal(got, [[0, 4, 8], [6, 7, 11]])
  got, examples = log_odds.gather(score, where, 3)
  np.testing.assert_array_equal(examples, [0])
