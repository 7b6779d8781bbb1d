"""Builders of official sets, with intact and with damaged archives."""

import hashlib
import io
import sys

import numpy as np
import pytest
from PIL import Image

from jaxmu.data import archives, formats
from tests.data import standins


def _left_behind(tmp_path):
  """Return what is left in the data folder; a failure must leave nothing."""
  folder = tmp_path / 'data'
  return [*folder.iterdir()] if folder.exists() else []


@pytest.mark.parametrize('name', ['mnist', 'fashion_mnist'])
def test_idx_sets(name, tmp_path, monkeypatch, prepare, load):
  parts = standins.write_mnist(tmp_path / 'manual')
  standins.register(monkeypatch, name, tmp_path / 'manual')
  folder, skipped = prepare(name)
  assert (folder.name, skipped) == ('1.0.0', ())
  with pytest.warns(UserWarning, match='40 examples instead of 70000'):
    source = load(name)
  assert 'tensorflow' not in sys.modules
  assert source.num_dev == 30
  labels = np.concatenate([label for _, label in parts])
  np.testing.assert_array_equal(source.label, labels)
  raw = formats.open_prepared(name, folder, size=28)
  image = np.concatenate([block for block, _ in raw.blocks()])
  grey = np.concatenate([image for image, _ in parts])
  np.testing.assert_array_equal(image, np.repeat(grey, 3, axis=-1))


@pytest.mark.parametrize(
  'name, num_classes', [('cifar10', 10), ('cifar100', 100)]
)
def test_cifar_sets(name, num_classes, tmp_path, monkeypatch, prepare, load):
  path = tmp_path / 'manual' / archives.REMOTES[name][0].filename
  parts = standins.write_cifar(path, num_classes=num_classes)
  standins.register(monkeypatch, name, tmp_path / 'manual')
  prepare(name)
  with pytest.warns(UserWarning, match='not the official set'):
    source = load(name)
  image, label = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
  np.testing.assert_array_equal(source.image, image)
  np.testing.assert_array_equal(source.label, label)
  assert source.num_classes == num_classes
  assert source.num_dev == len(parts[0][1])


def test_python_archive_is_checked_and_read(
  tmp_path, monkeypatch, prepare, load
):
  path = tmp_path / 'manual' / 'cifar-10-python.tar.gz'
  parts = standins.write_cifar(path, python=True)
  with pytest.raises(ValueError, match='md5 checksum .* expected c58f3010'):
    prepare('cifar10')
  assert not _left_behind(tmp_path)
  with path.open('rb') as file:
    md5 = hashlib.file_digest(file, 'md5').hexdigest()
  monkeypatch.setitem(archives.PYTHON_ARCHIVES, 'cifar10', (path.name, md5))
  prepare('cifar10')
  with pytest.warns(UserWarning, match='not the official set'):
    source = load('cifar10')
  np.testing.assert_array_equal(source.image[: len(parts[0][1])], parts[0][0])


def _write_faces(folder, ages, extra=()):
  folder.mkdir(parents=True)
  names = [*standins.utkface_names(ages), *extra]
  for k, name in enumerate(names):
    (folder / name).write_bytes(standins.jpeg(k))
  return names


def test_utkface_follows_the_rules_of_the_benchmark(tmp_path, prepare, load):
  ages = [3, 25, 47, 61, 80, 99, 19, 20, 39, 40, 116]
  names = _write_faces(
    tmp_path / 'manual' / 'UTKFace', ages, extra=['face_1_2_x.jpg']
  )
  _, skipped = prepare('utkface')
  assert skipped == ('face_1_2_x.jpg',)
  with pytest.warns(UserWarning, match='11 examples instead of 23708'):
    source = load('utkface')
  in_order = sorted(names[:-1])
  order = np.random.default_rng(123).permutation(11)
  expected = [*order[2:], *order[:2]]  # a fifth of 11, rounded down, is test
  bands = [min(int(in_order[i].partition('_')[0]) // 20, 4) for i in expected]
  assert source.label.tolist() == bands
  assert source.num_dev == 9
  assert source.image.shape == (11, 224, 224, 3)
  first = (tmp_path / 'manual' / 'UTKFace' / in_order[expected[0]]).read_bytes()
  decoded = np.asarray(Image.open(io.BytesIO(first)).resize((224, 224), 2))
  np.testing.assert_array_equal(source.image[0], decoded)


def test_utkface_says_where_to_put_it(tmp_path, prepare):
  (tmp_path / 'manual').mkdir()
  with pytest.raises(ValueError, match='UTKFace.tar.gz.*docs/data.md'):
    prepare('utkface')
  assert not _left_behind(tmp_path)


def test_folder_of_archives_must_be_there(tmp_path, prepare):
  with pytest.raises(ValueError, match='--manual_dir=.*manual is not a folder'):
    prepare('utkface')
  assert not _left_behind(tmp_path)


def test_utkface_without_faces_is_refused(tmp_path, prepare):
  folder = tmp_path / 'manual' / 'UTKFace'
  _write_faces(folder, [], extra=['a_1_2_x.jpg', 'b_1_2_x.jpg'])
  with pytest.raises(ValueError, match='holds 0 .jpg.* a_1.*: at least 5'):
    prepare('utkface')
  for name in standins.utkface_names([3, 25, 47, 61]):
    (folder / name).write_bytes(standins.jpeg(0))
  with pytest.raises(ValueError, match='holds 4 .jpg.*: at least 5'):
    prepare('utkface')
  assert not _left_behind(tmp_path)


def test_another_number_of_faces_lists_the_malformed_names(tmp_path, prepare):
  _write_faces(
    tmp_path / 'manual' / 'UTKFace',
    [3, 25, 47, 61, 80],
    extra=[f'x{k:02d}_1_2.jpg' for k in range(12)],
  )
  with pytest.raises(ValueError) as error:
    prepare('utkface', any_size=False)
  assert 'holds 5 .jpg' in str(error.value)
  assert '23708' in str(error.value)
  assert 'and 12 without an age in their names' in str(error.value)
  assert 'x00_1_2.jpg, x01_1_2.jpg' in str(error.value)
  assert 'x09_1_2.jpg, ...: complete them' in str(error.value)
  assert not _left_behind(tmp_path)


def test_part_without_examples_is_refused(tmp_path, monkeypatch, prepare):
  standins.write_mnist(tmp_path / 'manual', num_test=0)
  standins.register(monkeypatch, 'mnist', tmp_path / 'manual')
  with pytest.raises(ValueError, match='no examples in test, expected 10000'):
    prepare('mnist')
  assert not _left_behind(tmp_path)


def test_broken_picture_is_named_and_nothing_left(tmp_path, prepare):
  names = _write_faces(tmp_path / 'manual' / 'UTKFace', [3, 25, 47, 61, 80])
  (tmp_path / 'manual' / 'UTKFace' / names[2]).write_bytes(b'no picture')
  with pytest.raises(ValueError, match=names[2]):
    prepare('utkface')
  assert not _left_behind(tmp_path)


def test_wrong_checksum_is_refused(tmp_path, monkeypatch, prepare):
  standins.write_mnist(tmp_path / 'manual')
  standins.register(monkeypatch, 'mnist', tmp_path / 'manual')
  standins.write_mnist(tmp_path / 'manual', seed=1)
  with pytest.raises(ValueError, match='train-images-idx3-ubyte.gz') as error:
    prepare('mnist')
  assert 'wrong checksum' in str(error.value)
  assert not _left_behind(tmp_path)


def test_other_number_of_examples_needs_consent(tmp_path, monkeypatch, prepare):
  standins.write_mnist(tmp_path / 'manual')
  standins.register(monkeypatch, 'mnist', tmp_path / 'manual')
  with pytest.raises(ValueError, match='30 examples in train, expected 60000'):
    prepare('mnist', any_size=False)
  assert not _left_behind(tmp_path)


def test_labels_out_of_range_are_refused(tmp_path, monkeypatch, prepare):
  standins.write_mnist(tmp_path / 'manual')
  path = tmp_path / 'manual' / 't10k-labels-idx1-ubyte.gz'
  standins.write_idx(path, np.arange(10) + 1)
  standins.register(monkeypatch, 'mnist', tmp_path / 'manual')
  with pytest.raises(ValueError, match='example 9 of test has label 10'):
    prepare('mnist')
  assert not _left_behind(tmp_path)
