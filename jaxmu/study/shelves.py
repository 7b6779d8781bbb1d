"""What work directories hold: shelves, their sizes, and damaged shards.

A folder may be the work directory of a job, of a search or of a sweep, or hold
several of them. Nothing here changes anything on the disk, and everything works
while jobs run there: what disappears meanwhile is left out.
"""

import collections
import os
import pathlib
import re
import time
from collections.abc import Sequence
from typing import NamedTuple

from jaxmu import files, terms
from jaxmu.report import progress, results
from jaxmu.study import execution, store, tuned

STORE = 'store'
_REPORT = 'report.html'
# Folders of a work directory in which there is no other work directory.
_INSIDE = (STORE, 'cache', 'plots', 'scores', 'state')
_NAME = re.compile(r'(?P<label>.+)-(?P<address>[0-9a-f]{12})')
_DAY = 86400


class Stored(NamedTuple):
  """A shelf on the disk, of any configuration.

  Attributes:
    job: the work directory of its job or search.
    stage: e.g. 'models'.
    label: e.g. the name of a population.
    address: digest of what the content depends on.
    shards: the folders of its shards, in order.
  """

  job: pathlib.Path
  stage: str
  label: str
  address: str
  shards: tuple[pathlib.Path, ...]

  @property
  def folder(self) -> pathlib.Path:
    """The folder of the shards."""
    return self.job / STORE / self.stage / f'{self.label}-{self.address}'


class _Contents(NamedTuple):
  """What the records of a shelf say.

  Attributes:
    total: number of shards of the complete shelf; 0 if no record is readable.
    models: number of models in its shards, or that they are about.
    damaged: how many records are not readable.
    written: when the last shard was written, in seconds since the epoch.
  """

  total: int
  models: int
  damaged: int
  written: float


def job_folders(workdir: pathlib.Path) -> list[pathlib.Path]:
  """Return the work directories of jobs and searches at or below a folder.

  Raises:
    ValueError: the folder is none, or there are none.
  """
  if not workdir.is_dir():
    raise ValueError(
      f'{str(workdir)!r} is not a folder; give the work directory of a job, a '
      'search or a sweep'
    )
  found = []
  for folder, names, _ in os.walk(workdir):
    path = pathlib.Path(folder)
    if STORE in names and shelves(path):
      found.append(path)
    names[:] = sorted(n for n in names if n not in _INSIDE and n[0] != '.')
  if not found:
    raise ValueError(
      f'{str(workdir)!r} holds no stored work; give the work directory of a '
      'job, a search or a sweep'
    )
  return found


def shelves(job: pathlib.Path) -> list[Stored]:
  """Return the shelves in a work directory, by stage, label and address."""
  found = []
  for folder in sorted((job / STORE).glob('*/*-*')):
    name = _NAME.fullmatch(folder.name)
    if name and not folder.is_symlink() and folder.is_dir():
      numbered = {store.shard_number(p): p for p in _entries(folder)}
      shards = tuple(
        numbered[n] for n in sorted(n for n in numbered if n is not None)
      )
      found.append(
        Stored(job, folder.parent.name, name['label'], name['address'], shards)
      )
  return found


def _entries(folder: pathlib.Path) -> list[pathlib.Path]:
  try:
    return sorted(folder.iterdir())
  except OSError:  # removed meanwhile
    return []


def sizes(folder: pathlib.Path) -> list[int]:
  """Return the bytes of each file in a folder and below, or of one file."""
  found = []
  paths = [folder]
  if folder.is_dir():
    walk = os.walk(folder)
    paths = [pathlib.Path(where, n) for where, _, names in walk for n in names]
  for path in paths:
    try:
      found.append(path.lstat().st_size)
    except OSError:  # removed meanwhile
      continue
  return found


def listing(workdir: pathlib.Path) -> str:
  """Describe what a folder holds.

  Args:
    workdir: the work directory of a job, of a search or of a sweep.

  Raises:
    ValueError: it is none of these.
  """
  lines = []
  for job in job_folders(workdir):
    runs = files.is_locked(job / store.LOCK)
    lines += [f'{job}{", in use by a running job" if runs else ""}']
    rows = [['stage', 'label', 'address', 'shards', 'models', 'size', 'age']]
    rows += [_row(shelf) for shelf in shelves(job)]
    lines += [f'  {line}' for line in columns(rows)]
    lines += [f'  {line}' for line in _results(job)]
    lines.append('')
  left = files.leftovers(workdir)
  lost = [size for path in left for size in sizes(path)]
  lines += columns(
    [
      ['temporaries of killed writers', str(len(left)), _bytes(lost)],
      ['total', *_total(sizes(workdir))],
    ]
  )
  return '\n'.join(lines)


def _total(every: Sequence[int]) -> tuple[str, str]:
  return terms.count(len(every), 'file'), _bytes(every)


def _row(shelf: Stored) -> list[str]:
  contents = _contents(shelf)
  shards = f'{len(shelf.shards)} of {contents.total or "?"}'
  if contents.damaged:
    shards += f', {contents.damaged} damaged'
  return [
    *(shelf.stage, shelf.label, shelf.address, shards),
    f'{contents.models:,}' if contents.models else '-',
    _bytes(sizes(shelf.folder)),
    _age(contents.written),
  ]


def _contents(shelf: Stored) -> _Contents:
  counts: collections.Counter[str] = collections.Counter()
  total, written = 0, 0.0
  for shard in shelf.shards:
    try:
      record = store.read_record(shard)
      written = max(written, (shard / store.RECORD).stat().st_mtime)
    except (store.DamagedShard, OSError):
      counts['damaged'] += shard.exists()
      continue
    total = record['place']['shards']
    counts['models'] += len(record['members'])
  return _Contents(total, counts['models'], counts['damaged'], written)


def _results(job: pathlib.Path) -> list[str]:
  """Return lines on the report and the searched settings of a job."""
  lines = []
  try:
    status = (job / _REPORT).stat()
    lines.append(
      f'{_REPORT}: {_bytes([status.st_size])}, {_age(status.st_mtime)} old'
    )
  except OSError:  # no report yet
    pass
  searched = sorted((job / 'search').glob(f'*/{tuned.NAME}'))
  if searched:
    names = ', '.join(path.parent.name for path in searched)
    lines.append(f'searched settings: {names}')
  return lines


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
  """Return rows as lines with aligned columns.

  Example:
    >>> columns([['stage', 'size'], ['models', '1.5 MB']])
    ['stage   size', 'models  1.5 MB']
  """
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  return [
    '  '.join(
      cell.ljust(width) for cell, width in zip(row, widths, strict=True)
    ).rstrip()
    for row in rows
  ]


def _bytes(every: Sequence[int]) -> str:
  return execution.readable_bytes(sum(every))


def _age(written: float) -> str:
  """Return the time since a moment; '-' if it is not known."""
  if not written:
    return '-'
  seconds = max(time.time() - written, 0.0)
  if seconds < 2 * _DAY:
    return results.format_duration(seconds)
  return f'{seconds // _DAY:.0f} days'


def check(
  workdir: pathlib.Path, bars: progress.Progress, *, verify: bool = True
) -> tuple[int, dict[pathlib.Path, str]]:
  """Compare all shards with their records, and print the damaged ones.

  Args:
    workdir: the work directory of a job, of a search or of a sweep.
    bars: where to show progress and damaged shards.
    verify: compare checksums, not only sizes.

  Returns:
    The number of shards, and what is wrong with each damaged one.

  Raises:
    ValueError: it is no such folder.
  """
  found = [
    shard
    for job in job_folders(workdir)
    for shelf in shelves(job)
    for shard in shelf.shards
  ]
  damaged = {}
  with bars.stage('check', len(found), unit='shards') as stage:
    for shard in found:
      # Again where a running job may have replaced it meanwhile.
      fault = _fault(shard, verify) and _fault(shard, verify)
      if fault and shard.exists():
        damaged[shard] = fault
        bars.line(f'{shard}: {fault}')
      stage.advance()
  return len(found), damaged


def _fault(shard: pathlib.Path, verify: bool) -> str:
  try:
    return store.fault_in(shard, verify=verify)
  except OSError as error:
    return f'it cannot be read: {error}'
