"""What work directories hold: shelves, their sizes, and damaged shards.

A folder may be the work directory of a job, of a search or of a sweep, or hold
several of them. It is on a disk, `Disk`, or in an object store, `Objects`,
whose paths are those of its mirror on this machine. Only `remove` and
`remove_leftovers` change anything. All functions work while jobs run there, and
leave out files that disappear meanwhile.
"""

import collections
import functools
import os
import pathlib
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from jaxmu import files, remote, terms
from jaxmu.report import progress, results
from jaxmu.study import store, tuned

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
    models: number of models that its shards hold or describe.
    damaged: how many records are not readable.
    written: when the last shard was written, in seconds since the epoch.
  """

  total: int
  models: int
  damaged: int
  written: float


def on_disk(job: pathlib.Path) -> list[Stored]:
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


class Disk:
  """What a folder on a disk holds.

  Args:
    workdir: the work directory of a job, of a search or of a sweep.
  """

  LEFT = 'temporaries of killed writers'

  def __init__(self, workdir: pathlib.Path):
    self.workdir = workdir
    if not workdir.is_dir():
      raise ValueError(
        f'{str(workdir)!r} is not a folder; give the work directory of a job, '
        'a search or a sweep'
      )

  def folders(self) -> Iterator[tuple[pathlib.Path, list[str]]]:
    """Yield each folder with the names of those in it, to be reduced."""
    for folder, names, _ in os.walk(self.workdir):
      yield pathlib.Path(folder), names

  def shelves(self, job: pathlib.Path) -> list[Stored]:
    """Return the shelves in a work directory, by stage, label and address."""
    return on_disk(job)

  def sizes(self, path: pathlib.Path) -> list[int]:
    """Return the bytes of each file in a folder and below, or of one file."""
    return sizes(path)

  def written(self, path: pathlib.Path) -> float:
    """Return when a file was written, in seconds since the epoch.

    Raises:
      OSError: there is no such file.
    """
    return path.stat().st_mtime

  def record(self, shard: pathlib.Path) -> dict[str, Any]:
    """Read the record of a shard.

    Raises:
      store.DamagedShard: it cannot be read.
    """
    return store.read_record(shard)

  def exists(self, shard: pathlib.Path) -> bool:
    """Return whether there is a shard, damaged or not."""
    return shard.exists()

  def fault(self, shard: pathlib.Path, verify: bool) -> str:
    """Say what is wrong with a shard; '' if nothing is."""
    return store.fault_in(shard, verify=verify)

  def searched(self, job: pathlib.Path) -> list[str]:
    """Return the methods with searched settings."""
    return sorted(p.parent.name for p in job.glob(f'search/*/{tuned.NAME}'))

  def leftovers(self, folder: pathlib.Path) -> list[pathlib.Path]:
    """Return what killed writers have left at or below a folder."""
    return files.leftovers(folder)

  def remove(self, shelf: Stored) -> None:
    """Remove the shards of a shelf, and its folder if nothing else is there.

    Raises:
      OSError: they cannot be removed.
    """
    for shard in shelf.shards:
      if shard.is_symlink():
        shard.unlink()
      else:
        shutil.rmtree(shard)
    files.remove_empty(shelf.folder, shelf.folder.parent)

  def remove_leftovers(self, folder: pathlib.Path) -> None:
    """Remove what killed writers have left at or below a folder."""
    files.remove_leftovers(folder)


class Objects(Disk):
  """What a folder in an object store holds, as it was when this was made.

  Objects of a shard that its record does not name are left over: they are those
  of a second writer of the shard, or of one that was killed.

  Args:
    workdir: its mirror.

  Raises:
    OSError: the store cannot be read.
  """

  LEFT = 'files that no record names'

  def __init__(self, workdir: pathlib.Path):
    self.workdir = workdir
    found = remote.objects(remote.url(workdir))
    self._found = {workdir / name: entry for name, entry in found.items()}
    self._children = collections.defaultdict[
      pathlib.Path, dict[pathlib.Path, None]
    ](dict)
    for path in self._found:
      while path != workdir and path not in self._children[path.parent]:
        self._children[path.parent][path] = None
        path = path.parent

  def folders(self) -> Iterator[tuple[pathlib.Path, list[str]]]:
    """Yield each folder with the names of those in it, to be reduced."""
    left = [self.workdir]
    while left:
      folder = left.pop(0)
      names = [p.name for p in self._inside(folder) if p in self._children]
      yield folder, names
      left = [*(folder / name for name in names), *left]

  def shelves(self, job: pathlib.Path) -> list[Stored]:
    """Return the shelves whose shards have records."""
    found = []
    for folder, shards in self._shards(job).items():
      name = _NAME.fullmatch(folder.name)
      whole = tuple(p for p in shards if p / store.RECORD in self._found)
      if name and whole:
        stage = folder.parent.name
        found.append(Stored(job, stage, name['label'], name['address'], whole))
    return found

  def _shards(
    self, job: pathlib.Path
  ) -> dict[pathlib.Path, list[pathlib.Path]]:
    """Return the folders of shards, in order, by that of their shelf."""
    found = {}
    for stage in self._inside(job / STORE):
      for folder in self._inside(stage):
        shards = [
          path
          for path in self._inside(folder)
          if store.shard_number(path) is not None and self._inside(path)
        ]
        if _NAME.fullmatch(folder.name) and shards:
          found[folder] = sorted(
            shards, key=lambda p: store.shard_number(p) or 0
          )
    return found

  def _inside(self, folder: pathlib.Path) -> list[pathlib.Path]:
    return sorted(self._children.get(folder, ()))

  def _below(self, path: pathlib.Path) -> list[pathlib.Path]:
    """Return the objects at or below a path."""
    inner = [one for child in self._inside(path) for one in self._below(child)]
    return [path, *inner] if path in self._found else inner

  def sizes(self, path: pathlib.Path) -> list[int]:
    """Return the bytes of each object at or below a path."""
    return [self._found[one].size for one in self._below(path)]

  def written(self, path: pathlib.Path) -> float:
    """Return when an object was written, by the clock of the store."""
    if path not in self._found:
      raise FileNotFoundError(path)
    return self._found[path].written

  @functools.cached_property
  def _jobs(self) -> list[pathlib.Path]:
    return job_folders(self)

  @functools.cached_property
  def _records(self) -> dict[pathlib.Path, bytes]:
    """All records of shards, by their path."""
    paths = [path for path in self._found if path.name == store.RECORD]
    with tempfile.TemporaryDirectory() as folder:
      copies = {p: pathlib.Path(folder, str(i)) for i, p in enumerate(paths)}
      try:
        remote.get({remote.url(p): copy for p, copy in copies.items()})
      except FileNotFoundError:  # one was removed meanwhile
        pass
      return {
        p: copy.read_bytes() for p, copy in copies.items() if copy.exists()
      }

  def record(self, shard: pathlib.Path) -> dict[str, Any]:
    """Read the record of a shard."""
    text = self._records.get(shard / store.RECORD, b'')
    return store.parse_record(text, shard)

  def exists(self, shard: pathlib.Path) -> bool:
    """Return whether there is a shard, damaged or not."""
    return remote.read(f'{remote.url(shard)}/{store.RECORD}') is not None

  def fault(self, shard: pathlib.Path, verify: bool) -> str:
    """Say what is wrong with the objects of a shard; '' if nothing is."""
    return store.fault_in_store(shard, verify=verify)

  def searched(self, job: pathlib.Path) -> list[str]:
    """Return the methods with searched settings."""
    places = self._inside(job / 'search')
    return [p.name for p in places if p / tuned.NAME in self._found]

  def leftovers(self, folder: pathlib.Path) -> list[pathlib.Path]:
    """Return what no record names at or below a folder."""
    found = []
    for job in self._jobs:
      if not job.is_relative_to(folder):
        continue
      for shard in (p for own in self._shards(job).values() for p in own):
        if shard / store.RECORD not in self._found:
          found.append(shard)
          continue
        try:
          self.record(shard)
        except store.DamagedShard:  # it may name any of them
          continue
        text = self._records[shard / store.RECORD]
        named = {store.RECORD, store.prefix(text)}
        found += [p for p in self._inside(shard) if p.name not in named]
    return found

  def remove(self, shelf: Stored) -> None:
    """Remove the shards of a shelf from the store, and from the mirror.

    Records go first, so that no reader sees a part of a shard.

    Raises:
      OSError: they cannot be removed.
    """
    records = [shard / store.RECORD for shard in shelf.shards]
    every = [p for s in shelf.shards for p in self._below(s)]
    self._remove(records)
    self._remove(every)
    for copy in on_disk(shelf.job):
      if copy.folder == shelf.folder:
        Disk.remove(self, copy)

  def remove_leftovers(self, folder: pathlib.Path) -> None:
    """Remove what no record names, and what is left over in the mirror."""
    for path in self.leftovers(folder):
      self._remove(self._below(path))
    files.remove_leftovers(folder)

  def _remove(self, paths: Sequence[pathlib.Path]) -> None:
    there = [path for path in paths if self._found.pop(path, None)]
    remote.remove_all([remote.url(path) for path in there])


def look(workdir: pathlib.Path) -> Disk:
  """Return what a folder holds, or the folder in a store that it mirrors.

  Raises:
    ValueError: there is no such folder.
    OSError: the store cannot be read.
  """
  return Objects(workdir) if remote.url(workdir) else Disk(workdir)


def job_folders(view: Disk) -> list[pathlib.Path]:
  """Return the work directories of jobs and searches at or below a folder.

  Raises:
    ValueError: there are none.
  """
  found = []
  for path, names in view.folders():
    if STORE in names and view.shelves(path):
      found.append(path)
    names[:] = sorted(n for n in names if n not in _INSIDE and n[0] != '.')
  if not found:
    raise ValueError(
      f'{files.shown(view.workdir)!r} holds no stored work; give the work '
      'directory of a job, a search or a sweep'
    )
  return found


def listing(view: Disk) -> str:
  """Describe what a folder holds.

  Args:
    view: of the work directory of a job, of a search or of a sweep.

  Raises:
    ValueError: the folder holds no stored work.
  """
  lines = []
  for job in job_folders(view):
    runs = files.is_locked(job / store.LOCK)
    in_use = ', in use by a running job' if runs else ''
    lines += [f'{files.shown(job)}{in_use}']
    rows = [['stage', 'label', 'address', 'shards', 'models', 'size', 'age']]
    rows += [_row(view, shelf) for shelf in view.shelves(job)]
    lines += [f'  {line}' for line in terms.columns(rows)]
    lines += [f'  {line}' for line in _results(view, job)]
    lines.append('')
  left = view.leftovers(view.workdir)
  lost = [size for path in left for size in view.sizes(path)]
  lines += terms.columns(
    [
      [view.LEFT, str(len(left)), _bytes(lost)],
      ['total', *_total(view.sizes(view.workdir))],
    ]
  )
  return '\n'.join(lines)


def _total(every: Sequence[int]) -> tuple[str, str]:
  return terms.count(len(every), 'file'), _bytes(every)


def _row(view: Disk, shelf: Stored) -> list[str]:
  contents = _contents(view, shelf)
  shards = f'{len(shelf.shards)} of {contents.total or "?"}'
  if contents.damaged:
    shards += f', {contents.damaged} damaged'
  return [
    *(shelf.stage, shelf.label, shelf.address, shards),
    f'{contents.models:,}' if contents.models else '-',
    _bytes(view.sizes(shelf.folder)),
    _age(contents.written),
  ]


def _contents(view: Disk, shelf: Stored) -> _Contents:
  counts: collections.Counter[str] = collections.Counter()
  total, written = 0, 0.0
  for shard in shelf.shards:
    try:
      record = view.record(shard)
      written = max(written, view.written(shard / store.RECORD))
    except (store.DamagedShard, OSError):
      counts['damaged'] += view.exists(shard)
      continue
    total = record['place']['shards']
    counts['models'] += len(record['members'])
  return _Contents(total, counts['models'], counts['damaged'], written)


def _results(view: Disk, job: pathlib.Path) -> list[str]:
  """Return lines on the report and the searched settings of a job."""
  lines = []
  try:
    written = view.written(job / _REPORT)
    size = _bytes(view.sizes(job / _REPORT))
    lines.append(f'{_REPORT}: {size}, {_age(written)} old')
  except OSError:  # no report yet
    pass
  searched = view.searched(job)
  if searched:
    lines.append(f'searched settings: {", ".join(searched)}')
  return lines


def _bytes(every: Sequence[int]) -> str:
  return terms.readable_bytes(sum(every))


def _age(written: float) -> str:
  """Return the time since a moment; '-' if it is not known."""
  if not written:
    return '-'
  seconds = max(time.time() - written, 0.0)
  if seconds < 2 * _DAY:
    return results.format_duration(seconds)
  return f'{seconds // _DAY:.0f} days'


def check(
  view: Disk, bars: progress.Progress, *, verify: bool = True
) -> tuple[int, dict[pathlib.Path, str]]:
  """Compare all shards with their records, and print the damaged ones.

  Args:
    view: of the work directory of a job, of a search or of a sweep.
    bars: where to show progress and damaged shards.
    verify: compare checksums, not only sizes.

  Returns:
    The number of shards, and what is wrong with each damaged one.

  Raises:
    ValueError: the folder holds no stored work.
  """
  found = [
    shard
    for job in job_folders(view)
    for shelf in view.shelves(job)
    for shard in shelf.shards
  ]
  damaged = {}
  with bars.stage('check', len(found), unit='shards') as stage:
    for shard in found:
      # Again where a running job may have replaced it meanwhile.
      fault = _fault(view, shard, verify) and _fault(view, shard, verify)
      if fault and view.exists(shard):
        damaged[shard] = fault
        bars.line(f'{files.shown(shard)}: {fault}')
      stage.advance()
  return len(found), damaged


def _fault(view: Disk, shard: pathlib.Path, verify: bool) -> str:
  try:
    return view.fault(shard, verify)
  except remote.StoreError:
    raise
  except OSError as error:
    return f'it cannot be read: {error}'
