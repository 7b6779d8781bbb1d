"""Files of results: round trips, equal bytes, atomic writes."""

import dataclasses
import json
import math
import os
import pathlib

import numpy as np
import pytest

from jaxmu import files
from jaxmu.attacks import intervals
from jaxmu.report import glossary
from jaxmu.report import results as results_lib
from tests.report import results


def test_csv_has_exactly_the_promised_columns(tmp_path):
  main = results_lib.write_csv(tmp_path / 'a.csv', [])
  other = results_lib.write_csv(tmp_path / 'b.csv', [], results_lib.Observation)
  assert main.read_text() == (
    'method,metric,value,low,high,retrained,gap,n,gap_low,gap_high,better\n'
  )
  assert other.read_text() == 'method,metric,cluster,value\n'


def test_csv_says_which_values_are_better(tmp_path):
  names = ('fa', 'ret_dev', 'rte', 'ulira_auc', 'excess_ulira_auc', 'unknown')
  rows = [results_lib.Row('ft', name, 0.5) for name in names]
  path = results_lib.write_csv(tmp_path / 'r.csv', rows)
  head, *lines = path.read_text().splitlines()
  assert [line.split(',')[-1] for line in lines] == [
    glossary.describe(name).better for name in names
  ]
  older = tmp_path / 'older.csv'  # without the column
  cut = [line.rpartition(',')[0] for line in (head, *lines)]
  older.write_text('\n'.join(cut) + '\n')
  read = [[r.metric for r in results_lib.read_csv(p)] for p in (path, older)]
  assert read[0] == read[1] == [*names]


def test_csv_round_trip_is_exact(tmp_path):
  rows = [
    *results.rows(),
    results_lib.Row(
      'a,"b"\n', 'fa', 0.1 + 0.2, -math.inf, math.inf, 1e-300, 5e-324, 3
    ),
    results_lib.Row('x', 'fa', np.float32(0.1), n=np.int64(7)),  # type: ignore[arg-type]
  ]
  got = results_lib.read_csv(results_lib.write_csv(tmp_path / 'r.csv', rows))
  assert len(got) == len(rows)
  for a, b in zip(got, rows, strict=True):
    assert (a.method, a.metric, a.n) == (b.method, b.metric, b.n)
    for name in (
      *('value', 'low', 'high', 'retrained', 'gap', 'gap_low', 'gap_high'),
    ):
      np.testing.assert_array_equal(getattr(a, name), float(getattr(b, name)))


def test_rows_carry_the_interval_of_the_paired_difference():
  rng = np.random.default_rng(0)
  shared = rng.normal(0.8, 0.1, 8)
  values = {
    'retrain': shared,
    'msg': shared + rng.normal(0.02, 0.001, 8),
    'ct': shared[:7],
  }
  numbers = {
    name: {'fa': intervals.over_splits(value)} for name, value in values.items()
  }
  excess = intervals.over_splits(rng.normal(0.1, 0.01, 8))
  numbers['msg'] |= {
    'x_auc': intervals.over_splits(shared),
    'excess_x_auc': excess,
  }
  rows = {(r.method, r.metric): r for r in results_lib.rows(numbers)}
  row, null = rows['msg', 'fa'], rows['retrain', 'fa']
  paired = intervals.over_splits(values['msg'] - shared)
  assert (row.gap_low, row.gap_high) == (paired.low, paired.high)
  # The intervals of the two numbers overlap; that of the difference excludes 0.
  assert row.low < null.value < row.high and results_lib.differs(row)
  assert math.isnan(rows['ct', 'fa'].gap_low)  # other splits
  assert math.isnan(null.gap_low) and not results_lib.differs(null)
  for name in ('x_auc', 'excess_x_auc'):
    assert rows['msg', name].gap_low == excess.low
  assert rows['msg', 'excess_x_auc'].retrained == 0.0


def test_observations_round_trip(tmp_path):
  rows = [results_lib.Observation('ft', 'fa', 3, 0.6)]
  path = results_lib.write_csv(tmp_path / 'r', rows, results_lib.Observation)
  assert results_lib.read_csv(path, results_lib.Observation) == rows


def test_equal_results_give_equal_bytes(tmp_path):
  contents = []
  for name in ('a', 'b'):
    path = results_lib.write_csv(tmp_path / name, results.rows())
    contents.append(path.read_bytes())
  assert contents[0] == contents[1]
  assert b'\r' not in contents[0]


def test_reading_a_file_of_another_kind_names_both(tmp_path):
  path = results_lib.write_csv(tmp_path / 'r', [], results_lib.Observation)
  with pytest.raises(ValueError, match=r"'cluster'.*expected .*'retrained'"):
    results_lib.read_csv(path)


def test_a_cut_line_is_named_with_its_columns(tmp_path):
  rows = [results_lib.Observation('ft', 'fa', 0, 0.5)]
  path = results_lib.write_csv(tmp_path / 'o.csv', rows, type(rows[0]))
  path.write_text(path.read_text().rpartition(',')[0] + '\n')
  wrong = 'damaged in line 2 .3 columns instead of 4.; run again'
  with pytest.raises(ValueError, match=wrong):
    results_lib.read_csv(path, results_lib.Observation)


def test_writing_rows_of_another_kind_names_the_remedy(tmp_path):
  with pytest.raises(TypeError, match='pass kind=Observation'):
    results_lib.write_csv(
      tmp_path / 'r.csv',
      [results_lib.Observation('a', 'fa', 0, 0.5)],  # pyright: ignore
    )
  assert not list(tmp_path.iterdir())


def test_json_is_valid_sorted_and_complete(tmp_path):
  @dataclasses.dataclass
  class Inner:
    where: pathlib.Path

  value = {
    'z': [math.nan, math.inf, -math.inf, 0.1],
    'a': {
      'array': np.arange(3, dtype=np.int8),
      'row': results_lib.Row('m', 'fa', 0.5),
    },
    'inner': Inner(pathlib.Path('x/y')),
    'none': None,
    'flag': np.bool_(True),
    'set': {'b', 'a'},
  }
  text = results_lib.write_json(tmp_path / 'r.json', value).read_text()

  def refuse(name):
    raise AssertionError(f'{name} is not JSON')

  got = json.loads(text, parse_constant=refuse)
  assert list(got) == sorted(got)
  assert got['z'] == [None, 'inf', '-inf', 0.1]
  assert got['a']['array'] == [0, 1, 2]
  assert got['a']['row']['low'] is None
  assert got['inner'] == {'where': 'x/y'}
  assert got['flag'] is True
  assert got['set'] == ['a', 'b']


def test_json_refuses_what_has_no_form(tmp_path):
  with pytest.raises(TypeError, match='convert it'):
    results_lib.write_json(tmp_path / 'r.json', {'f': object()})
  assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_only_the_old_file(tmp_path, monkeypatch):
  path = files.write_text(tmp_path / 'r', 'old')

  def full(*_):
    raise OSError(28, 'No space left on device')

  monkeypatch.setattr(os, 'fsync', full)
  with pytest.raises(OSError, match=f'No space.*{path}'):
    files.write_text(path, 'new')
  assert path.read_text() == 'old'
  assert [p.name for p in tmp_path.iterdir()] == ['r']


def test_the_reference_is_added_where_only_its_value_is_known():
  rows = [results_lib.Row('ft', 'excess_ulira_auc', 0.1, retrained=0.0)]
  got = results_lib.with_reference(rows)
  assert [(row.method, row.value) for row in got] == [
    ('retrain', 0.0),
    ('ft', 0.1),
  ]
  assert results_lib.with_reference(got) == got
  unknown = [results_lib.Row('ft', 'fa', 0.1)]
  assert results_lib.with_reference(unknown) == unknown
