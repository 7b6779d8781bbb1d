"""Write files and folders atomically, lock them, hash them.

Other modules use these functions to replace files, to lock them between
processes and to compute digests of them.

  write_text, write_bytes, write_arrays, replacing    one file
  read_json                                           a JSON object
  read_npy_header                                     shape and dtype alone
  atomic_folder, publish_folder                       one folder
  remove_leftovers, leftovers                         temporaries
  lock, is_locked                                     between processes
  versions, versions_below                            to see replaced files
  workdir, shown, upload, refresh, remove   work directories in object stores
  sha256, md5, sha256_of, digest            of files, of bytes, of JSON values

A file or folder is always either the old one or the complete new one, even if
its writer is killed. It is written under a temporary name beside its place,

  .<name>.<random>.tmp             a file
  .draft-<random>/new              a folder
                  /old, target     the replaced folder, and its path
                  /lock

and then moved there. Temporaries are locked while their writer runs, so that
`remove_leftovers` removes only those of killed writers.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import pathlib
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import IO, Any, BinaryIO

import numpy as np

from jaxmu import remote

Path = str | os.PathLike[str]

_SUFFIX = '.tmp'
_DRAFT = '.draft-'
_DRAFTS_LOCK = '.drafts.lock'
_FULL = (errno.ENOSPC, errno.EDQUOT)
_BLOCK = 1 << 24  # bytes hashed at a time
_LONGEST_NAME = 255  # bytes, in every usual file system
_PROGRAMS_KEPT = 90 * 86400  # seconds


def path(text: Path) -> pathlib.Path:
  """Return a path with `~` and `$NAME` expanded, as a shell would.

  Every path that a user gives passes through here: flags, configurations,
  environment variables and arguments of functions.

  Raises:
    ValueError: the home folder of `~name` is not known, or the text holds a
      null character or a name that is too long, or is a URL.
  """
  expanded = os.path.expandvars(os.fspath(text))
  if remote.is_url(expanded):
    raise ValueError(
      f'{expanded!r} is a URL, and only work directories may be in an object '
      'store; copy it, and give the path of the copy'
    )
  try:
    if '\0' in expanded:
      raise ValueError('null character')
    found = pathlib.Path(expanded).expanduser()
    if any(len(os.fsencode(part)) > _LONGEST_NAME for part in found.parts):
      raise ValueError(f'a name longer than {_LONGEST_NAME} bytes')
    return found
  except (RuntimeError, ValueError) as error:
    raise ValueError(
      f'{_cut(os.fspath(text))!r} is not a usable path ({error}): write it in '
      'full'
    ) from None


def _cut(text: str) -> str:
  return text if len(text) <= _LONGEST_NAME else f'{text[:40]}...'


def cache_dir() -> pathlib.Path:
  """Return $JAXMU_CACHE_DIR, or `jaxmu` in the user's cache folder."""
  chosen = os.environ.get('JAXMU_CACHE_DIR')
  if chosen:
    return path(chosen)
  return path(os.environ.get('XDG_CACHE_HOME') or '~/.cache') / 'jaxmu'


def programs_dir() -> pathlib.Path:
  """Return the folder of compiled programs, shared by all work directories."""
  return cache_dir() / 'programs'


def remove_old_programs() -> None:
  """Delete programs of more than three months ago, and parts of programs."""
  _remove_temporaries(programs_dir().glob(f'.*{_SUFFIX}'))
  oldest = time.time() - _PROGRAMS_KEPT
  for file in programs_dir().glob('*'):
    with contextlib.suppress(OSError):  # another process may delete it
      if file.stat().st_mtime < oldest:
        file.unlink()


def workdir(text: Path) -> pathlib.Path:
  """Return the path of a work directory, or the mirror of one in a store.

  What `replacing` writes below a mirror is copied to the store; see `remote`.

  Args:
    text: a path as for `path`, or a URL as s3://bucket/path.

  Raises:
    ValueError: it is no usable path, or a URL of an unknown kind.
  """
  expanded = os.path.expandvars(os.fspath(text))
  if remote.is_url(expanded):
    return remote.mirror(expanded, cache_dir())
  return path(text)


def shown(path: pathlib.Path) -> str:
  """Return a path as the user gave it: its URL if it is in a mirror."""
  return remote.url(path) or str(path)


def writable_folder(text: Path, flag: str) -> pathlib.Path:
  """Make a folder, and check that it can be written; return its path.

  Temporaries of killed writers in it are removed.

  Args:
    text: the folder.
    flag: what an error calls it, such as '--out'.

  Raises:
    ValueError: it cannot be made or written.
  """
  if remote.is_url(os.fspath(text)):
    raise ValueError(f'{flag}={text} is a URL; choose a folder of this machine')
  folder = path(text)
  try:
    folder.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise ValueError(
      f'{flag}={text} cannot be made ({error.strerror}); choose another folder'
    ) from error
  if not os.access(folder, os.W_OK):
    raise ValueError(f'{flag}={text} cannot be written; choose another folder')
  # What lies deeper may be anything.
  for pattern in (f'.*{_SUFFIX}', f'*/.*{_SUFFIX}'):
    _remove_temporaries(folder.glob(pattern))
  return folder


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
  """Open a file whose content replaces `path` when the block succeeds.

  Readers see the old file or the complete new one. Missing folders are made. A
  file in the mirror of an object store is copied there.

  Args:
    path: the file to write.

  Yields:
    A binary file to write to.

  Raises:
    OSError: the folder cannot be written or the disk is full; `path` is then
      unchanged. Or the object store cannot be written.
  """
  path = pathlib.Path(path)
  with _replacing(path) as file:
    yield file
  upload(path)


@contextlib.contextmanager
def _replacing(path: pathlib.Path) -> Iterator[BinaryIO]:
  """Replace a file as `replacing` does, on this machine alone."""
  path.parent.mkdir(parents=True, exist_ok=True)
  handle, temporary = _temporary(path)
  try:
    with os.fdopen(handle, 'wb') as file:
      yield file
      file.flush()
      os.fsync(file.fileno())
      os.chmod(temporary, 0o644)  # mkstemp makes files private to their owner
      os.replace(temporary, path)
  except BaseException as error:
    pathlib.Path(temporary).unlink(missing_ok=True)
    if isinstance(error, OSError) and error.filename is None and error.errno:
      error.filename = str(path)  # a full disk does not say which file
    raise


def _temporary(path: pathlib.Path) -> tuple[int, str]:
  """Make and lock a temporary file; return its descriptor and its path."""
  while True:
    handle, temporary = tempfile.mkstemp(
      dir=path.parent, prefix=f'.{path.name[:60]}.', suffix=_SUFFIX
    )
    fcntl.flock(handle, fcntl.LOCK_EX)
    # Another process may have removed it before it was locked.
    if _is_at(handle, pathlib.Path(temporary)):
      return handle, temporary
    os.close(handle)


def write_bytes(path: Path, content: bytes) -> pathlib.Path:
  """Write a file atomically and return its path; see `replacing`.

  Example:
    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> write_bytes(f'{folder}/new/file', b'content').read_bytes()
    b'content'
  """
  with replacing(path) as file:
    file.write(content)
  return pathlib.Path(path)


def write_text(path: Path, content: str) -> pathlib.Path:
  """Write a UTF-8 text file atomically and return its path."""
  return write_bytes(path, content.encode('utf-8'))


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> pathlib.Path:
  """Write named arrays as one `.npz` file atomically and return its path."""
  with replacing(path) as file:
    np.savez(file, **arrays)  # type: ignore[arg-type]
  return pathlib.Path(path)


def read_json(path: Path) -> dict[str, Any]:
  """Read a JSON object.

  Raises:
    OSError: there is no such file, or it cannot be read.
    ValueError: it holds something else, or is damaged.
  """
  return parse_json(pathlib.Path(path).read_bytes())


def parse_json(content: bytes) -> dict[str, Any]:
  """Return a JSON object from its text.

  Raises:
    ValueError: it is something else, or damaged.
  """
  text = content.decode('utf-8-sig')
  try:
    found = json.loads(text)
  except RecursionError:
    raise ValueError('its entries are too deep') from None
  if not isinstance(found, dict):
    raise ValueError(f'it holds {str(found)[:60]!r}, expected an object')
  return found


def is_full(error: BaseException | None) -> bool:
  """Return whether a full disk, or a used-up quota, is the cause of an error.

  Example:
    >>> is_full(OSError(errno.ENOSPC, 'No space left on device'))
    True
  """
  while error is not None:
    # Orbax and TensorStore give the text alone.
    if getattr(error, 'errno', None) in _FULL or any(
      os.strerror(number) in str(error) for number in _FULL
    ):
      return True
    error = error.__cause__
  return False


KEPT = 'start the same command again: finished work is kept'
_REMEDIES = {
  **dict.fromkeys(_FULL, f'make room, and {KEPT}'),
  **dict.fromkeys(
    (errno.EACCES, errno.EPERM, errno.EROFS),
    'choose a folder that you may write to, or change its permissions',
  ),
  errno.ENOENT: f'if it was removed meanwhile, {KEPT}',
  errno.EISDIR: f'a folder is in the place of a file; remove it, and {KEPT}',
  errno.ENOTDIR: f'a file is in the place of a folder; remove it, and {KEPT}',
  errno.EEXIST: f'a file is in the place of a folder; remove it, and {KEPT}',
  errno.ELOOP: 'a link leads to itself; remove it',
}


def explain(error: OSError) -> str:
  """Return what could not be done, where, and the remedy.

  Example:
    >>> explain(OSError(errno.ENOSPC, 'No space left on device', 'a/b'))
    'a/b: No space left on device; make room, and start the same command \
again: finished work is kept'
  """
  if error.errno is None:
    return (
      f'{error}; {_REMEDIES[errno.ENOSPC]}' if is_full(error) else str(error)
    )
  place = error.filename2 or error.filename
  where = f'{place}: ' if place else ''
  remedy = _REMEDIES.get(error.errno)
  return f'{where}{error.strerror}' + (f'; {remedy}' if remedy else '')


def upload(path: pathlib.Path) -> None:
  """Copy a small file in the mirror of an object store to the store.

  Nothing is done for other files, nor for a draft or a lock.

  Raises:
    OSError: the store cannot be written.
  """
  url = remote.url(path)
  in_draft = any(part.startswith(_DRAFT) for part in path.parts)
  if url and not in_draft and _is_copied(path.name):
    remote.put({path: url})


def remove(path: pathlib.Path) -> None:
  """Remove a file if there is one, also from the object store of its mirror.

  Raises:
    OSError: it cannot be removed.
  """
  path.unlink(missing_ok=True)
  url = remote.url(path)
  if url:
    remote.remove(url)


def remove_empty(*folders: pathlib.Path) -> None:
  """Remove those of the folders that are empty."""
  for folder in folders:
    with contextlib.suppress(OSError):
      folder.rmdir()


def refresh(folder: pathlib.Path, *, send: bool = False) -> None:
  """Bring the small files in the mirror of an object store up to date.

  They are reports, tables, states and settings: all files of work directories
  but those of `store` and `cache`. Nothing is done for other folders.

  Args:
    folder: a work directory, or a folder that contains or is part of one.
    send: also copy files to the store that it lacks.

  Raises:
    OSError: the store cannot be read, or the mirror cannot be written.
  """
  url = remote.url(folder)
  if not url:
    return
  there = remote.entries(url)
  for name, entry in there.items():
    path, place = folder / name, f'{url}/{name}'
    if not _is_copied(name):
      continue
    if entry.folder:
      refresh(path, send=send)
    elif not path.is_file() or not entry.md5 or md5(path) != entry.md5:
      content = remote.read(place)
      if content is not None:  # None: removed since it was listed
        with _replacing(path) as file:
          file.write(content)
  for path in sorted(folder.iterdir()) if send and folder.is_dir() else ():
    if path.name in there or not _is_copied(path.name):
      continue
    if path.is_dir():
      refresh(path, send=True)
    else:
      upload(path)


def _is_copied(name: str) -> bool:
  """Return whether a child of a work directory is of use to other machines."""
  hidden = name.startswith('.') or name.endswith('.lock')
  return not hidden and name not in ('store', 'cache')


def read_npy_header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
  """Read the header of a `.npy` file, up to its first number.

  Returns:
    Shape and dtype of the array.

  Raises:
    ValueError: it is not a `.npy` file, or its version is unknown.
  """
  readers = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
  }
  version = np.lib.format.read_magic(file)
  if version not in readers:
    raise ValueError(f'its format version {version} is unknown')
  try:
    shape, _, dtype = readers[version](file)
  except Exception as error:  # NumPy parses it as Python
    first = str(error).partition('\n')[0] or type(error).__name__
    raise ValueError(f'its header is damaged ({first})') from error
  return shape, dtype


@contextlib.contextmanager
def atomic_folder(parent: pathlib.Path) -> Iterator[pathlib.Path]:
  """Give an empty folder to fill; `publish_folder` moves it to its place.

  An unpublished folder is removed at the end.

  Args:
    parent: where the draft is made: on the disk of its final place, which is
      `parent` or below. Made if missing.

  Yields:
    The folder.

  Raises:
    OSError: `parent` cannot be written.
  """
  parent.mkdir(parents=True, exist_ok=True)
  with contextlib.ExitStack() as stack:
    with lock(parent / _DRAFTS_LOCK):
      _remove_drafts(parent)
      home = pathlib.Path(tempfile.mkdtemp(prefix=_DRAFT, dir=parent))
      stack.callback(_remove_draft, home)
      file = stack.enter_context((home / 'lock').open('w'))
      fcntl.flock(file, fcntl.LOCK_EX)
    (home / 'new').mkdir()
    yield home / 'new'


def publish_folder(folder: pathlib.Path, target: pathlib.Path) -> None:
  """Move a draft, or a folder inside one, to its place below the parent.

  An existing folder is set aside first and restored if the move fails, so that
  a kill at any moment leaves the old folder or the new one.
  """
  home = next(p for p in folder.parents if p.name.startswith(_DRAFT))
  target.parent.mkdir(parents=True, exist_ok=True)
  (home / 'target').write_text(os.path.relpath(target, home.parent))
  if target.exists():
    target.rename(home / 'old')
  folder.rename(target)
  (home / 'target').unlink()


def remove_leftovers(folder: pathlib.Path) -> None:
  """Remove the temporaries of killed writers anywhere below a folder.

  Temporaries of running processes stay, and so do those that cannot be removed.
  """
  _remove_temporaries(folder.rglob(f'.*{_SUFFIX}'))
  left = [*folder.rglob(f'{_DRAFT}*'), *folder.rglob(_DRAFTS_LOCK)]
  for parent in {path.parent for path in left}:
    with contextlib.suppress(OSError), lock(parent / _DRAFTS_LOCK):
      _remove_drafts(parent)


def _remove_temporaries(paths: Iterable[pathlib.Path]) -> None:
  for path in list(paths):
    with contextlib.suppress(OSError), path.open('rb') as file:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
      path.unlink()


def leftovers(folder: pathlib.Path) -> list[pathlib.Path]:
  """Return the temporaries of killed writers anywhere below a folder.

  It changes nothing on the disk; `remove_leftovers` removes them.
  """
  found = []
  for where, folders, names in os.walk(folder):
    home = pathlib.Path(where)
    drafts = [name for name in folders if name.startswith(_DRAFT)]
    folders[:] = [name for name in folders if name not in drafts]
    single = [n for n in names if n.startswith('.') and n.endswith(_SUFFIX)]
    for path, held in (
      *((home / name, home / name) for name in single),
      *((home / name, home / name / 'lock') for name in drafts),
    ):
      with contextlib.suppress(OSError):
        if not is_locked(held) and path.exists():
          found.append(path)
  return sorted(found)


def _remove_drafts(parent: pathlib.Path) -> None:
  """Remove the drafts of killed writers in a folder."""
  for home in parent.glob(f'{_DRAFT}*'):
    with contextlib.suppress(OSError), (home / 'lock').open('a') as file:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
      _remove_draft(home)


def _remove_draft(home: pathlib.Path) -> None:
  """Restore a folder that was set aside and not replaced; remove the draft."""
  note = home / 'target'
  if note.exists() and (home / 'old').exists():
    target = home.parent / note.read_text()
    if not target.exists():
      (home / 'old').rename(target)
  shutil.rmtree(home, ignore_errors=True)


@contextlib.contextmanager
def lock(
  path: pathlib.Path, *, wait: bool = True, shared: bool = False
) -> Iterator[None]:
  """Keep other processes and threads out of a block.

  The system releases the lock when the process ends, in any way.

  Args:
    path: the lock's file, whose folder must exist; removed at the end, unless
      it is shared.
    wait: wait for another holder to end, instead of raising.
    shared: admit others that share the lock; only those that do not are kept
      out.

  Raises:
    BlockingIOError: another holds the lock, and `wait` is False.
    OSError: the folder cannot be written.
  """
  how = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
  while True:
    with path.open('w') as file:
      _flock(file, how, wait)
      # The previous holder may have removed the file; then lock the new one.
      if not _is_at(file.fileno(), path):
        continue
      try:
        yield
      finally:
        if not shared and _is_at(file.fileno(), path):
          path.unlink(missing_ok=True)
      return


def _flock(file: IO[str], how: int, wait: bool) -> None:
  """Lock an open file; without waiting, try for the time of `is_locked`."""
  if wait:
    fcntl.flock(file, how)
    return
  for _ in range(4):
    with contextlib.suppress(BlockingIOError):
      fcntl.flock(file, how | fcntl.LOCK_NB)
      return
    time.sleep(0.02)
  fcntl.flock(file, how | fcntl.LOCK_NB)


def is_locked(path: Path) -> bool:
  """Return whether a process holds a lock; changes nothing on the disk."""
  try:
    # Network file systems lock only files that are open for writing.
    with open(path, 'r+b' if os.access(path, os.W_OK) else 'rb') as file:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
      return False
  except BlockingIOError:
    return True
  except FileNotFoundError:
    return False


def _is_at(descriptor: int, path: pathlib.Path) -> bool:
  try:
    return os.path.samestat(os.fstat(descriptor), path.stat())
  except FileNotFoundError:
    return False


Version = tuple[str, int, int, int]  # of a file: path, bytes, time, inode


def versions(paths: Iterable[pathlib.Path]) -> tuple[Version, ...]:
  """Return the versions of those files that exist.

  A file that another process replaces has another version.
  """
  found = []
  for path in paths:
    with contextlib.suppress(OSError):  # there is none, or it was replaced
      s = path.stat()
      found.append((str(path), s.st_size, s.st_mtime_ns, s.st_ino))
  return tuple(found)


def versions_below(folder: pathlib.Path) -> tuple[Version, ...]:
  """Return the versions of all files in a folder and below, by path."""
  walk = os.walk(folder)
  paths = [pathlib.Path(where, n) for where, _, names in walk for n in names]
  return versions(sorted(paths))


def sha256(path: Path) -> str:
  """Return the SHA-256 of a file, or of a folder's files and their names.

  Raises:
    OSError: there is no such file, or it cannot be read.
  """
  path = pathlib.Path(path)
  if path.is_dir():
    paths = sorted(p for p in path.rglob('*') if p.is_file())
    names = [[p.relative_to(path).as_posix(), sha256(p)] for p in paths]
    return digest(names, digits=64)
  with open(path, 'rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()


def md5(path: Path) -> str:
  """Return the MD5 of a file, to compare with one that is published.

  Raises:
    OSError: there is no such file, or it cannot be read.
  """
  with open(path, 'rb') as file:
    return hashlib.file_digest(file, 'md5').hexdigest()


def sha256_of(*parts: bytes | np.ndarray) -> str:
  """Return the SHA-256 of the bytes of all parts, one after the other.

  Arrays may be memory-mapped; they are read block by block.

  Example:
    >>> sha256_of(b'ab', b'c') == sha256_of(np.frombuffer(b'abc', np.uint8))
    True
  """
  total = hashlib.sha256()
  for part in parts:
    if isinstance(part, bytes):
      total.update(part)
      continue
    flat = np.ascontiguousarray(part).reshape(-1).view(np.uint8)
    for start in range(0, flat.size, _BLOCK):
      total.update(flat[start : start + _BLOCK].data)
  return total.hexdigest()


def digest(*inputs: Any, digits: int = 12) -> str:
  """Return hex digits that change with any of the inputs.

  Args:
    *inputs: JSON values, NumPy arrays and NumPy scalars. The order of a dict's
      keys does not matter.
    digits: how many to return, at most 64.

  Raises:
    TypeError: an input is of another type.

  Example:
    >>> digest({'x': 1, 'y': 2}) == digest({'y': 2, 'x': 1})
    True
  """
  text = json.dumps(
    inputs, sort_keys=True, separators=(',', ':'), default=_plain
  )
  return sha256_of(text.encode())[:digits]


def _plain(value: Any) -> Any:
  if isinstance(value, np.generic):
    return value.item()
  if isinstance(value, np.ndarray):
    return [str(value.dtype), list(value.shape), sha256_of(value)]
  raise TypeError(f'cannot hash {type(value).__name__}: {value!r}')
