"""The plain form of a data set: a folder with two NumPy archives.

  <data_dir>/<name>/train.npz   image: uint8 [N, H, W, C], label: integer [N]
  <data_dir>/<name>/test.npz    the same for the official test set
  <data_dir>/<name>/meta.json   optional: size, num_classes, class_names,
                                flip, crop_padding

The easiest form to write by hand, and what `python -m jaxmu.prepare` makes of
a user's own arrays or image folder.
"""

import json
import lzma
import pathlib
import zipfile
import zlib

import numpy as np

from jaxmu.data import images, raw
from jaxmu.data.catalog import CATALOG

SPLITS = ('train', 'test')
# What NumPy raises on archives that are cut short or hold something else.
_BROKEN = (
  zipfile.BadZipFile,
  zlib.error,
  lzma.LZMAError,
  EOFError,
  OSError,
  ValueError,
)
_INT32 = 2**31 - 1  # labels are stored so
META_KEYS = ('size', 'num_classes', 'class_names', 'flip', 'crop_padding')


def is_plain(folder: pathlib.Path) -> bool:
  """Return whether `folder` holds a data set in the plain form, or half one."""
  return any((folder / f'{split}.npz').exists() for split in SPLITS)


def remove(folder: pathlib.Path) -> None:
  """Remove the files of the plain form, and nothing else, from `folder`."""
  for name in (*(f'{split}.npz' for split in SPLITS), 'meta.json'):
    (folder / name).unlink(missing_ok=True)


def read_meta(folder: pathlib.Path) -> dict:
  """Return the contents of `meta.json`, or nothing if there is none."""
  path = folder / 'meta.json'
  if not path.exists():
    return {}
  try:
    meta = json.loads(path.read_text())
  except ValueError as error:
    raise ValueError(f'{path} is not JSON ({error}): repair it') from error
  if not isinstance(meta, dict):
    raise ValueError(
      f'{path} holds {meta!r}, expected an object with some of {META_KEYS}'
    )
  unknown = sorted(set(meta) - set(META_KEYS))
  if unknown:
    raise ValueError(f'{path}: unknown keys {unknown}, known are {META_KEYS}')
  for key, least in (('size', 1), ('num_classes', 1), ('crop_padding', 0)):
    value = meta.get(key, least)
    if type(value) is not int or not least <= value <= _INT32:
      raise ValueError(
        f'{path}: {key} is {value!r}, expected an integer of at least {least}'
        f' and at most {_INT32}'
      )
  if not isinstance(meta.get('flip', False), bool):
    raise ValueError(
      f'{path}: flip is {meta["flip"]!r}, expected true or false'
    )
  names = meta.get('class_names', [])
  if not isinstance(names, list) or not all(isinstance(n, str) for n in names):
    raise ValueError(
      f'{path}: class_names is {names!r}, expected a list of strings'
    )
  return meta


def open_plain(name: str, folder: pathlib.Path) -> raw.Raw:
  """Read both archives of a plain data set.

  Args:
    name: the name of the set; constants of named sets come from the catalog.
    folder: holds `train.npz` and `test.npz`.

  Raises:
    ValueError: an archive is missing, damaged or of the wrong form.
  """
  parts = [read_npz(folder / f'{split}.npz') for split in SPLITS]
  (train_image, train_label), (test_image, test_label) = parts
  if train_image.shape[1:] != test_image.shape[1:]:
    raise ValueError(
      f'{folder}: train images have shape {train_image.shape[1:]}, test images '
      f'{test_image.shape[1:]}: both need one shape'
    )
  meta = read_meta(folder)
  names = meta.get('class_names', [])
  labels = np.concatenate([train_label, test_label])
  if name in CATALOG:
    size, num_classes = CATALOG[name].size, CATALOG[name].num_classes
  else:
    size = meta.get('size') or max(train_image.shape[1:3])
    num_classes = meta.get('num_classes') or len(names)
  for label, split in zip((train_label, test_label), SPLITS, strict=True):
    raw.check_labels(
      label,
      num_classes=num_classes or None,
      origin=str(folder / f'{split}.npz'),
    )
  num_classes = num_classes or raw.count_classes(labels, origin=str(folder))
  if names and len(names) != num_classes:
    raise ValueError(
      f'{folder / "meta.json"}: {len(names)} class_names for {num_classes} '
      'classes: give one for each, or none'
    )
  return raw.Raw(
    num_dev=len(train_label),
    num_test=len(test_label),
    blocks=lambda: iter(parts),
    size=size,
    num_classes=num_classes,
    origin=str(folder),
  )


def read_npz(path: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
  """Return image u8[N, H, W, C] and label [N] of one archive.

  Raises:
    ValueError: the file is missing, cut short, lacks an array, or an array is
      of the wrong form; the message names the file and the remedy.
  """
  if not path.exists():
    raise ValueError(
      f'{path} is missing: a plain data set needs train.npz and test.npz, each '
      "with arrays 'image' (uint8 [N, H, W, C]) and 'label' (integer [N])"
    )
  arrays = read_archive(path, needed=('image', 'label'))
  image, label = arrays['image'], arrays['label']
  try:
    images.check_images(image)
  except ValueError as error:
    raise ValueError(f'{path}: {error}') from error
  if label.shape != image.shape[:1]:
    raise ValueError(
      f'{path}: {len(image)} images but labels of shape {label.shape}'
    )
  return image, label


def read_array(path: pathlib.Path) -> np.ndarray:
  """Return the array of a `.npy`.

  Raises:
    ValueError: the file is missing, damaged, holds Python objects or is an
      archive of several arrays.
  """
  try:
    array = np.load(path, allow_pickle=False)
  except _BROKEN as error:
    raise ValueError(f'{path}: {error}') from error
  if not isinstance(array, np.ndarray):
    array.close()
    raise ValueError(f'{path} is an archive, expected one array')
  return array


def read_archive(
  path: pathlib.Path, *, needed: tuple[str, ...]
) -> dict[str, np.ndarray]:
  """Return all arrays of a `.npz`, which must hold those that are needed.

  Raises:
    ValueError: the file is damaged, holds Python objects, or lacks an array.
  """
  try:
    archive = np.load(path, allow_pickle=False)
    arrays = {}
    if not isinstance(archive, np.ndarray):
      with archive:
        arrays = {name: archive[name] for name in archive.files}
  except _BROKEN as error:
    raise ValueError(
      f'{path} cannot be read ({error}): it is damaged or cut short, copy it '
      'again'
    ) from error
  if isinstance(archive, np.ndarray):
    raise ValueError(f'{path} is one array: write an archive with np.savez')
  if not set(needed) <= set(arrays):
    raise ValueError(
      f'{path} holds the arrays {sorted(arrays)}, expected {list(needed)}'
    )
  return arrays
