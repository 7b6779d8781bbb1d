"""Stored measurements survive the process, damage and a read-only folder."""

import json

import pytest

from jaxmu.study import execution
from jaxmu.study.execution import Measured, MemoryEstimate, Plan

FACTS = {'model': 'tiny', 'batch_size': 8}
ONE = Measured(Plan(2, 4), 1234.5, 6.7, MemoryEstimate(1.0, 2.0, 3.0), 0)


def test_measurements_are_found_again(tmp_path):
  execution.MeasurementCache(tmp_path, FACTS).add(ONE)
  again = ONE._replace(images=2000.0)
  other = ONE._replace(plan=Plan(2, 8))
  cache = execution.MeasurementCache(tmp_path, FACTS)
  cache.add(again)
  cache.add(other)
  assert execution.MeasurementCache(tmp_path, FACTS).read().measured == (
    again,
    other,
  )


def test_other_facts_have_other_measurements(tmp_path):
  execution.MeasurementCache(tmp_path, FACTS).add(ONE)
  other = execution.MeasurementCache(tmp_path, {**FACTS, 'batch_size': 16})
  assert other.read() == execution.Measurements()


def test_the_file_says_what_it_is_about(tmp_path):
  cache = execution.MeasurementCache(tmp_path, FACTS)
  cache.add(ONE)
  assert json.loads(cache.path.read_text())['facts'] == FACTS
  assert [path.suffix for path in cache.path.parent.iterdir()] == ['.json']


def test_the_smallest_chunk_of_a_stage_is_kept(tmp_path):
  cache = execution.MeasurementCache(tmp_path, FACTS)
  cache.add(ONE)
  for chunk in (4, 2, 8):
    cache.ran_out('train msg', chunk)
  known = cache.ran_out('predict msg', 8)
  assert known.most_chunk == {'train msg': 2, 'predict msg': 8}
  assert cache.read() == known
  assert known.measured == (ONE,)


def test_a_damaged_file_counts_as_absent_and_is_reported(tmp_path, caplog):
  cache = execution.MeasurementCache(tmp_path, FACTS)
  cache.add(ONE)
  for text in ('{"measured": [', '{}', '{"measured": [{}], "most_chunk": {}}'):
    cache.path.write_text(text)
    assert (
      execution.MeasurementCache(tmp_path, FACTS).read()
      == execution.Measurements()
    )
    assert str(cache.path) in caplog.text
    caplog.clear()
  assert cache.add(ONE).measured == (ONE,)


def test_measurements_that_cannot_be_stored_stay_in_memory(tmp_path, caplog):
  file = tmp_path / 'file'
  file.write_text('in the way')
  cache = execution.MeasurementCache(file, FACTS)
  other = ONE._replace(plan=Plan(2, 8))
  assert cache.add(ONE).measured == (ONE,)
  assert 'cannot be written' in caplog.text
  assert cache.add(other).measured == (ONE, other)
  assert cache.ran_out('train msg', 4) == cache.read()
  assert cache.read() == execution.Measurements((ONE, other), {'train msg': 4})


@pytest.mark.parametrize('value', [0, -4, 'x', '4', 2.5, True, None, [], 1e999])
def test_impossible_values_count_as_damage(tmp_path, caplog, value):
  cache = execution.MeasurementCache(tmp_path, FACTS)
  cache.add(ONE)
  cache.ran_out('train msg', 4)
  whole = json.loads(cache.path.read_text())
  places = [
    (whole['most_chunk'], 'train msg'),
    (whole['measured'][0]['plan'], 'chunk'),
    (whole['measured'][0]['plan'], 'devices'),
  ]
  if value not in (0, 2.5):
    places += [
      (whole['measured'][0], 'images'),
      (whole['measured'][0], 'compile_seconds'),
      (whole['measured'][0]['need'], 'working'),
    ]
  for entry, name in places:
    kept, entry[name] = entry[name], value
    cache.path.write_text(json.dumps(whole))
    entry[name] = kept
    fresh = execution.MeasurementCache(tmp_path, FACTS)
    assert fresh.read() == execution.Measurements(), name
    assert str(cache.path) in caplog.text
    caplog.clear()


@pytest.mark.parametrize(
  'text', ['[]', 'null', '3', '"x"', '{"facts": 1}', '', '[' * 100_000, '\x00']
)
def test_what_is_no_file_of_measurements_counts_as_damage(
  tmp_path, caplog, text
):
  cache = execution.MeasurementCache(tmp_path, FACTS)
  cache.add(ONE)
  cache.path.write_text(text)
  fresh = execution.MeasurementCache(tmp_path, FACTS)
  assert fresh.read() == execution.Measurements()
  assert str(cache.path) in caplog.text
  assert fresh.add(ONE).measured == (ONE,)


def test_a_file_of_other_facts_counts_as_damage(tmp_path, caplog):
  cache = execution.MeasurementCache(tmp_path, FACTS)
  cache.add(ONE)
  other = execution.MeasurementCache(tmp_path, {**FACTS, 'model': 'other'})
  cache.path.rename(other.path)
  assert other.read() == execution.Measurements()
  assert 'another model or machine' in caplog.text
