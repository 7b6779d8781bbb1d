"""Metrics and attacks against recorded results of the reference code."""

import pathlib

import numpy as np
import pytest

from jaxmu.attacks import likelihood, log_odds, single_model, versus_retrained
from jaxmu.metrics import cost, distances, indiscernibility, retention
from tests.golden import replay, rules

SCORED, UNUSED = 1, np.inf


def pytest_generate_tests(metafunc):
  """Run once per recorded case, as many as the folder holds."""
  folder = pathlib.Path(metafunc.config.getoption('--golden'))
  names = _load(folder)
  for argument, end in (('attacked', '_scores'), ('competed', '_score')):
    if argument in metafunc.fixturenames:
      start = 'mia' if argument == 'attacked' else 'comp'
      cases = [
        name.removesuffix(end)
        for name in names
        if name.startswith(start) and name.endswith(end)
      ]
      metafunc.parametrize(argument, cases)


def _load(folder):
  if 'metrics' not in rules.index(folder):
    return {}
  with np.load(folder / 'metrics.npz') as archive:
    return {key: archive[key] for key in archive.files}


@pytest.fixture(name='recorded', scope='module')
def _recorded(request):
  folder = pathlib.Path(request.config.getoption('--golden'))
  return _load(folder) or pytest.skip(f'{folder} records no metrics')


def test_scalars(recorded):
  u0, u1, u2, u3 = recorded['scal_in'].T
  np.testing.assert_allclose(
    indiscernibility.indiscernibility(u0),
    recorded['scal_indiscernibility'],
    atol=1e-15,
  )
  np.testing.assert_allclose(
    retention.accuracy_ratio(u1, u2), recorded['scal_retention'], rtol=1e-15
  )
  got = [cost.rte(r, u) for u, r in zip(u2, u3, strict=True)]
  np.testing.assert_allclose(got, recorded['scal_rte'], rtol=1e-15)


def test_population_attack(recorded, attacked):
  part = {
    key: recorded[f'{attacked}_{key}']
    for key in ('first', 'second', 'X', 'members', 'train_idx', 'test_idx')
  }
  x, target = single_model.balanced_sample(part['second'], part['first'])
  np.testing.assert_array_equal(x, part['X'])
  np.testing.assert_array_equal(target, part['members'])
  # The recorded fits stopped early: up to 1e-3 from the optimum, which may
  # flip one test example of one fold.
  for fold, train in enumerate(part['train_idx']):
    fit = single_model.fit_logistic(x[train], target[train])
    np.testing.assert_allclose(
      fit, recorded[f'{attacked}_coef_intercept'][fold], atol=2e-3
    )
  gap = abs(
    single_model.cross_validated_accuracy(x, target)
    - recorded[f'{attacked}_scores']
  )
  assert gap.max() <= 1 / part['test_idx'].shape[1] + 1e-12
  assert (gap > 1e-12).sum() <= 1
  mia = single_model.population_mia(part['second'], part['first'])
  assert mia == pytest.approx(recorded[f'{attacked}_scores'].mean(), abs=0.005)


def test_log_odds(recorded):
  logits, labels = recorded['conf_logits'], recorded['conf_targets']
  phi = log_odds.log_odds(logits, labels)
  # The recorded score adds 1e-45 inside its logarithms, in float32.
  np.testing.assert_allclose(phi, recorded['conf_phi'], rtol=2e-5, atol=1e-5)
  np.testing.assert_allclose(
    np.exp(log_odds.log_confidence(phi)), recorded['conf_prob'], rtol=1e-4
  )


def test_distances(recorded, golden_folder):
  # Every set starts from its own model and compares it with the other's.
  tags = [run.get('weight_tag') for run in rules.index(golden_folder).values()]
  own = next(tag for tag in tags if tag)
  names = [own, *({'M0', 'M1'} - {own})]
  variables = replay.shapes('resnet18')
  model = replay.model('resnet18')
  parameters = [
    {
      name: value
      for name, value in rules.state_dict(model, variables, tag).items()
      if 'running' not in name
    }
    for tag in names
  ]
  first, second = parameters
  for measure, recorded_name, rtol in (
    (distances.relative_l2, 'relative', 1e-12),
    (distances.l2, 'l2', 1e-12),
  ):
    found = measure(first, second)
    np.testing.assert_allclose(found, recorded[f'dist_{recorded_name}'], rtol)
  found = distances.norm(first)
  np.testing.assert_allclose(found, recorded['dist_norm_a'], 1e-6)


def test_ulira_as_released(recorded):
  state, target = recorded['lira_state'], recorded['lira_targets']
  correct = recorded['lira_probas'].argmax(axis=-1) == target[:, None, None]
  rows = (len(target), -1)  # points by models
  found = likelihood.reference_ulira(
    correct.reshape(rows).T, state.reshape(rows).T
  )
  golden = recorded['lira_membership'].reshape(rows).T
  scored = state.reshape(rows).T == SCORED
  np.testing.assert_array_equal(golden[~scored], UNUSED)
  np.testing.assert_allclose(found[scored], golden[scored], 1e-12)


def test_competition(recorded, competed):
  unlearned, retrained = (recorded[f'{competed}_{k}'] for k in ('U', 'R'))
  found = versus_retrained.epsilon_per_example(unlearned, retrained)
  # Recorded in float32.
  np.testing.assert_allclose(found, recorded[f'{competed}_eps'], 1e-6)
  score = versus_retrained.forget_score(found, len(unlearned))
  np.testing.assert_allclose(score, recorded[f'{competed}_score'], 1e-12)
