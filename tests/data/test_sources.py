"""Loading by name: constants, plain folders, cache, official order, errors."""

import dataclasses
import hashlib
import itertools
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from jaxmu.data import catalog, custom, datasets, formats
from jaxmu.data.catalog import CATALOG
from tests.data import refusals


def _arrays(count, *, classes=4, shape=(6, 6, 3), seed=0):
  generator = np.random.default_rng(seed)
  image = generator.integers(0, 256, (count, *shape), dtype=np.uint8)
  return image, generator.integers(0, classes, count)


def _write_plain(folder, train, test, **meta):
  folder.mkdir(parents=True)
  for split, (image, label) in (('train', train), ('test', test)):
    np.savez(folder / f'{split}.npz', image=image, label=label)
  if meta:
    (folder / 'meta.json').write_text(json.dumps(meta))


def test_digits_are_those_of_scikit_learn(load):
  source = load('digits')
  assert source.image.shape == (1797, 32, 32, 3)
  assert source.image.dtype == np.uint8
  assert source.label.dtype == np.int32
  assert (source.num_dev, source.num_classes) == (1437, 10)
  assert source.fingerprint == datasets.fingerprint(source.image, source.label)
  # Splits made from this order would mean other digits if it changed.
  assert source.fingerprint.startswith('66a4656fd8a4')
  image, label = catalog.read_digits()
  assert (image.min(), image.max()) == (0, 255)
  order = np.random.default_rng(123).permutation(1797)
  bunch = digits_of_scikit_learn()
  np.testing.assert_array_equal(label, bunch.target[order])
  np.testing.assert_array_equal(
    image[5, :, :, 0], np.round(bunch.images[order[5]] / 16 * 255)
  )
  resized = Image.fromarray(image[5, :, :, 0]).resize((32, 32), Image.BILINEAR)
  for channel in range(3):
    np.testing.assert_array_equal(source.image[5, :, :, channel], resized)


def digits_of_scikit_learn():
  from sklearn import datasets

  return datasets.load_digits()


def test_digits_constants_are_the_moments_of_the_development_part(load):
  source = load('digits')
  pixels = source.image[:1437].reshape(-1, 3) / 255
  np.testing.assert_allclose(source.transform.mean, pixels.mean(0), atol=5e-5)
  np.testing.assert_allclose(source.transform.std, pixels.std(0), atol=5e-5)


def test_every_part_of_digits_has_every_class(load):
  source = load('digits')
  for part in (source.label[:1437], source.label[1437:]):
    assert (np.bincount(part, minlength=10) > 20).all()


def test_catalog_agrees_with_the_benchmark():
  expected = {
    'cifar10': (10, 32, 50_000, 10_000, True, 4, 0.4914, 0.2023),
    'cifar100': (100, 32, 50_000, 10_000, True, 4, 0.5071, 0.2673),
    'digits': (10, 32, 1_437, 360, False, 0, 0.3056, 0.3237),
    'fashion_mnist': (10, 32, 60_000, 10_000, True, 0, 0.2860, 0.3530),
    'mnist': (10, 32, 60_000, 10_000, True, 0, 0.1307, 0.3081),
    'utkface': (5, 224, 18_967, 4_741, False, 0, 0.485, 0.229),
  }
  assert expected == {
    name: (
      entry.num_classes,
      entry.size,
      entry.num_dev,
      entry.num_test,
      entry.transform.flip,
      entry.transform.crop_padding,
      entry.transform.mean[0],
      entry.transform.std[0],
    )
    for name, entry in CATALOG.items()
  }


def test_plain_folder_and_its_computed_constants(tmp_path, load):
  train, test = _arrays(20), _arrays(8, seed=1)
  _write_plain(
    tmp_path / 'data' / 'mine', train, test, flip=True, num_classes=7
  )
  source = load('mine')
  np.testing.assert_array_equal(
    source.image, np.concatenate([train[0], test[0]])
  )
  np.testing.assert_array_equal(
    source.label, np.concatenate([train[1], test[1]])
  )
  assert (source.num_dev, source.num_classes) == (20, 7)
  assert (source.transform.flip, source.transform.crop_padding) == (True, 0)
  pixels = train[0].reshape(-1, 3) / 255
  np.testing.assert_allclose(source.transform.mean, pixels.mean(0), atol=5e-5)
  np.testing.assert_allclose(source.transform.std, pixels.std(0), atol=5e-5)
  digest = hashlib.sha256(source.image.tobytes())
  digest.update(source.label.astype('<i4').tobytes())
  assert source.fingerprint == digest.hexdigest()
  assert datasets.available(tmp_path / 'data') == ['digits', 'mine']


def test_grey_images_are_resized_and_repeated(tmp_path, load):
  train, test = _arrays(5, shape=(28, 28, 1)), _arrays(2, shape=(28, 28, 1))
  _write_plain(tmp_path / 'data' / 'mnist', train, test)
  with pytest.warns(UserWarning, match='7 examples instead of 70000'):
    source = load('mnist')
  one = Image.fromarray(train[0][3, :, :, 0]).resize((32, 32), Image.BILINEAR)
  np.testing.assert_array_equal(
    source.image[3], np.repeat(np.asarray(one)[..., None], 3, axis=-1)
  )


def test_another_order_than_the_official_one_is_noticed(tmp_path, monkeypatch):
  label = np.arange(12) % 10
  entry = CATALOG['mnist']
  small = type(entry)(
    **{
      **vars(entry),
      'num_dev': 8,
      'num_test': 4,
      'label_digest': formats.label_digest(label),
    }
  )
  monkeypatch.setitem(CATALOG, 'mnist', small)
  image = _arrays(12, shape=(28, 28, 1))[0]
  _write_plain(
    tmp_path / 'a' / 'mnist', (image[:8], label[:8]), (image[8:], label[8:])
  )
  datasets.load('mnist', data_dir=tmp_path / 'a', cache_dir=tmp_path / 'cache')
  label = label[::-1]
  _write_plain(
    tmp_path / 'b' / 'mnist', (image[:8], label[:8]), (image[8:], label[8:])
  )
  with pytest.warns(UserWarning, match='official order'):
    datasets.load(
      'mnist', data_dir=tmp_path / 'b', cache_dir=tmp_path / 'cache'
    )


def test_what_is_not_compared_with_the_official_set_is_said(
  tmp_path, monkeypatch, load, recwarn
):
  assert [n for n, e in CATALOG.items() if not e.label_digest] == [
    'digits',  # comes with scikit-learn
    'utkface',
  ]
  small = dataclasses.replace(CATALOG['utkface'], num_dev=8, num_test=4, size=6)
  monkeypatch.setitem(CATALOG, 'utkface', small)
  _write_plain(tmp_path / 'data' / 'utkface', _arrays(8), _arrays(4, seed=1))
  with pytest.warns(UserWarning) as caught:
    load('utkface')
  [warning] = caught
  for text in (
    'UTKFace: only the number of examples was compared',
    'neither their order nor their labels',
    'jaxmu.prepare utkface --manual_dir=DIR --overwrite',
  ):
    assert text in str(warning.message)
  recwarn.clear()
  monkeypatch.setattr(formats, 'is_plain', lambda folder: False)
  monkeypatch.setattr(formats, 'find_prepared', lambda folder: [folder])
  monkeypatch.setattr(formats, 'newest_prepared', lambda folder: folder)
  monkeypatch.setattr(formats, 'is_ours', lambda folder: True)
  monkeypatch.setattr(formats, 'open_prepared', formats.open_plain)
  load('utkface')  # of an official archive, by jaxmu
  assert not recwarn.list


def test_names_that_leave_the_data_folder_are_refused(tmp_path, load):
  (tmp_path / 'data').mkdir()
  _write_plain(tmp_path / 'other' / 'mine', _arrays(20), _arrays(8))
  accepted = []
  for name in (
    '../other/mine',
    f'{tmp_path}/other/mine',
    '..',
    '',
    'a\0b',
    'a/',
  ):
    with pytest.raises(ValueError, match='cannot name a data set'):
      accepted.append(load(name).name)
  with pytest.raises(ValueError, match='cannot name a data set'):
    load('x' * 300)
  assert not accepted


def test_conversion_happens_once_and_again_when_the_source_changes(
  tmp_path, load, monkeypatch
):
  folder = tmp_path / 'data' / 'mine'
  _write_plain(folder, _arrays(20), _arrays(8, seed=1))
  reads = []
  original = formats.open_plain

  def counted(*args):
    reads.append(args)
    return original(*args)

  monkeypatch.setattr(formats, 'open_plain', counted)
  first, second = load('mine'), load('mine')
  assert len(reads) == 1
  assert first.fingerprint == second.fingerprint
  image, label = _arrays(20, seed=5)
  np.savez(folder / 'train.npz', image=image, label=label)
  third = load('mine')
  assert len(reads) == 2
  np.testing.assert_array_equal(third.image[:20], image)


def test_damaged_cache_is_converted_again(tmp_path, load):
  _write_plain(tmp_path / 'data' / 'mine', _arrays(20), _arrays(8, seed=1))
  good = load('mine').identity()
  [folder] = (tmp_path / 'cache').iterdir()
  for name in ('image.npy', 'label.npy', 'record.json'):
    content = bytearray((folder / name).read_bytes())
    content[-3] ^= 1
    (folder / name).write_bytes(bytes(content))
    with pytest.warns(UserWarning, match=f'{folder} is damaged .*converted'):
      assert load('mine').identity() == good
    (folder / name).unlink()
    with pytest.warns(UserWarning, match=f'{folder} is damaged .*converted'):
      assert load('mine').identity() == good
  assert [p.name for p in (tmp_path / 'cache').iterdir()] == [folder.name]


def test_failed_conversion_leaves_no_cache(tmp_path, load):
  image, label = _arrays(20)
  _write_plain(tmp_path / 'data' / 'mine', (image, label), (image, label))
  source = formats.open_plain('mine', tmp_path / 'data' / 'mine')
  broken = formats.Raw(
    **{**vars(source), 'blocks': lambda: iter([(image, label)])}
  )
  with pytest.raises(ValueError, match='read 20 examples, expected 40'):
    datasets.convert(tmp_path / 'cache' / 'mine-x', broken)
  assert not list((tmp_path / 'cache').iterdir())


def test_cache_that_cannot_be_written_names_the_remedy(tmp_path):
  _write_plain(tmp_path / 'data' / 'mine', _arrays(20), _arrays(8))
  (tmp_path / 'file').write_text('')
  with pytest.raises(ValueError, match='JAXMU_CACHE_DIR'):
    datasets.load(
      'mine', data_dir=tmp_path / 'data', cache_dir=tmp_path / 'file' / 'cache'
    )


def test_full_disk_is_noticed_before_writing(tmp_path, load, monkeypatch):
  _write_plain(tmp_path / 'data' / 'mine', _arrays(20), _arrays(8))
  usage = shutil.disk_usage(tmp_path)
  monkeypatch.setattr(
    shutil, 'disk_usage', lambda path: usage._replace(free=28 * 6 * 6 * 3)
  )
  with pytest.raises(ValueError, match='3.0 kB free.*JAXMU_CACHE_DIR'):
    load('mine')
  assert not list((tmp_path / 'cache').iterdir())


def test_environment_names_the_folders(tmp_path, monkeypatch):
  _write_plain(tmp_path / 'data' / 'mine', _arrays(20), _arrays(8))
  monkeypatch.setenv('JAXMU_DATA_DIR', str(tmp_path / 'data'))
  monkeypatch.setenv('JAXMU_CACHE_DIR', str(tmp_path / 'cache'))
  assert datasets.load('mine').num_dev == 20
  assert len(list((tmp_path / 'cache').iterdir())) == 1


def test_unknown_and_absent_sets_say_what_to_do(tmp_path, load):
  _write_plain(tmp_path / 'data' / 'mine', _arrays(20), _arrays(8))
  with pytest.raises(ValueError) as error:
    load('minr')
  for text in ("'minr'", 'cifar10', 'utkface', 'mine', 'jaxmu.prepare'):
    assert text in str(error.value)
  with pytest.raises(ValueError) as error:
    load('cifar100')
  assert 'python -m jaxmu.prepare cifar100 --data_dir=' in str(error.value)
  assert 'put train.npz and test.npz (image' in str(error.value)
  assert f'into {tmp_path}/data/cifar100, or' in str(error.value)
  with pytest.raises(ValueError, match='prepare utkface --manual_dir=DIR --d'):
    load('utkface')


FLOAT = np.zeros((3, 4, 4, 3), np.float32)
BYTES = np.zeros((3, 4, 4, 3), np.uint8)


def test_bad_arrays_are_refused_before_anything_is_written(tmp_path, load):
  folder = tmp_path / 'data' / 'mine'
  _write_plain(folder, _arrays(3), (BYTES, [0, 1, 1]), num_classes=4)

  def write_and_load(arrays):
    np.savez(folder / 'train.npz', **arrays)
    load('mine')

  assert not refusals.unclear(
    write_and_load,
    [
      ({'image': FLOAT, 'label': [0, 1, 1]}, 'train.npz.*dtype float32.*uint8'),
      ({'image': BYTES[..., 0], 'label': [0, 1, 1]}, r'shape \(3, 4, 4\)'),
      ({'image': BYTES, 'label': [0, 1]}, r'3 images but labels of .* \(2,\)'),
      ({'image': BYTES, 'label': [0.0, 1.0, 1.0]}, 'labels have dtype float64'),
      ({'image': BYTES, 'label': [0, -1, 1]}, 'position 1 with value -1'),
      ({'image': BYTES, 'label': [0, 1, 9]}, r'outside 0..3, .* value 9'),
      ({'image': BYTES[:0], 'label': []}, 'the set is empty'),
      ({'pictures': BYTES, 'label': [0, 1, 1]}, "'pictures'.*expected"),
    ],
  )
  cached = tmp_path / 'cache'
  assert not cached.exists() or not list(cached.iterdir())


def test_files_that_are_missing_or_cut_short_are_named(tmp_path, load):
  folder = tmp_path / 'data' / 'mine'
  _write_plain(folder, _arrays(30), _arrays(8))
  path = folder / 'train.npz'
  whole = path.read_bytes()
  for size in (0, 10, len(whole) // 2, len(whole) - 8):
    path.write_bytes(whole[:size])
    with pytest.raises(ValueError, match='train.npz cannot be read.*cut short'):
      load('mine')
  path.write_bytes(whole)
  (folder / 'test.npz').unlink()
  with pytest.raises(ValueError, match='test.npz is missing'):
    load('mine')


def test_arrays_of_objects_are_never_unpickled(tmp_path, load):
  folder = tmp_path / 'data' / 'mine'
  _write_plain(folder, _arrays(3), _arrays(3))
  np.savez(folder / 'train.npz', image=BYTES, label=np.array([{}], object))
  with pytest.raises(ValueError, match='train.npz'):
    load('mine')


def test_bad_meta_is_named(tmp_path, load):
  folder = tmp_path / 'data' / 'mine'
  _write_plain(folder, _arrays(3), _arrays(3), colour=1)
  with pytest.raises(ValueError, match="unknown keys .'colour'."):
    load('mine')
  for key, value in (('size', 0), ('crop_padding', 1.5), ('num_classes', '3')):
    (folder / 'meta.json').write_text(json.dumps({key: value}))
    with pytest.raises(ValueError, match=f'{key} is {value!r}'):
      load('mine')
  for key, value, message in (
    ('flip', 'no', "flip is 'no', expected true or false"),
    ('flip', 0, 'flip is 0'),
    ('size', True, 'size is True'),
    ('num_classes', 2**31, 'at most 1000000'),
    ('class_names', 'abc', "class_names is 'abc'"),
    ('class_names', ['a', 1, 'c', 'd'], 'expected a list of strings'),
    ('class_names', ['a', 'b', 'a', 'c'], "class_names repeats 'a'"),
  ):
    (folder / 'meta.json').write_text(json.dumps({key: value}))
    with pytest.raises(ValueError, match=f'meta.json.*{message}'):
      load('mine')
  for names, classes in ((['a', 'b'], 4), (list('abcde'), 4)):
    meta = {'class_names': names, 'num_classes': classes}
    (folder / 'meta.json').write_text(json.dumps(meta))
    with pytest.raises(ValueError, match=f'{len(names)} class_names for 4'):
      load('mine')
  (folder / 'meta.json').write_text('5')
  with pytest.raises(ValueError, match="meta.json .*holds '5', expected"):
    load('mine')
  (folder / 'meta.json').write_text('{')
  with pytest.raises(ValueError, match='meta.json cannot be read'):
    load('mine')


def test_class_names_give_the_number_of_classes(tmp_path, load):
  folder = tmp_path / 'data' / 'mine'
  _write_plain(folder, _arrays(8), _arrays(8), class_names=list('abcdef'))
  assert load('mine').num_classes == 6


@pytest.mark.parametrize('largest', [255, 2**31])
def test_more_classes_than_examples_are_refused(tmp_path, load, largest):
  folder = tmp_path / 'data' / 'mine'
  image, label = _arrays(8)
  label[3] = largest
  _write_plain(folder, (image, label), _arrays(8))
  with pytest.raises(ValueError, match=f'label {largest} at position 3.*16 ex'):
    load('mine')


@pytest.mark.parametrize('channels', [1, 3])
def test_constant_channels_are_refused(tmp_path, load, channels):
  image, label = _arrays(8, shape=(6, 6, channels))
  image[..., -1] = 51
  _write_plain(tmp_path / 'data' / 'mine', (image, label), _arrays(8))
  if channels == 1:
    test = _arrays(8, shape=(6, 6, 1))
    np.savez(tmp_path / 'data' / 'mine' / 'test.npz', **_named(test))
  message = f'channel {0 if channels == 1 else 2} .*mean 0.2 and .*deviation 0'
  with pytest.raises(ValueError, match=message):
    load('mine')
  assert not list((tmp_path / 'cache').iterdir())


def _named(part):
  return dict(zip(('image', 'label'), part, strict=True))


def test_channel_moments_equal_numpy():
  image = _arrays(9, shape=(5, 5, 3))[0]
  mean, std = catalog.channel_moments(image)
  pixels = image.reshape(-1, 3) / 255
  np.testing.assert_allclose(mean, pixels.mean(0), atol=5e-5)
  np.testing.assert_allclose(std, pixels.std(0), atol=5e-5)


@pytest.mark.parametrize(
  'name',
  [
    'mnist',
    pytest.param('fashion_mnist', marks=pytest.mark.slow),
    pytest.param('cifar10', marks=pytest.mark.slow),
  ],
)
def test_real_sets_are_the_official_ones(name, real_data, tmp_path, recwarn):
  if name not in datasets.available(real_data):
    pytest.skip(f'{name} is not in {real_data}')
  source = datasets.load(name, data_dir=real_data, cache_dir=tmp_path)
  entry = CATALOG[name]
  assert not [w for w in recwarn if 'official' in str(w.message)]
  assert source.num_dev == entry.num_dev
  # The resize moves the mean a little. (CIFAR's published deviations are means
  # over images of the deviation within an image: no check on them.)
  mean, _ = catalog.channel_moments(source.image[: entry.num_dev])
  np.testing.assert_allclose(mean, entry.transform.mean, atol=2e-3)


def test_a_set_that_is_replaced_while_it_is_read_is_read_as_one(
  tmp_path, monkeypatch
):
  """Train part, test part and flags come from one version."""

  def write(version):
    image = np.random.default_rng(version).integers(0, 256, (8, 6, 6, 3))
    data = custom.Labelled(
      train=(image[:6].astype(np.uint8), np.arange(6) % 2),
      test=(image[6:].astype(np.uint8), np.arange(2)),
    )
    meta = {'crop_padding': version}
    custom.write_plain(
      'mine', data, data_dir=tmp_path, meta=meta, overwrite=True
    )

  def load():
    options = dict(data_dir=tmp_path, cache_dir=tmp_path / 'cache')
    source = datasets.load('mine', **options)
    return source.fingerprint, source.transform.crop_padding

  write(2)
  expected = load()
  # After the train part, and then between the cache and the flags.
  for name in ('read_npz', 'count_classes'):
    whole, calls = getattr(formats, name), []

    def replace(*args, whole=whole, calls=calls, **options):
      result = whole(*args, **options)
      calls.append(1)
      if len(calls) == 1:
        write(2)
      return result

    write(1)
    shutil.rmtree(tmp_path / 'cache', ignore_errors=True)
    with monkeypatch.context() as patched:
      patched.setattr(formats, name, replace)
      assert load() == expected, name
    # Nothing of the mixture is in the cache.
    assert load() == expected
  assert len(list((tmp_path / 'cache').glob('mine-*'))) == 1


def test_a_set_that_is_always_replaced_is_refused(tmp_path, monkeypatch):
  count = itertools.count()
  monkeypatch.setattr(
    datasets.files, 'versions', lambda paths: (('', 0, 0, next(count)),)
  )
  _write_plain(tmp_path / 'mine', _arrays(8), _arrays(4))
  with pytest.raises(ValueError, match='replaced 20 times while it was read'):
    datasets.load('mine', data_dir=tmp_path, cache_dir=tmp_path / 'cache')
