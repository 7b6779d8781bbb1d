"""A user's arrays or images, brought to the form of `jaxmu.data.formats`."""

import dataclasses
import json
import pathlib
import re

import numpy as np
from PIL import Image

from jaxmu import files as files_lib
from jaxmu.data import catalog, formats, splits

SUFFIXES = ('.bmp', '.gif', '.jpeg', '.jpg', '.png', '.tif', '.tiff', '.webp')


@dataclasses.dataclass(frozen=True, eq=False)
class Labelled:
  """Images with labels, divided or not.

  Attributes:
    train: images u8[N, H, W, C] and labels [N].
    test: the same for the test part, or None if it is still to be cut off.
    class_names: by label, or empty if they have none.
  """

  train: formats.Block
  test: formats.Block | None
  class_names: tuple[str, ...] = ()


def read_arrays(
  paths: list[pathlib.Path], *, num_classes: int | None = None
) -> Labelled:
  """Read one `.npz`, or an image `.npy` and a label `.npy`.

  The `.npz` holds `image` and `label`, and may hold `test_image` and
  `test_label`.

  Args:
    paths: of the files.
    num_classes: that labels must be below; default the largest label + 1.

  Raises:
    ValueError: files are missing, damaged or of the wrong form, or labels make
      more classes than there are examples.
  """
  data = _read_arrays(paths)
  label = data.train[1]
  if data.test is not None:
    label = np.concatenate([label, data.test[1]])
  origin = str(paths[-1])
  if num_classes is None:
    formats.count_classes(label, origin=origin)
  else:
    formats.check_labels(label, num_classes=num_classes, origin=origin)
  return data


def _read_arrays(paths: list[pathlib.Path]) -> Labelled:
  absent = [str(path) for path in paths if not path.exists()]
  if absent:
    raise ValueError(f'no such file: {", ".join(absent)}')
  if len(paths) == 2:
    try:
      image, label = map(formats.read_array, paths)
    except ValueError as error:
      raise ValueError(
        f'{paths[0]} and {paths[1]} cannot be read as arrays ({error}): write '
        'them with np.save, or give one .npz'
      ) from error
    _check_pair(image, label, origin=str(paths[0]), labels_of=str(paths[1]))
    return Labelled(train=(image, label), test=None)
  if len(paths) != 1 or paths[0].suffix != '.npz':
    raise ValueError(
      f'give one .npz, or two .npy (images, labels); got '
      f'{[str(path) for path in paths]}'
    )
  arrays = formats.read_archive(paths[0], needed=('image', 'label'))
  train = arrays['image'], arrays['label']
  _check_pair(*train, origin=str(paths[0]))
  test = None
  if 'test_image' in arrays or 'test_label' in arrays:
    arrays = formats.read_archive(paths[0], needed=('test_image', 'test_label'))
    test = arrays['test_image'], arrays['test_label']
    _check_pair(*test, origin=f'{paths[0]} (test)')
  return Labelled(train=train, test=test)


def read_image_folder(folder: pathlib.Path, *, size: int | None) -> Labelled:
  """Read `folder/<class>/*`, or `folder/{train,test}/<class>/*`.

  Classes are numbered in the order of their folder names, images are taken in
  the order of their file names.

  Args:
    folder: of one folder per class.
    size: resize to this height and width; None keeps images that all have one
      size.

  Raises:
    ValueError: there are no images, one cannot be decoded, sizes differ, or the
      two parts have different classes.
  """
  if not folder.is_dir():
    raise ValueError(f'{folder} is not a folder')
  parts = [folder / split for split in formats.PARTS]
  if not all(part.is_dir() for part in parts):
    _refuse_half(folder, parts)
    parts = [folder]
  names = [_class_folders(part) for part in parts]
  if names[0] != names[-1]:
    raise ValueError(
      f'{parts[0]} has the classes {names[0]}, {parts[-1]} {names[-1]}: both '
      'need the same folders'
    )
  blocks = [_read_classes(part, names[0], size) for part in parts]
  return Labelled(
    train=blocks[0],
    test=blocks[1] if len(blocks) == 2 else None,
    class_names=tuple(names[0]),
  )


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
  data: Labelled, *, test_fraction: float, seed: int = 123
) -> Labelled:
  """Cut a random test part off, unless there is one.

  Raises:
    ValueError: the fraction is not in (0, 1) or leaves nothing.
  """
  if data.test is not None:
    return data
  image, label = data.train
  train, test = splits.holdout(
    np.arange(len(label)), fraction=test_fraction, seed=seed
  )
  return dataclasses.replace(
    data, train=(image[train], label[train]), test=(image[test], label[test])
  )


def write_plain(
  name: str,
  data: Labelled,
  *,
  data_dir: pathlib.Path,
  meta: dict,
  overwrite: bool = False,
) -> pathlib.Path:
  """Write a divided set as `<data_dir>/<name>/`, all of it or nothing.

  Args:
    name: of the new set.
    data: with a test part.
    data_dir: where data sets live.
    meta: for `meta.json`, keys of `plain.META_KEYS`.
    overwrite: replace a set of this name.

  Returns:
    The new folder.

  Raises:
    ValueError: the name is not usable or taken, or labels are wrong.
  """
  if not re.fullmatch(r'[a-z][a-z0-9_]*', name) or name == 'digits':
    raise ValueError(
      f'{name!r} cannot name a data set: use small letters, digits and '
      "underscores, other than 'digits'"
    )
  folder = data_dir / name
  assert data.test is not None, 'divide it first'
  if data.class_names:
    names = list(data.class_names)
    meta = {**meta, 'num_classes': len(names), 'class_names': names}
  with files_lib.atomic_folder(data_dir) as draft:
    # Inside, where a set that a kill left aside has been put back.
    if folder.exists() and not overwrite:
      raise ValueError(
        f'{folder} exists: choose another name, or replace it with --overwrite'
      )
    for split, (image, label) in zip(
      formats.PARTS, (data.train, data.test), strict=True
    ):
      np.savez(draft / f'{split}.npz', image=image, label=label)
    (draft / 'meta.json').write_text(json.dumps(meta, indent=2) + '\n')
    # These raise here what `load` would raise later.
    formats.open_plain(name, draft)
    catalog.channel_moments(data.train[0])
    files_lib.publish_folder(draft, folder)
  return folder


def _check_pair(
  image: np.ndarray, label: np.ndarray, *, origin: str, labels_of: str = ''
) -> None:
  try:
    catalog.check_images(image)
  except ValueError as error:
    raise ValueError(f'{origin}: {error}') from error
  if label.shape != image.shape[:1] or label.dtype.kind not in 'iu':
    raise ValueError(
      f'{origin}: {len(image)} images, but labels of dtype {label.dtype} and '
      f'shape {label.shape}: give one integer per image, counted from 0'
    )
  # Now, while positions are still those in the user's file.
  formats.check_labels(label, num_classes=None, origin=labels_of or origin)


def _refuse_half(folder: pathlib.Path, parts: list[pathlib.Path]) -> None:
  """Raise ValueError if one of the parts is there, not a class of this name."""
  for part, other in (parts, parts[::-1]):
    if part.is_dir() and any(child.is_dir() for child in part.iterdir()):
      raise ValueError(
        f'{folder} has {part.name}/<class>/ but no {other.name}/<class>/: add '
        f'it, or give {part} to have a test part cut off at random'
      )


def _class_folders(folder: pathlib.Path) -> list[str]:
  names = sorted(
    child.name
    for child in folder.iterdir()
    if child.is_dir() and not child.name.startswith('.')
  )
  if len(names) < 2:
    raise ValueError(
      f'{folder} has {len(names)} class folders: put the images of each class '
      'into a folder of its own, <class>/<image>.png'
    )
  return names


def _read_classes(
  folder: pathlib.Path, names: list[str], size: int | None
) -> formats.Block:
  """Read the images of all classes as one block."""
  image, label, shapes = [], [], {}
  for number, name in enumerate(names):
    files = sorted(
      file
      for file in (folder / name).iterdir()
      if file.suffix.lower() in SUFFIXES
    )
    if not files:
      raise ValueError(
        f'{folder / name} has no images ({", ".join(SUFFIXES)}): remove the '
        'folder or fill it'
      )
    for file in files:
      one = _decode(file, size)
      shapes.setdefault(one.shape, file)
      image.append(one)
      label.append(number)
  if len(shapes) > 1:
    found = '; '.join(f'{file}: {s[:2]}' for s, file in [*shapes.items()][:3])
    raise ValueError(
      f'images differ in size ({found}): choose one with --image_size=64'
    )
  return np.stack(image), np.array(label, np.int32)


def _decode(file: pathlib.Path, size: int | None) -> np.ndarray:
  try:
    with Image.open(file) as opened:
      if opened.mode == 'F' or opened.mode.startswith('I'):
        raise ValueError(
          f'{file} has pixels of more than 8 bits (mode {opened.mode}), which '
          'would be cut off at 255: scale them to 0..255 and save the picture '
          'with 8 bits, or remove it'
        )
      image = np.asarray(opened.convert('RGB'))
  except (OSError, SyntaxError) as error:
    raise ValueError(
      f'{file} cannot be decoded ({error}): repair or remove it'
    ) from error
  if size is None:
    return image
  return catalog.to_model_input(image[None], size=size)[0]
