"""A report that was changed after it was written is refused."""

import json

import pytest

from jaxmu import files
from jaxmu.report import checksums
from jaxmu.report import results as results_lib
from tests.report import results


def _written(folder):
  paths = [
    results_lib.write_csv(folder / 'results.csv', results.rows()[:2]),
    files.write_text(folder / 'results.json', json.dumps({'a': 1.5})),
    files.write_text(folder / 'plots' / 'a.png', 'picture'),
  ]
  return checksums.write(folder, paths)


def test_no_flipped_bit_of_a_report_is_silent(tmp_path):
  _written(tmp_path)
  readers = {
    'results.csv': results_lib.read_csv,
    'results.json': results_lib.read_json,
  }
  assert results_lib.read_json(tmp_path / 'results.json') == {'a': 1.5}
  silent = []
  for name, read in readers.items():
    path = tmp_path / name
    whole = path.read_bytes()
    assert read(path)
    for place in range(len(whole)):
      content = bytearray(whole)
      content[place] ^= 1 << place % 8
      path.write_bytes(bytes(content))
      try:
        read(path)
        silent.append((name, place))
      except ValueError as error:
        assert str(path) in str(error) and 'start the job again' in str(error)
    path.write_bytes(whole)
  assert not silent


@pytest.mark.parametrize('content', ['', 'x', '\0\n', 'ab  results.csv\n'])
def test_other_checksums_are_a_change_too(tmp_path, content):
  path = _written(tmp_path)
  path.write_text(content)
  with pytest.raises(ValueError, match='results.csv is damaged'):
    results_lib.read_csv(tmp_path / 'results.csv')


def test_a_report_without_checksums_is_read(tmp_path):
  """It is just being written, or was written by an older version."""
  _written(tmp_path)
  checksums.remove(tmp_path)
  (tmp_path / 'results.json').write_text('{"b": 2}')
  assert results_lib.read_json(tmp_path / 'results.json') == {'b': 2}


def test_the_usual_tool_checks_them(tmp_path):
  lines = _written(tmp_path).read_text().splitlines()
  assert [line.split('  ')[1] for line in lines] == [
    'results.csv',
    'results.json',
    'plots/a.png',
  ]
  assert [line.split('  ')[0] for line in lines] == [
    files.sha256(tmp_path / line.split('  ')[1]) for line in lines
  ]
