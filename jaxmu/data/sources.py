"""From the name of a data set to its arrays, ready for the device.

`load('digits')` works anywhere. The other sets are looked for in a data folder,
`$JAXMU_DATA_DIR` or `data_dir`, either as tensorflow-datasets left them (opened
without TensorFlow) or in the plain form of `jaxmu.data.plain`. Nothing is
downloaded here: what is missing is reported with the command that supplies it.
"""

import dataclasses
import functools
import os
import pathlib
import warnings

import numpy as np

from jaxmu.core.types import Transform
from jaxmu.data import cache, digits, images, plain, prepared, raw
from jaxmu.data.catalog import CATALOG


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
  if plain.is_plain(folder):
    files = [folder / f'{split}.npz' for split in plain.SPLITS]
    files.append(folder / 'meta.json')
    read = functools.partial(plain.open_plain, name, folder)
  elif prepared.find(folder):
    version = prepared.newest(folder)
    files = sorted(version.iterdir())
    read = functools.partial(prepared.open_prepared, name, version)
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
    and (plain.is_plain(child) or prepared.find(child))
  ]
  return sorted({'digits', *found})


def _load_digits() -> Source:
  entry = CATALOG['digits']
  image, label = digits.read()
  image = images.to_model_input(image, size=entry.size)
  image.setflags(write=False)
  label.setflags(write=False)
  return Source(
    name='digits',
    image=image,
    label=label,
    num_dev=entry.num_dev,
    num_classes=entry.num_classes,
    transform=entry.transform,
    fingerprint=cache.fingerprint(image, label),
  )


def _load_cached(name, folder, files, read, cache_dir) -> Source:
  """Open the cached form of a set, converting it if there is none."""
  stamps = [
    (str(path), path.stat().st_size, path.stat().st_mtime_ns)
    for path in files
    if path.exists()
  ]
  entry = CATALOG.get(name)
  root = pathlib.Path(cache_dir) if cache_dir else cache.default_dir()
  target = root / f'{name.replace("/", "-")}-{cache.key(stamps)}'
  arrays = cache.open_or_none(target)
  if arrays is None:
    arrays = cache.write(target, read())
  if entry is None:
    meta = plain.read_meta(folder)
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
  elif entry.label_digest not in ('', raw.label_digest(label)):
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
