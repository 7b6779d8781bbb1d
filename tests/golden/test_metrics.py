"""Metrics and attacks against recorded results of the reference code."""

import numpy as np
import pytest

from jaxmu.attacks import log_odds, logistic, population
from jaxmu.metrics import indiscernibility, retention, runtime


@pytest.fixture(name='recorded', scope='module')
def _recorded(request):
  folder = request.config.getoption('--golden')
  try:
    with np.load(f'{folder}/metrics.npz') as archive:
      return {key: archive[key] for key in archive.files}
  except FileNotFoundError:
    pytest.skip(f'no metrics.npz in {folder} (option --golden)')


def test_scalars(recorded):
  u0, u1, u2, u3 = recorded['scal_in'].T
  np.testing.assert_allclose(
    indiscernibility.indiscernibility(u0),
    recorded['scal_indiscernibility'],
    atol=1e-15,
  )
  np.testing.assert_allclose(
    retention.ratio(u1, u2), recorded['scal_retention'], rtol=1e-15
  )
  np.testing.assert_allclose(
    retention.sape(u1, u3), recorded['scal_sape'], rtol=1e-14
  )
  got = [runtime.rte(r, u) for u, r in zip(u2, u3, strict=True)]
  np.testing.assert_allclose(got, recorded['scal_rte'], rtol=1e-15)


@pytest.mark.parametrize('case', [0, 1, 2])
def test_population_attack(recorded, case):
  part = {
    key: recorded[f'mia{case}_{key}']
    for key in ('first', 'second', 'X', 'members', 'train_idx', 'test_idx')
  }
  x, target = population.balanced_sample(part['second'], part['first'])
  np.testing.assert_array_equal(x, part['X'])
  np.testing.assert_array_equal(target, part['members'])
  # The recorded fits stopped early: up to 1e-3 from the optimum, which may
  # flip one test example of one fold.
  for fold, train in enumerate(part['train_idx']):
    fit = logistic.fit(x[train], target[train])
    np.testing.assert_allclose(
      fit, recorded[f'mia{case}_coef_intercept'][fold], atol=2e-3
    )
  gap = abs(
    population.cross_validated_accuracy(x, target)
    - recorded[f'mia{case}_scores']
  )
  assert gap.max() <= 1 / part['test_idx'].shape[1] + 1e-12
  assert (gap > 1e-12).sum() <= 1
  mia = population.population_mia(part['second'], part['first'])
  assert mia == pytest.approx(recorded[f'mia{case}_scores'].mean(), abs=0.005)


def test_log_odds(recorded):
  logits, labels = recorded['conf_logits'], recorded['conf_targets']
  phi = log_odds.log_odds(logits, labels)
  # The recorded score adds 1e-45 inside its logarithms, in float32.
  np.testing.assert_allclose(phi, recorded['conf_phi'], rtol=2e-5, atol=1e-5)
  np.testing.assert_allclose(
    np.exp(log_odds.log_confidence(phi)), recorded['conf_prob'], rtol=1e-4
  )
