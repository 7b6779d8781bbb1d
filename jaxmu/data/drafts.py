"""Folders that appear complete or not at all.

A draft is written next to its final place and renamed. While its writer lives,
it holds a lock on the draft; drafts without a holder were left by a killed
process and are removed by the next writer.
"""

import contextlib
import fcntl
import pathlib
import shutil
import tempfile
from collections.abc import Iterator

_PREFIX = '.draft-'
_LOCK = '.lock'


@contextlib.contextmanager
def draft(parent: pathlib.Path) -> Iterator[pathlib.Path]:
  """Give a new folder in `parent`, and remove it at the end unless published.

  Raises:
    OSError: `parent` cannot be written.
  """
  parent.mkdir(parents=True, exist_ok=True)
  _sweep(parent)
  folder = pathlib.Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
  try:
    with (folder / _LOCK).open('w') as file:
      fcntl.flock(file, fcntl.LOCK_EX)
      yield folder
  finally:
    shutil.rmtree(folder, ignore_errors=True)


def publish(folder: pathlib.Path, target: pathlib.Path) -> None:
  """Move a finished draft to its place, instead of what is there."""
  shutil.rmtree(target, ignore_errors=True)
  (folder / _LOCK).unlink()
  folder.chmod(0o755)
  folder.rename(target)


def _sweep(parent: pathlib.Path) -> None:
  """Remove drafts whose writer is gone."""
  for folder in parent.glob(_PREFIX + '*'):
    try:
      with (folder / _LOCK).open('r') as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
    except OSError:  # being written, or not yet locked
      continue
