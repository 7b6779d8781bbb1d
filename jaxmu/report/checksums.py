"""SHA256SUMS in a work directory: which files make a report, and their content.

A reader refuses a file that was changed after the report was written. The
command `sha256sum -c SHA256SUMS` checks all of them. The file is absent while a
report is written.
"""

import pathlib
from collections.abc import Iterable

from jaxmu import files

FILE = 'SHA256SUMS'


def remove(folder: pathlib.Path) -> None:
  """Remove the checksums before the report is replaced."""
  files.remove(folder / FILE)


def write(folder: pathlib.Path, paths: Iterable[pathlib.Path]) -> pathlib.Path:
  """Write the checksums of the files of a report; return the path."""
  lines = [
    f'{files.sha256(path)}  {path.relative_to(folder).as_posix()}\n'
    for path in paths
  ]
  return files.write_text(folder / FILE, ''.join(lines))


def read(path: pathlib.Path) -> bytes:
  """Read a file of a report, and compare it with its checksum if it has one.

  Raises:
    OSError: it cannot be read.
    ValueError: it was changed after the report was written.
  """
  for _ in range(2):  # another process may replace the report meanwhile
    content = path.read_bytes()
    if expected(path) in (None, files.sha256_of(content)):
      return content
  raise ValueError(
    f'{path} is damaged: it has changed since the report was written; start '
    'the job again, which writes the report from stored results'
  )


def expected(path: pathlib.Path) -> str | None:
  """Return the checksum of a file of a report.

  Returns:
    '' if the report has no such file, None if it has no checksums.
  """
  try:
    text = (path.parent / FILE).read_text(errors='replace')
  except OSError:
    return None
  return _entries(text).get(path.name, '')


def _entries(text: str) -> dict[str, str]:
  """Return the checksums of a list by the paths of their files."""
  lines = [line.partition('  ') for line in text.splitlines()]
  return {name: checksum for checksum, _, name in lines}


def faults(folder: pathlib.Path) -> list[str]:
  """Compare all files of a folder, and below, with its checksums.

  Returns:
    What is wrong, a sentence per file: it is missing, was changed, or has no
    checksum. Hidden files are not looked at.
  """
  try:
    text = (folder / FILE).read_text(errors='replace')
  except OSError as error:
    return [f'{FILE} cannot be read ({error.strerror})']
  listed = _entries(text)
  there = {
    path.relative_to(folder).as_posix()
    for path in folder.rglob('*')
    if path.is_file() and not path.name.startswith('.') and path.name != FILE
  }
  found = [f'{name} is missing' for name in sorted({*listed} - there)]
  found += [f'{name} has no checksum' for name in sorted(there - {*listed})]
  return found + [f'{name} was changed' for name in changed(folder)]


def changed(folder: pathlib.Path) -> list[str]:
  """Return the paths of files that are not as their checksums say, ascending.

  Files without a checksum, and missing ones, do not count.
  """
  try:
    text = (folder / FILE).read_text(errors='replace')
  except OSError:
    return []
  return [
    name
    for name, checksum in sorted(_entries(text).items())
    if (folder / name).is_file() and files.sha256(folder / name) != checksum
  ]
