"""Data sets by name, from arrays or from a folder, ready for the device.

Each function returns a `Source`:

  load('cifar10')                      by name, see `DATASETS`
  from_arrays(images, labels)          in memory
  from_folder('pictures', size=64)     pictures, one folder per class

`load('digits')` works anywhere. Other sets are read from a data folder,
`data_dir` or `$JAXMU_DATA_DIR`, in the form that tensorflow-datasets or `python
-m jaxmu.prepare` writes. Nothing is downloaded here: an error names the command
that supplies a missing set.

The cache holds each data set as two arrays that are ready for the device:

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
import functools
import json
import math
import os
import pathlib
import shlex
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from jaxmu import files, terms
from jaxmu.data import catalog, custom, formats, pictures
from jaxmu.data.catalog import CATALOG
from jaxmu.types import Transform

PathLike = str | os.PathLike[str]

_DATA_DIR = '~/tensorflow_datasets'
_TRIES = 20  # to read a set that other processes replace
# Raise it when the conversion or the record changes, so that sets are converted
# again.
CACHE_VERSION = 4


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
  """A data set on the host, development part first.

  Attributes:
    name: of the set.
    image: u8[N, S, S, 3], resized to the model input, read-only.
    label: i32[N] in [0, num_classes).
    num_dev: the first `num_dev` examples are the development part (the official
      training set), the others the official test set.
    num_classes: number of labels, C.
    transform: normalisation and training augmentation.
    fingerprint: sha256 over the bytes of image and label, in hex. Split indices
      are valid only for this fingerprint.
  """

  name: str
  image: np.ndarray  # u8[N, S, S, 3]
  label: np.ndarray  # i32[N]
  num_dev: int
  num_classes: int
  transform: Transform
  fingerprint: str

  def identity(self) -> dict[str, Any]:
    """Return everything that results can depend on, as plain JSON values.

    Two sources with equal identities give equal results. Addresses of stored
    results are derived from it.
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

  def __repr__(self) -> str:
    num_test = len(self.label) - self.num_dev
    return (
      f'{self.name}: {self.num_dev:,} + {num_test:,} examples of '
      f'{self.image.shape[1]} x {self.image.shape[2]}, {self.num_classes} '
      f'classes, fingerprint {self.fingerprint[:16]}'
    )


@dataclasses.dataclass(frozen=True, eq=False)
class CachedArrays:
  """The contents of a cache folder.

  Attributes:
    image: u8[N, S, S, 3], memory-mapped and read-only.
    label: i32[N], read-only.
    num_dev: how many come first as the development part.
    num_classes: number of labels, C.
    fingerprint: sha256 over the bytes of both arrays, in hex.
    mean: per-channel mean of the development images in [0, 1].
    std: per-channel standard deviation of the same.
    copies: a sentence about images that occur more than once, or ''.
  """

  image: np.ndarray
  label: np.ndarray
  num_dev: int
  num_classes: int
  fingerprint: str
  mean: tuple[float, ...]
  std: tuple[float, ...]
  copies: str


def load(
  name: str,
  *,
  data_dir: PathLike | None = None,
  cache_dir: PathLike | None = None,
) -> Source:
  """Load a data set by name.

  The first call converts the set to two arrays in a cache folder; later calls
  map these into memory and check them.

  Args:
    name: `digits`, another name of `catalog.CATALOG`, or any set in the data
      folder (`svhn_cropped`, or one of `python -m jaxmu.prepare`).
    data_dir: folder of data sets; default $JAXMU_DATA_DIR, then the folder of
      tensorflow-datasets. Not read for `digits`, which a warning says.
    cache_dir: folder of converted sets; default $JAXMU_CACHE_DIR, then
      `~/.cache/jaxmu`.

  Raises:
    ValueError: the name is unknown, the set is missing, damaged or of the wrong
      form, or the cache folder cannot be written. The message names the remedy.

  Example:
    >>> load('digits').image.shape
    (1797, 32, 32, 3)
  """
  if name == 'digits':
    if data_dir is not None:
      warnings.warn(f'{data_dir} is not read: digits needs none', stacklevel=2)
    return _load_digits()
  folder = _folder_of(name, data_dir)
  for _ in range(_TRIES):
    before = files.versions_below(folder)
    try:
      source = _load(name, folder, cache_dir)
    except (ValueError, OSError):
      if not before:  # another process may be putting it into its place
        time.sleep(0.1)
      if files.versions_below(folder) == before:
        raise
    else:
      if files.versions_below(folder) == before:
        return source
  raise ValueError(
    f'{folder} was replaced {_TRIES} times while it was read: start again when '
    'the process that prepares it has ended'
  )


def _load(
  name: str, folder: pathlib.Path, cache_dir: PathLike | None
) -> Source:
  """Load a set that no other process replaces meanwhile."""
  meta = formats.read_meta(folder)
  if formats.is_plain(folder):
    paths = [folder / f'{part}.npz' for part in formats.PARTS]
    read = functools.partial(formats.open_plain, name, folder, meta)
    official = False
  elif formats.find_prepared(folder):
    version = formats.newest_prepared(folder)
    paths = sorted(version.iterdir())
    read = functools.partial(formats.open_prepared, name, version)
    official = formats.is_ours(version)
  else:
    raise ValueError(_not_there(name, folder))
  arrays = _convert_once(name, paths, meta, read, cache_dir)
  if arrays.copies:
    warnings.warn(f'{name}: {arrays.copies}', stacklevel=2)
  if name in CATALOG:
    transform = CATALOG[name].transform
    _warn_if_not_official(name, arrays.label, official)
  else:
    transform = custom.transform_of(
      arrays.image.shape[1],
      mean=arrays.mean,
      std=arrays.std,
      flip=bool(meta.get('flip', False)),
      crop_padding=int(meta.get('crop_padding', 0)),
      origin=f'{folder / "meta.json"}: ',
    )
  return Source(
    name=name,
    image=arrays.image,
    label=arrays.label,
    num_dev=arrays.num_dev,
    num_classes=arrays.num_classes,
    transform=transform,
    fingerprint=arrays.fingerprint,
  )


def from_arrays(
  images: Any,
  labels: Any,
  *,
  test_images: Any = None,
  test_labels: Any = None,
  test_fraction: float | None = None,
  name: str = 'custom',
  num_classes: int | None = None,
  size: int | None = None,
  mean: float | Sequence[float] | None = None,
  std: float | Sequence[float] | None = None,
  flip: bool = False,
  crop_padding: int = 0,
  seed: int = 0,
) -> Source:
  """Make a data set from arrays in memory.

  Args:
    images: of the development part, uint8 or float in [0, 1]; [N, H, W],
      [N, H, W, 1] (grey) or [N, H, W, 3] (RGB). NumPy, JAX or anything that
      `np.asarray` takes. Floats are rounded to bytes.
    labels: N integers, counted from 0.
    test_images: the same for the test part; if it is left out, a random part is
      split off.
    test_labels: of `test_images`.
    test_fraction: fraction to split off, in (0, 1); default 0.2.
    name: of the set, for reports and addresses.
    num_classes: C; default the largest label + 1.
    size: height and width of the model input, in pixels; default the longer
      side of the images. Others are resized as by `catalog.to_model_input`.
    mean: per channel, of pixels in [0, 1], or one number for all; default the
      mean of the development part.
    std: likewise, the standard deviation.
    flip: mirror training images with probability one half.
    crop_padding: pad training images by this many pixels and crop at random.
    seed: of the test part that is split off.

  Raises:
    ValueError: an argument is out of range, or arrays have another form; the
      message names the remedy in one line.

  Example:
    >>> import numpy as np
    >>> images = np.random.default_rng(0).random((50, 8, 8))
    >>> from_arrays(images, np.arange(50) % 5).image.shape
    (50, 8, 8, 3)
  """
  image = custom.as_images(images, origin='images')
  label = custom.as_labels(labels, count=len(image), origin='labels')
  test = None
  if (test_images is None) != (test_labels is None):
    raise ValueError('give test_images and test_labels, or neither')
  if test_images is not None:
    test_image = custom.as_images(test_images, origin='test_images')
    test_label = custom.as_labels(
      test_labels, count=len(test_image), origin='test_labels'
    )
    test = test_image, test_label
  return _in_memory(
    custom.Labelled(train=(image, label), test=test),
    name=name,
    num_classes=num_classes,
    size=size,
    test_fraction=test_fraction,
    seed=seed,
    moments=(mean, std),
    flip=flip,
    crop_padding=crop_padding,
  )


def from_folder(
  path: PathLike,
  *,
  size: int | None = None,
  test_fraction: float | None = None,
  name: str = 'custom',
  mean: float | Sequence[float] | None = None,
  std: float | Sequence[float] | None = None,
  flip: bool = False,
  crop_padding: int = 0,
  seed: int = 0,
) -> Source:
  """Make a data set from a folder of pictures, without preparing it first.

  Files that are not used are counted in a warning.

  Args:
    path: of `<class>/<image>.png`, or of `train/<class>/<image>.png` and
      `test/<class>/<image>.png`. Classes are numbered in the order of their
      names.
    size: height and width of the model input; needed if pictures differ in
      size.
    test_fraction: this and all other arguments are as in `from_arrays`.

  Raises:
    ValueError: an argument is out of range, or the folder or a picture is not
      of the right form; the message names the file and the remedy.

  Example:
    >>> import tempfile
    >>> from PIL import Image
    >>> with tempfile.TemporaryDirectory() as folder:
    ...   for name in ('cat', 'dog'):
    ...     (pathlib.Path(folder) / name).mkdir()
    ...     for k in range(5):
    ...       picture = Image.effect_noise((8, 8), 50)
    ...       picture.save(f'{folder}/{name}/{k}.png')
    ...   source = from_folder(folder, size=16)
    >>> source.image.shape
    (10, 16, 16, 3)
  """
  custom.check_name(name)
  _check_numbers(size=size, num_classes=None, crop_padding=crop_padding)
  if test_fraction is not None:
    custom.check_fraction(test_fraction)
  try:
    listing = pictures.list_folder(files.path(path))
    blocks = pictures.read(listing, size=size)
  except OSError as error:
    raise ValueError(f'{path} cannot be read ({error})') from error
  if listing.left_out:
    warnings.warn(listing.left_out_line(), stacklevel=2)
  return _in_memory(
    custom.Labelled(
      train=blocks[0],
      test=blocks[1] if len(blocks) == 2 else None,
      class_names=listing.class_names,
    ),
    name=name,
    num_classes=len(listing.class_names),
    size=size,
    test_fraction=test_fraction,
    seed=seed,
    moments=(mean, std),
    flip=flip,
    crop_padding=crop_padding,
  )


def find_data_dir(data_dir: PathLike | None = None) -> pathlib.Path:
  """Return `data_dir` if given, else $JAXMU_DATA_DIR, else tfds' folder."""
  named = map(os.environ.get, ('JAXMU_DATA_DIR', 'TFDS_DATA_DIR'))
  return files.path(data_dir or next(filter(None, named), _DATA_DIR))


def available(data_dir: PathLike | None = None) -> list[str]:
  """Return the names of all sets that `load` can open now, ascending."""
  folder = find_data_dir(data_dir)
  children = sorted(folder.iterdir()) if folder.is_dir() else []
  here = [
    child.name
    for child in children
    if child.is_dir()
    and not child.name.startswith('.')  # hidden: a draft of another process
    and (formats.is_plain(child) or formats.find_prepared(child))
  ]
  return sorted({'digits', *here})


def entry(name: str, data_dir: PathLike | None = None) -> catalog.Entry:
  """Return the constants of a data set.

  Those of the catalogue need no data; a set of the user's is loaded.

  Args:
    name: of the set.
    data_dir: folder of data sets, as in `load`.

  Raises:
    ValueError: it is neither in the catalogue nor in the folder, or cannot be
      read.

  Example:
    >>> entry('mnist').num_dev
    60000
  """
  if name in CATALOG:
    return CATALOG[name]
  versions = files.versions_below(_folder_of(name, data_dir))
  return _custom_entry(name, find_data_dir(data_dir), versions)


@functools.lru_cache
def _custom_entry(name: str, data_dir: Any, versions: Any) -> catalog.Entry:
  """Load a set, again only if `versions` says that its files have changed."""
  del versions
  source = load(name, data_dir=data_dir)
  size = int(source.image.shape[1])
  return catalog.Entry(
    title=name,
    num_classes=source.num_classes,
    native_shape=(size, size, 3),
    size=size,
    num_dev=source.num_dev,
    num_test=len(source.label) - source.num_dev,
    transform=source.transform,
  )


class _Datasets(Mapping[str, catalog.Entry | None]):
  """The names that `load` accepts: the catalogue and the sets in the folder.

  The value of a name is its entry in the catalogue, or None for a custom set.
  """

  def __getitem__(self, name: str) -> catalog.Entry | None:
    if name not in set(self):
      raise KeyError(name)
    return CATALOG.get(name)

  def __iter__(self) -> Iterator[str]:
    return iter(sorted({*CATALOG, *available()}))

  def __len__(self) -> int:
    return len(list(iter(self)))

  def __repr__(self) -> str:
    here = available()
    rows: list[tuple[str, ...]] = [
      ('name', 'classes', 'development + test', 'input', 'where')
    ]
    for name, entry in self.items():
      where = 'here' if name in here else command(name)
      facts = ('', '', '')
      if entry is not None:
        facts = (
          str(entry.num_classes),
          f'{entry.num_dev:,} + {entry.num_test:,}',
          f'{entry.size} x {entry.size}',
        )
      rows.append((name, *facts, where))
    return '\n'.join(terms.columns(rows))


DATASETS = _Datasets()


def command(name: str) -> str:
  """Return the command that prepares a set of the catalogue."""
  # The archives of UTKFace have no address to download from.
  manual = ' --manual_dir=DIR' if name == 'utkface' else ''
  return f'python -m jaxmu.prepare {name}{manual}'


def _load_digits() -> Source:
  entry = CATALOG['digits']
  image, label = catalog.read_digits()
  image = catalog.to_model_input(image, size=entry.size)
  return _source('digits', image, label, entry.num_dev, 10, entry.transform)


def _source(
  name: str,
  image: np.ndarray,
  label: np.ndarray,
  num_dev: int,
  num_classes: int,
  transform: Transform,
) -> Source:
  """Return a source from arrays in memory, which are made read-only."""
  image.setflags(write=False)
  label.setflags(write=False)
  return Source(
    name=name,
    image=image,
    label=label,
    num_dev=num_dev,
    num_classes=num_classes,
    transform=transform,
    fingerprint=fingerprint(image, label),
  )


def _in_memory(
  data: custom.Labelled,
  *,
  name: str,
  num_classes: int | None,
  size: int | None,
  test_fraction: float | None,
  seed: int,
  moments: tuple,
  flip: bool,
  crop_padding: int,
) -> Source:
  """Check, divide and resize labelled images; compute missing constants."""
  custom.check_name(name)
  _check_numbers(size=size, num_classes=num_classes, crop_padding=crop_padding)
  num_classes = custom.count_classes(
    data, num_classes=num_classes, origin='labels'
  )
  divided = custom.divide(data, test_fraction=test_fraction, seed=seed)
  assert divided.test is not None
  parts = divided.train, divided.test
  shapes = [image.shape[1:] for image, _ in parts]
  if shapes[0] != shapes[1]:
    raise ValueError(
      f'images have shape {shapes[0]}, test images {shapes[1]}: both need one '
      'shape'
    )
  side = size or max(shapes[0][:2])
  image = np.concatenate(
    [catalog.to_model_input(image, size=side) for image, _ in parts]
  )
  label = np.concatenate([label for _, label in parts]).astype(np.int32)
  num_dev = len(divided.train[1])
  if copies := formats.duplicates(image, label, num_dev):
    warnings.warn(f'{name}: {copies}', stacklevel=3)
  mean, std = moments
  if mean is None or std is None:
    computed = catalog.channel_moments(image[:num_dev])
    mean = computed[0] if mean is None else mean
    std = computed[1] if std is None else std
  transform = custom.transform_of(
    side, mean=mean, std=std, flip=flip, crop_padding=crop_padding
  )
  return _source(name, image, label, num_dev, num_classes, transform)


def _check_numbers(**numbers: int | None) -> None:
  """Raise ValueError if an argument is outside `formats.LIMITS`."""
  for key, value in numbers.items():
    if value is not None:
      formats.check_number(key, value, origin=key)


def _folder_of(name: str, data_dir: PathLike | None) -> pathlib.Path:
  """Return the folder of a set, which is inside the data folder."""
  root = find_data_dir(data_dir)
  plain = pathlib.PurePath(name)
  outside = plain.is_absolute() or '..' in plain.parts or not plain.parts
  if outside or '\0' in name or str(plain) != name:
    raise ValueError(
      f'{name!r} cannot name a data set: give the name of a folder inside '
      f'{root}, or another folder with --data_dir'
    )
  try:
    (root / name).exists()
  except OSError as error:  # such as a name that is too long
    raise ValueError(
      f'{name[:40]!r}... cannot name a data set ({error.strerror})'
    ) from None
  return root / name


def _convert_once(
  name: str,
  paths: list[pathlib.Path],
  meta: dict[str, Any],
  read: Callable[[], formats.Raw],
  cache_dir: PathLike | None,
) -> CachedArrays:
  """Open the cached form of a set, converting it if there is none."""
  shaping = {
    key: meta[key]
    for key in ('size', 'num_classes', 'class_names')
    if key in meta
  }
  root = files.path(cache_dir) if cache_dir else files.cache_dir()
  versions = files.versions(paths)
  # Copies on other disks have other inodes.
  key = cache_key([version[:3] for version in versions], shaping)
  target = root / f'{name.replace("/", "-")}-{key}'
  return open_cached(target) or convert(
    target, read(), lambda: files.versions(paths) == versions
  )


def _warn_if_not_official(name: str, label: np.ndarray, ours: bool) -> None:
  """Warn if published split indices may select other examples.

  Args:
    name: of the catalogue.
    label: i32[N] of all examples.
    ours: whether jaxmu prepared the set from an official archive.
  """
  entry = CATALOG[name]
  expected = entry.num_dev + entry.num_test
  remedy = f'replace it by the official one with `{command(name)} --overwrite`'
  if len(label) != expected:
    difference = f'it has {len(label)} examples instead of {expected}'
  elif entry.label_digest not in ('', formats.label_digest(label)):
    difference = 'its examples are not in the official order'
  elif entry.label_digest or ours:
    return
  else:
    warnings.warn(
      f'{entry.title}: only the number of examples was compared with the '
      f'official set, neither their order nor their labels. Published split '
      f'indices may mean other examples here; {remedy}',
      stacklevel=3,
    )
    return
  warnings.warn(
    f'{entry.title} is not the official set: {difference}. Results are valid, '
    f'but the published split indices mean other examples here; {remedy}',
    stacklevel=3,
  )


def _not_there(name: str, folder: pathlib.Path) -> str:
  if name in CATALOG:
    place = shlex.quote(str(folder.parent))
    return (
      f'{CATALOG[name].title} is not in {folder.parent}; prepare it with '
      f'`{command(name)} --data_dir={place}`, put train.npz and test.npz '
      '(image: uint8 [N, H, W, C], label: integer [N]) into '
      f'{folder}, or name another folder with --data_dir, in a job with '
      '--config.data.folder, or with $JAXMU_DATA_DIR'
    )
  return (
    f'unknown data set {name!r}; {terms.nearest(name, CATALOG)}built in: '
    f'{", ".join(sorted(CATALOG))}; '
    f'in {folder.parent}: {", ".join(available(folder.parent))}. Any other '
    'set of tensorflow-datasets, arrays or a folder of pictures are added with '
    '`python -m jaxmu.prepare`'
  )


def fingerprint(image: np.ndarray, label: np.ndarray) -> str:
  """Return the sha256 over image bytes, then label bytes (i32), in hex."""
  return files.sha256_of(image, label.astype('<i4'))


def cache_key(*depends_on: Any) -> str:
  """Return 16 hex digits that change with any of the given JSON values."""
  return files.digest(CACHE_VERSION, *depends_on, digits=16)


def open_cached(folder: pathlib.Path) -> CachedArrays | None:
  """Open a cache folder.

  Returns:
    None if there is no such folder, or if a file in it is damaged; a warning
    then names the folder and what is wrong.
  """
  if not folder.exists():
    return None
  try:
    return _open_cached(folder)
  # NumPy's and JSON's readers raise many kinds of exceptions on damaged files;
  # the remedy is always the same.
  except Exception as error:
    warnings.warn(
      f'the cached data set {folder} is damaged ({error or repr(error)}); it '
      'is converted again',
      stacklevel=2,
    )
    return None


def convert(
  folder: pathlib.Path,
  source: formats.Raw,
  unchanged: Callable[[], bool] = lambda: True,
) -> CachedArrays:
  """Convert `source` to model input, store it in `folder` and open it.

  Args:
    folder: where to.
    source: what to convert.
    unchanged: says whether the source is still what was read.

  Raises:
    ValueError: the images or labels of the source are not of the right form,
      or the folder cannot be written.
  """
  try:
    with files.atomic_folder(folder.parent) as draft:
      _write(draft, source, name=folder.name)
      finished = open_cached(folder)  # another process may have been faster
      if finished is not None:
        return finished
      if not unchanged():
        raise ValueError(f'{source.origin} was replaced while it was read')
      files.publish_folder(draft, folder)
  except OSError as error:
    raise ValueError(
      f'the cache folder {folder.parent} cannot be written ({error}): choose '
      'another one with the environment variable JAXMU_CACHE_DIR'
    ) from error
  arrays = open_cached(folder)
  if arrays is None:
    raise ValueError(f'{folder} could not be read back: is the disk full?')
  return arrays


def _open_cached(folder: pathlib.Path) -> CachedArrays:
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
    copies=record['copies'],
  )


def _read_record(folder: pathlib.Path) -> dict[str, Any]:
  """Return the record of a folder if it belongs to it and is unchanged."""
  record = files.read_json(folder / 'record.json')
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
      f'{terms.readable_bytes(needed)} needed, '
      f'{terms.readable_bytes(free)} free on the disk'
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
    'copies': formats.duplicates(image, label, source.num_dev),
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
