"""Population attacks: scikit-learn as the reference, naive twins, extremes."""

import math

import numpy as np
import pytest
from scipy import special
from sklearn import linear_model, model_selection

from jaxmu.attacks import log_odds, single_model
from jaxmu.metrics import indiscernibility


@pytest.mark.parametrize('scale', [1e-3, 1.0, 100.0])
@pytest.mark.parametrize('tail', [0.3, 5.0])
def test_logistic_equals_the_converged_scikit_learn_fit(scale, tail):
  rng = np.random.default_rng(0)
  x = rng.standard_gamma(tail, (4, 300)) * scale  # heavy-tailed, like losses
  target = np.repeat([0, 1], 150)
  x[:, :150] *= 1.6
  slope, intercept = single_model.fit_logistic(x, target)
  for i in range(4):
    twin = linear_model.LogisticRegression(
      solver='newton-cholesky', tol=1e-12, max_iter=1000
    ).fit(x[i, :, None], target)
    assert slope[i] == pytest.approx(twin.coef_[0, 0], abs=1e-6)
    assert intercept[i] == pytest.approx(twin.intercept_[0], abs=1e-6)


def test_logistic_survives_separation_constants_and_outliers():
  target = np.repeat([0, 1], 50)
  separated = np.where(target, 1e3, 0.0) + np.arange(100) * 1e-3
  constant = np.ones(100)
  outlier = np.where(np.arange(100) == 3, 1e8, 1.0)
  x = np.stack([separated, constant, outlier])
  slope, intercept = single_model.fit_logistic(x, target)
  assert np.isfinite(slope).all() and np.isfinite(intercept).all()
  assert ((slope[0] * separated + intercept[0] > 0) == target).all()
  assert slope[1] == 0.0
  margin = (2 * target - 1) * (slope[:, None] * x + intercept[:, None])
  pull = (2 * target - 1) * special.expit(-margin)
  np.testing.assert_allclose(pull.sum(-1), 0, atol=1e-6)  # stationary in b


def test_logistic_refuses_what_it_cannot_fit():
  with pytest.raises(ValueError, match='not finite'):
    single_model.fit_logistic(np.array([1.0, np.inf]), np.array([0, 1]))
  with pytest.raises(ValueError, match='both classes'):
    single_model.fit_logistic(np.array([1.0, 2.0]), np.array([1, 1]))


def test_mia_equals_scikit_learn_pipeline():
  rng = np.random.default_rng(1)
  forget = rng.exponential(1.0, (3, 70))
  nonmember = rng.exponential(1.5, (3, 90))
  got = single_model.population_mia(forget, nonmember)
  for i in range(3):
    x, target = single_model.balanced_sample(forget[i], nonmember[i])
    cv = model_selection.StratifiedShuffleSplit(
      10, test_size=0.1, random_state=123
    )
    twin = linear_model.LogisticRegression(tol=1e-12, max_iter=10000)
    scores = model_selection.cross_val_score(twin, x[:, None], target, cv=cv)
    assert got[i] == pytest.approx(scores.mean())


def test_balanced_sample_takes_each_side_once():
  x, target = single_model.balanced_sample(np.arange(30), np.arange(100, 150))
  assert len(x) == 60 and (target == np.repeat([0, 1], 30)).all()
  np.testing.assert_array_equal(np.sort(x[:30]), np.arange(30))
  assert len(set(x[30:])) == 30 and x[30:].min() >= 100
  assert not (np.diff(x[30:]) > 0).all()  # shuffled before truncation
  with pytest.raises(ValueError, match='at least 10'):
    single_model.balanced_sample(np.arange(9), np.arange(100))


@pytest.mark.parametrize('n', [32, 50, 64])
def test_mia_without_a_signal_is_below_one_half_where_the_tenth_is_odd(n):
  losses = np.exp(2 * np.random.default_rng(n).normal(size=(2, 500, n)))
  mia = single_model.population_mia(*losses)
  error = mia.std(ddof=1) / math.sqrt(len(mia))
  floor = indiscernibility.noise_floor(n)
  assert abs(mia.mean() - floor.mean) < 3 * error
  assert mia.std() == pytest.approx(floor.sd, rel=0.15)
  measured = indiscernibility.indiscernibility(mia).mean()
  assert measured == pytest.approx(floor.indisc, abs=0.015)
  odd = n in (32, 64)
  assert (floor.mean < 0.5) == odd
  if odd:
    assert mia.mean() < 0.5 - 3 * error


def test_null_mia_sits_at_one_half():
  rng = np.random.default_rng(2)
  losses = np.exp(2 * rng.normal(size=(2, 200)))
  null = single_model.null_mia(losses[0], losses[1] + 10, repeats=100)
  assert abs(null.mean() - 0.5) < 4 * null.std() / math.sqrt(100)
  assert single_model.population_mia(losses[0], losses[1] + 10) > 0.8


def naive_signals(z, y):
  p = special.softmax(z)
  return {
    'loss': math.log(p[y]),
    'confidence': p[y],
    'entropy': sum(a * math.log(a) for a in p),
    'modified_entropy': (1 - p[y]) * math.log(p[y])
    + sum(p[k] * math.log(1 - p[k]) for k in range(len(z)) if k != y),
    'correctness': float(np.argmax(z) == y),
  }


@pytest.mark.parametrize('shape', [(6, 4), (2, 6, 4), (2, 6, 3, 4)])
def test_signals_equal_their_definitions(shape):
  rng = np.random.default_rng(3)
  z, y = rng.normal(0, 2, shape), rng.integers(0, 4, 6)
  got = log_odds.signals(z, y)
  for index in np.ndindex(*shape[:-1]):
    n = index[0] if len(shape) == 2 else index[1]
    for name, value in naive_signals(z[index], y[n]).items():
      assert got[name][index] == pytest.approx(value, abs=1e-12), name


def test_signals_of_saturated_models_are_finite():
  z = np.array([[900.0, 0.0, -900.0]] * 2)
  for name, value in log_odds.signals(z, np.array([0, 2])).items():
    assert np.isfinite(value).all(), name
    assert value[0] >= value[1], name


def test_signals_of_broken_models_are_not_finite():
  z = np.array([[np.nan, 0.0, 1.0], [0.0, 1.0, 2.0]])
  for name, value in log_odds.signals(z, np.array([0, 2])).items():
    assert name == 'correctness' or np.isnan(value[0]), name
    assert np.isfinite(value[1]), name
