"""Folders that appear complete or not at all.

  <parent>/.draft-<random>/new      what is being written
                           old      what stood at the target, set aside
                           target   where that was, until it is replaced
                           lock     held while the writer lives

A draft is written next to its final place and renamed. Drafts without a living
writer are removed by the next one, which first puts back what a kill between
the two renames left aside.
"""

import contextlib
import fcntl
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator

from jaxmu.data import locks

_PREFIX = '.draft-'


@contextlib.contextmanager
def draft(parent: pathlib.Path) -> Iterator[pathlib.Path]:
  """Give a new folder below `parent`, and remove it at the end.

  Raises:
    OSError: `parent` cannot be written.
  """
  parent.mkdir(parents=True, exist_ok=True)
  with contextlib.ExitStack() as stack:
    with locks.hold(parent / '.drafts.lock'):
      _sweep(parent)
      home = pathlib.Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
      stack.callback(_remove, home)
      file = stack.enter_context((home / 'lock').open('w'))
      fcntl.flock(file, fcntl.LOCK_EX)
    (home / 'new').mkdir()
    yield home / 'new'


def publish(folder: pathlib.Path, target: pathlib.Path) -> None:
  """Move a draft, or a folder inside one, to its place below the parent.

  What is there is set aside first and put back if the move fails: a kill at
  any moment leaves the old folder or the new one.
  """
  home = next(p for p in folder.parents if p.name.startswith(_PREFIX))
  target.parent.mkdir(parents=True, exist_ok=True)
  (home / 'target').write_text(os.path.relpath(target, home.parent))
  if target.exists():
    target.rename(home / 'old')
  folder.rename(target)
  (home / 'target').unlink()


def _sweep(parent: pathlib.Path) -> None:
  """Remove drafts whose writer is gone."""
  for home in parent.glob(_PREFIX + '*'):
    try:
      with (home / 'lock').open('a') as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _remove(home)
    except OSError:  # being written, or not ours to remove
      continue


def _remove(home: pathlib.Path) -> None:
  """Put back what was set aside and not replaced; remove the rest."""
  note = home / 'target'
  if note.exists() and (home / 'old').exists():
    target = home.parent / note.read_text()
    if not target.exists():
      (home / 'old').rename(target)
  shutil.rmtree(home, ignore_errors=True)
