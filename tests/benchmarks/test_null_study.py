"""The null study: its summary, and one program for all seeds."""

import dataclasses
import math

import numpy as np
import pytest
from scipy import stats

from jaxmu.metrics import indiscernibility, ranking
from jaxmu.report import progress
from jaxmu.report.results import Row
from jaxmu.study import run
from tests.study import small_job


def _seeds(bias=0.0, seeds=20, width=0.02):
  rng = np.random.default_rng(0)
  values = 0.5 + bias + 0.01 * rng.normal(size=(seeds, 2))
  return [
    [
      Row('retrain', 'ulira_auc', a, a - width, a + width, n=8),
      Row('retrain', 'mia_test', b, n=8),
      Row('retrain', 'ulira_retain_auc', 0.9, 0.8, 1.0),
      Row('retrain', 'ulira_tpr_0.1', 0.1),
      Row('retrain', 'rmia_auc', math.nan),
    ]
    for a, b in values
  ]


@pytest.mark.parametrize('bias', [0.0, 0.02])
def test_the_summary_is_that_of_plain_tests(load, bias):
  null = load('null_study')
  by_seed = _seeds(bias)
  rows = {row['metric']: row for row in null.summary(by_seed, 64)}
  assert list(rows) == ['ulira_auc', 'mia_test']
  p_values = []
  for k, metric in enumerate(rows):
    values = [seed[k].value for seed in by_seed]
    # The accuracy of unbalanced folds is .491 with 64 images, not one half.
    expected = 0.5 if k == 0 else indiscernibility.noise_floor(64).mean
    assert float(rows[metric]['null']) == pytest.approx(expected, abs=5e-5)
    test = stats.ttest_1samp(values, expected)
    p_values.append(test.pvalue)
    row = rows[metric]
    assert float(row['mean']) == pytest.approx(np.mean(values), abs=1e-5)
    assert float(row['error']) == pytest.approx(stats.sem(values), abs=1e-5)
    assert float(row['z']) == pytest.approx(test.statistic, abs=0.01)
  for row, p in zip(
    rows.values(), ranking.holm(np.array(p_values)), strict=True
  ):
    assert float(row['p_holm']) == pytest.approx(p, abs=1e-3)
  assert (abs(float(rows['ulira_auc']['z'])) > 2) == (bias > 0)
  inside = sum(abs(seed[0].value - 0.5) <= 0.02 for seed in by_seed)
  ulira = rows['ulira_auc']
  assert float(ulira['coverage']) == pytest.approx(inside / 20)
  exact = stats.binomtest(inside, 20).proportion_ci(0.95)
  assert float(ulira['coverage_low']) == pytest.approx(exact.low, abs=1e-3)
  assert float(ulira['coverage_high']) == pytest.approx(exact.high, abs=1e-3)
  assert ulira['width'] == '0.0200'
  assert rows['mia_test']['coverage'] == ''  # it has no interval


def test_seeds_share_their_programs_and_are_not_trained_again(
  load, tmp_path, monkeypatch
):
  null = load('null_study')
  settings = null.with_all_attacks(small_job.make(tmp_path))
  assert 'kde' in settings.attack.names and 'ulira' in settings.attack.names
  programs = null.Programs()
  with progress.Progress() as bars:
    found = []
    for seed in (0, 1):
      own = null.with_seed(settings, seed, tmp_path)
      assert (own.seed, own.splits.seed) == (seed, seed)
      found.append(null.one_seed(own, programs, bars))
      assert programs.number == 1
    first, second = ({r.metric: r.value for r in rows} for rows, _ in found)
    assert first.keys() == second.keys()
    assert first['ulira_auc'] != second['ulira_auc']
    monkeypatch.setattr(programs, 'run', None)  # would raise
    again = null.one_seed(null.with_seed(settings, 0, tmp_path), programs, bars)
    assert again[1] == found[0][1]
    np.testing.assert_equal(
      [dataclasses.astuple(r) for r in again[0]],
      [dataclasses.astuple(r) for r in found[0][0]],
    )
  assert not (tmp_path / 'seed_0' / 'store').exists()


def test_the_pool_alone_gives_the_same_numbers(load, tmp_path):
  null = load('null_study')
  settings = null.with_all_attacks(small_job.make(tmp_path))
  own, found = null.with_seed(settings, 1, tmp_path), []
  with progress.Progress() as bars:
    programs = null.Programs()
    for pool in (False, True):
      rows, _ = null.one_seed(own, programs, bars, pool=pool)
      found.append({row.metric: row for row in rows})
  everything, narrow = found
  assert {'ulira_auc', 'loss_auc', 'kde_auc'} <= narrow.keys()
  assert not {'mia_test', 'rmia_auc', 'population_auc'} & narrow.keys()
  for metric in filter(null.is_null, narrow):
    row = narrow[metric]
    np.testing.assert_equal(
      dataclasses.astuple(row), dataclasses.astuple(everything[metric]), metric
    )


def test_numbers_are_those_of_a_job(load, tmp_path):
  """A job with the same seed gives its retrained models the same numbers."""
  null = load('null_study')
  settings = small_job.make(tmp_path)
  own = null.with_seed(settings, 1, tmp_path)
  with progress.Progress() as bars:
    rows, _ = null.one_seed(own, null.Programs(), bars)
  job = run.run(dataclasses.replace(own, workdir=str(tmp_path / 'job')))
  known = {
    row.metric: row.value
    for row in null.results.read_csv(job.folder / 'results.csv')
    if row.method == 'retrain'
  }
  shared = [row for row in rows if row.metric in known]
  assert len(shared) > 10
  for row in shared:
    np.testing.assert_equal(row.value, known[row.metric], row.metric)


@pytest.mark.parametrize(
  ('value', 'seeds', 'z', 'p'),
  [
    (0.75, 3, 'inf', '0.000'),
    (0.25, 3, '-inf', '0.000'),
    (0.5, 3, '0.00', '1.000'),
    (0.75, 1, 'nan', ''),
  ],
)
def test_equal_seeds_show_their_bias_and_one_seed_has_no_test(
  load, value, seeds, z, p
):
  by_seed = [[Row('retrain', 'ulira_auc', value)]] * seeds
  (row,) = load('null_study').summary(by_seed, 64)
  assert (row['z'], row['p_holm']) == (z, p)


@pytest.mark.parametrize(
  ('module', 'argument'),
  [
    ('null_study', '--seeds=0'),
    ('null_study', '--first=-1'),
    ('null_simulation', '--designs=1'),
  ],
)
def test_too_few_are_refused_before_anything_runs(
  load, monkeypatch, capsys, module, argument
):
  monkeypatch.setattr('sys.argv', [f'{module}.py', argument])
  with pytest.raises(SystemExit):
    load(module).main()
  assert argument in capsys.readouterr().err
