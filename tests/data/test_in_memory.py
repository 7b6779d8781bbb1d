"""Data sets of arrays in memory and of folders, and the table of names."""

import doctest
import pathlib

import numpy as np
import pytest
from PIL import Image

from jaxmu import files
from jaxmu.data import catalog, datasets
from tests.data import refusals


def _images(count=20, shape=(6, 6, 3)):
  return np.random.default_rng(0).integers(0, 256, (count, *shape), np.uint8)


LABELS = np.arange(20) % 4


def test_all_forms_of_images_give_the_same_bytes():
  grey = _images(shape=(6, 6))
  forms = {
    'N, H, W': grey,
    'N, H, W, 1': grey[..., None],
    'N, H, W, 3': np.repeat(grey[..., None], 3, axis=-1),
    'float64': grey / 255,
    'float32': (grey / 255).astype(np.float32),
    'list of arrays': list(grey),
  }
  identities = {
    form: datasets.from_arrays(images, LABELS).identity()
    for form, images in forms.items()
  }
  assert all(one == identities['N, H, W'] for one in identities.values())


def test_test_part_is_cut_off_by_seed():
  images = _images()
  source = datasets.from_arrays(images, LABELS, test_fraction=0.25)
  assert (source.num_dev, len(source.label)) == (15, 20)
  assert source.image.dtype == np.uint8 and source.label.dtype == np.int32
  order = [
    next(k for k in range(20) if (images[k] == one).all())
    for one in source.image
  ]
  assert sorted(order) == list(range(20))
  np.testing.assert_array_equal(source.label, LABELS[order])
  again = datasets.from_arrays(images, LABELS, test_fraction=0.25)
  other = datasets.from_arrays(images, LABELS, test_fraction=0.25, seed=1)
  assert again.identity() == source.identity() != other.identity()


def test_constants_are_computed_or_given():
  images = _images()
  source = datasets.from_arrays(
    images[:15], LABELS[:15], test_images=images[15:], test_labels=LABELS[15:]
  )
  assert (source.name, source.num_dev, source.num_classes) == ('custom', 15, 4)
  np.testing.assert_array_equal(source.image, images)
  mean, std = catalog.channel_moments(images[:15])
  assert (source.transform.mean, source.transform.std) == (mean, std)
  given = datasets.from_arrays(
    images,
    LABELS.tolist(),
    name='mine',
    num_classes=9,
    size=12,
    mean=0.5,
    std=(0.1, 0.2, 0.3),
    flip=True,
    crop_padding=2,
  )
  assert given.image.shape == (20, 12, 12, 3)
  assert (given.name, given.num_classes) == ('mine', 9)
  assert given.transform.mean == (0.5, 0.5, 0.5)
  assert given.transform.std == (0.1, 0.2, 0.3)
  assert (given.transform.flip, given.transform.crop_padding) == (True, 2)
  assert not given.image.flags.writeable
  resized = {one.tobytes() for one in catalog.to_model_input(images, size=12)}
  assert {one.tobytes() for one in given.image} == resized


ONE_HOT = np.eye(4)[LABELS]
WRONG = [
  (dict(images=_images().astype(np.int32)), 'dtype int32'),
  (dict(images=2.0 * np.ones((20, 6, 6))), 'from 2 to 2.*divide'),
  (dict(images=np.full((20, 6, 6), np.nan)), 'nan'),
  (dict(images=np.moveaxis(_images(), -1, 1)), r'np.moveaxis\(image, 1, -1\)'),
  (dict(images=_images(shape=(6, 6, 2))), r'\(20, 6, 6, 2\)'),
  (dict(images=_images(0), labels=[]), 'empty'),
  (dict(images=[[1, 2], [3]]), 'images'),
  (dict(images='pictures'), 'images'),
  (dict(images=np.array([{}] * 20)), 'images holds object'),
  (dict(labels=LABELS[:19]), '20 images, but labels'),
  (dict(labels=ONE_HOT), r'np.argmax\(labels, axis=1\)'),
  (dict(labels=LABELS.astype(float)), r'labels.astype\(int\)'),
  (dict(labels=LABELS.astype(str)), r'np.unique\(labels'),
  (dict(labels=LABELS - 1), 'outside|first at position 0 with value -1'),
  (dict(labels=LABELS + 50), 'makes 54 classes'),
  (dict(num_classes=3), 'outside 0..2'),
  (dict(num_classes=0), 'num_classes is 0'),
  (dict(num_classes=2**31), 'num_classes is 2147483648'),
  (dict(size=0), 'size is 0'),
  (dict(size=10**9), 'size is 1000000000'),
  (dict(size=8.0), 'size is 8.0'),
  (dict(crop_padding=-1), 'crop_padding is -1'),
  (dict(crop_padding=6), 'crop_padding is 6 for images of 6 x 6'),
  (dict(mean=np.nan), 'mean is nan'),
  (dict(mean=(0.1, 0.2)), 'give 3 finite numbers'),
  (dict(std=0.0), 'std is 0.0.*above 0'),
  (dict(test_fraction=0.0), 'test_fraction is 0.0'),
  (dict(test_fraction=0.99), 'leaves nothing'),
  (dict(test_images=_images(4)), 'test_labels, or neither'),
  (
    dict(test_images=_images(4), test_labels=LABELS[:4], test_fraction=0.2),
    'would have no effect',
  ),
  (
    dict(test_images=_images(4, (5, 5, 3)), test_labels=LABELS[:4]),
    'both need one shape',
  ),
  (dict(images=np.full((20, 6, 6), 7, np.uint8)), 'channel 0'),
  (dict(name='cifar10'), "choose another name, for example 'my_cifar10'"),
  (dict(name='My Set'), 'cannot name a data set'),
]


def test_wrong_arguments_are_named_in_one_line():
  arguments = {'images': _images(), 'labels': LABELS}
  assert not refusals.unclear(
    lambda changes: datasets.from_arrays(**{**arguments, **changes}), WRONG
  )


def test_examples_of_docstrings_run():
  tests = doctest.DocTestFinder().find(
    datasets, 'datasets', globs={**vars(datasets)}
  )
  runner = doctest.DocTestRunner()
  results = [runner.run(test) for test in tests]
  assert sum(result.attempted for result in results) >= 3
  assert not sum(result.failed for result in results)


def _write_pictures(folder, size=8):
  for k, name in enumerate(('ant', 'bee')):
    (folder / name).mkdir(parents=True)
    for number in range(5):
      Image.fromarray(_images(10, (size, size, 3))[5 * k + number]).save(
        folder / name / f'{number}.png'
      )


def test_folder_is_read_without_preparing_it(tmp_path):
  for part in ('train', 'test'):
    _write_pictures(tmp_path / part)
  source = datasets.from_folder(tmp_path, flip=True)
  assert (source.num_dev, source.num_classes) == (10, 2)
  assert source.transform.flip
  np.testing.assert_array_equal(source.image[:10], _images(10, (8, 8, 3)))
  assert source.label.tolist() == [0] * 5 + [1] * 5 + [0] * 5 + [1] * 5
  assert datasets.from_folder(tmp_path, size=4).image.shape == (20, 4, 4, 3)
  with pytest.raises(ValueError, match='already has a test part'):
    datasets.from_folder(tmp_path, test_fraction=0.5)
  (tmp_path / 'validation').mkdir()
  (tmp_path / 'validation' / 'x.png').write_bytes(b'')
  with pytest.warns(UserWarning, match=r'1 file .* left out: validation/ \(1'):
    datasets.from_folder(tmp_path)


def test_numbers_are_checked_before_pictures_are_read(tmp_path):
  for arguments in (
    {'name': 'mnist'},
    {'size': -1},
    {'test_fraction': 2.0},
    {'crop_padding': 10**6},
  ):
    [(key, _)] = arguments.items()
    with pytest.raises(ValueError, match=key if key != 'name' else 'MNIST'):
      datasets.from_folder(tmp_path / 'absent', **arguments)
  with pytest.raises(ValueError, match='absent is not a folder'):
    datasets.from_folder(tmp_path / 'absent')


def test_home_and_variables_are_expanded_at_every_door(tmp_path, monkeypatch):
  monkeypatch.setenv('HOME', str(tmp_path))
  monkeypatch.setenv('WHERE', str(tmp_path))
  _write_pictures(tmp_path / 'pictures')
  expected = datasets.from_folder(tmp_path / 'pictures').identity()
  for text in ('~/pictures', '$WHERE/pictures', '${WHERE}/pictures'):
    assert datasets.from_folder(text).identity() == expected
  for text in ('~/data', '$WHERE/data'):
    monkeypatch.setenv('JAXMU_DATA_DIR', text)
    monkeypatch.setenv('JAXMU_CACHE_DIR', text)
    assert datasets.find_data_dir() == tmp_path / 'data'
    assert datasets.find_data_dir(text) == tmp_path / 'data'
    assert files.cache_dir() == tmp_path / 'data'
  assert files.path(tmp_path) == tmp_path
  assert files.path('$UNKNOWN_NAME/x') == pathlib.Path('$UNKNOWN_NAME/x')
  for text in ('~no_such_user_here/x', 'a\0b'):
    with pytest.raises(ValueError, match='not a usable path'):
      files.path(text)


def test_table_of_names(tmp_path, monkeypatch):
  monkeypatch.setenv('JAXMU_DATA_DIR', str(tmp_path))
  (tmp_path / 'mine').mkdir()
  (tmp_path / 'mine' / 'train.npz').write_bytes(b'')
  assert sorted(datasets.DATASETS) == sorted({*catalog.CATALOG, 'mine'})
  assert datasets.DATASETS['mine'] is None
  assert datasets.DATASETS['mnist'] is catalog.CATALOG['mnist']
  with pytest.raises(KeyError):
    datasets.DATASETS['other']
  lines = {
    line.split()[0]: line for line in repr(datasets.DATASETS).split('\n')
  }
  assert set(lines) == {'name', *datasets.DATASETS}
  assert '10       1,437 + 360         32 x 32' in lines['digits']
  assert lines['digits'].endswith('here') and lines['mine'].endswith('here')
  assert lines['cifar100'].endswith('python -m jaxmu.prepare cifar100')
