"""How samplers are compared: regrets, intervals, and what a search delivers."""

import types

import numpy as np
import pytest
from scipy import stats

NAMES = ('x', 'y', 'z')


def test_regrets_are_those_of_a_plain_loop(load):
  compare = load('search_samplers')
  rng = np.random.default_rng(0)
  norms, scale = rng.random((3, 4, 2)), 1 + rng.random((4, 2))
  found = compare.regrets(norms, scale)
  for s in range(3):
    for m in range(4):
      for k in range(2):
        best = min(norms[other, m, k] for other in range(3))
        assert found[s, m, k] == pytest.approx(
          (norms[s, m, k] - best) / scale[m, k]
        )


def test_intervals_are_clustered_by_method(load):
  compare = load('search_samplers')
  values = np.random.default_rng(1).normal(size=(6, 3))
  means = [sum(row) / 3 for row in values]
  expected = stats.ttest_1samp(means, 0).confidence_interval(0.9)
  mean, low, high = compare.mean_interval(values, 0.9)
  assert mean == pytest.approx(np.mean(means))
  assert (low, high) == pytest.approx((expected.low, expected.high))
  # Seeds that repeat each other tell no more than one.
  repeated = np.repeat(values[:, :1], 50, axis=1)
  assert compare.mean_interval(repeated) == pytest.approx(
    compare.mean_interval(values[:, :1])
  )
  assert compare.mean_interval(values[:1])[1:] == (-np.inf, np.inf)


def test_pairs_hold_together_and_the_verdict_says_what_is_shown(load):
  compare = load('search_samplers')
  rng = np.random.default_rng(2)
  regret = rng.random((3, 6, 3))
  first = compare.differences(NAMES, regret)[0]
  expected = compare.mean_interval(regret[0] - regret[1], 1 - 0.05 / 3)
  assert (first.first, first.second) == ('x', 'y')
  assert tuple(first[2:]) == pytest.approx(expected)
  same = np.stack([regret[0], regret[0] + 1e-9 * regret[1], regret[0] + 5])
  same[2] += 0.1 * rng.random((6, 3))
  assert compare.verdict(NAMES, same).startswith('x has the smallest')
  assert "'z'" in compare.verdict(NAMES, same)
  noise = rng.normal(size=(3, 6, 3))
  noise -= noise.mean(axis=(1, 2), keepdims=True)
  assert 'no difference shown' in compare.verdict(NAMES, noise)


def test_a_table_becomes_an_array_in_any_order_of_rows(load):
  compare = load('search_samplers')
  rows = [
    {'sampler': s, 'method': m, 'seed': k, 'norm': 100 * i + 10 * j + k}
    for i, s in enumerate(NAMES)
    for j, m in enumerate('ab')
    for k in range(2)
  ]
  names, values = compare.by_sampler(rows[:1] + rows[:0:-1], 'norm')
  assert sorted(names) == sorted(NAMES)
  for i, name in enumerate(NAMES):
    own = values[names.index(name)]
    assert sorted(own.ravel()) == sorted(
      100 * i + 10 * j + k for j in range(2) for k in range(2)
    )


def test_a_search_delivers_the_finalist_with_the_smallest_judged_norm(load):
  compare = load('search_samplers')
  norms = [0.5, 0.1, np.inf, 0.2, 0.3]
  rows = [
    types.SimpleNamespace(
      norm=norm,
      number=n,
      initialisation=0,
      setting={'alpha': n},
      usable=n not in (1, 2),
      failed=n == 2,
    )
    for n, norm in enumerate(norms)
  ]
  seen = []

  def judge(settings):
    seen.extend(one['alpha'] for one in settings)
    return np.array([0.4, 0.25])

  found = compare.search_row(rows, types.SimpleNamespace(norms=judge), 2)
  assert seen == [3, 4] and found['norm'] == 0.25
  assert (found['trials'], found['failed'], found['cannot_win']) == (5, 1, 1)
