"""Locks between processes that leave no file behind."""

import contextlib
import fcntl
import os
import pathlib
from collections.abc import Iterator


@contextlib.contextmanager
def hold(path: pathlib.Path) -> Iterator[None]:
  """Hold the lock `path` alone; others wait until it is given back or dropped.

  The system drops the lock of a process that ends in any way. The file, whose
  folder must exist, is removed at the end.
  """
  while True:
    with path.open('w') as file:
      fcntl.flock(file, fcntl.LOCK_EX)
      # Who held it before may have removed the file that we were waiting for.
      if not _is_at(file.fileno(), path):
        continue
      try:
        yield
      finally:
        path.unlink(missing_ok=True)
      return


def _is_at(descriptor: int, path: pathlib.Path) -> bool:
  try:
    return os.path.samestat(os.fstat(descriptor), path.stat())
  except FileNotFoundError:
    return False
