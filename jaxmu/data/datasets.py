"""From the name of a data set to its arrays, ready for the device.

`load('digits')` works anywhere. The other sets are looked for in a data folder,
`$JAXMU_DATA_DIR` or `data_dir`, either as tensorflow-datasets left them (opened
without TensorFlow) or in the plain form of `jaxmu.data.formats`. Nothing is
downloaded here: what is missing is reported with the command that supplies it.

The fast local form of a data set: two arrays ready for the device.

  <cache_dir>/<name>-<key>/image.npy    u8[N, S, S, 3]
                           label.npy    i32[N]
                           record.json  fingerprint and constants

Written once, next to its final place, and moved there complete: a reader sees
all of it or nothing. The key covers whatever the conversion depends on, so a
changed source is converted anew; the fingerprint is checked on every opening.
"""

import dataclasses
import functools
import hashlib
import json
import math
import os
import pathlib
import shutil
import warnings
from typing import Any

import numpy as np

from jaxmu import files as files_lib
from jaxmu.data import catalog, formats
from jaxmu.data.catalog import CATALOG
from jaxmu.types import Transform


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
  """A data set on the host, development part first.

  Attributes:
    name: as it was asked for.
    image: u8[N, S, S, 3], resized to the model input, read-only.
    label: i32[N] in [0, num_classes).
    num_dev: the first `num_dev` examples are the development part (the official
      training set), the others the official test set.
    num_classes: number of labels, C.
    transform: normalisation and training augmentation.
    fingerprint: sha256 over the bytes of image and label, in hex. Split indices
      mean something only together with it.
  """

  name: str
  image: np.ndarray  # u8[N, S, S, 3]
  label: np.ndarray  # i32[N]
  num_dev: int
  num_classes: int
  transform: Transform
  fingerprint: str

  def identity(self) -> dict[str, Any]:
    """Return everything that a result can depend on, as plain JSON values.

    Two sources with equal identities give equal results. Addresses of stored
    work are made of it.
    """
    transform = dataclasses.asdict(self.transform)
    return {
      'name': self.name,
      'fingerprint': self.fingerprint,
      'shape': [int(length) for length in self.image.shape],
      'num_dev': int(self.num_dev),
      'num_classes': int(self.num_classes),
      'transform': {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in transform.items()
      },
    }


def load(
  name: str,
  *,
  data_dir: str | os.PathLike | None = None,
  cache_dir: str | os.PathLike | None = None,
) -> Source:
  """Load a data set by name.

  The first call converts the set to two arrays in a cache folder; later calls
  map these into memory and check their fingerprint.

  Args:
    name: `digits`, another name of `catalog.CATALOG`, or any set that the data
      folder holds (`svhn_cropped`, your own).
    data_dir: folder of data sets; default $JAXMU_DATA_DIR, then tfds' own.
    cache_dir: folder of converted sets; default $JAXMU_CACHE_DIR, then
      `~/.cache/jaxmu`.

  Raises:
    ValueError: the name is unknown, the set is not there, it is damaged or of
      the wrong form, or the cache folder cannot be written. The message says
      what to do.
  """
  if name == 'digits':
    return _load_digits()
  folder = find_data_dir(data_dir) / name
  if formats.is_plain(folder):
    files = [folder / f'{split}.npz' for split in formats.PARTS]
    files.append(folder / 'meta.json')
    read = functools.partial(formats.open_plain, name, folder)
  elif formats.find_prepared(folder):
    version = formats.newest_prepared(folder)
    files = sorted(version.iterdir())
    read = functools.partial(formats.open_prepared, name, version)
  else:
    raise ValueError(_not_there(name, folder))
  return _load_cached(name, folder, files, read, cache_dir)


def find_data_dir(data_dir: str | os.PathLike | None = None) -> pathlib.Path:
  """Return the first given of `data_dir`, $JAXMU_DATA_DIR and tfds' folder."""
  chosen = data_dir or os.environ.get('JAXMU_DATA_DIR')
  if not chosen:
    chosen = os.environ.get('TFDS_DATA_DIR') or '~/tensorflow_datasets'
  return pathlib.Path(chosen).expanduser()


def available(data_dir: str | os.PathLike | None = None) -> list[str]:
  """Return the names that `load` would find now."""
  folder = find_data_dir(data_dir)
  children = sorted(folder.iterdir()) if folder.is_dir() else []
  found = [
    child.name
    for child in children
    if child.is_dir()
    and not child.name.startswith('.')  # a draft of another process
    and (formats.is_plain(child) or formats.find_prepared(child))
  ]
  return sorted({'digits', *found})


def _load_digits() -> Source:
  entry = CATALOG['digits']
  image, label = catalog.read_digits()
  image = catalog.to_model_input(image, size=entry.size)
  image.setflags(write=False)
  label.setflags(write=False)
  return Source(
    name='digits',
    image=image,
    label=label,
    num_dev=entry.num_dev,
    num_classes=entry.num_classes,
    transform=entry.transform,
    fingerprint=fingerprint(image, label),
  )


def _load_cached(name, folder, files, read, cache_dir) -> Source:
  """Open the cached form of a set, converting it if there is none."""
  stamps = [
    (str(path), path.stat().st_size, path.stat().st_mtime_ns)
    for path in files
    if path.exists()
  ]
  entry = CATALOG.get(name)
  root = pathlib.Path(cache_dir) if cache_dir else default_cache_dir()
  target = root / f'{name.replace("/", "-")}-{cache_key(stamps)}'
  arrays = open_cached(target)
  if arrays is None:
    arrays = write_cached(target, read())
  if entry is None:
    meta = formats.read_meta(folder)
    transform = Transform(
      mean=arrays.mean,
      std=arrays.std,
      flip=bool(meta.get('flip', False)),
      crop_padding=int(meta.get('crop_padding', 0)),
    )
  else:
    transform = entry.transform
    _warn_if_not_official(name, arrays.label)
  return Source(
    name=name,
    image=arrays.image,
    label=arrays.label,
    num_dev=arrays.num_dev,
    num_classes=arrays.num_classes,
    transform=transform,
    fingerprint=arrays.fingerprint,
  )


def _warn_if_not_official(name: str, label: np.ndarray) -> None:
  """Warn where the published split indices would point at other examples."""
  entry = CATALOG[name]
  expected = entry.num_dev + entry.num_test
  if len(label) != expected:
    difference = f'it has {len(label)} examples instead of {expected}'
  elif entry.label_digest not in ('', formats.label_digest(label)):
    difference = 'its examples do not stand in the official order'
  else:
    return
  warnings.warn(
    f'{entry.title} is not the official set: {difference}. Results are valid, '
    'but the published split indices mean other examples here; replace it by '
    f'the official one with `{_command(name)} --overwrite`',
    stacklevel=4,
  )


def _command(name: str) -> str:
  """Return the command that prepares a named set."""
  # The archives of UTKFace have no address to download from.
  manual = ' --manual_dir=DIR' if name == 'utkface' else ''
  return f'python -m jaxmu.prepare {name}{manual}'


def _not_there(name: str, folder: pathlib.Path) -> str:
  if name in CATALOG:
    return (
      f'{CATALOG[name].title} is not in {folder.parent}. Supply it with '
      'one of\n'
      f'  {_command(name)} --data_dir={folder.parent}\n'
      f'  {folder}/train.npz and test.npz (image: uint8 [N, H, W, C], label: '
      'integer [N])\n'
      'or name another folder with --data_dir, in a job with '
      '--config.data.folder, or with $JAXMU_DATA_DIR'
    )
  return (
    f'unknown data set {name!r}. Built in: {", ".join(sorted(CATALOG))}; found '
    f'in {folder.parent}: {", ".join(available(folder.parent))}. Any other '
    'set of tensorflow-datasets, your own arrays or an image folder is added '
    'with `python -m jaxmu.prepare`'
  )


CACHE_VERSION = (
  1  # raise when the conversion changes, so that caches are rewritten
)
_CHUNK = 1 << 24  # bytes hashed at a time


@dataclasses.dataclass(frozen=True, eq=False)
class CachedArrays:
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


def default_cache_dir() -> pathlib.Path:
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


def cache_key(*depends_on) -> str:
  """Return 16 hex digits that change with any of the given JSON values."""
  text = json.dumps([CACHE_VERSION, *depends_on], sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()[:16]


def open_cached(folder: pathlib.Path) -> CachedArrays | None:
  """Open a cache folder; None if it is absent or its contents changed."""
  if not folder.exists():
    return None
  try:
    record = json.loads((folder / 'record.json').read_text())
    image = np.load(folder / 'image.npy', mmap_mode='r', allow_pickle=False)
    label = np.load(folder / 'label.npy', allow_pickle=False)
    arrays = CachedArrays(
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


def write_cached(folder: pathlib.Path, source: formats.Raw) -> CachedArrays:
  """Convert `source` to model input, store it in `folder` and open it.

  Raises:
    ValueError: the images or labels of the source are not of the right form,
      or the folder cannot be written.
  """
  try:
    with files_lib.atomic_folder(folder.parent) as draft:
      _write_arrays(draft, source)
      finished = open_cached(folder)  # another process may have been faster
      if finished is not None:
        return finished
      files_lib.publish_folder(draft, folder)
  except OSError as error:
    raise ValueError(
      f'the cache folder {folder.parent} cannot be written ({error}): choose '
      'another one with the environment variable JAXMU_CACHE_DIR'
    ) from error
  arrays = open_cached(folder)
  if arrays is None:
    raise ValueError(f'{folder} could not be read back: is the disk full?')
  return arrays


def _write_arrays(draft: pathlib.Path, source: formats.Raw) -> None:
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
  image.flush()
  np.save(draft / 'label.npy', label)
  mean, std = catalog.channel_moments(image[: source.num_dev])
  record = {
    'num_dev': source.num_dev,
    'num_classes': source.num_classes,
    'fingerprint': fingerprint(image, label),
    'mean': mean,
    'std': std,
    'origin': source.origin,
  }
  (draft / 'record.json').write_text(json.dumps(record, indent=2) + '\n')
