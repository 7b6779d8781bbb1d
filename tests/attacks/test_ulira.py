"""U-LiRA: brute-force refits, closed forms, null, invariances, refusals."""

import math

import numpy as np
import pytest
from scipy import stats

from jaxmu.attacks import leave_out as leave_out_lib
from jaxmu.attacks import likelihood, roc
from tests.attacks import populations


def naive_prior(score, state, keep, which):
  variances = []
  for n in range(score.shape[1]):
    x = score[keep & (state[:, n] == which), n]
    if len(x) >= 2:
      variances.append(np.var(x, ddof=1))
  return np.median(variances)


def naive_pooled(score, state, keep, which):
  squares = degrees = 0.0
  for n in range(score.shape[1]):
    x = score[keep & (state[:, n] == which), n]
    if len(x):
      squares += ((x - x.mean()) ** 2).sum()
      degrees += len(x) - 1
  return squares / degrees


def naive_log_density(phi, x, pooled_mean, tau2, v_global, variance, location):
  k, nu = len(x), 6.0
  mean = np.median(x) if location == 'median' else np.mean(x)
  v = np.var(x, ddof=1)
  if variance == 'normal_inverse_gamma':
    kappa, alpha = 1 + k, nu / 2 + k / 2
    beta = nu * tau2 / 2 + 0.5 * (k - 1) * v
    beta += k * (np.mean(x) - pooled_mean) ** 2 / (2 * (1 + k))
    mu = (pooled_mean + k * np.mean(x)) / kappa
    scale = math.sqrt(beta * (kappa + 1) / (alpha * kappa))
    return stats.t.logpdf(phi, 2 * alpha, mu, scale)
  shrunk = (nu * tau2 + (k - 1) * v) / (nu + k - 1)
  v = {'per_example': v, 'global': v_global}.get(variance, shrunk)
  v = max(v, 1e-6 * (v_global if variance == 'global' else tau2))
  if variance == 'student':
    return stats.t.logpdf(phi, nu + k - 1, mean, math.sqrt(v * (1 + 1 / k)))
  return stats.norm.logpdf(phi, mean, math.sqrt(v))


def naive_ulira(score, state, group, mode, variance, location):
  """Refits everything from scratch for each scored model."""
  out = np.full(score.shape, np.nan)
  for m in range(len(score)):
    keep = np.ones(len(score), bool)
    if mode == 'logo':
      keep = group != group[m]
    elif mode == 'loo':
      keep[m] = False
    tau2 = [naive_prior(score, state, keep, s) for s in (1, 2)]
    v_global = [naive_pooled(score, state, keep, s) for s in (1, 2)]
    for n in range(score.shape[1]):
      x = [score[keep & (state[:, n] == s), n] for s in (1, 2)]
      if state[m, n] not in (1, 2) or min(map(len, x)) < 2:
        continue
      pooled = np.concatenate(x).mean()
      log_f, log_n = (
        naive_log_density(
          score[m, n], x[i], pooled, tau2[i], v_global[i], variance, location
        )
        for i in (0, 1)
      )
      out[m, n] = log_f - log_n
  return out


@pytest.fixture(name='small', scope='module')
def _small():
  rng = np.random.default_rng(0)
  state, group = populations.states(rng, 6, 2, 12)
  state[rng.random(state.shape) < 0.1] = 3
  score = populations.scores(rng, state, group, shift=0.5)
  order = rng.permutation(len(group))  # models need not be sorted by split
  return score[order], state[order], group[order]


@pytest.mark.parametrize('mode', leave_out_lib.MODES)
@pytest.mark.parametrize('variance', leave_out_lib.VARIANCES)
def test_equals_refitting_from_scratch(small, mode, variance):
  expected = naive_ulira(*small, mode, variance, 'mean')
  got, valid = likelihood.ulira(*small, mode=mode, variance=variance)
  np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-9)
  np.testing.assert_array_equal(valid, ~np.isnan(expected))
  assert 0 < valid.sum() < (small[1] > 0).sum()


@pytest.mark.parametrize('mode', leave_out_lib.MODES)
def test_median_location_equals_refitting(small, mode):
  expected = naive_ulira(*small, mode, 'shrink', 'median')
  got, _ = likelihood.ulira(*small, mode=mode, location='median')
  np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-9)


def test_slabs_and_threads_change_nothing(small, monkeypatch):
  for variance in ('shrink', 'global'):
    whole, _ = likelihood.ulira(*small, variance=variance)
    with monkeypatch.context() as patch:
      patch.setattr(
        leave_out_lib, 'column_slices', lambda *_: [slice(0, 5), slice(5, 12)]
      )
      parts, _ = likelihood.ulira(*small, variance=variance, threads=3)
    np.testing.assert_allclose(parts, whole, rtol=1e-12)


@pytest.mark.parametrize('variance', ['shrink', 'normal_inverse_gamma'])
def test_examples_that_enter_no_fit_change_nothing(
  small, variance, monkeypatch
):
  """The part on which priors are fitted has forgotten or never-seen entries."""
  monkeypatch.setattr(leave_out_lib, '_PRIOR_POINTS', 5)
  score, state, group = small
  base, _ = likelihood.ulira(score, state, group, variance=variance)
  between = np.repeat(np.arange(12), 3)  # each example thrice
  wider = state[:, between].copy()
  wider[:, 1::3], wider[:, 2::3] = 0, 3  # retained, excluded
  got, _ = likelihood.ulira(score[:, between], wider, group, variance=variance)
  np.testing.assert_array_equal(got[:, ::3], base)
  assert np.isnan(got[:, 1::3]).all() and np.isnan(got[:, 2::3]).all()


@pytest.mark.parametrize('variance', leave_out_lib.VARIANCES)
def test_without_forgotten_or_never_seen_entries_nothing_is_scored(
  small, variance
):
  score, state, group = small
  got, valid = likelihood.ulira(
    score, np.zeros_like(state), group, variance=variance
  )
  assert np.isnan(got).all() and not valid.any()


def test_augmentations_are_averaged(small):
  score, state, group = small
  noise = np.random.default_rng(1).normal(size=score.shape)
  views = [score, score + noise]
  got, _ = likelihood.ulira(np.stack(views, -1), state, group)
  each = [likelihood.ulira(view, state, group)[0] for view in views]
  np.testing.assert_allclose(got, np.mean(each, 0))


def test_a_constant_per_example_changes_nothing(small):
  score, state, group = small
  constant = 1e4 * np.random.default_rng(2).normal(size=score.shape[1])
  moved, _ = likelihood.ulira(score + constant, state, group)
  base, _ = likelihood.ulira(score, state, group)
  np.testing.assert_allclose(moved, base, rtol=1e-7, atol=1e-7)


def test_target_is_judged_by_the_fit_on_the_shadow_models(small):
  score, state, group = small
  same, _ = likelihood.ulira(score, state, group, target=score.copy())
  np.testing.assert_allclose(same, likelihood.ulira(score, state, group)[0])
  moved, _ = likelihood.ulira(score, state, group, target=score + 0.3)
  fit = likelihood.ulira(score - 0.3, state, group, target=score)[0]
  np.testing.assert_allclose(moved, fit, rtol=1e-9)


def test_empirical_bayes_recovers_the_prior():
  rng = np.random.default_rng(3)
  nu, tau2, k, n = 8.0, 2.0, 20, 4000
  true = tau2 * nu / rng.chisquare(nu, n)
  v = true * rng.chisquare(k - 1, n) / (k - 1)
  fit = leave_out_lib.Moments(np.full((1, n), k), np.zeros((1, n)), v[None])
  prior = leave_out_lib.fit_prior(fit, None)
  assert prior.strength[0] == pytest.approx(nu, rel=0.1)
  assert prior.variance[0] == pytest.approx(tau2, rel=0.05)
  equal = rng.chisquare(k - 1, n) / (k - 1)
  same = leave_out_lib.fit_prior(
    leave_out_lib.Moments(np.full((1, n), k), np.zeros((1, n)), equal[None]),
    None,
  )
  assert same.strength[0] > 100


def test_gaussian_closed_forms():
  # Many splits, one common known-by-pooling variance: the optimal test.
  rng = np.random.default_rng(4)
  state, group = populations.states(rng, 128, 2, 300)
  d = 1.0
  score = rng.normal(size=state.shape) + d * (state == 1)
  ratio, _ = likelihood.ulira(score, state, group // 2, variance='global')
  report = roc.roc_report(ratio, state, group // 2)
  estimates = {
    'auc': stats.norm.cdf(d / math.sqrt(2)),
    'balanced_accuracy': stats.norm.cdf(d / 2),
    'tpr_0.1': stats.norm.cdf(d - stats.norm.isf(0.1)),
  }
  for name, truth in estimates.items():
    assert report[name].value == pytest.approx(truth, abs=0.015), name


def mean_null_auc(mode, leave_out, repeats=60):
  rng = np.random.default_rng(5)
  values = []
  for _ in range(repeats):
    state, group = populations.states(rng, 8, 2, 80)
    score = populations.scores(rng, state, group)
    ratio, valid = likelihood.ulira(score, state, leave_out(group), mode=mode)
    values.append(
      roc.auc(ratio[valid & (state == 1)], ratio[valid & (state == 2)])
    )
  return np.mean(values), np.std(values, ddof=1) / math.sqrt(repeats)


def test_leaving_out_complementary_pairs_is_calibrated():
  mean, error = mean_null_auc('logo', lambda group: group // 2)
  assert abs(mean - 0.5) < 3 * error and error < 0.01


def test_the_other_rules_are_not_calibrated():
  # What a careless audit would report without any leak.
  mean, error = mean_null_auc('in_sample', lambda group: group)
  assert mean - 0.6 > 3 * error
  mean, error = mean_null_auc('loo', lambda group: group)
  assert mean - 0.5 > 3 * error
  # Complementary splits: leaving out one of the two is conservative.
  mean, error = mean_null_auc('logo', lambda group: group)
  assert mean - 0.5 < -3 * error


def test_posterior_is_bayes_rule():
  assert likelihood.posterior(np.array(0.0)) == 0.5
  odds = 0.2 / 0.8 * math.exp(1.5)
  got = likelihood.posterior(np.array(1.5), prior=0.2)
  assert got == pytest.approx(odds / (1 + odds))


def test_constant_scores_stay_finite():
  rng = np.random.default_rng(6)
  state, group = populations.states(rng, 8, 2, 20)
  score = np.ones(state.shape)
  for variance in leave_out_lib.VARIANCES:
    ratio, valid = likelihood.ulira(score, state, group, variance=variance)
    assert valid.any() and np.isfinite(ratio[valid]).all()


def test_refusals_say_what_was_expected(small):
  score, state, group = small
  broken = score.copy()
  broken[np.unravel_index(np.argmax(state == 1), state.shape)] = np.nan
  with pytest.raises(ValueError, match='replace_non_finite'):
    likelihood.ulira(broken, state, group)
  with pytest.raises(ValueError, match='augmentations'):
    likelihood.ulira(score[0], state, group)
  with pytest.raises(ValueError, match='one per model'):
    likelihood.ulira(score, state, group[:-1])
  with pytest.raises(ValueError, match='agree'):
    likelihood.ulira(score[:, :-1], state, group)
  with pytest.raises(ValueError, match='bayes'):
    likelihood.ulira(score, state, group, variance='bayes')  # pyright: ignore
  with pytest.raises(ValueError, match='leave'):
    likelihood.ulira(score, state, group, mode='leave')  # pyright: ignore
  with pytest.raises(ValueError, match='mode'):
    likelihood.ulira(score, state, group, location='mode')  # pyright: ignore
