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

import numpy as np

from jaxmu.data import images, raw
from jaxmu.data.catalog import CATALOG

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
  """Return the folder of the newest prepared version below `folder`.

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
  return versions[-1]


def open_prepared(name: str, folder: pathlib.Path) -> raw.Raw:
  """Open one prepared version as a data source of random access.

  Args:
    name: the name of the set; constants of named sets come from the catalog.
    folder: holds `dataset_info.json`.

  Raises:
    ValueError: the set has no random access, no `train` or `test` split, or is
      not one of images with one class label each.
  """
  import tensorflow_datasets as tfds  # slow to import, and often not needed

  info = json.loads((folder / 'dataset_info.json').read_text())
  file_format = info.get('fileFormat', 'tfrecord')
  if file_format not in ('array_record', 'parquet'):
    raise ValueError(
      f'{folder} was prepared as {file_format}, which only TensorFlow reads: '
      'prepare it again with file_format="array_record"'
    )
  builder = tfds.builder_from_directory(folder)
  missing = {'train', 'test'} - set(builder.info.splits)
  if missing:
    raise ValueError(
      f'{folder} has no split {sorted(missing)}, only '
      f'{sorted(builder.info.splits)}: prepare one with `python -m '
      f'jaxmu.prepare {name} --test_fraction=0.2`'
    )
  features = builder.info.features
  assert features is not None
  size, num_classes = _describe(name, folder, features)
  sources = [builder.as_data_source(split) for split in ('train', 'test')]
  return raw.Raw(
    num_dev=len(sources[0]),
    num_test=len(sources[1]),
    blocks=lambda: _blocks(sources, size),
    size=size,
    num_classes=num_classes,
    origin=str(folder),
  )


def _describe(name, folder, features) -> tuple[int, int]:
  """Return the size of the model input and the number of classes."""
  if not {'image', 'label'} <= set(features):
    raise ValueError(
      f'{folder} has the features {sorted(features)}: only sets with an '
      "'image' and one class 'label' can be used"
    )
  if name in CATALOG:
    return CATALOG[name].size, CATALOG[name].num_classes
  num_classes = getattr(features['label'], 'num_classes', None)
  if num_classes is None:
    raise ValueError(
      f'{folder}: its label is not one of a known set of classes'
    )
  height, width, _ = features['image'].shape
  if height is None or width is None:
    raise ValueError(
      f'{folder}: its images differ in size: choose one with `python -m '
      f'jaxmu.prepare {name} --image_size=64`'
    )
  return max(height, width), num_classes


def _blocks(sources, size: int) -> Iterator[raw.Block]:
  for source in sources:
    order = _official_order(source)
    for start in range(0, len(order), _BLOCK):
      records = [source[int(i)] for i in order[start : start + _BLOCK]]
      image = [
        images.to_model_input(record['image'][None], size=size)
        for record in records
      ]
      label = np.array([record['label'] for record in records])
      yield np.concatenate(image), label


def _official_order(source) -> np.ndarray:
  """Return the positions of the records in the order of their numbers.

  Records without numbers stay in the order in which they are stored.
  """
  stored = np.arange(len(source))
  if len(source) == 0 or 'id' not in source[0]:
    return stored
  numbers = []
  for position in stored:
    match = re.fullmatch(rb'[a-z]+_(\d+)', source[int(position)]['id'])
    if match is None:
      return stored
    numbers.append(int(match[1]))
  return np.argsort(numbers, kind='stable')


def _version(text: str) -> tuple[int, ...]:
  parts = text.split('.')
  return tuple(int(p) if p.isdigit() else -1 for p in parts)
