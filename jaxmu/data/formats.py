"""The two forms in which a data set is stored, read as blocks of images.

The *plain* form is a folder with two NumPy archives. It is easy to write by
hand, and `python -m jaxmu.prepare` writes it from arrays and image folders.

  <data_dir>/<name>/train.npz   image: uint8 [N, H, W, C], label: integer [N]
  <data_dir>/<name>/test.npz    the same for the official test set
  <data_dir>/<name>/meta.json   optional: size, num_classes, class_names,
                                flip, crop_padding

The *prepared* form is that of tensorflow-datasets (tfds), opened here without
TensorFlow. It needs a file format with random access: array_record or parquet.
Records that tfds shuffled are put back into the official order where they carry
their number (`id`: `train_00042`, as in tfds' own cifar10 and cifar100).

  <data_dir>/<name>/[<config>/]<version>/dataset_info.json, features.json, ...
                                         checksums.json   if jaxmu prepared it
"""

import dataclasses
import json
import math
import pathlib
import re
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from jaxmu import files, terms
from jaxmu.data import archives, catalog
from jaxmu.data.catalog import CATALOG

Block = tuple[np.ndarray, np.ndarray]  # u8[n, H, W, C], integer [n]

PARTS = ('train', 'test')
FORMATS = ('array_record', 'parquet')  # of tfds, with random access
META_KEYS = ('size', 'num_classes', 'class_names', 'flip', 'crop_padding')
# Smallest and largest value. The largest ones keep a typing error from
# allocating more memory than any machine has.
LIMITS = {
  'size': (1, 4096),
  'num_classes': (2, 1_000_000),
  'crop_padding': (0, 1024),
}

# Bytes to which an archive may be unpacked if they are more than its own: a
# compressed file of a few MB can fill any memory.
MOST_UNPACKED = 4e9

# SHA-256 of the files that describe a prepared set, by name: the records have
# checksums of their own.
_CHECKSUMS = 'checksums.json'
_NAMED = 5  # absent classes that are listed by name
_BLOCK = 1024  # examples decoded at a time
# What NumPy and zipfile raise on archives that are cut short, damaged, or too
# large for the memory.
_BROKEN = (*archives.BROKEN, ValueError, MemoryError)


@dataclasses.dataclass(frozen=True)
class Raw:
  """Images and labels in their native form, read block by block.

  Attributes:
    num_dev: examples of the development part, which come first.
    num_test: examples of the test part.
    blocks: starts an iteration over blocks that join to all examples; images
      within one block have one shape.
    size: height and width of the model input, in pixels.
    num_classes: number of labels, C.
    origin: where it was read, for messages.
  """

  num_dev: int
  num_test: int
  blocks: Callable[[], Iterator[Block]]
  size: int
  num_classes: int
  origin: str

  @property
  def num_examples(self) -> int:
    return self.num_dev + self.num_test


def check_labels(
  label: np.ndarray, *, num_classes: int | None, origin: str
) -> None:
  """Raise ValueError unless labels are integers in [0, num_classes).

  With None, any upper limit will do.
  """
  if label.ndim != 1 or label.dtype.kind not in 'iu':
    raise ValueError(
      f'{origin}: labels have dtype {label.dtype} and shape {label.shape}, '
      'expected one integer per image'
    )
  most = int(label.max(initial=0)) if num_classes is None else num_classes - 1
  wrong = np.flatnonzero((label < 0) | (label > most))
  if wrong.size:
    raise ValueError(
      f'{origin}: {terms.count(wrong.size, "label")} outside 0..{most}, first '
      f'at position {wrong[0]} with value {label[wrong[0]]}: count classes '
      'from 0, or correct num_classes'
    )


def check_number(key: str, value: Any, *, origin: str) -> None:
  """Raise ValueError unless `value` is an integer within `LIMITS[key]`."""
  least, most = LIMITS[key]
  if type(value) is not int or not least <= value <= most:
    raise ValueError(
      f'{origin} is {value!r}, expected an integer of at least {least} and at '
      f'most {most}'
    )


def check_crop(crop_padding: int, *, size: int, origin: str) -> None:
  """Raise ValueError if random crops could show nothing of the image."""
  if crop_padding >= size:
    raise ValueError(
      f'{origin} is {crop_padding} for images of {size} x {size}: a crop may '
      f'show nothing of the image; choose at most {size - 1}'
    )


def count_classes(label: np.ndarray, *, origin: str) -> int:
  """Return the largest label + 1, C.

  Args:
    label: non-negative integers [N].
    origin: where they were read, for the message.

  Raises:
    ValueError: there would be more classes than examples, which is rarely
      intended, or only one.
  """
  num_classes = int(label.max()) + 1
  if num_classes == 1:
    raise ValueError(
      f'{origin}: all labels are 0: a classifier needs at least two classes'
    )
  if num_classes > len(label):
    raise ValueError(
      f'{origin}: label {num_classes - 1} at position {label.argmax()} makes '
      f'{num_classes} classes of {len(label)} examples: count labels from 0 '
      'without gaps, or confirm with num_classes (--num_classes in `python -m '
      'jaxmu.prepare`)'
    )
  return num_classes


def absent_classes(label: np.ndarray, *, num_classes: int) -> str:
  """Say which of the classes have no label, or return an empty string."""
  seen = set(np.unique(label).tolist())
  count = num_classes - len(seen)
  if not count:
    return ''
  # Only these numbers need to be tried, however many classes there are.
  tried = range(min(num_classes, len(seen) + _NAMED))
  named = [str(c) for c in tried if c not in seen][:_NAMED]
  more = f' and {count - len(named)} more' * (count > len(named))
  return (
    f'{count} of {num_classes} classes never occur among the {len(label)} '
    f'training examples: {", ".join(named)}{more}; number labels from 0 '
    'without gaps if this is a mistake'
  )


def duplicates(image: np.ndarray, label: np.ndarray, num_dev: int) -> str:
  """Say how many images occur more than once, or return an empty string.

  Positions count the development part first, then the test part.

  Args:
    image: u8[N, H, W, C], development part first.
    label: integers [N].
    num_dev: size of the development part.
  """
  first: dict[str, int] = {}
  within = across = conflicting = 0
  pair = ''
  for place, one in enumerate(image):
    other = first.setdefault(files.sha256_of(one), place)
    if other == place:
      continue
    pair = pair or f'{other} and {place}'
    conflicting += int(label[other] != label[place])
    if (other < num_dev) == (place < num_dev):
      within += 1
    else:
      across += 1
  if not pair:
    return ''
  return (
    f'{terms.count(within + across, "exact copy", "exact copies")} of images '
    f'(first: examples {pair}): '
    f'{within:,} in the same part, {across:,} of the development part in the '
    f'test part, {conflicting:,} with another label. A copy of a forgotten '
    'image is still trained on; remove copies that are a mistake'
  )


def label_digest(label: np.ndarray) -> str:
  """Return 16 hex digits of the sha256 of labels as little-endian int32."""
  return files.sha256_of(label.astype('<i4'))[:16]


def is_plain(folder: pathlib.Path) -> bool:
  """Return whether `folder` holds a plain data set, or part of one."""
  return any((folder / f'{split}.npz').exists() for split in PARTS)


def remove_plain(folder: pathlib.Path) -> None:
  """Remove the files of the plain form, and nothing else, from `folder`."""
  for name in (*(f'{split}.npz' for split in PARTS), 'meta.json'):
    (folder / name).unlink(missing_ok=True)


def read_meta(folder: pathlib.Path) -> dict:
  """Return the contents of `meta.json`, or an empty dict if there is none."""
  path = folder / 'meta.json'
  if not path.exists() and not path.is_symlink():  # a link may lead to nothing
    return {}
  check_regular(path)
  try:
    meta = files.read_json(path)
  except (ValueError, OSError) as error:
    raise ValueError(
      f'{path} cannot be read ({error}): write an object with some of '
      f'{META_KEYS}'
    ) from error
  unknown = sorted(set(meta) - set(META_KEYS))
  if unknown:
    raise ValueError(f'{path}: unknown keys {unknown}, known are {META_KEYS}')
  for key in LIMITS:
    if key in meta:
      check_number(key, meta[key], origin=f'{path}: {key}')
  if not isinstance(meta.get('flip', False), bool):
    raise ValueError(
      f'{path}: flip is {meta["flip"]!r}, expected true or false'
    )
  names = meta.get('class_names', [])
  if not isinstance(names, list) or not all(isinstance(n, str) for n in names):
    raise ValueError(
      f'{path}: class_names is {names!r}, expected a list of strings'
    )
  if len(set(names)) < len(names):
    twice = max(names, key=names.count)
    raise ValueError(f'{path}: class_names repeats {twice!r}: rename one')
  return meta


def open_plain(
  name: str, folder: pathlib.Path, meta: dict | None = None
) -> Raw:
  """Read both archives of a plain data set.

  Args:
    name: the name of the set; constants of named sets come from the catalog.
    folder: holds `train.npz` and `test.npz`.
    meta: contents of its `meta.json`, if they have been read before.

  Raises:
    ValueError: an archive is missing, damaged or of the wrong form.
  """
  parts = [read_npz(folder / f'{split}.npz') for split in PARTS]
  (train_image, train_label), (test_image, test_label) = parts
  if train_image.shape[1:] != test_image.shape[1:]:
    raise ValueError(
      f'{folder}: train images have shape {train_image.shape[1:]}, test images '
      f'{test_image.shape[1:]}: both need one shape'
    )
  meta = read_meta(folder) if meta is None else meta
  names = meta.get('class_names', [])
  labels = np.concatenate([train_label, test_label])
  if name in CATALOG:
    size, num_classes = CATALOG[name].size, CATALOG[name].num_classes
  else:
    size = meta.get('size') or max(train_image.shape[1:3])
    num_classes = meta.get('num_classes') or len(names)
    check_crop(
      meta.get('crop_padding', 0),
      size=size,
      origin=f'{folder / "meta.json"}: crop_padding',
    )
  for label, split in zip((train_label, test_label), PARTS, strict=True):
    check_labels(
      label,
      num_classes=num_classes or None,
      origin=str(folder / f'{split}.npz'),
    )
  num_classes = num_classes or count_classes(labels, origin=str(folder))
  if names and len(names) != num_classes:
    raise ValueError(
      f'{folder / "meta.json"}: {len(names)} class_names for {num_classes} '
      'classes: give one for each, or none'
    )
  return Raw(
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
  catalog.check_images(image, origin=str(path))
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
  check_regular(path)
  try:
    array = np.load(path, allow_pickle=False)
  except _BROKEN as error:
    raise ValueError(f'{path}: {error}') from error
  if not isinstance(array, np.ndarray):
    array.close()
    raise ValueError(f'{path} is an archive, expected one array')
  return array


def read_archive(
  path: pathlib.Path, *, needed: tuple[str, ...], most: float = MOST_UNPACKED
) -> dict[str, np.ndarray]:
  """Return all arrays of a `.npz`, which must include the needed ones.

  Every member is read to its end, where its checksum is compared: `numpy.load`
  stops at the length that the array's own header states.

  Args:
    path: the file.
    needed: names of arrays.
    most: bytes to which it may be unpacked, if they are more than its own.

  Raises:
    ValueError: the file is damaged, too large, holds Python objects, or lacks
      an array.
  """
  check_regular(path)
  try:
    with path.open('rb') as file:
      if file.read(6) == b'\x93NUMPY':
        raise _Refused(f'{path} is one array: write several with np.savez')
    with zipfile.ZipFile(path) as archive:
      _check_members(path, archive, most)
      arrays = {
        info.filename.removesuffix('.npy'): _read_member(archive, info)
        for info in archive.infolist()
      }
  except _Refused:
    raise
  except _BROKEN as error:
    raise ValueError(
      f'{path} cannot be read ({error}): it is damaged or cut short, copy it '
      'again'
    ) from error
  if not set(needed) <= set(arrays):
    raise ValueError(
      f'{path} holds the arrays {sorted(arrays)}, expected {list(needed)}'
    )
  return arrays


class _Refused(ValueError):
  """A file that is whole but not accepted."""


def _check_members(
  path: pathlib.Path, archive: zipfile.ZipFile, most: float
) -> None:
  names = archive.namelist()
  if len(set(names)) < len(names):
    twice = max(names, key=names.count)
    raise _Refused(f'{path} holds {twice} twice: write it again')
  unpacked = sum(info.file_size for info in archive.infolist())
  if unpacked > max(most, path.stat().st_size):
    raise _Refused(
      f'{path} has {path.stat().st_size / 1e6:,.1f} MB and unpacks to '
      f'{unpacked / 1e9:,.1f} GB, more than {most / 1e9:g} GB: if it is meant '
      'to, write it with np.savez, which does not compress, or raise the limit '
      '(--max_gb of python -m jaxmu.attack)'
    )


def check_regular(path: pathlib.Path) -> None:
  """Raise ValueError for what is no file: reading a pipe would not end."""
  if path.exists() and not path.is_file():
    raise ValueError(f'{path} is not a regular file: give a file')


def _read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
  """Read one array of an archive to the end of its bytes."""
  with archive.open(info) as file:
    shape, dtype = files.read_npy_header(file)
    if dtype.hasobject:
      raise _Refused(
        f'{archive.filename}: {info.filename} holds Python objects: save plain '
        'arrays'
      )
    # Before memory is allocated for it.
    stated = file.tell() + math.prod(shape) * dtype.itemsize
    if stated != info.file_size:
      raise ValueError(
        f'{info.filename} states the shape {shape} of {dtype} but holds '
        f'{info.file_size} bytes instead of {stated}'
      )
    file.seek(0)
    array = np.lib.format.read_array(file, allow_pickle=False)
    file.read()  # to the end, where the checksum is compared
  return array


def find_prepared(folder: pathlib.Path) -> list[pathlib.Path]:
  """Return the folders of all prepared versions below `folder`, oldest first.

  Folders that tfds has not finished have other names and are ignored.
  """
  infos = [*folder.glob('*/dataset_info.json')]
  infos += folder.glob('*/*/dataset_info.json')
  complete = [p.parent for p in infos if 'incomplete' not in p.parent.name]
  return sorted(complete, key=lambda path: _version(path.name))


def newest_prepared(folder: pathlib.Path) -> pathlib.Path:
  """Return the folder of the version to read below `folder`.

  The version that jaxmu prepared, in the official order, comes before any
  other; then one that can be read without TensorFlow; then the highest version.

  Raises:
    ValueError: several configurations were prepared, so that the name alone
      does not say which one is meant.
  """
  versions = find_prepared(folder)
  configs = sorted({version.parent for version in versions})
  if len(configs) > 1:
    names = [f'{folder.name}/{c.name}' for c in configs if c != folder]
    raise ValueError(
      f'{folder} holds several configurations: name one of {names}'
    )

  def preference(version: pathlib.Path):
    file_format = _read_info(version).get('fileFormat')
    return is_ours(version), file_format in FORMATS, _version(version.name)

  return max(versions, key=preference)


def is_ours(version: pathlib.Path) -> bool:
  """Return whether jaxmu prepared a version, in the official order."""
  return str(_read_info(version).get('moduleName')).startswith('jaxmu.')


def open_prepared(
  name: str,
  folder: pathlib.Path,
  *,
  size: int | None = None,
  need_test: bool = True,
) -> Raw:
  """Open one prepared version as a data source with random access.

  Args:
    name: the name of the set; constants of named sets come from the catalog.
    folder: holds `dataset_info.json`.
    size: height and width of the model input; default that of the catalog,
      else that of the images.
    need_test: whether a set without the split `test` is an error.

  Raises:
    ValueError: the set has no random access, no `train` or `test` split, or
      does not consist of images with one class label each.
  """
  import tensorflow_datasets as tfds  # slow to import, and often not needed

  file_format = _read_info(folder).get('fileFormat', 'tfrecord')
  if file_format not in FORMATS:
    raise ValueError(
      f'{folder} was prepared as {file_format}, which only TensorFlow reads: '
      f'prepare it again with `python -m jaxmu.prepare {name} --overwrite`'
    )
  _check_descriptions(folder)
  builder = _guarded(folder, lambda: tfds.builder_from_directory(folder))
  names = ['train', 'test']
  if not need_test and 'test' not in builder.info.splits:
    names = ['train']
  missing = set(names) - set(builder.info.splits)
  if missing:
    raise ValueError(
      f'{folder} has no split {sorted(missing)}, only '
      f'{sorted(builder.info.splits)}: split off a test part with `python '
      f'-m jaxmu.prepare my_{name} --from_tfds={name} --test_fraction=0.2`'
    )
  features = builder.info.features
  assert features is not None
  num_classes = _num_classes(name, folder, features)
  side = size or _native_size(name, folder, features)
  every = _guarded(folder, builder.as_data_source)  # by split
  sources = [every[split] for split in names]
  return Raw(
    num_dev=len(sources[0]),
    num_test=sum(len(source) for source in sources[1:]),
    blocks=lambda: _blocks(sources, side, folder),
    size=side,
    num_classes=num_classes,
    origin=str(folder),
  )


def write_checksums(folder: pathlib.Path) -> None:
  """Write the checksums of the files that describe a prepared set."""
  sums = {
    path.name: files.sha256(path)
    for path in sorted(folder.iterdir())
    if path.suffix in ('.json', '.txt') and path.name != _CHECKSUMS
  }
  text = json.dumps(sums, indent=2) + '\n'
  files.write_text(folder / _CHECKSUMS, text)


def _check_descriptions(folder: pathlib.Path) -> None:
  """Raise ValueError if a file that describes a prepared set has changed.

  A changed number of classes, say, would otherwise train another model. Sets
  that tfds prepared by itself have no checksums.
  """
  path = folder / _CHECKSUMS
  if not path.exists():
    return
  sums = _read_object(path, folder)
  for name, expected in sums.items():
    file = folder / name
    if not file.is_file() or files.sha256(file) != expected:
      raise ValueError(
        f'{file} is missing or differs from its checksum in {_CHECKSUMS}: '
        f'remove {folder} and prepare it again'
      )


def _guarded(folder: pathlib.Path, step: Callable[[], Any]) -> Any:
  """Run a step of reading a prepared version; its errors name the folder."""
  try:
    return step()
  except Exception as error:  # the readers of tfds raise many types
    text = ' '.join(str(error).split())[:200]
    raise ValueError(
      f'{folder} cannot be read ({type(error).__name__}: {text}): it is '
      'damaged or cut short, remove it and prepare it again'
    ) from error


def _read(source, positions: np.ndarray, folder: pathlib.Path) -> list[dict]:
  """Decode records."""
  # The batched read that tfds offers to loaders, several times faster.
  return _guarded(folder, lambda: source.__getitems__(positions.tolist()))


def _num_classes(name: str, folder: pathlib.Path, features) -> int:
  if not {'image', 'label'} <= set(features):
    raise ValueError(
      f'{folder} has the features {sorted(features)}: only sets with an '
      "'image' and one class 'label' can be used"
    )
  if name in CATALOG:
    return CATALOG[name].num_classes
  num_classes = getattr(features['label'], 'num_classes', None)
  if num_classes is None:
    raise ValueError(
      f'{folder}: its label is not a class label; choose a set with classes'
    )
  return num_classes


def _native_size(name: str, folder: pathlib.Path, features) -> int:
  if name in CATALOG:
    return CATALOG[name].size
  height, width, _ = features['image'].shape
  if height is None or width is None:
    raise ValueError(
      f'{folder}: its images differ in size: choose one with `python -m '
      f'jaxmu.prepare my_{name} --from_tfds={name} --image_size=64`'
    )
  return max(height, width)


def _blocks(sources, size: int, folder: pathlib.Path) -> Iterator[Block]:
  for source in sources:
    order = _official_order(source, folder)
    for start in range(0, len(order), _BLOCK):
      records = _read(source, order[start : start + _BLOCK], folder)
      image = [
        catalog.to_model_input(record['image'][None], size=size)
        for record in records
      ]
      label = np.array([record['label'] for record in records])
      yield np.concatenate(image), label


def _official_order(source, folder: pathlib.Path) -> np.ndarray:
  """Return the positions of the records in the order of their numbers.

  Records without numbers stay in the order in which they are stored.
  """
  stored = np.arange(len(source))
  if len(source) == 0 or 'id' not in _read(source, stored[:1], folder)[0]:
    return stored
  numbers = []
  for start in range(0, len(stored), _BLOCK):
    for record in _read(source, stored[start : start + _BLOCK], folder):
      match = re.fullmatch(rb'[a-z]+_(\d+)', record['id'])
      if match is None:
        return stored
      numbers.append(int(match[1]))
  return np.argsort(numbers, kind='stable')


def _read_info(version: pathlib.Path) -> dict[str, Any]:
  return _read_object(version / 'dataset_info.json', version)


def _read_object(path: pathlib.Path, version: pathlib.Path) -> dict[str, Any]:
  try:
    return files.read_json(path)
  except ValueError as error:
    raise ValueError(
      f'{path} is damaged ({error}): remove {version} and prepare it again'
    ) from error


def _version(text: str) -> tuple[int, ...]:
  parts = text.split('.')
  return tuple(int(p) if p.isdecimal() else -1 for p in parts)
