"""Open what tensorflow-datasets prepared, here or elsewhere, TensorFlow-free.

  <data_dir>/<name>/[<config>/]<version>/dataset_info.json, features.json, ...

Needs a file format with random access (array_record or parquet). Records that
tfds shuffled are put back into the official order where they carry their number
(`id`: `train_00042`, as in tfds' own cifar10 and cifar100).
"""

import json
import pathlib
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from jaxmu.data import images, raw
from jaxmu.data.catalog import CATALOG

FORMATS = ('array_record', 'parquet')  # of random access
_BLOCK = 1024  # examples decoded at a time


def find(folder: pathlib.Path) -> list[pathlib.Path]:
  """Return the folders of all prepared versions below `folder`, oldest first.

  Folders that tfds has not finished carry another name and do not count.
  """
  infos = [*folder.glob('*/dataset_info.json')]
  infos += folder.glob('*/*/dataset_info.json')
  complete = [p.parent for p in infos if 'incomplete' not in p.parent.name]
  return sorted(complete, key=lambda path: _version(path.name))


def newest(folder: pathlib.Path) -> pathlib.Path:
  """Return the folder of the version to read below `folder`.

  Our own, in the official order, goes before any other; then one that can be
  read without TensorFlow; then the highest version.

  Raises:
    ValueError: several configurations were prepared, so that the name alone
      does not say which one is meant.
  """
  versions = find(folder)
  configs = sorted({version.parent for version in versions})
  if len(configs) > 1:
    names = [f'{folder.name}/{c.name}' for c in configs if c != folder]
    raise ValueError(
      f'{folder} holds several configurations: ask for one of {names}'
    )

  def preference(version: pathlib.Path):
    info = _read_info(version)
    ours = info.get('moduleName') == 'jaxmu.data.builders'
    return ours, info.get('fileFormat') in FORMATS, _version(version.name)

  return max(versions, key=preference)


def open_prepared(
  name: str,
  folder: pathlib.Path,
  *,
  size: int | None = None,
  need_test: bool = True,
) -> raw.Raw:
  """Open one prepared version as a data source of random access.

  Args:
    name: the name of the set; constants of named sets come from the catalog.
    folder: holds `dataset_info.json`.
    size: height and width of the model input; default that of the catalog,
      else that of the images.
    need_test: whether a set without the split `test` is an error.

  Raises:
    ValueError: the set has no random access, no `train` or `test` split, or is
      not one of images with one class label each.
  """
  import tensorflow_datasets as tfds  # slow to import, and often not needed

  file_format = _read_info(folder).get('fileFormat', 'tfrecord')
  if file_format not in FORMATS:
    raise ValueError(
      f'{folder} was prepared as {file_format}, which only TensorFlow reads: '
      f'prepare it again with `python -m jaxmu.prepare {name} --overwrite`'
    )
  builder = tfds.builder_from_directory(folder)
  names = ['train', 'test']
  if not need_test and 'test' not in builder.info.splits:
    names = ['train']
  missing = set(names) - set(builder.info.splits)
  if missing:
    raise ValueError(
      f'{folder} has no split {sorted(missing)}, only '
      f'{sorted(builder.info.splits)}: cut a test part off with `python '
      f'-m jaxmu.prepare my_{name} --from_tfds={name} --test_fraction=0.2`'
    )
  features = builder.info.features
  assert features is not None
  num_classes = _num_classes(name, folder, features)
  side = size or _native_size(name, folder, features)
  every: Any = builder.as_data_source()  # by split
  sources = [every[split] for split in names]
  return raw.Raw(
    num_dev=len(sources[0]),
    num_test=sum(len(source) for source in sources[1:]),
    blocks=lambda: _blocks(sources, side, folder),
    size=side,
    num_classes=num_classes,
    origin=str(folder),
  )


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
      f'{folder}: its label is not one of a known set of classes'
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


def _blocks(sources, size: int, folder: pathlib.Path) -> Iterator[raw.Block]:
  for source in sources:
    order = _official_order(source, folder)
    for start in range(0, len(order), _BLOCK):
      records = _read(source, order[start : start + _BLOCK], folder)
      image = [
        images.to_model_input(record['image'][None], size=size)
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


def _read(source, positions: np.ndarray, folder: pathlib.Path) -> list[dict]:
  """Decode records; whatever goes wrong there is the fault of the files."""
  try:
    # The batched read that tfds offers to loaders, several times faster.
    return source.__getitems__(positions.tolist())
  except Exception as error:  # tfds and its readers raise all sorts
    raise ValueError(
      f'{folder} cannot be read ({type(error).__name__}: {error}): it is '
      'damaged or cut short, remove it and prepare it again'
    ) from error


def _read_info(version: pathlib.Path) -> dict:
  path = version / 'dataset_info.json'
  try:
    return json.loads(path.read_text())
  except ValueError as error:
    raise ValueError(
      f'{path} is damaged ({error}): remove {version} and prepare it again'
    ) from error


def _version(text: str) -> tuple[int, ...]:
  parts = text.split('.')
  return tuple(int(p) if p.isdigit() else -1 for p in parts)
