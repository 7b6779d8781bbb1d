"""Folders appear complete or not at all, whatever happens to the writer."""

import os
import pathlib
import signal
import subprocess
import sys

import pytest

from jaxmu.data import drafts


def test_published_folder_replaces_the_old_one(tmp_path):
  target = tmp_path / 'set'
  target.mkdir()
  (target / 'old').write_text('')
  with drafts.draft(tmp_path) as draft:
    (draft / 'new').write_text('')
    assert (target / 'old').exists()
    drafts.publish(draft, target)
  assert [path.name for path in target.iterdir()] == ['new']
  assert [path.name for path in tmp_path.iterdir()] == ['set']


def test_failure_leaves_nothing(tmp_path):
  with pytest.raises(KeyError), drafts.draft(tmp_path / 'new') as draft:
    (draft / 'half').write_text('')
    raise KeyError
  assert not list((tmp_path / 'new').iterdir())


def test_drafts_of_others_stay_while_they_are_written(tmp_path):
  with drafts.draft(tmp_path) as first, drafts.draft(tmp_path) as second:
    assert first.exists()
    assert second.exists()


def test_draft_of_a_killed_writer_is_removed_by_the_next(tmp_path):
  code = (
    'import os, pathlib, signal\n'
    'from jaxmu.data import drafts\n'
    f'with drafts.draft(pathlib.Path({str(tmp_path)!r})) as draft:\n'
    '  (draft / "half").write_text("")\n'
    '  os.kill(os.getpid(), signal.SIGKILL)\n'
  )
  done = subprocess.run(
    [sys.executable, '-c', code],
    env={**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path)},
  )
  assert done.returncode == -signal.SIGKILL
  [left] = tmp_path.iterdir()
  assert (left / 'half').exists()
  with drafts.draft(tmp_path) as draft:
    assert [*tmp_path.iterdir()] == [pathlib.Path(draft)]
