"""Folders appear complete or not at all, whatever happens to the writer."""

import os
import signal
import subprocess
import sys

import pytest

from jaxmu import files


def _run_until_killed(code):
  done = subprocess.run(
    [sys.executable, '-c', code],
    env={**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path)},
  )
  assert done.returncode == -signal.SIGKILL


def test_published_folder_replaces_the_old_one(tmp_path):
  target = tmp_path / 'set'
  target.mkdir()
  (target / 'old').write_text('')
  with files.atomic_folder(tmp_path) as draft:
    (draft / 'new').write_text('')
    assert (target / 'old').exists()
    files.publish_folder(draft, target)
  assert [path.name for path in target.iterdir()] == ['new']
  assert [path.name for path in tmp_path.iterdir()] == ['set']


@pytest.mark.parametrize('part', ['', 'set/1.0'])
def test_published_folder_may_lie_deeper(tmp_path, part):
  target = tmp_path / 'set' / '1.0'
  for content in ('first', 'second'):
    with files.atomic_folder(tmp_path) as draft:
      (draft / part).mkdir(parents=True, exist_ok=True)
      (draft / part / 'file').write_text(content)
      files.publish_folder(draft / part, target)
    assert (target / 'file').read_text() == content
  assert [path.name for path in tmp_path.iterdir()] == ['set']


def test_old_folder_is_put_back_if_the_new_one_cannot_take_its_place(tmp_path):
  target = tmp_path / 'a' / 'set'
  target.mkdir(parents=True)
  (target / 'old').write_text('')
  with pytest.raises(FileNotFoundError), files.atomic_folder(tmp_path) as draft:
    files.publish_folder(draft / 'absent', target)
  assert [path.name for path in target.iterdir()] == ['old']
  assert [path.name for path in tmp_path.iterdir()] == ['a']


@pytest.mark.parametrize('count, kept', [(0, 'old'), (1, 'old'), (2, 'new')])
def test_kill_while_publishing_loses_nothing(tmp_path, count, kept):
  target = tmp_path / 'set'
  target.mkdir()
  (target / 'old').write_text('')
  code = (
    'import os, pathlib, signal\n'
    'from jaxmu import files\n'
    f'folder = pathlib.Path({str(tmp_path)!r})\n'
    'done, rename = [], pathlib.Path.rename\n'
    'def killed(*args):\n'
    f'  if len(done) == {count}:\n'
    '    os.kill(os.getpid(), signal.SIGKILL)\n'
    '  done.append(rename(*args))\n'
    'pathlib.Path.rename = killed\n'
    'with files.atomic_folder(folder) as draft:\n'
    '  (draft / "new").write_text("")\n'
    '  files.publish_folder(draft, folder / "set")\n'
    '  os.kill(os.getpid(), signal.SIGKILL)\n'
  )
  _run_until_killed(code)
  with files.atomic_folder(tmp_path):
    pass
  assert [path.name for path in tmp_path.iterdir()] == ['set']
  assert [path.name for path in target.iterdir()] == [kept]


def test_failure_leaves_nothing(tmp_path):
  with pytest.raises(KeyError), files.atomic_folder(tmp_path / 'new') as draft:
    (draft / 'half').write_text('')
    raise KeyError
  assert not list((tmp_path / 'new').iterdir())


def test_drafts_of_others_stay_while_they_are_written(tmp_path):
  with (
    files.atomic_folder(tmp_path) as first,
    files.atomic_folder(tmp_path) as second,
  ):
    assert first.exists()
    assert second.exists()


def test_draft_of_a_killed_writer_is_removed_by_the_next(tmp_path):
  code = (
    'import os, pathlib, signal\n'
    'from jaxmu import files\n'
    f'with files.atomic_folder(pathlib.Path({str(tmp_path)!r})) as draft:\n'
    '  (draft / "half").write_text("")\n'
    '  os.kill(os.getpid(), signal.SIGKILL)\n'
  )
  _run_until_killed(code)
  [left] = tmp_path.iterdir()
  assert (left / 'new' / 'half').exists()
  with files.atomic_folder(tmp_path) as draft:
    assert [*tmp_path.iterdir()] == [draft.parent]
