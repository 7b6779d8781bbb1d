"""Finished work on disk: shards that are whole or absent, never in between.

  root/<stage>/<label>-<digest>/shard_003/{models/ (Orbax), *.npy, record.json}

A shard is written into a temporary folder and renamed as the last act, so a
process killed at any moment leaves nothing that looks finished. The record
lists every file with its size and SHA-256; a shard that does not match is
reported by name and made again. The only importer of Orbax.
"""

import dataclasses
import hashlib
import json
import logging
import os
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any

import numpy as np

RECORD = 'record.json'
MODELS = 'models'

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Shelf:
  """The folder of one stage's output; shards are its unit of work.

  Attributes:
    folder: root/<stage>/<label>-<digest>.
    size: number of shards that make the output complete.
  """

  folder: pathlib.Path
  size: int

  def shard(self, number: int) -> pathlib.Path:
    """Return the folder of a shard."""
    return self.folder / f'shard_{number:03d}'

  def missing(self, *, verify: bool = True) -> list[int]:
    """Return the shards that are absent or damaged.

    Args:
      verify: compare checksums, not just sizes.
    """
    return [
      number
      for number in range(self.size)
      if not self._is_whole(number, verify)
    ]

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
      arrays: named arrays, written as .npy files.
      info: JSON-able facts, kept in the record.

    Raises:
      OSError: the disk is full or the folder cannot be written.
    """
    target = self.shard(number)
    draft = target.with_name(f'{target.name}.draft')
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    if models is not None:
      _orbax().save(draft / MODELS, _to_host(models))
    for name, array in (arrays or {}).items():
      np.save(draft / f'{name}.npy', np.asarray(array))
    record = {'info': dict(info or {}), 'files': _manifest(draft)}
    _write(draft / RECORD, json.dumps(record, indent=1, sort_keys=True))
    if target.exists():
      shutil.rmtree(target)
    os.replace(draft, target)

  def models(self, number: int, like: Any) -> Any:
    """Read the models of a shard as host arrays.

    Args:
      number: which shard.
      like: pytree of shapes and dtypes, e.g. from `jax.eval_shape`.
    """
    return _orbax().restore(self.shard(number) / MODELS, like)

  def arrays(self, name: str) -> np.ndarray:
    """Read a named array of all shards, joined along the first axis."""
    return np.concatenate([self.array(n, name) for n in range(self.size)])

  def has(self, number: int, name: str) -> bool:
    """Return whether a shard holds a named array."""
    return (self.shard(number) / f'{name}.npy').is_file()

  def array(self, number: int, name: str) -> np.ndarray:
    """Read a named array of one shard."""
    return np.load(self.shard(number) / f'{name}.npy')

  def info(self, number: int = 0) -> dict[str, Any]:
    """Read the facts kept in a shard's record."""
    return _read_record(self.shard(number))['info']

  def _is_whole(self, number: int, verify: bool) -> bool:
    folder = self.shard(number)
    if not folder.exists():
      return False
    fault = _fault(folder, verify)
    if fault:
      log.warning('%s is damaged (%s); it is made again', folder, fault)
    return not fault


def open_shelf(
  root: pathlib.Path, stage: str, label: str, digest: str, size: int
) -> Shelf:
  """Return the shelf for an output, clearing drafts of killed processes."""
  shelf = Shelf(root / stage / f'{label}-{digest}', size)
  for draft in shelf.folder.glob('*.draft'):
    shutil.rmtree(draft, ignore_errors=True)
  return shelf


def _fault(folder: pathlib.Path, verify: bool) -> str:
  try:
    files = _read_record(folder)['files']
  except (OSError, ValueError, KeyError) as error:
    return f'unreadable {RECORD}: {error}'
  for name, (size, checksum) in files.items():
    path = folder / name
    if not path.is_file():
      return f'{name} is missing'
    if path.stat().st_size != size:
      return f'{name} has {path.stat().st_size} bytes instead of {size}'
    if verify and _checksum(path) != checksum:
      return f'{name} has changed since it was written'
  return ''


def _read_record(folder: pathlib.Path) -> dict[str, Any]:
  return json.loads((folder / RECORD).read_text())


def _manifest(folder: pathlib.Path) -> dict[str, tuple[int, str]]:
  paths = sorted(p for p in folder.rglob('*') if p.is_file())
  return {
    str(p.relative_to(folder)): (p.stat().st_size, _checksum(p)) for p in paths
  }


def _checksum(path: pathlib.Path) -> str:
  with open(path, 'rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()


def _write(path: pathlib.Path, text: str) -> None:
  with open(path, 'w') as file:
    file.write(text)
    file.flush()
    os.fsync(file.fileno())


def _to_host(tree: Any) -> Any:
  import jax

  return jax.tree.map(np.asarray, tree)


class _Orbax:
  """Orbax's checkpointer, made when first needed: its import takes seconds."""

  def __init__(self):
    import orbax.checkpoint as ocp

    logging.getLogger('absl').setLevel(logging.WARNING)
    self._checkpointer = ocp.StandardCheckpointer()

  def save(self, path: pathlib.Path, tree: Any) -> None:
    self._checkpointer.save(path.absolute(), tree)
    self._checkpointer.wait_until_finished()

  def restore(self, path: pathlib.Path, like: Any) -> Any:
    import jax

    hosts = jax.tree.map(lambda x: np.empty(x.shape, x.dtype), like)
    return self._checkpointer.restore(path.absolute(), hosts)


_instance: list[_Orbax] = []


def _orbax() -> _Orbax:
  if not _instance:
    _instance.append(_Orbax())
  return _instance[0]
