"""Every attack is at chance without a leak and above it with one."""

import math

import numpy as np
import pytest

from jaxmu.attacks import density, leave_out, likelihood, log_odds, rmia, roc
from tests.attacks import populations

EXAMPLES, UNSEEN = 120, 20  # of which so many are the population of RMIA


def by_pair(function, **options):
  def scores(z, state, split, retrained):
    del retrained
    ratio, _ = function(z, state, split // 2, **options)
    return ratio, state, split // 2

  return scores


def against_retrained(z, state, split, retrained):
  both = log_odds.against_retrained(z, retrained, state, split // 2)
  return likelihood.ulira(*both)[0], *both[1:]


ATTACKS = {
  **{
    f'ulira {v}': by_pair(likelihood.ulira, variance=v)
    for v in leave_out.VARIANCES
  },
  'ulira median': by_pair(likelihood.ulira, location='median'),
  'ulira empirical Bayes': by_pair(likelihood.ulira, prior_strength=None),
  'against retrained': against_retrained,
  'lira offline': by_pair(likelihood.lira_offline),
  'lira offline, one-sided': by_pair(likelihood.lira_offline, side='one'),
  'rmia offline': by_pair(rmia.rmia),
  'rmia online': by_pair(rmia.rmia, rule='online'),
  'kde': by_pair(density.kde),
  'kde, fixed bandwidth': by_pair(density.kde, bandwidth=1.0),
  'histogram': by_pair(density.histogram, bins=5),
  'loss': lambda z, c, g, _: (z, c, g // 2),
}


def study(attack, shift, repeats):
  """Mean and standard error of AUC and TPR at 20% FPR over populations."""
  values = []
  for repeat in range(repeats):
    rng = np.random.default_rng(repeat)
    state, split = populations.states(rng, 8, 2, EXAMPLES)
    state[:, -UNSEEN:] = 3
    mean, scale = populations.locations(rng, EXAMPLES)
    first, second = (populations.noise(rng, split, EXAMPLES) for _ in range(2))
    z = mean + scale * (first + shift * (state == 1))
    retrained = mean + scale * second
    scored = attack(z, state, split, retrained)
    report = roc.roc_report(*scored, fprs=(0.2,))
    values.append([report['auc'].value, report['tpr_0.2'].value])
  values = np.array(values)
  return values.mean(0), values.std(0, ddof=1) / math.sqrt(repeats)


@pytest.mark.parametrize('name', ATTACKS)
def test_null_is_at_chance(name):
  mean, error = study(ATTACKS[name], 0.0, 30)
  assert abs(mean[0] - 0.5) < 3 * error[0] + 1e-3
  # The threshold leaves 10 of 50 negatives above it: 11/51 are expected.
  assert mean[1] < 11 / 51 + 3 * error[1]


@pytest.mark.parametrize('name', ATTACKS)
def test_leak_is_found(name):
  mean, error = study(ATTACKS[name], 1.2, 8)
  assert mean[0] - 0.5 > 5 * error[0]
  if name != 'histogram':  # ties cost it the low rates
    assert mean[1] > 0.25
