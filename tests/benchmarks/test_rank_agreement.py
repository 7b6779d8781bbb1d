"""Agreement of rankings, against SciPy and plain loops."""

import itertools

import numpy as np
import pytest
from scipy import stats

NAMES = ('a', 'b', 'c', 'd')


def _per_seed(seed: int, seeds: int = 6):
  rng = np.random.default_rng(seed)
  return {
    name: {
      'ta': np.full(seeds, 0.9),
      'ret_dev': k + 0.01 * rng.random(seeds),
      'indisc_test': 1 - k / 10 - 0.01 * rng.random(seeds),
    }
    for k, name in enumerate(NAMES)
  }


def test_tau_is_that_of_scipy(load):
  agree = load('rank_agreement')
  rng = np.random.default_rng(0)
  x, y = rng.integers(0, 6, (2, 20, 9)).astype(float)
  x[3, 2] = x[3, 5] = np.inf
  expected = [
    stats.kendalltau(stats.rankdata(a), stats.rankdata(b)).statistic
    for a, b in zip(x, y, strict=True)
  ]
  np.testing.assert_allclose(agree.kendall_tau(x, y), expected, atol=1e-12)
  assert np.isnan(agree.kendall_tau(np.ones(4), np.arange(4)))


@pytest.mark.parametrize('seeds', [4, 5])
def test_halves_are_all_pairs_of_disjoint_halves(load, seeds):
  agree = load('rank_agreement')
  values = np.random.default_rng(1).random((7, seeds))
  found = []
  for a, b, c, d in itertools.permutations(range(seeds), 4):
    if a < b and c < d and a < c:  # each pair once
      x = (values[:, a] + values[:, b]) / 2
      y = (values[:, c] + values[:, d]) / 2
      found.append(stats.kendalltau(x, y).statistic)
  assert agree.halves(values) == pytest.approx(np.mean(found))


def test_equal_rankings_agree_and_failed_methods_are_the_worst(
  load, monkeypatch
):
  agree = load('rank_agreement')
  monkeypatch.setattr(agree, 'GROUP_RESAMPLES', 2)
  one = _per_seed(0)
  rows = agree.agreement(one, _per_seed(1), NAMES, 10)
  assert [row['ranking'] for row in rows] == [
    *('RetDev', 'Indisc', 'groups by RetDev', 'groups by Indisc')
  ]
  assert {row['tau'] for row in rows} == {'1.00'}
  assert {(row['low'], row['high']) for row in rows} == {('1.00', '1.00')}
  failing = {**one, 'a': {**one['a'], 'ta': np.full(6, 0.1)}}
  table = agree.smaller_is_better(failing, NAMES, 10)
  assert all(np.isinf(values[0]).all() for values in table.values())
  assert np.isfinite(table['RetDev'][1:]).all()
  # The best method is now the worst one: 3 of 6 pairs change their order.
  rows = agree.agreement(one, failing, NAMES, 10)
  assert [row['tau'] for row in rows[:2]] == ['0.00', '0.00']


def test_too_few_initialisations_have_no_groups(load):
  agree = load('rank_agreement')
  rows = agree.agreement(_per_seed(0, 3), _per_seed(1, 3), NAMES, 10)
  assert [row['ranking'] for row in rows] == ['RetDev', 'Indisc']
