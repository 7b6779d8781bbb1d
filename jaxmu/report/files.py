"""Files that are either complete or absent."""

import os
import pathlib
import tempfile

Path = str | os.PathLike[str]


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
