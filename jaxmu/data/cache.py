"""The fast local form of a data set: two arrays ready for the device.

  <cache_dir>/<name>-<key>/image.npy    u8[N, S, S, 3]
                           label.npy    i32[N]
                           record.json  fingerprint and constants, with a hash

A set is converted once, in a draft folder that is moved to its place when it is
complete. The key covers what the conversion depends on, so that a changed
source is converted again. On every opening the arrays are compared with their
fingerprint and the record with its own hash; after any mismatch the set is
converted again.
"""

import dataclasses
import json
import math
import pathlib
import shutil
import warnings
from typing import Any

import numpy as np

from jaxmu import files
from jaxmu.data import catalog, formats

# Raise it when the conversion or the record changes, so that sets are converted
# again.
VERSION = 3


@dataclasses.dataclass(frozen=True, eq=False)
class CachedArrays:
  """What a cache folder holds.

  Attributes:
    image: u8[N, S, S, 3], memory-mapped and read-only.
    label: i32[N], read-only.
    num_dev: how many come first as the development part.
    num_classes: number of labels, C.
    fingerprint: sha256 over the bytes of both arrays, in hex.
    mean: per-channel mean of the development images in [0, 1].
    std: per-channel standard deviation of the same.
  """

  image: np.ndarray
  label: np.ndarray
  num_dev: int
  num_classes: int
  fingerprint: str
  mean: tuple[float, ...]
  std: tuple[float, ...]


def fingerprint(image: np.ndarray, label: np.ndarray) -> str:
  """Return the sha256 over image bytes, then label bytes (i32), in hex."""
  return files.sha256_of(image, label.astype('<i4'))


def key(*depends_on: Any) -> str:
  """Return 16 hex digits that change with any of the given JSON values."""
  return files.digest(VERSION, *depends_on, digits=16)


def load(folder: pathlib.Path) -> CachedArrays | None:
  """Open a cache folder.

  Returns:
    None if there is no such folder, or if a file in it is damaged; a warning
    then names the folder and what is wrong.
  """
  if not folder.exists():
    return None
  try:
    return _load(folder)
  # NumPy's and JSON's readers raise many kinds of exceptions on damaged files;
  # the remedy is always the same.
  except Exception as error:
    warnings.warn(
      f'the cached data set {folder} is damaged ({error or repr(error)}); it '
      'is converted again',
      stacklevel=2,
    )
    return None


def convert(folder: pathlib.Path, source: formats.Raw) -> CachedArrays:
  """Convert `source` to model input, store it in `folder` and open it.

  Raises:
    ValueError: the images or labels of the source are not of the right form,
      or the folder cannot be written.
  """
  try:
    with files.atomic_folder(folder.parent) as draft:
      _write(draft, source, name=folder.name)
      finished = load(folder)  # another process may have been faster
      if finished is not None:
        return finished
      files.publish_folder(draft, folder)
  except OSError as error:
    raise ValueError(
      f'the cache folder {folder.parent} cannot be written ({error}): choose '
      'another one with the environment variable JAXMU_CACHE_DIR'
    ) from error
  arrays = load(folder)
  if arrays is None:
    raise ValueError(f'{folder} could not be read back: is the disk full?')
  return arrays


def _load(folder: pathlib.Path) -> CachedArrays:
  """Open a cache folder; raise any kind of exception if something is wrong."""
  record = _read_record(folder)
  image = np.load(folder / 'image.npy', mmap_mode='r', allow_pickle=False)
  label = np.load(folder / 'label.npy', allow_pickle=False)
  for name, array, dtype, shape in (
    ('image', image, np.uint8, record['shape']),
    ('label', label, np.int32, record['shape'][:1]),
  ):
    if array.dtype != dtype or list(array.shape) != shape:
      raise ValueError(f'{name}.npy holds {array.dtype}{list(array.shape)}')
  if fingerprint(image, label) != record['fingerprint']:
    raise ValueError('the arrays differ from their fingerprint')
  label.setflags(write=False)
  return CachedArrays(
    image=np.asarray(image),
    label=label,
    num_dev=record['num_dev'],
    num_classes=record['num_classes'],
    fingerprint=record['fingerprint'],
    mean=tuple(record['mean']),
    std=tuple(record['std']),
  )


def _read_record(folder: pathlib.Path) -> dict[str, Any]:
  """Return the record of a folder if it belongs to it and is unchanged."""
  record = json.loads((folder / 'record.json').read_text())
  if not isinstance(record, dict):
    raise ValueError(
      f'record.json holds {type(record).__name__}, not an object'
    )
  digest = record.pop('sha256', None)
  if digest != files.digest(record, digits=64):
    raise ValueError('record.json differs from its own hash')
  if record['folder'] != folder.name:
    raise ValueError(f'record.json belongs to {record["folder"]}')
  return record


def _write(draft: pathlib.Path, source: formats.Raw, *, name: str) -> None:
  """Fill a draft folder block by block, so that memory stays bounded."""
  shape = (source.num_examples, source.size, source.size, 3)
  # A memory-mapped file on a full disk ends the process without a message.
  needed, free = math.prod(shape), shutil.disk_usage(draft).free
  if free < 1.01 * needed:
    raise OSError(
      f'{needed / 1e9:.2f} GB needed, {free / 1e9:.2f} GB free on the disk'
    )
  image = np.lib.format.open_memmap(
    draft / 'image.npy', mode='w+', dtype=np.uint8, shape=shape
  )
  label = np.zeros(source.num_examples, np.int32)
  _fill(image, label, source)
  image.flush()
  np.save(draft / 'label.npy', label)
  mean, std = catalog.channel_moments(image[: source.num_dev])
  record = {
    'folder': name,
    'shape': shape,
    'num_dev': source.num_dev,
    'num_classes': source.num_classes,
    'fingerprint': fingerprint(image, label),
    'mean': mean,
    'std': std,
    'origin': source.origin,
  }
  record['sha256'] = files.digest(record, digits=64)
  (draft / 'record.json').write_text(json.dumps(record, indent=2) + '\n')


def _fill(image: np.ndarray, label: np.ndarray, source: formats.Raw) -> None:
  """Copy all blocks of a source, brought to model input, into arrays."""
  filled = 0
  for block_image, block_label in source.blocks():
    formats.check_labels(
      block_label, num_classes=source.num_classes, origin=source.origin
    )
    for start in range(0, len(block_image), 4096):
      part = block_image[start : start + 4096]
      stop = filled + len(part)
      image[filled:stop] = catalog.to_model_input(part, size=source.size)
      label[filled:stop] = block_label[start : start + 4096]
      filled = stop
  if filled != source.num_examples:
    raise ValueError(
      f'{source.origin}: read {filled} examples, expected {source.num_examples}'
    )
