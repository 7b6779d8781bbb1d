"""Stored measurements survive the process, damage and a read-only folder."""

import json

import pytest

from jaxmu import files
from jaxmu.study import execution
from jaxmu.study.execution import Conditions, Measured, MemoryEstimate, Plan

FACTS = {'model': 'tiny', 'batch_size': 8}
DAY = 86400.0
ONE = Measured(
  Plan(2, 4),
  1234.5,
  6.7,
  MemoryEstimate(1.0, 2.0, 3.0),
  0,
  Conditions(date=20_000 * DAY, load=0.01, spread=0.02),
)


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


def _write(path, content):
  """Write measurements with the checksum of an undamaged file."""
  content = {k: v for k, v in content.items() if k != 'sha256'}
  checksum = files.digest(content, digits=64)
  path.write_text(json.dumps({**content, 'sha256': checksum}))


def test_no_flipped_bit_of_measurements_is_silent(tmp_path, caplog):
  cache = execution.MeasurementCache(tmp_path, FACTS)
  cache.add(ONE)
  whole = cache.path.read_bytes()
  known, silent = json.loads(whole), []
  for place in range(len(whole)):
    content = bytearray(whole)
    content[place] ^= 1 << place % 8
    cache.path.write_bytes(bytes(content))
    fresh = execution.MeasurementCache(tmp_path, FACTS)
    if fresh.read().measured and json.loads(content) != known:
      silent.append(place)
    if not fresh.read().measured and str(cache.path) not in caplog.text:
      silent.append(place)
    caplog.clear()
  assert not silent


@pytest.mark.parametrize(
  'value', [0, -4, 'x', '4', 2.5, True, None, [], 1e999, 10**400]
)
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
      *((whole['measured'][0]['made'], field) for field in Conditions._fields),
    ]
  for entry, name in places:
    kept, entry[name] = entry[name], value
    _write(cache.path, whole)
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


def test_damage_is_found_wherever_the_file_is_cut(tmp_path, caplog):
  cache = execution.MeasurementCache(tmp_path, FACTS)
  cache.add(ONE)
  whole = cache.path.read_bytes()
  for length in range(0, len(whole), 7):
    cache.path.write_bytes(whole[:length])
    fresh = execution.MeasurementCache(tmp_path, FACTS)
    assert fresh.read() == execution.Measurements(), length
    (record,) = caplog.records
    assert '\n' not in record.getMessage()
    caplog.clear()


def test_a_date_in_the_future_counts_as_damage(tmp_path, caplog):
  cache = execution.MeasurementCache(tmp_path, FACTS)
  for date in (1e12, 1e300):
    cache.add(ONE._replace(made=Conditions(date, 0.0, 0.0)))
    fresh = execution.MeasurementCache(tmp_path, FACTS)
    assert fresh.read() == execution.Measurements()
    assert 'in the future' in caplog.text
    caplog.clear()


def test_measurements_that_are_dropped_stay_away(tmp_path):
  cache = execution.MeasurementCache(tmp_path, FACTS)
  other = ONE._replace(plan=Plan(2, 8))
  cache.add(ONE)
  cache.add(other)
  for _ in range(2):
    cache = execution.MeasurementCache(tmp_path, FACTS)
    assert cache.drop([ONE]).measured == (other,)
  assert cache.read().measured == (other,)
  again = ONE._replace(images=2000.0)
  assert cache.add(again).measured == (other, again)


@pytest.mark.parametrize(
  ('made', 'fault'),
  [
    (Conditions(0.0, 0.1, 0.25), ''),
    (Conditions(-29.9 * DAY, 0.0, 0.0), ''),
    (Conditions(-31 * DAY, 0.0, 0.0), '31 days old'),
    (Conditions(0.0, 0.4, 0.0), 'other programs took 40% of the processor'),
    (Conditions(0.0, 0.0, 0.5), 'epochs differed by 50%'),
  ],
)
def test_old_busy_and_noisy_measurements_are_stale(made, fault):
  now = ONE.made.date
  made = made._replace(date=now + made.date)
  assert ONE._replace(made=made).fault(now) == fault


def test_the_load_is_the_work_of_other_programs(monkeypatch):
  # By the clock, of all programs, of this one: two cores for ten seconds.
  times = [(0.0, 100.0, 50.0), (10.0, 115.0, 58.0)]
  monkeypatch.setattr(execution, 'cores', lambda: 2)
  monkeypatch.setattr(execution, '_processor_seconds', lambda: times.pop(0))
  assert execution.Load().others() == pytest.approx((15 - 8) / 20)


def test_the_load_of_this_machine_is_a_share():
  before = execution._processor_seconds()
  load = execution.Load()
  sum(range(10**6))
  assert 0 <= load.others() <= 1
  after = execution._processor_seconds()
  assert all(a <= b for a, b in zip(before, after, strict=True))


def test_a_file_of_other_facts_counts_as_damage(tmp_path, caplog):
  cache = execution.MeasurementCache(tmp_path, FACTS)
  cache.add(ONE)
  other = execution.MeasurementCache(tmp_path, {**FACTS, 'model': 'other'})
  cache.path.rename(other.path)
  assert other.read() == execution.Measurements()
  assert 'another model or machine' in caplog.text
