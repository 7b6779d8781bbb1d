"""The command: what it prints, exit codes, and one line for a mistake."""

import json
import shutil
import subprocess
import sys

import pytest

from jaxmu import main as job_command
from jaxmu import reproduce
from jaxmu.published import record
from jaxmu.report import checksums

pytestmark = pytest.mark.xdist_group('published')


@pytest.fixture(autouse=True)
def _started(monkeypatch):
  """JAX has started in this process."""
  monkeypatch.setattr(job_command, 'set_up_jax', lambda config: None)


def _fails(argv, capsys):
  with pytest.raises(SystemExit) as end:
    reproduce.main(argv)
  capsys.readouterr()
  return end.value.code


def test_numbers_of_a_work_directory_pass(table, capsys):
  reproduce.main(
    [
      *('tables/small/msg/ulira_auc', 'tables/small/msg/rte'),
      *(f'--published={table.root}', f'--read={table.work}'),
    ]
  )
  lines = capsys.readouterr().out.splitlines()
  assert 'tables/small: python -m jaxmu.main --config=small' in lines
  text = '\n'.join(lines)
  assert 'the published versions and kind of hardware' in text
  assert f'SHA-256 {table.one.record["data"]["fingerprint"][:16]}' in text
  assert f' seed {table.settings.seed},' in text and 'commit abc' in text
  assert 'took 20 s' in text
  number, clock = (line for line in lines if line.startswith('tables/small/'))
  assert 'pass (rounding)' in number and '1.0e-06' in number
  assert 'not judged (a run time, x1.00)' in clock
  assert lines[-1] == '1 pass, 1 not judged'


def test_a_wrong_number_gives_exit_code_1(table, tmp_path, capsys):
  shutil.copytree(table.root, tmp_path / 'root')
  folder = tmp_path / 'root' / table.one.name
  path = folder / 'results.csv'
  rows = path.read_text().splitlines()
  (k,) = (k for k, r in enumerate(rows) if r.startswith('msg,fa,'))
  cells = rows[k].split(',')
  cells[2] = repr(float(cells[2]) + 0.001)
  path.write_text('\n'.join([*rows[:k], ','.join(cells), *rows[k + 1 :], '']))
  argv = ['tables/small/msg/fa', f'--published={tmp_path / "root"}']
  argv.append(f'--read={table.work}')
  # A file that is not the published one is refused.
  assert 'results.csv' in str(_fails(argv, capsys))
  files = [p for p in folder.rglob('*') if p.is_file() and p.suffix]
  checksums.write(folder, files)
  with pytest.raises(SystemExit) as end:
    reproduce.main(argv)
  assert end.value.code == 1
  lines = capsys.readouterr().out.splitlines()
  assert 'FAIL (rounding)' in lines[-2]
  assert lines[-1] == '1 FAIL'


def test_numbers_from_scores(table, capsys):
  reproduce.main(
    [
      *('tables/small/*/ulira_auc', '--from=scores'),
      f'--published={table.root}',
    ]
  )
  lines = capsys.readouterr().out.splitlines()
  assert lines[-1] == '4 pass'
  assert 'from the published scores, which are rounded' in lines


def test_lists(table, capsys):
  reproduce.main(['--list', f'--published={table.root}'])
  lines = capsys.readouterr().out.splitlines()
  assert lines[1].split()[:2] == ['tables/small', 'table']
  reproduce.main(['--list', '*/msg/fa', f'--published={table.root}'])
  lines = capsys.readouterr().out.splitlines()
  assert lines[-1].startswith('tables/small/msg/fa  ')
  assert not any('/ft/' in line for line in lines)


def test_mistakes_are_one_line(table, tmp_path, capsys):
  root = f'--published={table.root}'
  for argv, expected in (
    ([], 'no number; give python -m jaxmu.reproduce ROW'),
    (['x', '--form=scores'], "unknown option '--form=scores'"),
    (['x', '--from=nothing'], 'give --from=scores'),
    (['x', '--from=scores', '--read=.'], 'give one of them'),
    (['tables/smal', root], "did you mean 'tables/small'"),
    (['x', f'--published={tmp_path}'], 'has no published results'),
    (['tables', root, f'--read={tmp_path}'], 'has no results.json'),
    (['tables/small/msg/fa', root, '--from=scores'], 'is no number of'),
  ):
    with pytest.raises(SystemExit) as end:
      reproduce.main(argv)
    text = str(end.value.code)
    assert text.startswith('error: ') and len(text.splitlines()) == 1, argv
    assert expected in text, (argv, text)
    assert capsys.readouterr().err == ''


def test_help_and_list_import_no_jax(table):
  code = f"""
import sys
from jaxmu import reproduce
reproduce.main(['--list', '--published={table.root}'])
reproduce.main(['--list', 'tables', '--published={table.root}'])
assert not {{'jax', 'matplotlib.pyplot', 'sklearn'}} & set(sys.modules)
"""
  subprocess.run(
    [sys.executable, '-c', code], check=True, stdout=subprocess.DEVNULL
  )


def test_a_killed_draft_is_no_result(table, tmp_path):
  shutil.copytree(table.root, tmp_path / 'root')
  draft = tmp_path / 'root' / '.draft-1' / 'new'
  draft.mkdir(parents=True)
  (draft / record.FILE).write_text(json.dumps({'kind': 'half'}))
  assert [*record.find(tmp_path / 'root')] == [table.one.name]
