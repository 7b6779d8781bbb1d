"""Finished work on disk, in shards that are verified when they are read.

  root/<stage>/<label>-<address>/shard_003/{models/ (Orbax), *.npy, record.json}

A shard is the unit of work: some members of a population, or one result. It
appears complete or not at all. Its record binds it to its place:

  place      stage, label, address, number of the shard and of all shards
  members    names of the models: seed, split, forget set
  arrays     dtype and shape of every array
  files      size and SHA-256 of every file
  info       other facts
  sha256     of all this

so that a changed, truncated, lost or moved file is detected. Such a shard
counts as missing, is named in a warning and computed again. No other module
imports Orbax.

Opening a shelf changes nothing on the disk. `hold_workdir` removes the
temporary files of killed writers and locks the folder.

Where the root is the mirror of an object store (see `jaxmu.remote`), a shard is
copied there when it is saved, and from there when it is first needed. Models
are left in the store until they are read.

  …/shard_003/<start of the record's hash>/{models/, *.npy}
  …/shard_003/record.json

The record is written last and names the folder by its hash. So a reader sees
the whole shard or none, and two writers of a shard do not mix their files.
"""

import contextlib
import dataclasses
import errno
import functools
import json
import logging
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

import numpy as np

from jaxmu import files, remote, terms

RECORD = 'record.json'
MODELS = 'models'

Name = tuple[int, ...]  # of a member: seed, split, forget set

log = logging.getLogger(__name__)


class DamagedShard(ValueError):
  """A shard was changed after it was written, or is in the wrong place."""


@dataclasses.dataclass(frozen=True)
class Shelf:
  """The folder of one stage's output; shards are its unit of work.

  Attributes:
    root: of the store.
    stage: e.g. 'models'.
    label: name of the content, e.g. of a population.
    address: digest of everything that the content depends on.
    members: names of the members of each shard; empty for a shard that is not
      about members.
  """

  root: pathlib.Path
  stage: str
  label: str
  address: str
  members: tuple[tuple[Name, ...], ...] = ((),)

  @property
  def folder(self) -> pathlib.Path:
    """The folder of the shards."""
    return self.root / self.stage / f'{self.label}-{self.address}'

  @property
  def size(self) -> int:
    """Number of shards that make the output complete."""
    return len(self.members)

  def shard(self, number: int) -> pathlib.Path:
    """Return the folder of a shard."""
    return self.folder / f'shard_{number:03d}'

  def missing(
    self, *, verify: bool = True, among: Iterable[int] | None = None
  ) -> list[int]:
    """Return the shards that are absent or damaged; the latter are logged.

    Args:
      verify: compare checksums, not only sizes.
      among: which shards to look at; None for all.
    """
    missing = []
    numbers = range(self.size) if among is None else [*among]
    self._fetch_all(numbers)
    for number in numbers:
      if not self.shard(number).exists():
        missing.append(number)
        continue
      fault = self.fault(number, verify=verify)
      if fault:
        folder = self.shard(number)
        _warn(folder, fault, folder.stat().st_mtime_ns)
        if self._fetch(number):
          continue
        missing.append(number)
    return missing

  def fault(self, number: int, *, verify: bool = True) -> str:
    """Say what is wrong with a shard; '' if nothing is.

    Args:
      number: which shard.
      verify: compare checksums, not only sizes.
    """
    try:
      record = self._record(number)
    except DamagedShard as error:
      return str(error)
    folder = self.shard(number)
    return _fault(folder, _local_files(folder, record), verify=verify)

  def save(
    self,
    number: int,
    *,
    models: Any = None,
    arrays: Mapping[str, np.ndarray] | None = None,
    info: Mapping[str, Any] | None = None,
  ) -> None:
    """Write a shard.

    Args:
      number: which shard.
      models: pytree of arrays, written by Orbax.
      arrays: named arrays [members of the shard, ...], written as .npy files.
      info: JSON-able facts, kept in the record.

    Raises:
      ValueError: the disk is full or the folder cannot be written; or an array
        has not one row per member.
      OSError: the shard is written, and cannot be copied to the object store.
    """
    arrays = {name: np.asarray(array) for name, array in (arrays or {}).items()}
    members = self.members[number]
    for name, array in arrays.items():
      if members and array.shape[:1] != (len(members),):
        raise ValueError(
          f'array {name!r} has shape {array.shape} and the shard '
          f'{len(members)} members'
        )
    needed = sum(one.nbytes for one in arrays.values())
    if models is not None:
      needed += _bytes_of_models(models)
    try:
      if needed > free_bytes(self.folder):  # Orbax would print pages
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
      with files.atomic_folder(self.folder) as draft:
        if models is not None:
          _save_models(draft / MODELS, models)
        for name, array in arrays.items():
          np.save(draft / f'{name}.npy', array)
        content = {
          'place': self._place(number),
          'members': members,
          'arrays': {
            name: [str(array.dtype), array.shape]
            for name, array in arrays.items()
          },
          'files': _manifest(draft),
          'info': dict(info or {}),
        }
        # The hash is over the content as JSON reads it back.
        content = json.loads(json.dumps(content))
        content['sha256'] = files.digest(content, digits=64)
        text = json.dumps(content, indent=1, sort_keys=True)
        files.write_text(draft / RECORD, text)
        files.publish_folder(draft, self.shard(number))
    except OSError as error:
      room = (
        f'make room for {terms.readable_bytes(needed)}'
        if files.is_full(error)
        else 'make room or make the folder writable'
      )
      raise ValueError(
        f'{self.shard(number)} cannot be written ({error}); {room}, and start '
        'the same command again: finished work is kept'
      ) from error
    _upload(self.shard(number))

  def adopt(self, number: int, root: pathlib.Path) -> bool:
    """Link the files of a missing shard in another store to this one.

    Args:
      number: which shard.
      root: of the other store.

    Returns:
      Whether the shard is there now; False if that of the other is damaged.
    """
    if self.shard(number).exists():
      return False
    source = dataclasses.replace(self, root=root).shard(number)
    try:
      manifest = self._checked(_read(source), number)['files']
      with files.atomic_folder(self.folder) as draft:
        for name in (*manifest, RECORD):
          (draft / name).parent.mkdir(parents=True, exist_ok=True)
          _link(source / name, draft / name)
        if _fault(draft, manifest, verify=True):
          return False
        files.publish_folder(draft, self.shard(number))
    except (DamagedShard, OSError):
      return False
    return True

  def _fetch_all(self, numbers: Iterable[int]) -> None:
    """Copy those shards that this machine lacks from the object store."""
    absent = [n for n in numbers if not self.shard(n).exists()]
    url = remote.url(self.folder)
    there = remote.entries(url) if url and absent else {}
    for number in absent:
      if self.shard(number).name in there:
        self._fetch(number)

  def _fetch(self, number: int, *, models: bool = False) -> bool:
    """Copy a shard from the object store; a damaged one is logged.

    Args:
      number: which shard.
      models: copy its models too, and not only compare their sizes.

    Returns:
      Whether the store has it whole.
    """
    url = remote.url(self.shard(number))
    text = remote.read(f'{url}/{RECORD}') if url else None
    if text is None:
      return False
    try:
      manifest = self._checked(text, number)['files']
      source = f'{url}/{prefix(text)}'
      fault = _remote_fault(source, manifest)
      if fault:
        raise DamagedShard(fault)
      if not models:
        manifest = _without_models(manifest)
      with files.atomic_folder(self.folder) as draft:
        remote.get({f'{source}/{name}': draft / name for name in manifest})
        fault = _fault(draft, manifest, verify=True)
        if fault:
          raise DamagedShard(fault)
        files.write_bytes(draft / RECORD, text)
        files.publish_folder(draft, self.shard(number))
    except (DamagedShard, FileNotFoundError) as error:
      _warn(url, str(error), 0)
      remote.remove(f'{url}/{RECORD}')  # or it would be looked at again
      return False
    return True

  def models(self, number: int, like: Any) -> Any:
    """Read the models of a shard as host arrays.

    Args:
      number: which shard.
      like: pytree of shapes and dtypes, e.g. from `jax.eval_shape`.

    Raises:
      DamagedShard: they cannot be read as such.
    """
    self._known(number)
    folder = self.shard(number)
    if remote.url(folder) and not (folder / MODELS).exists():
      if not self._fetch(number, models=True):
        shutil.rmtree(folder, ignore_errors=True)
        self._refuse(number, 'its models in the object store')
    try:
      return _restore_models(self.shard(number) / MODELS, like)
    except Exception as error:  # Orbax raises many types
      self._refuse(number, f'its models: {_first_line(error)}')

  def arrays(self, name: str) -> np.ndarray:
    """Read a named array of all shards, joined along the first axis.

    Raises:
      DamagedShard: a shard lacks the array, or it was changed.
    """
    return np.concatenate([self.array(n, name) for n in range(self.size)])

  def has(self, number: int, name: str) -> bool:
    """Return whether a shard exists and holds a named array."""
    try:
      return name in self._record(number)['arrays']
    except DamagedShard:
      return False

  def array(self, number: int, name: str) -> np.ndarray:
    """Read a named array of one shard.

    Raises:
      DamagedShard: the shard lacks the array, or it was changed.
    """
    recorded = self._known(number)['arrays']
    if name not in recorded:
      self._refuse(number, f'it holds no array {name!r}')
    try:
      array = np.load(self.shard(number) / f'{name}.npy', allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
      self._refuse(number, f'{name}.npy: {_first_line(error)}')
    if [str(array.dtype), list(array.shape)] != recorded[name]:
      self._refuse(number, f'{name}.npy holds {array.dtype}{list(array.shape)}')
    return array

  def info(self, number: int = 0) -> dict[str, Any]:
    """Read the facts kept in a shard's record.

    Raises:
      DamagedShard: the record was changed after it was written.
    """
    return self._known(number)['info']

  def _place(self, number: int) -> dict[str, Any]:
    return {
      'stage': self.stage,
      'label': self.label,
      'address': self.address,
      'shard': number,
      'shards': self.size,
    }

  def _record(self, number: int) -> dict[str, Any]:
    """Read the record of a shard and check that it belongs here.

    Raises:
      DamagedShard: it does not belong here; the message says why.
    """
    if not self.shard(number).exists():
      self._fetch(number)
    return self._checked(_read(self.shard(number)), number)

  def _checked(self, text: bytes, number: int) -> dict[str, Any]:
    """Parse the record of a shard and check that it belongs here.

    Raises:
      DamagedShard: it does not belong here; the message says why.
    """
    record = parse_record(text, self.shard(number))
    if record['place'] != self._place(number):
      raise DamagedShard(_elsewhere(record))
    if record['members'] != [list(name) for name in self.members[number]]:
      raise DamagedShard('it holds other members')
    return record

  def _known(self, number: int) -> dict[str, Any]:
    try:
      return self._record(number)
    except DamagedShard as error:
      self._refuse(number, str(error))

  def _refuse(self, number: int, fault: str) -> NoReturn:
    raise DamagedShard(
      f'{self.shard(number)} is damaged ({fault}); start the job again with '
      '--config.run.verify=True, which makes it again'
    ) from None


def shard_number(folder: pathlib.Path) -> int | None:
  """Return the number in the name of a shard's folder; None for other names.

  Example:
    >>> shard_number(pathlib.Path('ft-0123456789ab/shard_007'))
    7
  """
  prefix, _, digits = folder.name.partition('_')
  return int(digits) if prefix == 'shard' and digits.isdecimal() else None


def read_record(folder: pathlib.Path) -> dict[str, Any]:
  """Read the record of a shard, of any shelf, from the folder of the shard.

  Raises:
    DamagedShard: it cannot be read, was changed after it was written, or is
      the record of another folder; the message says which.
  """
  return parse_record(_read(folder), folder)


def _read(folder: pathlib.Path) -> bytes:
  try:
    return (folder / RECORD).read_bytes()
  except OSError as error:
    raise DamagedShard(f'unreadable {RECORD}: {_first_line(error)}') from None


def parse_record(text: bytes, folder: pathlib.Path) -> dict[str, Any]:
  """Parse the record of the shard in a folder; see `read_record`.

  Raises:
    DamagedShard: it was changed, or is the record of another folder.
  """
  try:
    record = json.loads(text)
    checksum = record.pop('sha256')
  except (ValueError, RecursionError) as error:
    raise DamagedShard(f'unreadable {RECORD}: {_first_line(error)}') from None
  except (AttributeError, KeyError, TypeError, IndexError):
    raise DamagedShard(f'{RECORD} is not the record of a shard') from None
  if files.digest(record, digits=64) != checksum:
    raise DamagedShard(f'{RECORD} has changed since it was written')
  if not {'place', 'members', 'arrays', 'files', 'info'} <= set(record):
    raise DamagedShard(f'{RECORD} is not the record of a shard')
  place = record['place']
  shelf = folder.parent
  where = place['stage'], f'{place["label"]}-{place["address"]}', place['shard']
  if where != (shelf.parent.name, shelf.name, shard_number(folder)):
    raise DamagedShard(_elsewhere(record))
  return record


def fault_in(folder: pathlib.Path, *, verify: bool = True) -> str:
  """Say what is wrong with the shard in a folder; '' if nothing is.

  Unlike `Shelf.fault`, it does not know which members belong there.

  Args:
    folder: of the shard.
    verify: compare checksums, not only sizes.
  """
  try:
    record = read_record(folder)
  except DamagedShard as error:
    return str(error)
  return _misfit(record) or _fault(
    folder, _local_files(folder, record), verify=verify
  )


def fault_in_store(folder: pathlib.Path, *, verify: bool = True) -> str:
  """Say what is wrong with a shard in the object store; '' if nothing is.

  Args:
    folder: of the shard in the mirror.
    verify: copy its objects here and compare checksums, not only sizes.

  Raises:
    OSError: the store cannot be read.
  """
  url = remote.url(folder)
  text = remote.read(f'{url}/{RECORD}')
  if text is None:
    return f'{RECORD} is missing'
  try:
    record = parse_record(text, folder)
  except DamagedShard as error:
    return str(error)
  source, manifest = f'{url}/{prefix(text)}', record['files']
  fault = _misfit(record) or _remote_fault(source, manifest)
  if fault or not verify:
    return fault
  with tempfile.TemporaryDirectory() as place:
    copies = {f'{source}/{n}': pathlib.Path(place, n) for n in manifest}
    try:
      remote.get(copies)
    except FileNotFoundError as error:
      return str(error)
    return _fault(pathlib.Path(place), manifest, verify=True)


def _misfit(record: Mapping[str, Any]) -> str:
  """Say what in a record does not fit the rest of it; '' if nothing."""
  place, members = record['place'], len(record['members'])
  if not place['shard'] < place['shards']:
    return f'it is shard {place["shard"]} of {place["shards"]}'
  for name, (_, shape) in record['arrays'].items():
    if members and shape[:1] != [members]:
      return f'array {name!r} has shape {shape} and the shard {members} members'
  return ''


def _elsewhere(record: Mapping[str, Any]) -> str:
  return f'it belongs elsewhere: {record["place"]}'


LOCK = '.lock'  # in a work directory, while a job or a search runs in it


@contextlib.contextmanager
def hold_workdir(
  folder: pathlib.Path, *, shared: bool = False
) -> Iterator[None]:
  """Make and lock the work directory, and remove files of killed runs.

  That of an object store is brought up to date, in the store and here. Its lock
  keeps out processes of this machine; two machines do each other no harm.

  Args:
    folder: the work directory.
    shared: admit other processes that share it.

  Raises:
    ValueError: it cannot be written, or another run holds it.
    OSError: its object store cannot be used.
  """
  with contextlib.ExitStack() as stack:
    try:
      folder.mkdir(parents=True, exist_ok=True)
      stack.enter_context(files.lock(folder / LOCK, wait=False, shared=shared))
    except BlockingIOError:
      raise ValueError(
        f'config.workdir = {files.shown(folder)!r} is in use by another run; '
        'wait for it to end, or choose another folder with '
        '--config.workdir=PATH'
      ) from None
    except OSError as error:
      raise ValueError(_not_writable(folder, error.strerror)) from None
    files.remove_leftovers(folder)
    if remote.url(folder):
      remote.check(remote.url(folder))
      files.refresh(folder, send=True)
      _upload_all(folder / 'store')
    yield


_SAFETY = 1.1  # factor on the estimated bytes


def check_space(folder: pathlib.Path, needed: int) -> None:
  """Check that the disk has enough space.

  Args:
    folder: where results go; it need not exist yet.
    needed: bytes that are still to be written.

  Raises:
    ValueError: the disk has less space.
  """
  free = free_bytes(folder)
  if needed * _SAFETY > free:
    other = 'choose another disk with --config.workdir=PATH'
    if remote.url(folder):
      other = f'set JAXMU_CACHE_DIR (it writes to {folder} first)'
    raise ValueError(
      f'config.workdir = {files.shown(folder)!r} has '
      f'{terms.readable_bytes(free)} free and the job needs about '
      f'{terms.readable_bytes(needed * _SAFETY)} more; free '
      f'some, {other}, or train fewer models (config.splits)'
    )


def check_workdir(workdir: files.Path) -> None:
  """Check that the work directory can be written, without making it.

  Raises:
    ValueError: it, or the folder that would contain it, is not a folder or
      cannot be written.
    OSError: its object store cannot be used.
  """
  folder = files.workdir(workdir)
  existing = check_folder(folder)
  if not os.access(existing, os.W_OK | os.X_OK):
    raise ValueError(_not_writable(folder, f'no permission in {existing}'))
  if remote.url(folder):
    remote.check(remote.url(folder))


def check_folder(folder: pathlib.Path) -> pathlib.Path:
  """Return a work directory, or the nearest folder above it that exists.

  Raises:
    ValueError: it is not a folder.
  """
  existing = _existing(folder)
  if not existing.is_dir():
    raise ValueError(_not_writable(folder, f'{existing} is not a folder'))
  return existing


def make_workdir(folder: pathlib.Path) -> None:
  """Make a work directory.

  Raises:
    ValueError: it cannot be made.
  """
  try:
    folder.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise ValueError(_not_writable(folder, error.strerror)) from None


def _not_writable(folder: pathlib.Path, reason: str | None) -> str:
  return (
    f'config.workdir = {str(folder)!r} cannot be written ({reason}); choose a '
    'folder you may write to with --config.workdir=PATH'
  )


def _existing(folder: pathlib.Path) -> pathlib.Path:
  """Return a folder, or the nearest one above it that exists."""
  while not folder.exists():
    folder = folder.parent
  return folder


def free_bytes(folder: pathlib.Path) -> int:
  """Return the free bytes of the disk of an existing or future folder."""
  return shutil.disk_usage(_existing(folder)).free


def shards(names: Sequence[Name], size: int) -> tuple[tuple[Name, ...], ...]:
  """Divide members into shards of at most `size`, of nearly equal sizes.

  Example:
    >>> [len(part) for part in shards([(0,), (1,), (2,), (3,), (4,)], 4)]
    [3, 2]
  """
  count = -(-len(names) // size)
  parts = np.array_split(np.arange(len(names)), count)
  return tuple(tuple(names[i] for i in part) for part in parts)


@functools.lru_cache
def _warn(folder: pathlib.Path | str, fault: str, written: int) -> None:
  """Log a damaged shard, once per change."""
  del written
  log.warning('%s is damaged (%s); it is computed again', folder, fault)


def _manifest(folder: pathlib.Path) -> dict[str, tuple[int, str]]:
  paths = sorted(p for p in folder.rglob('*') if p.is_file())
  return {
    str(p.relative_to(folder)): (p.stat().st_size, files.sha256(p))
    for p in paths
  }


def _fault(
  folder: pathlib.Path, manifest: Mapping[str, Any], *, verify: bool
) -> str:
  """Say what differs from the manifest of a shard; '' if nothing does."""
  for name, (size, checksum) in manifest.items():
    path = folder / name
    if not path.is_file():
      return f'{name} is missing'
    if path.stat().st_size != size:
      return f'{name} has {path.stat().st_size} bytes instead of {size}'
    if verify and files.sha256(path) != checksum:
      return f'{name} has changed since it was written'
  return ''


def _local_files(
  folder: pathlib.Path, record: Mapping[str, Any]
) -> dict[str, Any]:
  """Return the manifest of a shard, without models left in an object store."""
  manifest = record['files']
  if remote.url(folder) and not (folder / MODELS).exists():
    return _without_models(manifest)
  return manifest


def _link(source: pathlib.Path, target: pathlib.Path) -> None:
  """Give a file a second name, or copy it where the disk cannot."""
  try:
    os.link(source, target)
  except OSError:
    shutil.copyfile(source, target)


def _without_models(manifest: Mapping[str, Any]) -> dict[str, Any]:
  return {n: m for n, m in manifest.items() if not n.startswith(f'{MODELS}/')}


def _remote_fault(url: str, manifest: Mapping[str, Any]) -> str:
  """Say which object's size differs from the manifest; '' if none does."""
  there = remote.objects(url)
  for name, (size, _) in manifest.items():
    if name not in there:
      return f'{name} is missing'
    if there[name].size != size:
      return f'{name} has {there[name].size} bytes instead of {size}'
  return ''


def prefix(record: bytes) -> str:
  """Return the folder of a shard's files in an object store."""
  return json.loads(record)['sha256'][:12]


def _upload(shard: pathlib.Path) -> None:
  """Copy a shard to the object store, if it is in the mirror of one."""
  url = remote.url(shard)
  if not url:
    return
  text = (shard / RECORD).read_bytes()
  target = f'{url}/{prefix(text)}'
  names = json.loads(text)['files']
  remote.put({shard / name: f'{target}/{name}' for name in names})
  remote.put({shard / RECORD: f'{url}/{RECORD}'})


def _upload_all(root: pathlib.Path) -> None:
  """Copy all intact shards that the object store lacks."""
  shards = sorted(path.parent for path in root.glob(f'*/*/shard_*/{RECORD}'))
  there = remote.objects(remote.url(root)) if shards else {}
  for shard in shards:
    if f'{shard.relative_to(root).as_posix()}/{RECORD}' in there:
      continue
    with contextlib.suppress(ValueError, KeyError, TypeError):  # damaged
      manifest = json.loads((shard / RECORD).read_bytes())['files']
      if not _fault(shard, manifest, verify=True):
        _upload(shard)


def _first_line(error: Exception) -> str:
  return str(error).strip().partition('\n')[0][:200]


@functools.cache
def _checkpointer() -> Any:
  """Return Orbax's checkpointer; its import takes seconds, so it is late."""
  import orbax.checkpoint as ocp

  logging.getLogger('absl').setLevel(logging.WARNING)
  return ocp.StandardCheckpointer()


def _bytes_of_models(tree: Any) -> int:
  """Return the bytes that Orbax writes for a pytree of arrays, or more."""
  import jax

  arrays = sum(int(leaf.nbytes) for leaf in jax.tree.leaves(tree))
  return int(arrays * _SAFETY) + (1 << 20)


def _save_models(path: pathlib.Path, tree: Any) -> None:
  import jax

  hosts = jax.tree.map(np.asarray, tree)
  try:
    _checkpointer().save(path.absolute(), hosts)
    _checkpointer().wait_until_finished()
  except OSError:
    raise
  except Exception as error:  # a full disk raises one of several types
    raise OSError(_first_line(error)) from error


def _restore_models(path: pathlib.Path, like: Any) -> Any:
  import jax

  hosts = jax.tree.map(lambda x: np.empty(x.shape, x.dtype), like)
  restored = _checkpointer().restore(path.absolute(), hosts)
  for expected, leaf in zip(
    jax.tree.leaves(hosts), jax.tree.leaves(restored), strict=True
  ):
    if leaf.shape != expected.shape or leaf.dtype != expected.dtype:
      raise ValueError(
        f'{leaf.dtype}{list(leaf.shape)} in place of '
        f'{expected.dtype}{list(expected.shape)}'
      )
  return restored
