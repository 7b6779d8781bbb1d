"""Tables of benchmarks state their origin, and the list names every script."""

import csv
import importlib
import pathlib
import re

import pytest

FOLDER = pathlib.Path(__file__).parent.parent / 'benchmarks'
TABLES = sorted(FOLDER.glob('*.csv'))


@pytest.mark.parametrize('path', TABLES, ids=lambda path: path.stem)
def test_rows_say_what_made_them(path):
  with path.open(newline='') as file:
    rows = list(csv.DictReader(file))
  assert rows
  for row in rows:
    assert 'python 3.' in row['versions'] and 'jax ' in row['versions']
    assert ' x ' in row['hardware'] or 'GPU' in row['hardware']
    assert path.stem in row['command']
    assert not re.search(r'[ =]/', row['command']), 'a path of one machine'


def test_every_command_is_in_the_list():
  text = (FOLDER / 'README.md').read_text()
  for path in FOLDER.glob('*.py'):
    if 'argparse' in path.read_text():
      assert f'`{path.name}`' in text, path.name


def test_folders_of_a_machine_are_left_out_of_the_command(monkeypatch):
  monkeypatch.syspath_prepend(str(FOLDER))
  table = importlib.import_module('table')
  argv = [
    'speed.py',
    '--rounds=2',
    '--folder=/tmp/x',
    '--set={"a": 1}',
    '/data',
  ]
  monkeypatch.setattr('sys.argv', argv)
  made = table.made(FOLDER / 'speed.csv')
  assert made['command'] == (
    'python benchmarks/speed.py --rounds=2 \'--set={"a": 1}\''
  )
