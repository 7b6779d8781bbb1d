"""The cache of compiled programs: checks what it reads, writes atomically.

Unlike the cache of JAX, which has no checksum of its own, reads a program that
took the place of another one, and keeps a damaged one for ever.

  programs/<key of JAX>-cache      mark, SHA-256 of key and program, program
"""

import pathlib
import warnings
from typing import Any

from jaxmu import files

_MARK = b'jaxmu program 1\n'
_START = len(_MARK) + 64


class CheckedCache:
  """Compiled programs in a folder; JAX calls `get` and `put`."""

  def __init__(self, folder: pathlib.Path):
    folder.mkdir(parents=True, exist_ok=True)
    self._path = folder

  def _file(self, key: str) -> pathlib.Path:
    return self._path / f'{key}-cache'

  def get(self, key: str) -> bytes | None:
    """Return a program; None if there is none, or a damaged one.

    A damaged program is named in a warning and deleted.

    Raises:
      OSError: it cannot be read. JAX warns and compiles it.
    """
    path = self._file(key)
    try:
      content = path.read_bytes()
    except FileNotFoundError:
      return None
    program = content[_START:]
    if content[:_START] == _MARK + _digest(key, program):
      return program
    warnings.warn(
      f'{path} is damaged, or of another version; it is compiled again',
      stacklevel=2,
    )
    path.unlink(missing_ok=True)
    return None

  def put(self, key: str, value: bytes) -> None:
    """Write a program.

    Raises:
      OSError: it cannot be written. JAX warns and goes on.
    """
    content = _MARK + _digest(key, value) + value
    files.write_bytes(self._file(key), content)


def _digest(key: str, program: bytes) -> bytes:
  return files.sha256_of(key.encode(), b'\n', program).encode()


def check(folder: pathlib.Path) -> None:
  """Make JAX use a `CheckedCache` where it opens a folder of programs.

  JAX has no public interface for this; a version without the function keeps its
  own cache.

  Args:
    folder: the folder of jaxmu. Others may hold programs of JAX alone.
  """
  try:
    from jax._src import compilation_cache
  except ImportError:
    return
  open_any: Any = getattr(compilation_cache, 'get_file_cache', None)
  if open_any is None or getattr(open_any, 'checks', None) == folder:
    return

  def open_checked(path: str) -> Any:
    if pathlib.Path(path) == folder:
      return CheckedCache(folder), path
    return open_any(path)

  open_checked.checks = folder  # type: ignore[attr-defined]
  compilation_cache.get_file_cache = open_checked
