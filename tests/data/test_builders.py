"""Preparing official archives without TensorFlow, downloads and failures."""

import functools
import hashlib
import http.server
import io
import os
import shutil
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from jaxmu.data import builders, prepared, remotes, sources
from tests.data import standins


@pytest.fixture
def load(tmp_path):
  """Load a set below `tmp_path` with a cache of its own."""
  return functools.partial(
    sources.load, data_dir=tmp_path / 'data', cache_dir=tmp_path / 'cache'
  )


@pytest.fixture
def prepare(tmp_path):
  return functools.partial(
    builders.prepare,
    data_dir=tmp_path / 'data',
    manual_dir=tmp_path / 'manual',
    any_size=True,
  )


def _left_behind(tmp_path):
  """What a failure must not leave: anything but empty folders and locks."""
  files = [p for p in (tmp_path / 'data').rglob('*') if p.is_file()]
  return [path for path in files if path.name != '.lock']


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
  raw = prepared.open_prepared(name, folder, size=28)
  image = np.concatenate([block for block, _ in raw.blocks()])
  grey = np.concatenate([image for image, _ in parts])
  np.testing.assert_array_equal(image, np.repeat(grey, 3, axis=-1))


@pytest.mark.parametrize(
  'name, num_classes', [('cifar10', 10), ('cifar100', 100)]
)
def test_cifar_sets(name, num_classes, tmp_path, monkeypatch, prepare, load):
  path = tmp_path / 'manual' / remotes.REMOTES[name][0].filename
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
  monkeypatch.setitem(remotes.PYTHON_ARCHIVES, 'cifar10', (path.name, md5))
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


@pytest.fixture
def server(tmp_path):
  """Serve `tmp_path/web`; yield its address and the paths asked for."""
  asked = []

  class Handler(http.server.SimpleHTTPRequestHandler):
    def do_GET(self):  # noqa: N802
      asked.append(self.path)
      super().do_GET()

    def log_message(self, format, *args):
      pass

  handler = functools.partial(Handler, directory=tmp_path / 'web')
  with http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler) as httpd:
    thread = threading.Thread(target=httpd.serve_forever)
    thread.start()
    yield f'http://127.0.0.1:{httpd.server_address[1]}', asked
    httpd.shutdown()
    thread.join()


def test_download_checks_and_is_used_again(tmp_path, monkeypatch, server, load):
  address, asked = server
  parts = standins.write_mnist(tmp_path / 'web')
  standins.register(monkeypatch, 'mnist', tmp_path / 'web', address)
  prepare = functools.partial(builders.prepare, 'mnist', any_size=True)
  good = (tmp_path / 'web' / 't10k-images-idx3-ubyte.gz').read_bytes()
  # The last archive arrives cut short: refused, nothing half-prepared.
  (tmp_path / 'web' / 't10k-images-idx3-ubyte.gz').write_bytes(good[:99])
  with pytest.raises(ValueError, match='wrong checksum'):
    prepare(data_dir=tmp_path / 'data')
  assert not prepared.find(tmp_path / 'data' / 'mnist')
  assert not list((tmp_path / 'data' / 'downloads').rglob('*.tmp.*'))
  # The second attempt fetches what is missing.
  (tmp_path / 'web' / 't10k-images-idx3-ubyte.gz').write_bytes(good)
  asked.clear()
  prepare(data_dir=tmp_path / 'data')
  assert '/t10k-images-idx3-ubyte.gz' in asked
  # What has arrived whole is not fetched again.
  asked.clear()
  shutil.rmtree(tmp_path / 'data' / 'mnist')
  prepare(data_dir=tmp_path / 'data')
  assert not asked
  with pytest.warns(UserWarning, match='not the official set'):
    np.testing.assert_array_equal(load('mnist').label[30:], parts[1][1])


def test_unreachable_host_fails_at_once_with_the_file_names(
  tmp_path, monkeypatch, server
):
  address, _ = server
  (tmp_path / 'web').mkdir()
  standins.write_mnist(tmp_path / 'web')
  port = int(address.rpartition(':')[2])
  standins.register(
    monkeypatch, 'mnist', tmp_path / 'web', f'http://127.0.0.2:{port}'
  )
  with pytest.raises(ValueError, match='train-images.*--manual_dir'):
    builders.prepare('mnist', data_dir=tmp_path / 'data')
  assert not _left_behind(tmp_path)


KILLED = """
import os, pathlib, signal, sys
from jaxmu.data import archives, builders
from tests.data import standins

folder = pathlib.Path(sys.argv[1])
original = archives.mnist_examples

def killed(*args):
  for count, example in enumerate(original(*args)):
    if count == 7:
      os.kill(os.getpid(), signal.SIGKILL)
    yield example

class Patch:
  def setitem(self, mapping, key, value):
    mapping[key] = value

standins.register(Patch(), 'mnist', folder / 'manual')
archives.mnist_examples = killed
builders.prepare('mnist', data_dir=folder / 'data', any_size=True,
                 manual_dir=folder / 'manual')
"""


def test_killed_preparation_starts_again_cleanly(
  tmp_path, monkeypatch, prepare, load
):
  parts = standins.write_mnist(tmp_path / 'manual')
  standins.register(monkeypatch, 'mnist', tmp_path / 'manual')
  done = subprocess.run(
    [sys.executable, '-c', KILLED, str(tmp_path)],
    env={**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path)},
    capture_output=True,
  )
  assert done.returncode == -signal.SIGKILL, done.stderr.decode()
  parent = tmp_path / 'data' / 'mnist'
  assert list(parent.glob('incomplete.*')), 'the kill came too early or late'
  with pytest.raises(ValueError, match='MNIST is not in'):
    load('mnist')
  prepare('mnist')
  assert not list(parent.glob('incomplete.*'))
  with pytest.warns(UserWarning, match='not the official set'):
    np.testing.assert_array_equal(load('mnist').label[:30], parts[0][1])


class PlainPictures(tfds.core.GeneratorBasedBuilder):
  """A registered set that needs no TensorFlow: it gives PIL images."""

  VERSION = tfds.core.Version('1.0.0')

  def _info(self):
    features = {
      'image': tfds.features.Image(shape=(8, 8, 3)),
      'label': tfds.features.ClassLabel(num_classes=2),
    }
    return tfds.core.DatasetInfo(
      builder=self, features=tfds.features.FeaturesDict(features)
    )

  def _split_generators(self, dl_manager):
    return {part: self._generate_examples() for part in ('train', 'test')}

  def _generate_examples(self):
    for k in range(6):
      yield k, {'image': self._picture(k), 'label': k % 2}

  def _picture(self, k):
    return Image.fromarray(np.full((8, 8, 3), k, np.uint8))


class NumpyPictures(PlainPictures):
  """As most of tfds' own: it gives arrays, which only TensorFlow encodes."""

  def _picture(self, k):
    return np.full((8, 8, 3), k, np.uint8)


def test_other_sets_of_tfds_are_prepared_by_name(tmp_path, load):
  builders.prepare_other('plain_pictures', data_dir=tmp_path / 'data')
  source = load('plain_pictures')
  assert source.image.shape == (12, 8, 8, 3)
  assert sorted(source.image[:6, 0, 0, 0]) == list(range(6))
  assert (source.label == source.image[:, 0, 0, 0] % 2).all()


def test_sets_that_need_tensorflow_name_the_way_round(tmp_path):
  with pytest.raises(ValueError) as error:
    builders.prepare_other('numpy_pictures', data_dir=tmp_path / 'data')
  command = 'tfds build numpy_pictures --file_format=array_record'
  assert command in str(error.value)
  assert not _left_behind(tmp_path)


def test_unknown_name_is_refused(tmp_path):
  with pytest.raises(ValueError, match="'no_such_set'.*cifar10, cifar100"):
    builders.prepare_other('no_such_set', data_dir=tmp_path)
