"""Notes survive the process, damage and a folder that cannot be written."""

import json

from jaxmu.study import execution
from jaxmu.study.execution import Measured, MemoryEstimate, Plan

FACTS = {'model': 'tiny', 'batch_size': 8}
ONE = Measured(Plan(2, 4), 1234.5, 6.7, MemoryEstimate(1.0, 2.0, 3.0), 0)


def test_measurements_are_found_again(tmp_path):
  execution.MeasurementCache(tmp_path, FACTS).add(ONE)
  again = ONE._replace(images=2000.0)
  other = ONE._replace(plan=Plan(2, 8))
  book = execution.MeasurementCache(tmp_path, FACTS)
  book.add(again)
  book.add(other)
  assert execution.MeasurementCache(tmp_path, FACTS).read().measured == (
    again,
    other,
  )


def test_other_facts_have_other_notes(tmp_path):
  execution.MeasurementCache(tmp_path, FACTS).add(ONE)
  other = execution.MeasurementCache(tmp_path, {**FACTS, 'batch_size': 16})
  assert other.read() == execution.Measurements()


def test_the_file_says_what_it_is_about(tmp_path):
  book = execution.MeasurementCache(tmp_path, FACTS)
  book.add(ONE)
  assert json.loads(book.path.read_text())['facts'] == FACTS
  assert [path.suffix for path in book.path.parent.iterdir()] == ['.json']


def test_the_smallest_chunk_of_a_stage_is_kept(tmp_path):
  book = execution.MeasurementCache(tmp_path, FACTS)
  book.add(ONE)
  for chunk in (4, 2, 8):
    book.ran_out('train msg', chunk)
  notes = book.ran_out('predict msg', 8)
  assert notes.most_chunk == {'train msg': 2, 'predict msg': 8}
  assert book.read() == notes
  assert notes.measured == (ONE,)


def test_a_damaged_file_counts_as_absent_and_is_reported(tmp_path, caplog):
  book = execution.MeasurementCache(tmp_path, FACTS)
  book.add(ONE)
  for text in ('{"measured": [', '{}', '{"measured": [{}], "most_chunk": {}}'):
    book.path.write_text(text)
    assert (
      execution.MeasurementCache(tmp_path, FACTS).read()
      == execution.Measurements()
    )
    assert str(book.path) in caplog.text
    caplog.clear()
  assert book.add(ONE).measured == (ONE,)


def test_notes_that_cannot_be_kept_are_known_to_the_process(tmp_path, caplog):
  file = tmp_path / 'file'
  file.write_text('in the way')
  book = execution.MeasurementCache(file, FACTS)
  other = ONE._replace(plan=Plan(2, 8))
  assert book.add(ONE).measured == (ONE,)
  assert 'cannot be written' in caplog.text
  assert book.add(other).measured == (ONE, other)
  assert book.ran_out('train msg', 4) == book.read()
  assert book.read() == execution.Measurements((ONE, other), {'train msg': 4})
