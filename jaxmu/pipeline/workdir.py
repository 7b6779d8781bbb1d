"""The work directory: can it be written, is it ours, is there room?"""

import contextlib
import fcntl
import pathlib
import shutil
from collections.abc import Iterator

_ROOM = 1.1  # safety factor on the estimated need


@contextlib.contextmanager
def held(folder: pathlib.Path) -> Iterator[None]:
  """Create the work directory and keep other runs out of it meanwhile.

  The lock is the operating system's and goes with the process, however that
  ends.

  Raises:
    ValueError: it cannot be written, or another run holds it.
  """
  try:
    folder.mkdir(parents=True, exist_ok=True)
    lock = open(folder / '.lock', 'w')
  except OSError as error:
    raise ValueError(
      f'config.workdir = {str(folder)!r} cannot be written '
      f'({error.strerror}); choose a folder you may write to with '
      '--config.workdir=PATH'
    ) from None
  with lock:
    try:
      fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
      raise ValueError(
        f'config.workdir = {str(folder)!r} is in use by another run; wait for '
        'it to end, or choose another folder with --config.workdir=PATH'
      ) from None
    yield


def check_room(folder: pathlib.Path, needed: int) -> None:
  """Refuse to start what the disk cannot hold.

  Args:
    folder: where results go; the nearest existing parent is asked.
    needed: bytes that are still to be written.

  Raises:
    ValueError: the disk has less room.
  """
  free = free_bytes(folder)
  if needed * _ROOM > free:
    raise ValueError(
      f'config.workdir = {str(folder)!r} has {free / 1e9:.2f} GB free and the '
      f'job needs about {needed * _ROOM / 1e9:.2f} GB more; free some, choose '
      'another disk with --config.workdir=PATH, or train fewer models '
      '(config.splits)'
    )


def free_bytes(folder: pathlib.Path) -> int:
  """Return the free bytes of the disk that holds a folder."""
  while not folder.exists():
    folder = folder.parent
  return shutil.disk_usage(folder).free
