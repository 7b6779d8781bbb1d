"""Everything that a result depends on enters `Source.identity`."""

import dataclasses
import json

import numpy as np

from jaxmu.data import datasets
from jaxmu.types import Transform


def _source(**changes) -> datasets.Source:
  image = np.zeros((6, 4, 4, 3), np.uint8)
  label = np.arange(6, dtype=np.int32) % 2
  fields = {
    'name': 'mine',
    'image': image,
    'label': label,
    'num_dev': 4,
    'num_classes': 2,
    'transform': Transform(mean=(0.5,) * 3, std=(0.25,) * 3),
    **changes,
  }
  fields.setdefault(
    'fingerprint', datasets.fingerprint(fields['image'], fields['label'])
  )
  return datasets.Source(**fields)


def test_every_field_of_source_and_transform_changes_the_identity():
  transform = _source().transform
  other_image = np.ones((6, 4, 4, 3), np.uint8)
  changed = {
    'name': 'yours',
    'image': other_image,
    'label': np.zeros(6, np.int32),
    'num_dev': 3,
    'num_classes': 3,
    'transform': dataclasses.replace(transform, flip=True),
    'fingerprint': 'f' * 64,
  }
  assert set(changed) == {f.name for f in dataclasses.fields(datasets.Source)}
  transforms = {
    'mean': (0.5, 0.5, 0.4),
    'std': (0.25, 0.25, 0.2),
    'flip': True,
    'crop_padding': 1,
  }
  assert set(transforms) == {f.name for f in dataclasses.fields(Transform)}
  variants = [_source(**{name: value}) for name, value in changed.items()]
  variants += [
    _source(transform=dataclasses.replace(transform, **{name: value}))
    for name, value in transforms.items()
  ]
  plain = json.dumps(_source().identity(), sort_keys=True)
  assert plain == json.dumps(_source().identity(), sort_keys=True)
  same = [
    variant
    for variant in variants
    if json.dumps(variant.identity(), sort_keys=True) == plain
  ]
  assert not same


def test_pixels_of_another_shape_are_another_identity():
  image = np.zeros((6, 4, 4, 3), np.uint8)
  flat = _source(image=image.reshape(6, 2, 8, 3))
  assert flat.fingerprint == _source().fingerprint
  assert flat.identity() != _source().identity()
