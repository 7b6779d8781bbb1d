"""Ranking: SciPy, published tables, and the numbers of an independent re-run.

`independent_rerun.csv` holds RetDev and test MIA of 17 methods, 10 seeds, on
CIFAR-10 with ResNet-18, computed from the per-seed accuracies that a third
party measured and published (github.com/santimebi/deepunlearn, 380123a,
reports/raw_metrics.csv).
"""

import csv
import pathlib

import numpy as np
import pytest
from scipy import stats

from jaxmu.metrics import ranking


def rerun(metric):
  path = pathlib.Path(__file__).parent / 'independent_rerun.csv'
  table: dict[str, list[float]] = {}
  with path.open() as file:
    for row in csv.DictReader(file):
      table.setdefault(row['method'], []).append(float(row[metric]))
  return list(table), np.array(list(table.values()))


def named(groups, names):
  return [{names[i] for i in group} for group in groups]


def test_rerun_by_retdev():
  names, values = rerun('ret_dev')
  got = ranking.rank_cell(values)
  assert got.statistic == pytest.approx(146.4, abs=0.05)
  assert named(got.groups, names) == [
    {'FCS', 'PRMQ', 'SalUN'},
    {'FT'},
    {'NG+', 'RNI', 'SCRUB', 'CF-k'},
    {'SRL', 'KDE', 'BT'},
    {'CFW', 'MSG', 'CT'},
    {'IU'},
    {'GA'},
    {'FF'},
  ]
  ranks = dict(zip(names, got.mean_rank, strict=True))
  expected = {'PRMQ': 1.9, 'FCS': 2.0, 'CT': 12.6, 'GA': 15.8, 'FF': 17.0}
  for name, rank in expected.items():
    assert ranks[name] == pytest.approx(rank), name
  place = dict(zip(names, got.placement(), strict=True))
  assert (place['SalUN'], place['FT'], place['GA']) == (1, 2, 3)


def test_rerun_by_indisc():
  names, mia = rerun('mia_test')
  values = abs(2 * mia - 1)  # Disc: smaller is better
  # The published number lets rounding errors break ties between MIAs equally
  # far above and below one half; with the ties it is 107.6.
  assert ranking.rank_cell(values.round(9)).statistic == pytest.approx(
    107.59, abs=0.005
  )
  got = ranking.rank_cell(values)
  assert got.statistic == pytest.approx(107.7, abs=0.1)
  assert named(got.groups, names) == [
    {'FT', 'SRL', 'FCS', 'MSG', 'CT', 'SalUN', 'SCRUB'},
    {'BT', 'CFW', 'PRMQ', 'KDE', 'RNI', 'NG+'},
    {'CF-k', 'GA'},
    {'IU'},
    {'FF'},  # failed: its attack has no finite input
  ]
  assert got.failed.sum() == 1 and got.mean_rank[names.index('FF')] == 17
  assert got.placement()[names.index('FF')] == 3


def test_rank_correlation_of_the_two_metrics():
  names, ret_dev = rerun('ret_dev')
  _, mia = rerun('mia_test')
  keep = [i for i, name in enumerate(names) if name != 'FF']
  tau, _ = stats.kendalltau(
    ret_dev[keep].mean(1), abs(2 * mia[keep] - 1).mean(1)
  )
  assert tau == pytest.approx(0.38, abs=0.005)


def test_friedman_equals_scipy_with_ties():
  values = np.random.default_rng(0).integers(0, 4, (5, 8)).astype(float)
  got = ranking.rank_cell(values)
  expected = stats.friedmanchisquare(*values)
  assert got.statistic == pytest.approx(expected.statistic)
  assert got.p_value == pytest.approx(expected.pvalue)


def test_holm_by_hand():
  np.testing.assert_allclose(
    ranking.holm(np.array([0.04, 0.01, 0.03, 0.5])), [0.09, 0.04, 0.09, 0.5]
  )
  assert ranking.holm(np.zeros(0)).shape == (0,)


def test_methods_that_cannot_be_told_apart_share_a_group():
  rng = np.random.default_rng(1)
  values = rng.normal(0, 0.1, (4, 10)) + np.array([[0], [0], [5], [9]])
  assert sorted(map(sorted, ranking.greedy_groups(values))) == [
    [0, 1],
    [2],
    [3],
  ]
  # Differences below the noise floor are ties, however significant.
  small = np.arange(3)[:, None] * 0.004 + rng.normal(0, 1e-6, (3, 10))
  assert len(ranking.greedy_groups(small)) == 3
  tied = ranking.greedy_groups(small, tie=ranking.NOISE_FLOOR_DISC)
  assert len(tied) == 1


def test_five_seeds_can_never_separate():
  values = np.arange(4)[:, None] + np.random.default_rng(2).random((4, 5)) / 9
  assert len(ranking.greedy_groups(values)) == 1
  # A bootstrap can, and does not where there is nothing.
  assert len(ranking.greedy_groups(values, test='bootstrap')) == 4
  assert ranking.rank_cell(values, test='bootstrap').groups[0] == (0,)
  noise = np.random.default_rng(4).normal(size=(2, 40, 10))
  pairs = [
    ranking.greedy_groups(p, test='bootstrap') for p in noise.swapaxes(0, 1)
  ]
  assert np.mean([len(groups) == 1 for groups in pairs]) > 0.8


def test_equal_methods_and_too_little_data():
  values = np.ones((3, 6))
  got = ranking.rank_cell(values)
  assert got.groups == ((0, 1, 2),) and got.statistic == 0.0
  with pytest.raises(ValueError, match='5 seeds'):
    ranking.rank_cell(np.ones((3, 4)))
  with pytest.raises(ValueError, match='did not fail: 1'):
    ranking.rank_cell(np.array([[1.0] * 6, [np.nan] * 6]))


def test_critical_difference_is_nemenyis_table():
  # Demsar 2006, table 5: q_0.05 = 2.728 for 5 methods.
  expected = 2.728 * np.sqrt(5 * 6 / (6 * 14))
  got = ranking.critical_difference(5, 14)
  assert got == pytest.approx(expected, rel=1e-3)


def test_overall_ranks_with_their_bootstrap():
  mean_ranks = np.array([[1.0, 2.0, 3.0]] * 4 + [[2.0, 1.0, 3.0]] * 4)
  got = ranking.rank_overall(mean_ranks)
  np.testing.assert_allclose(got.mean_rank, [1.5, 1.5, 3.0])
  assert got.low[0] < 1.5 < got.high[0]
  assert got.low[2] == got.high[2] == 3.0
  combined = ranking.combined_rank([mean_ranks[0], mean_ranks[4]])
  np.testing.assert_allclose(combined, [1.5, 1.5, 3.0])


def test_pareto_front_equals_naive_search():
  values = np.random.default_rng(3).integers(0, 5, (30, 3)).astype(float)
  values[4, 1] = np.nan
  naive = []
  for i, a in enumerate(values):
    beaten = any(
      all(x <= y for x, y in zip(b, a, strict=True))
      and any(x < y for x, y in zip(b, a, strict=True))
      for b in np.delete(values, i, axis=0)
    )
    naive.append(not beaten and not np.isnan(a).any())
  np.testing.assert_array_equal(ranking.pareto_front(values), naive)
