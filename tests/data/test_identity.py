"""Everything that a result depends on enters `Source.identity`."""

import dataclasses
import json
import os

import numpy as np

from jaxmu.data import datasets, formats
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


def _write(folder, meta):
  folder.mkdir(parents=True, exist_ok=True)
  generator = np.random.default_rng(0)
  for part in formats.PARTS:
    image = generator.integers(0, 256, (8, 6, 6, 3), np.uint8)
    np.savez(folder / f'{part}.npz', image=image, label=np.arange(8) % 4)
  (folder / 'meta.json').write_text(json.dumps(meta))


def test_every_key_of_meta_changes_the_identity_or_does_not_matter(
  tmp_path, load
):
  changes = {
    'size': 8,
    'num_classes': 5,
    'flip': True,
    'crop_padding': 2,
    'class_names': ['a', 'b', 'c', 'd', 'e'],
  }
  assert set(changes) == set(formats.META_KEYS)
  folder = tmp_path / 'data' / 'mine'
  _write(folder, {})
  plain, silent = load('mine').identity(), []
  stamp = (folder / 'meta.json').stat()
  for key, value in changes.items():
    (folder / 'meta.json').write_text(json.dumps({key: value}))
    # Contents count, not the time of the last change.
    os.utime(folder / 'meta.json', ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    if load('mine').identity() == plain:
      silent.append(key)
  assert not silent
  # Names of classes give their number and nothing else.
  for names in ('wxyz', 'dcba'):
    (folder / 'meta.json').write_text(json.dumps({'class_names': list(names)}))
    assert load('mine').identity() == plain


def test_pixels_labels_and_parts_change_the_identity(tmp_path, load):
  folder = tmp_path / 'data' / 'mine'
  _write(folder, {})
  first = load('mine').identity()
  with np.load(folder / 'train.npz') as arrays:
    image, label = arrays['image'], arrays['label']
  image[3, 2, 1, 0] ^= 1
  np.savez(folder / 'train.npz', image=image, label=label)
  second = load('mine').identity()
  image[3, 2, 1, 0] ^= 1
  label[5] ^= 1
  np.savez(folder / 'train.npz', image=image, label=label)
  third = load('mine').identity()
  # The same examples in the same order, one of them in the other part.
  label[5] ^= 1
  with np.load(folder / 'test.npz') as arrays:
    test_image, test_label = arrays['image'], arrays['label']
  np.savez(folder / 'train.npz', image=image[:-1], label=label[:-1])
  np.savez(
    folder / 'test.npz',
    image=np.concatenate([image[-1:], test_image]),
    label=np.concatenate([label[-1:], test_label]),
  )
  fourth = load('mine').identity()
  assert fourth['fingerprint'] == first['fingerprint']
  texts = [json.dumps(one) for one in (first, second, third, fourth)]
  assert len(set(texts)) == 4
