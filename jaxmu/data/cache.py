"""The fast local form of a data set: two arrays ready for the device.

  <cache_dir>/<name>-<key>/image.npy    u8[N, S, S, 3]
                           label.npy    i32[N]
                           record.json  fingerprint and constants

Written once, next to its final place, and moved there complete: a reader sees
all of it or nothing. The key covers whatever the conversion depends on, so a
changed source is converted anew; the fingerprint is checked on every opening.
"""

import dataclasses
import hashlib
import json
import math
import os
import pathlib
import shutil
import warnings

import numpy as np

from jaxmu.data import drafts, images, raw

VERSION = 1  # raise when the conversion changes, so that caches are rewritten
_CHUNK = 1 << 24  # bytes hashed at a time


@dataclasses.dataclass(frozen=True, eq=False)
class Arrays:
  """What a cache folder holds.

  Attributes:
    image: u8[N, S, S, 3], memory-mapped and read-only.
    label: i32[N].
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


def default_dir() -> pathlib.Path:
  """Return $JAXMU_CACHE_DIR, or `jaxmu` in the user's cache folder."""
  if os.environ.get('JAXMU_CACHE_DIR'):
    return pathlib.Path(os.environ['JAXMU_CACHE_DIR'])
  base = os.environ.get('XDG_CACHE_HOME') or pathlib.Path.home() / '.cache'
  return pathlib.Path(base) / 'jaxmu'


def fingerprint(image: np.ndarray, label: np.ndarray) -> str:
  """Return the sha256 over image bytes, then label bytes (i32), in hex."""
  digest = hashlib.sha256()
  for array in (image, label.astype('<i4')):
    flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    for start in range(0, flat.size, _CHUNK):
      digest.update(flat[start : start + _CHUNK].data)
  return digest.hexdigest()


def key(*depends_on) -> str:
  """Return 16 hex digits that change with any of the given JSON values."""
  text = json.dumps([VERSION, *depends_on], sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()[:16]


def open_or_none(folder: pathlib.Path) -> Arrays | None:
  """Open a cache folder; None if it is absent or its contents changed."""
  if not folder.exists():
    return None
  try:
    record = json.loads((folder / 'record.json').read_text())
    image = np.load(folder / 'image.npy', mmap_mode='r', allow_pickle=False)
    label = np.load(folder / 'label.npy', allow_pickle=False)
    arrays = Arrays(
      image=np.asarray(image),
      label=label,
      num_dev=record['num_dev'],
      num_classes=record['num_classes'],
      fingerprint=record['fingerprint'],
      mean=tuple(record['mean']),
      std=tuple(record['std']),
    )
    intact = fingerprint(arrays.image, arrays.label) == arrays.fingerprint
  except (OSError, ValueError, KeyError, EOFError):
    intact = False
  if not intact:
    warnings.warn(
      f'the cached data set {folder} is damaged; it is converted again',
      stacklevel=2,
    )
    return None
  label.setflags(write=False)
  return arrays


def write(folder: pathlib.Path, source: raw.Raw) -> Arrays:
  """Convert `source` to model input, store it in `folder` and open it.

  Raises:
    ValueError: the images or labels of the source are not of the right form,
      or the folder cannot be written.
  """
  try:
    with drafts.draft(folder.parent) as draft:
      _write_arrays(draft, source)
      finished = open_or_none(folder)  # another process may have been faster
      if finished is not None:
        return finished
      drafts.publish(draft, folder)
  except OSError as error:
    raise ValueError(
      f'the cache folder {folder.parent} cannot be written ({error}): choose '
      'another one with the environment variable JAXMU_CACHE_DIR'
    ) from error
  arrays = open_or_none(folder)
  if arrays is None:
    raise ValueError(f'{folder} could not be read back: is the disk full?')
  return arrays


def _write_arrays(draft: pathlib.Path, source: raw.Raw) -> None:
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
  filled = 0
  for block_image, block_label in source.blocks():
    raw.check_labels(
      block_label, num_classes=source.num_classes, origin=source.origin
    )
    for start in range(0, len(block_image), 4096):
      part = block_image[start : start + 4096]
      stop = filled + len(part)
      image[filled:stop] = images.to_model_input(part, size=source.size)
      label[filled:stop] = block_label[start : start + 4096]
      filled = stop
  if filled != source.num_examples:
    raise ValueError(
      f'{source.origin}: read {filled} examples, expected {source.num_examples}'
    )
  image.flush()
  np.save(draft / 'label.npy', label)
  mean, std = images.channel_moments(image[: source.num_dev])
  record = {
    'num_dev': source.num_dev,
    'num_classes': source.num_classes,
    'fingerprint': fingerprint(image, label),
    'mean': mean,
    'std': std,
    'origin': source.origin,
  }
  (draft / 'record.json').write_text(json.dumps(record, indent=2) + '\n')
