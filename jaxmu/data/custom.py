"""Convert a user's arrays to the forms of `formats`, in memory or as files.

`as_images` and `as_labels` accept arrays in memory; `read_arrays` reads files;
`divide` splits off a test part; `write_plain` stores the result.
"""

import dataclasses
import json
import math
import pathlib
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxmu import files
from jaxmu.data import catalog, formats, splits
from jaxmu.types import Transform

DEFAULT_TEST_FRACTION = 0.2
_TEXT = ('.csv', '.tsv', '.txt')
_LONGEST_NAME = 64  # of a data set: it names folders


@dataclasses.dataclass(frozen=True, eq=False)
class Labelled:
  """Images with labels, divided or not.

  Attributes:
    train: images u8[N, H, W, C] and labels [N].
    test: the same for the test part, or None if there is none.
    class_names: by label, or empty if they are not known.
  """

  train: formats.Block
  test: formats.Block | None
  class_names: tuple[str, ...] = ()


def as_images(images: Any, *, origin: str) -> np.ndarray:
  """Return images in memory as bytes with an axis of channels.

  Args:
    images: uint8 [N, H, W], [N, H, W, 1] or [N, H, W, 3], or floats of such a
      shape in [0, 1], which are rounded to bytes.
    origin: where they come from, for messages.

  Returns:
    u8[N, H, W, C] with C = 1 or 3.

  Raises:
    ValueError: they have another form; the message names the remedy.
  """
  array = _as_array(images, origin)
  if array.ndim == 3:
    array = array[..., None]
  if array.dtype.kind == 'f' and array.size:
    least, most = float(array.min()), float(array.max())
    if not (0 <= least and most <= 1):  # also refuses NaN
      raise ValueError(
        f'{origin}: images of {array.dtype} have values from {least:g} to '
        f'{most:g}, expected floats in [0, 1]: divide them by their largest '
        'value, or give bytes 0..255 as uint8'
      )
    array = np.round(255 * array).astype(np.uint8)
  catalog.check_images(array, origin=origin)
  return array


def as_labels(labels: Any, *, count: int, origin: str) -> np.ndarray:
  """Return labels in memory as integers [N].

  Args:
    labels: N integers, counted from 0.
    count: N, the number of images.
    origin: where they come from, for messages.

  Raises:
    ValueError: their form or number is wrong; the message names the remedy.
  """
  array = _as_array(labels, origin)
  if array.shape == (count, 1):
    array = array[:, 0]
  if array.shape != (count,) or array.dtype.kind not in 'iu':
    remedy = 'give one integer per image, counted from 0'
    if array.ndim == 2 and len(array) == count:
      remedy += '; of one-hot rows, that is np.argmax(labels, axis=1)'
    elif array.shape == (count,) and array.dtype.kind in 'fb':
      remedy += ', as labels.astype(int)'
    elif array.shape == (count,):
      remedy += ', as np.unique(labels, return_inverse=True)[1]'
    raise ValueError(
      f'{origin}: {count} images, but labels of dtype {array.dtype} and shape '
      f'{array.shape}: {remedy}'
    )
  formats.check_labels(array, num_classes=None, origin=origin)
  return array


def count_classes(
  data: Labelled, *, num_classes: int | None, origin: str
) -> int:
  """Return the number of classes, C: as given, or the largest label + 1.

  Raises:
    ValueError: a label is not below `num_classes`, or labels make more classes
      than there are examples.
  """
  label = data.train[1]
  if data.test is not None:
    label = np.concatenate([label, data.test[1]])
  if num_classes is None:
    return formats.count_classes(label, origin=origin)
  formats.check_labels(label, num_classes=num_classes, origin=origin)
  return num_classes


def read_arrays(paths: list[pathlib.Path]) -> Labelled:
  """Read one `.npz`, or an image `.npy` and a label `.npy`.

  The `.npz` holds `image` and `label`, and may hold `test_image` and
  `test_label`, in any form that `as_images` and `as_labels` accept.

  Raises:
    ValueError: files are missing, damaged or of the wrong form.
  """
  absent = [str(path) for path in paths if not path.is_file()]
  if absent:
    raise ValueError(f'no such file: {", ".join(absent)}')
  if len(paths) == 2 and not any(path.suffix in _TEXT for path in paths):
    try:
      image, label = map(formats.read_array, paths)
    except ValueError as error:
      raise ValueError(
        f'{paths[0]} and {paths[1]} cannot be read as arrays ({error}): write '
        'them with np.save, or give one .npz'
      ) from error
    train = _as_pair(image, label, origin=str(paths[0]), labels=str(paths[1]))
    return Labelled(train=train, test=None)
  if len(paths) != 1 or paths[0].suffix != '.npz':
    got = [str(path) for path in paths]
    remedy = ''
    if any(path.suffix in _TEXT for path in paths):
      remedy = (
        '; read a text file with numpy.loadtxt(FILE, delimiter=",", '
        'skiprows=1), reshape its rows to images [N, height, width], and write '
        'images and labels with numpy.save'
      )
    raise ValueError(
      f'give one .npz, or two .npy (images, labels); got {got}{remedy}'
    )
  arrays = formats.read_archive(paths[0], needed=('image', 'label'))
  train = _as_pair(arrays['image'], arrays['label'], origin=str(paths[0]))
  test = None
  if 'test_image' in arrays or 'test_label' in arrays:
    missing = {'test_image', 'test_label'} - set(arrays)
    if missing:
      raise ValueError(
        f'{paths[0]} lacks {missing.pop()}: add it, or leave out the other'
      )
    test = _as_pair(
      arrays['test_image'], arrays['test_label'], origin=f'{paths[0]} (test)'
    )
  return Labelled(train=train, test=test)


def _as_pair(
  image: np.ndarray, label: np.ndarray, *, origin: str, labels: str = ''
) -> formats.Block:
  image = as_images(image, origin=origin)
  # Here positions are still those in the user's file.
  return image, as_labels(label, count=len(image), origin=labels or origin)


def _as_array(values: Any, origin: str) -> np.ndarray:
  try:
    array = np.asarray(values)
  except Exception as error:  # of lists, tensors on a device, ...
    raise ValueError(f'{origin} is not an array ({error})') from error
  if array.dtype.hasobject:
    raise ValueError(
      f'{origin} holds {array.dtype} of shape {array.shape}: give numbers, all '
      'rows of one length'
    )
  return array


def collect(source: formats.Raw) -> Labelled:
  """Read all blocks of a set into memory, at the size of its model input."""
  image, label = [], []
  for block_image, block_label in source.blocks():
    image.append(catalog.to_model_input(block_image, size=source.size))
    label.append(block_label)
  images_all, labels = np.concatenate(image), np.concatenate(label)
  cut = source.num_dev
  return Labelled(
    train=(images_all[:cut], labels[:cut]),
    test=(images_all[cut:], labels[cut:]) if source.num_test else None,
  )


def divide(
  data: Labelled, *, test_fraction: float | None, seed: int = 123
) -> Labelled:
  """Split off a random test part, unless there is one.

  Args:
    data: with or without a test part.
    test_fraction: of the examples to split off; None means a fifth.
    seed: of the random split.

  Raises:
    ValueError: the fraction is not in (0, 1), leaves nothing, or is given
      although there is a test part.
  """
  if data.test is not None:
    if test_fraction is not None:
      raise ValueError(
        f'test_fraction={test_fraction} would have no effect: the set '
        'already has a test part; leave it out'
      )
    return data
  fraction = DEFAULT_TEST_FRACTION if test_fraction is None else test_fraction
  check_fraction(fraction)
  image, label = data.train
  train, test = splits.holdout(
    np.arange(len(label)), fraction=fraction, seed=seed
  )
  return dataclasses.replace(
    data, train=(image[train], label[train]), test=(image[test], label[test])
  )


def check_fraction(test_fraction: float) -> None:
  """Raise ValueError unless `test_fraction` is in (0, 1)."""
  number = isinstance(test_fraction, int | float | np.number)
  if not number or not 0 < test_fraction < 1:
    raise ValueError(
      f'test_fraction is {test_fraction!r}: choose one between 0 and 1'
    )


def transform_of(
  size: int,
  *,
  mean: float | Sequence[float],
  std: float | Sequence[float],
  flip: bool,
  crop_padding: int,
  origin: str = '',
) -> Transform:
  """Return the checked transform of images u8[N, S, S, 3], S = `size`.

  Args:
    size: height and width of the images.
    mean: per channel, of pixels in [0, 1], or one number for all.
    std: likewise, the standard deviation.
    flip: mirror training images at random.
    crop_padding: pad training images by this many pixels and crop at random.
    origin: begins the messages.

  Raises:
    ValueError: a value has another type, is not finite or out of range, or
      crops could show nothing of the image.
  """
  if not isinstance(flip, bool | np.bool_):
    raise ValueError(f'{origin}flip is {flip!r}: give True or False')
  origin_of_crop = f'{origin}crop_padding'
  formats.check_number('crop_padding', crop_padding, origin=origin_of_crop)
  formats.check_crop(crop_padding, size=size, origin=origin_of_crop)
  values = {}
  for key, value in (('mean', mean), ('std', std)):
    try:
      numbers = np.asarray(value, np.float64).reshape(-1).tolist()
    except (TypeError, ValueError):
      numbers = []
    numbers = numbers * 3 if len(numbers) == 1 else numbers
    wrong = len(numbers) != 3 or not all(map(math.isfinite, numbers))
    if wrong or (key == 'std' and min(numbers) < np.finfo(np.float32).tiny):
      raise ValueError(
        f'{origin}{key} is {value!r}: give 3 finite numbers, one per channel, '
        f'of pixels in [0, 1]{", above 0" * (key == "std")}'
      )
    values[key] = tuple(numbers)
  return Transform(
    mean=values['mean'],
    std=values['std'],
    flip=bool(flip),
    crop_padding=crop_padding,
  )


def check_name(name: str) -> None:
  """Raise ValueError unless `name` can name a custom data set.

  Names in the catalogue are refused: their split indices are published for the
  official order and would select other images here.
  """
  if not re.fullmatch(r'[a-z][a-z0-9_]*', name) or len(name) > _LONGEST_NAME:
    raise ValueError(
      f'{name[: _LONGEST_NAME + 1]!r} cannot name a data set: use small '
      f'letters, digits and underscores, at most {_LONGEST_NAME}'
    )
  if name in catalog.CATALOG:
    raise ValueError(
      f'{name!r} cannot name a custom data set: published split indices '
      f'of {catalog.CATALOG[name].title} would mean other images; choose '
      f"another name, for example 'my_{name}'"
    )


def check_free(name: str, *, data_dir: pathlib.Path, overwrite: bool) -> None:
  """Raise ValueError if a set of this name exists, unless `overwrite`."""
  if (data_dir / name).exists() and not overwrite:
    raise ValueError(
      f'{data_dir / name} exists: choose another name, or replace it with '
      '--overwrite'
    )


def write_plain(
  name: str,
  data: Labelled,
  *,
  data_dir: pathlib.Path,
  meta: dict,
  overwrite: bool = False,
) -> pathlib.Path:
  """Write a divided set as `<data_dir>/<name>/`, completely or not at all.

  Args:
    name: of the new set.
    data: with a test part.
    data_dir: folder of data sets.
    meta: for `meta.json`, keys of `formats.META_KEYS`.
    overwrite: replace a set of this name.

  Returns:
    The new folder.

  Raises:
    ValueError: the name is invalid or taken, or labels are wrong.
  """
  check_name(name)
  folder = data_dir / name
  assert data.test is not None, 'divide it first'
  if data.class_names:
    names = list(data.class_names)
    meta = {**meta, 'num_classes': len(names), 'class_names': names}
  data_dir.mkdir(parents=True, exist_ok=True)
  # The lock makes sure that the set that is checked is the one replaced.
  with (
    files.lock(data_dir / f'.{name}.lock'),
    files.atomic_folder(data_dir) as draft,
  ):
    # After the lock, which restores a set that a killed run moved aside.
    check_free(name, data_dir=data_dir, overwrite=overwrite)
    for split, (image, label) in zip(
      formats.PARTS, (data.train, data.test), strict=True
    ):
      np.savez(draft / f'{split}.npz', image=image, label=label)
    (draft / 'meta.json').write_text(json.dumps(meta, indent=2) + '\n')
    # These raise here what `datasets.load` would raise later.
    formats.open_plain(name, draft)
    catalog.channel_moments(data.train[0])
    files.publish_folder(draft, folder)
  return folder
