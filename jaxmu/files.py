"""Files that are either complete or absent.

Folders that appear complete or not at all.

  <parent>/.draft-<random>/new      what is being written
                           old      what stood at the target, set aside
                           target   where that was, until it is replaced
                           lock     held while the writer lives

A draft is written next to its final place and renamed. Drafts without a living
writer are removed by the next one, which first puts back what a kill between
the two renames left aside.

Locks between processes that leave no file behind.

The work directory: can it be written, is it ours, is there room?

Addresses made of content: equal inputs, equal digest, equal folder.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator
from typing import Any

import numpy as np

from jaxmu import __version__

Path = str | os.PathLike[str]


def path(text: Path) -> pathlib.Path:
  """Return a path with `~` and `$NAME` expanded, as a shell would.

  Every path that a user gives passes through here: flags, configurations,
  environment variables and arguments of functions.

  Raises:
    ValueError: the home folder of `~name` is not known, or the text holds a
      null character.
  """
  expanded = os.path.expandvars(os.fspath(text))
  try:
    if '\0' in expanded:
      raise ValueError('null character')
    return pathlib.Path(expanded).expanduser()
  except (RuntimeError, ValueError) as error:
    raise ValueError(
      f'{os.fspath(text)!r} is no usable path ({error}): write it in full'
    ) from None


def write_bytes(path: Path, content: bytes) -> pathlib.Path:
  """Write a file atomically, creating its folder.

  Readers see the old file or the new one, never a part: the bytes go to a
  temporary file in the same folder, which then replaces the target.

  Args:
    path: the file to write.
    content: its bytes.

  Returns:
    The path written.

  Raises:
    OSError: the folder cannot be written or the disk is full; the target is
      then unchanged.
  """
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  handle, temporary = tempfile.mkstemp(
    dir=path.parent, prefix=f'.{path.name}.', suffix='.tmp'
  )
  try:
    with os.fdopen(handle, 'wb') as file:
      file.write(content)
      file.flush()
      os.fsync(file.fileno())
    os.chmod(temporary, 0o644)  # mkstemp makes files private to their owner
    os.replace(temporary, path)
  except BaseException:
    pathlib.Path(temporary).unlink(missing_ok=True)
    raise
  return path


def write_text(path: Path, content: str) -> pathlib.Path:
  """Write a UTF-8 text file atomically; see `write_bytes`."""
  return write_bytes(path, content.encode('utf-8'))


_PREFIX = '.draft-'


@contextlib.contextmanager
def atomic_folder(parent: pathlib.Path) -> Iterator[pathlib.Path]:
  """Give a new folder below `parent`, and remove it at the end.

  Raises:
    OSError: `parent` cannot be written.
  """
  parent.mkdir(parents=True, exist_ok=True)
  with contextlib.ExitStack() as stack:
    with lock(parent / '.drafts.lock'):
      _sweep(parent)
      home = pathlib.Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
      stack.callback(_remove, home)
      file = stack.enter_context((home / 'lock').open('w'))
      fcntl.flock(file, fcntl.LOCK_EX)
    (home / 'new').mkdir()
    yield home / 'new'


def publish_folder(folder: pathlib.Path, target: pathlib.Path) -> None:
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


@contextlib.contextmanager
def lock(path: pathlib.Path) -> Iterator[None]:
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


_ROOM = 1.1  # safety factor on the estimated need


@contextlib.contextmanager
def hold_workdir(folder: pathlib.Path) -> Iterator[None]:
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


def check_space(folder: pathlib.Path, needed: int) -> None:
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


def digest(stage: str, version: int, *inputs: Any) -> str:
  """Return the address of a stage's output, 12 hex digits.

  Args:
    stage: name of the stage.
    version: number raised by hand when the stage's results change meaning.
    *inputs: everything the output depends on: plain settings, fingerprints of
      data, digests of earlier stages.
  """
  text = json.dumps(
    [__version__, stage, version, *inputs],
    sort_keys=True,
    separators=(',', ':'),
    default=_plain,
  )
  return hashlib.sha256(text.encode()).hexdigest()[:12]


def _plain(value: Any) -> Any:
  if isinstance(value, np.generic):
    return value.item()
  if isinstance(value, np.ndarray):
    data = hashlib.sha256(np.ascontiguousarray(value).tobytes())
    return [str(value.dtype), list(value.shape), data.hexdigest()]
  raise TypeError(f'cannot address {type(value).__name__}: {value!r}')
