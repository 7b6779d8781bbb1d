"""KDE and histogram against loops over models and examples."""

import math

import numpy as np
import pytest
from scipy import special, stats

from jaxmu.attacks import density, leave_out, roc
from tests.attacks import populations


@pytest.fixture(name='small', scope='module')
def _small():
  rng = np.random.default_rng(0)
  state, group = populations.states(rng, 6, 2, 14)
  state[rng.random(state.shape) < 0.1] = 3
  score = populations.scores(rng, state, group, shift=0.5)
  order = rng.permutation(len(group))
  return score[order], state[order], group[order]


def loop(score, state, group, mode, log_ratio):
  out = np.full(score.shape, np.nan)
  for m, n in np.ndindex(*score.shape):
    keep = np.ones(len(score), bool)
    if mode == 'logo':
      keep = group != group[m]
    elif mode == 'loo':
      keep[m] = False
    f, u = (score[keep & (state[:, n] == s), n] for s in (1, 2))
    if state[m, n] in (1, 2) and min(len(f), len(u)) >= 2:
      out[m, n] = log_ratio(score[m, n], f, u)
  return out


def naive_kde(phi, x, bandwidth):
  k = len(x)
  iqr = np.subtract(*np.percentile(x, [75, 25]))
  h = bandwidth or 0.9 * min(np.std(x, ddof=1), iqr / 1.34) * k**-0.2
  return special.logsumexp(-((phi - x) ** 2) / (2 * h**2)) - math.log(
    k * h * math.sqrt(2 * math.pi)
  )


@pytest.mark.parametrize('mode', leave_out.MODES)
@pytest.mark.parametrize('bandwidth', [None, 1.0])
def test_kde_equals_loop(small, mode, bandwidth):
  expected = loop(
    *small,
    mode,
    lambda phi, f, u: (
      naive_kde(phi, f, bandwidth) - naive_kde(phi, u, bandwidth)
    ),
  )
  got, valid = density.kde(*small, mode=mode, bandwidth=bandwidth)
  np.testing.assert_allclose(got, expected, rtol=1e-8, atol=1e-8)
  assert valid.sum() == np.isfinite(expected).sum() > 50


def test_kde_is_scipys_with_the_same_bandwidth():
  rng = np.random.default_rng(1)
  x, phi = rng.normal(size=30), 0.3
  estimate = stats.gaussian_kde(x, bw_method=lambda _: 0.5 / x.std(ddof=1))
  expected = estimate.logpdf(phi)[0]
  assert naive_kde(phi, x, 0.5) == pytest.approx(expected)


def test_kde_far_from_all_samples_stays_finite(small):
  score, state, group = small
  far = score.copy()
  far[0] += 1e4
  ratio, valid = density.kde(far, state, group, bandwidth=0.1)
  assert np.isfinite(ratio[valid]).all()


def naive_histogram(phi, f, u, bins):
  pooled = np.concatenate([f, u])
  edges = np.linspace(pooled.min(), pooled.max(), bins + 1)
  place = np.clip(np.digitize(phi, edges) - 1, 0, bins - 1)
  ratio = 0.0
  for sign, x in ((1, f), (-1, u)):
    count = (np.clip(np.digitize(x, edges) - 1, 0, bins - 1) == place).sum()
    ratio += sign * math.log((count + 0.5) / (len(x) + 0.5 * bins))
  return ratio


@pytest.mark.parametrize('mode', leave_out.MODES)
def test_histogram_equals_loop(small, mode):
  expected = loop(*small, mode, lambda phi, f, u: naive_histogram(phi, f, u, 5))
  got, _ = density.histogram(*small, mode=mode, bins=5)
  np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-9)


def test_histogram_by_freedman_and_diaconis(small):
  def rule(phi, f, u):
    pooled = np.concatenate([f, u])
    iqr = np.subtract(*np.percentile(pooled, [75, 25]))
    width = 2 * iqr * len(pooled) ** (-1 / 3)
    bins = math.ceil(np.ptp(pooled) / width)
    return naive_histogram(phi, f, u, int(np.clip(bins, 2, 200)))

  expected = loop(*small, 'logo', rule)
  got, _ = density.histogram(*small, bins=None)
  np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-9)


def test_quantiles_are_numpys():
  rng = np.random.default_rng(2)
  x = rng.normal(size=(9, 5))
  x[rng.random(x.shape) < 0.3] = np.nan
  count = (~np.isnan(x)).sum(axis=0)
  for q in (0.0, 0.25, 0.5, 0.9, 1.0):
    got = density.neighbour_quantile(np.sort(x, axis=0), count, q)
    np.testing.assert_allclose(got, np.nanquantile(x, q, axis=0))


@pytest.mark.parametrize('attack', [density.kde, density.histogram])
def test_null_is_calibrated_and_leaks_are_found(attack):
  rng = np.random.default_rng(3)
  means = []
  for shift in (0.0, 1.5):
    values = []
    for _ in range(20):
      state, group = populations.states(rng, 12, 2, 60)
      score = populations.scores(rng, state, group, shift=shift)
      ratio, valid = attack(score, state, group // 2)
      one, two = (valid & (state == kind) for kind in (1, 2))
      values.append(roc.auc(ratio[one], ratio[two]))
    error = np.std(values, ddof=1) / math.sqrt(len(values))
    means.append((np.mean(values), error))
  assert abs(means[0][0] - 0.5) < 3 * means[0][1]
  assert means[1][0] > 0.65


def test_constant_scores_stay_finite(small):
  _, state, group = small
  score = np.ones(state.shape)
  for attack in (density.kde, density.histogram):
    ratio, valid = attack(score, state, group)
    assert valid.any() and np.isfinite(ratio[valid]).all()
  got, _ = density.histogram(score, state, group, bins=None)
  assert np.isfinite(got[valid]).all()


def test_bad_options_are_named(small):
  with pytest.raises(ValueError, match='-1'):
    density.kde(*small, bandwidth=-1.0)
  with pytest.raises(ValueError, match='bins is 1'):
    density.histogram(*small, bins=1)
