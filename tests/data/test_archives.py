"""Readers of the original archives, on small archives of the same formats."""

import gzip
import io
import pickle
import tarfile
import zipfile

import numpy as np
import pytest

from jaxmu.data import archives, pictures
from tests.data import standins


def _check(examples, expected):
  image, label = zip(*examples, strict=True)
  np.testing.assert_array_equal(np.stack(image), expected[0])
  np.testing.assert_array_equal(label, expected[1])


def test_mnist_files_are_read_in_order(tmp_path):
  parts = standins.write_mnist(tmp_path)
  for prefix, expected in zip(standins.MNIST_FILES, parts, strict=True):
    examples = archives.mnist_examples(
      tmp_path / f'{prefix}-images-idx3-ubyte.gz',
      tmp_path / f'{prefix}-labels-idx1-ubyte.gz',
    )
    _check(examples, expected)


def test_idx_files_that_are_not_whole_are_refused(tmp_path):
  path = tmp_path / 'x.gz'
  standins.write_idx(path, np.zeros((4, 28, 28)))
  whole = path.read_bytes()
  path.write_bytes(whole[: len(whole) // 2])
  with pytest.raises(ValueError, match='x.gz cannot be read.*cut short'):
    archives.read_idx(path)
  path.write_bytes(b'<html>not found</html>')
  with pytest.raises(ValueError, match='x.gz cannot be read'):
    archives.read_idx(path)
  path.write_bytes(gzip.compress(gzip.decompress(whole)[:-100]))
  with pytest.raises(ValueError, match=r'\(4, 28, 28\) but holds 3036 bytes'):
    archives.read_idx(path)
  path.write_bytes(gzip.compress(b'\0\0\x0d\1\0\0\0\0'))
  with pytest.raises(ValueError, match='begins with 00000d01'):
    archives.read_idx(path)


def test_mnist_files_must_belong_together(tmp_path):
  standins.write_mnist(tmp_path, num_train=30, num_test=10)
  with pytest.raises(ValueError, match='do not belong together'):
    list(
      archives.mnist_examples(
        tmp_path / 'train-images-idx3-ubyte.gz',
        tmp_path / 't10k-labels-idx1-ubyte.gz',
      )
    )


@pytest.mark.parametrize('python', [False, True])
@pytest.mark.parametrize('num_classes', [10, 100])
def test_both_forms_of_cifar_are_read_in_order(tmp_path, num_classes, python):
  path = tmp_path / 'cifar.tar.gz'
  train, test = standins.write_cifar(
    path, num_classes=num_classes, python=python
  )
  files = ('train',)
  if num_classes == 10:
    files = tuple(f'data_batch_{k}' for k in range(1, 6))
  _check(
    archives.cifar_examples(path, files=files, num_classes=num_classes), train
  )
  last = ('test_batch',) if num_classes == 10 else ('test',)
  _check(
    archives.cifar_examples(path, files=last, num_classes=num_classes), test
  )


def test_cifar_archives_that_are_not_whole_are_refused(tmp_path):
  path = tmp_path / 'cifar.tar.gz'
  standins.write_cifar(path)
  with pytest.raises(ValueError, match='has no batch train'):
    list(archives.cifar_examples(path, files=('train',), num_classes=10))
  with pytest.raises(ValueError, match='not a multiple of 3074'):
    list(archives.cifar_examples(path, files=('test_batch',), num_classes=100))
  whole = path.read_bytes()
  path.write_bytes(whole[: len(whole) // 2])
  with pytest.raises(ValueError, match='cut short'):
    list(archives.cifar_examples(path, files=('test_batch',), num_classes=10))


def test_pickles_cannot_run_code(tmp_path):
  path, bomb = tmp_path / 'cifar.tar.gz', tmp_path / 'bomb'

  class Bomb:
    def __reduce__(self):
      return (exec, (f'open({str(bomb)!r}, "w")',))

  content = pickle.dumps({b'data': Bomb(), b'labels': [0]}, protocol=2)
  with tarfile.open(path, 'w:gz') as tar:
    member = tarfile.TarInfo('cifar-10-batches-py/test_batch')
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))
  with pytest.raises(ValueError, match='refers to .*exec'):
    list(archives.cifar_examples(path, files=('test_batch',), num_classes=10))
  assert not bomb.exists()


def test_age_bands():
  bands = {
    '0_0_1_x.jpg': 0,
    '19_0_1_x.jpg': 0,
    '20_0_1_x.jpg': 1,
    '39_1_20170116174525125.jpg.chip.jpg': 1,
    '59_0_0_x.jpg': 2,
    '79_0_0_x.jpg': 3,
    '80_0_0_x.jpg': 4,
    '116_1_0_x.jpg': 4,
    '_1_0_x.jpg': None,
    'old_1_0_x.jpg': None,
    '-3_1_0_x.jpg': None,
  }
  assert {name: archives.utkface_age_band(name) for name in bands} == bands


def test_utkface_is_sorted_by_name_in_every_form(tmp_path):
  names = standins.utkface_names([30, 5, 100, 61])
  contents = {name: standins.jpeg(k) for k, name in enumerate(names)}
  folder = tmp_path / 'UTKFace' / 'part'
  folder.mkdir(parents=True)
  with (
    tarfile.open(tmp_path / 'UTKFace.tar.gz', 'w:gz') as tar,
    zipfile.ZipFile(tmp_path / 'UTKFace.zip', 'w') as archive,
  ):
    for name, content in contents.items():
      (folder / name).write_bytes(content)
      archive.writestr(f'UTKFace/{name}', content)
      member = tarfile.TarInfo(f'UTKFace/{name}')
      member.size = len(content)
      tar.addfile(member, io.BytesIO(content))
    archive.writestr('UTKFace/readme.txt', 'no face')
  (folder / 'Thumbs.db').write_bytes(b'')
  for form in ('UTKFace', 'UTKFace.tar.gz', 'UTKFace.zip'):
    found = archives.utkface_files(tmp_path / form)
    assert list(found) == sorted(names), form
    for name, content in found.items():
      assert pictures.encoded_rgb(name, content) == contents[name]


def test_utkface_refuses_two_copies_of_a_face(tmp_path):
  for part in ('UTKFace', 'crop_part1'):
    (tmp_path / part).mkdir()
    (tmp_path / part / '1_0_0_x.jpg').write_bytes(standins.jpeg(0))
  with pytest.raises(
    ValueError, match='repeats 1 file name, first 1_0_0_x.jpg'
  ):
    archives.utkface_files(tmp_path)


def test_archives_that_would_fill_the_memory_are_refused(tmp_path):
  content = bytes(archives._LARGEST_PICTURE + 1)
  path = tmp_path / 'UTKFace.zip'
  with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
    archive.writestr('1_0_0.jpg', content)
  with tarfile.open(tmp_path / 'UTKFace.tar.gz', 'w:gz') as tar:
    member = tarfile.TarInfo('1_0_0.jpg')
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))
  for name in ('UTKFace.zip', 'UTKFace.tar.gz'):
    with pytest.raises(ValueError, match='1_0_0.jpg unpacks to 50 MB'):
      archives.utkface_files(tmp_path / name)
