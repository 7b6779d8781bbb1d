"""Names of published numbers, and when another run has reproduced one."""

import dataclasses
import math
import pathlib

import pytest
from scipy import stats

from jaxmu.published import rows
from jaxmu.published.record import Published
from jaxmu.published.rows import Outcome, Row
from jaxmu.report import results

_ENVIRONMENT = {
  'versions': {'python': '3', 'jax': '0.10.2', 'orbax-checkpoint': '1'},
  'hardware': {'backend': 'cpu', 'processor': 'a', 'cores': 2},
  'compiler': {'XLA_FLAGS': ''},
}
JOB = Published('job', pathlib.Path('job'), {'kind': 'table', **_ENVIRONMENT})


def _row(metric: str = 'ulira_auc', value: float = 0.6, **more) -> Row:
  numbers = {'low': 0.5, 'high': 0.65, **more}
  return Row(f'job/msg/{metric}', JOB, 'msg', metric, value, **numbers)


KNOWN = {
  name: dataclasses.replace(_row(), name=name)
  for name in (
    'default_job/msg/fa',
    'default_job/msg/ulira_auc',
    'default_job/retrained/ulira_auc',
    'laptop/digits_resnet18/main/msg/ra',
    'laptop/digits_resnet18/ulira/msg/ulira_auc',
  )
}


@pytest.mark.parametrize(
  ('patterns', 'count'),
  [
    (['default_job/msg/fa'], 1),
    (['default_job'], 3),
    (['default_job/'], 3),
    (['default_job/msg', 'default_job/msg/fa'], 2),
    (['*/ulira_auc'], 3),
    (['laptop/*/main/*'], 1),
    (['laptop/digits_resnet18/u?ira'], 0),
    (['laptop/digits_resnet18/u?ira/*'], 1),
    (['*'], 5),
  ],
)
def test_a_name_a_beginning_or_a_pattern_chooses(patterns, count):
  if not count:
    with pytest.raises(ValueError, match='no published number'):
      rows.choose(KNOWN, patterns)
    return
  chosen = rows.choose(KNOWN, patterns)
  assert len(chosen) == len({row.name for row in chosen}) == count


def test_an_unknown_name_gives_the_nearest_ones():
  with pytest.raises(ValueError) as error:
    rows.choose(KNOWN, ['default_job', 'default_job/msg/ulira_acu'])
  assert "'default_job/msg/ulira_acu'" in str(error.value)
  assert "did you mean 'default_job/msg/ulira_auc'" in str(error.value)
  assert ' or ' in rows.nearest('laptop/digits_resnet18/man', KNOWN)
  assert rows.nearest('zzz', KNOWN) == ''


def test_the_same_environment_leaves_rounding():
  row = _row()
  assert rows.judge(row, 0.6, same=True).outcome is Outcome.PASS
  assert rows.judge(row, 0.6 + 5e-7, same=True).outcome is Outcome.PASS
  assert rows.judge(row, 0.6 + 2e-6, same=True).outcome is Outcome.FAIL
  large = _row('distance', 1e6)
  assert rows.judge(large, 1e6 + 0.5, same=True).outcome is Outcome.PASS
  assert rows.judge(large, 1e6 + 2, same=True).outcome is Outcome.FAIL


def test_another_environment_leaves_half_of_the_interval():
  row = _row()
  for found, outcome in (
    (0.6 + 0.074, Outcome.PASS),
    (0.6 - 0.074, Outcome.PASS),
    (0.6 + 0.076, Outcome.FAIL),
    (0.6 - 0.076, Outcome.FAIL),
  ):
    verdict = rows.judge(row, found, same=False)
    assert verdict.outcome is outcome
    assert verdict.tolerance == pytest.approx(0.075)


def test_one_in_six_independent_runs_would_be_outside():
  """As the docstring of `tolerance` says."""
  half = stats.norm.ppf(0.975)
  assert 2 * stats.norm.sf(half / math.sqrt(2)) == pytest.approx(
    1 / 6, abs=1e-3
  )


def test_numbers_without_an_interval_are_open_elsewhere():
  row = _row('rank_ret_dev', 2.0, low=math.nan, high=math.nan)
  assert rows.judge(row, 3.0, same=False).outcome is Outcome.OPEN
  assert rows.judge(row, 3.0, same=True).outcome is Outcome.FAIL
  counted = _row('rte_counted', 5.0, low=math.nan, high=math.nan)
  assert rows.judge(counted, 5.1, same=False).outcome is Outcome.FAIL


@pytest.mark.parametrize('same', [True, False])
def test_run_times_are_shown_and_not_judged(same):
  row = _row('rte', 10.0, low=math.nan, high=math.nan)
  verdict = rows.judge(row, 15.0, same=same)
  assert (verdict.outcome, verdict.note) == (Outcome.OPEN, 'a run time, x1.50')
  verdict = rows.judge(row, 4.0, same=same)
  assert verdict.outcome is Outcome.OPEN
  assert 'beyond the usual factor of 2' in verdict.note
  assert rows.judge(row, math.nan, same=same).outcome is Outcome.OPEN


def test_a_number_that_is_not_available_must_be_so_in_both():
  absent = _row(value=math.nan)
  assert rows.judge(absent, math.nan, same=True).outcome is Outcome.PASS
  assert rows.judge(absent, 0.5, same=False).outcome is Outcome.FAIL
  assert rows.judge(_row(), math.nan, same=False).outcome is Outcome.FAIL
  infinite = _row(value=math.inf)
  assert rows.judge(infinite, math.inf, same=True).outcome is Outcome.PASS
  assert rows.judge(infinite, 1.0, same=True).outcome is Outcome.FAIL


def test_published_scores_have_their_own_tolerance():
  row = _row()
  assert rows.judge(row, 0.6009, same=True, scores=True).outcome is Outcome.PASS
  assert rows.judge(row, 0.6011, same=True, scores=True).outcome is Outcome.FAIL
  rounding = {'ulira_auc': 0.004}
  known = {**JOB.record, 'scores': {'rounding': rounding}}
  row = dataclasses.replace(row, of=dataclasses.replace(JOB, record=known))
  assert rows.judge(row, 0.6039, same=True, scores=True).outcome is Outcome.PASS


def test_what_counts_as_another_environment():
  same = {name: dict(values) for name, values in _ENVIRONMENT.items()}
  assert rows.environment_differences(JOB, same) == []
  same['versions']['orbax-checkpoint'] = same['versions']['python'] = '2'
  same['hardware']['cores'] = 64
  assert rows.environment_differences(JOB, same) == []
  same['versions']['jax'] = '0.11'
  same['compiler']['XLA_FLAGS'] = '--x'
  assert rows.environment_differences(JOB, same) == [
    'jax 0.11 (published: 0.10.2)',
    'XLA_FLAGS --x (published: )',
  ]


def test_replicates_give_a_mean_a_coverage_and_every_seed(tmp_path):
  one = Published('null/job', tmp_path, {'kind': 'replicates'})
  results.write_csv(
    tmp_path / 'results.csv',
    [
      results.Row('0', 'ulira_auc', 0.50, 0.48, 0.52),
      results.Row('1', 'ulira_auc', 0.53, 0.51, 0.55),
      results.Row('7', 'ulira_auc', 0.47, 0.44, 0.50),
    ],
  )
  by_name = rows.every([one])
  assert list(by_name) == [
    f'null/job/ulira_auc{end}' for end in ('', '/coverage', '/0', '/1', '/7')
  ]
  mean = by_name['null/job/ulira_auc']
  half = stats.t.ppf(0.975, 2) * 0.03 / math.sqrt(3)
  assert (mean.value, mean.method) == (pytest.approx(0.5), '')
  assert mean.high - mean.value == pytest.approx(half)
  share = by_name['null/job/ulira_auc/coverage']
  assert share.value == pytest.approx(2 / 3)
  assert 0 < share.low < share.value < share.high < 1
  assert by_name['null/job/ulira_auc/7'].low == 0.44


def test_a_name_stands_for_one_number(tmp_path):
  one = Published('job', tmp_path, {'kind': 'computed'})
  twice = [results.Row('1', 'tau', 0.5), results.Row('1', 'tau', 0.6)]
  results.write_csv(tmp_path / 'results.csv', twice)
  with pytest.raises(ValueError, match="'job/1/tau' twice"):
    rows.every([one])
