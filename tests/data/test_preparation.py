"""Downloads, killed and concurrent runs, and sets of tfds' catalogue."""

import contextlib
import functools
import http.server
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

from jaxmu.data import archives, datasets, formats, official
from tests.data import standins

STALLED = '/t10k-images-idx3-ubyte.gz'
ENVIRONMENT = {**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path)}


def _names(folder):
  return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def offline(monkeypatch):
  """Disable the network; fail the test if tfds tries to fetch anything."""
  monkeypatch.setattr(archives.urllib.request, 'getproxies', dict)

  def refuse(*args, **kwargs):
    raise OSError('no network')

  def fetched(*args, **kwargs):
    raise AssertionError('tfds would try for minutes')

  monkeypatch.setattr(archives.socket, 'create_connection', refuse)
  manager = official.download_manager.DownloadManager
  monkeypatch.setattr(manager, '_download', fetched)


@pytest.fixture
def server(tmp_path):
  """Serve `tmp_path/web`; yield its address and the paths asked for."""
  with _serve(tmp_path / 'web') as (address, asked, _):
    yield address, asked


@pytest.fixture
def stalling(tmp_path):
  """The same, but the first answer for `STALLED` stops half-way."""
  with _serve(tmp_path / 'web', stall=True) as served:
    yield served


@contextlib.contextmanager
def _serve(folder, *, stall=False):
  asked, half_sent, ended = [], threading.Event(), threading.Event()

  class Handler(http.server.SimpleHTTPRequestHandler):
    def do_GET(self):  # noqa: N802
      asked.append(self.path)
      if stall and self.path == STALLED and not half_sent.is_set():
        content = (folder / STALLED[1:]).read_bytes()
        self.send_response(200)
        self.send_header('Content-Length', str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2])
        self.wfile.flush()
        half_sent.set()
        ended.wait()
      else:
        super().do_GET()

    def log_message(self, format, *args):
      pass

  handler = functools.partial(Handler, directory=folder)
  with http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler) as httpd:
    thread = threading.Thread(target=httpd.serve_forever)
    thread.start()
    yield f'http://127.0.0.1:{httpd.server_address[1]}', asked, half_sent
    ended.set()
    httpd.shutdown()
    thread.join()


def test_download_checks_and_is_used_again(tmp_path, monkeypatch, server, load):
  address, asked = server
  parts = standins.write_mnist(tmp_path / 'web')
  standins.register(monkeypatch, 'mnist', tmp_path / 'web', address)
  prepare = functools.partial(official.prepare, 'mnist', any_size=True)
  good = (tmp_path / 'web' / 't10k-images-idx3-ubyte.gz').read_bytes()
  # The last archive arrives cut short: refused, nothing half-prepared.
  (tmp_path / 'web' / 't10k-images-idx3-ubyte.gz').write_bytes(good[:99])
  with pytest.raises(ValueError, match='wrong checksum'):
    prepare(data_dir=tmp_path / 'data')
  assert _names(tmp_path / 'data') == ['downloads']
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
    official.prepare('mnist', data_dir=tmp_path / 'data')
  assert _names(tmp_path / 'data') == []


def test_folder_that_lacks_archives_fails_at_once_offline(
  tmp_path, monkeypatch, prepare, offline
):
  standins.write_mnist(tmp_path / 'manual')
  standins.register(monkeypatch, 'mnist', tmp_path / 'manual')
  (tmp_path / 'manual' / 't10k-labels-idx1-ubyte.gz').unlink()
  with pytest.raises(ValueError) as error:
    prepare('mnist')
  assert 'no network' in str(error.value)
  assert 'lacks into it: t10k-labels-idx1-ubyte.gz' in str(error.value)
  assert _names(tmp_path / 'data') == []


def test_archives_at_hand_need_no_network(
  tmp_path, monkeypatch, prepare, offline
):
  standins.write_mnist(tmp_path / 'manual')
  standins.register(monkeypatch, 'mnist', tmp_path / 'manual')
  folder, _ = prepare('mnist')
  assert _names(tmp_path / 'data') == ['mnist']
  assert _names(folder.parent) == ['1.0.0']


def test_overwriting_replaces_only_with_a_complete_set(
  tmp_path, monkeypatch, prepare, load
):
  standins.write_mnist(tmp_path / 'manual')
  standins.register(monkeypatch, 'mnist', tmp_path / 'manual')
  folder, _ = prepare('mnist')
  for split in formats.PARTS:
    image = np.zeros((4, 28, 28, 1), np.uint8)
    np.savez(folder.parent / split, image=image, label=np.arange(4))
  before = sorted((tmp_path / 'data').rglob('*'))
  (tmp_path / 'manual' / 't10k-labels-idx1-ubyte.gz').write_bytes(b'no')
  with pytest.raises(ValueError, match='wrong checksum'):
    prepare('mnist', overwrite=True)
  assert sorted((tmp_path / 'data').rglob('*')) == before
  parts = standins.write_mnist(tmp_path / 'manual', num_train=20, seed=1)
  standins.register(monkeypatch, 'mnist', tmp_path / 'manual')
  prepare('mnist')  # without consent what is there stays
  assert sorted((tmp_path / 'data').rglob('*')) == before
  prepare('mnist', overwrite=True)
  assert _names(folder.parent) == ['1.0.0']
  with pytest.warns(UserWarning, match='30 examples.*mnist --overwrite'):
    np.testing.assert_array_equal(load('mnist').label[:20], parts[0][1])


KILLED = """
import os, pathlib, signal, sys
from jaxmu.data import archives, official
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
official.prepare('mnist', data_dir=folder / 'data', any_size=True,
                    manual_dir=folder / 'manual')
"""

INTERRUPTED = """
import pathlib, sys
from jaxmu.data import official
from tests.data import standins

class Patch:
  def setitem(self, mapping, key, value):
    mapping[key] = value

folder = pathlib.Path(sys.argv[1])
standins.register(Patch(), 'mnist', folder / 'web', sys.argv[2])
official.prepare('mnist', data_dir=folder / 'data', any_size=True)
"""


def test_killed_preparation_starts_again_cleanly(
  tmp_path, monkeypatch, prepare, load
):
  parts = standins.write_mnist(tmp_path / 'manual')
  standins.register(monkeypatch, 'mnist', tmp_path / 'manual')
  done = subprocess.run(
    [sys.executable, '-c', KILLED, str(tmp_path)],
    env=ENVIRONMENT,
    capture_output=True,
  )
  assert done.returncode == -signal.SIGKILL, done.stderr.decode()
  left = list((tmp_path / 'data').rglob('incomplete.*'))
  assert left, 'the kill came too early or late'
  assert datasets.available(tmp_path / 'data') == ['digits']
  with pytest.raises(ValueError, match='MNIST is not in'):
    load('mnist')
  prepare('mnist')
  assert _names(tmp_path / 'data') == ['mnist']
  assert _names(tmp_path / 'data' / 'mnist') == ['1.0.0']
  with pytest.warns(UserWarning, match='not the official set'):
    np.testing.assert_array_equal(load('mnist').label[:30], parts[0][1])


def test_killed_download_starts_again_cleanly(tmp_path, monkeypatch, stalling):
  address, asked, half_sent = stalling
  standins.write_mnist(tmp_path / 'web')
  command = [sys.executable, '-c', INTERRUPTED, str(tmp_path), address]
  with subprocess.Popen(command, env=ENVIRONMENT) as process:
    assert half_sent.wait(600), 'nothing was asked for'
    process.kill()
  downloads = tmp_path / 'data' / 'downloads' / 'mnist'
  assert list(downloads.glob('*.tmp.*')), 'the kill came too early or late'
  standins.register(monkeypatch, 'mnist', tmp_path / 'web', address)
  asked.clear()
  official.prepare('mnist', data_dir=tmp_path / 'data', any_size=True)
  assert STALLED in asked
  assert not list(downloads.glob('*.tmp.*'))
  assert _names(tmp_path / 'data') == ['downloads', 'mnist']


def test_one_process_at_a_time_prepares_a_set(tmp_path, monkeypatch, prepare):
  standins.write_mnist(tmp_path / 'manual')
  standins.register(monkeypatch, 'mnist', tmp_path / 'manual')
  folders, runs = [], []
  run = official._run

  def counted(*args, **kwargs):
    runs.append(args)
    run(*args, **kwargs)

  monkeypatch.setattr(official, '_run', counted)
  threads = [
    threading.Thread(target=lambda: folders.append(prepare('mnist')))
    for _ in range(2)
  ]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert (len(folders), len(runs)) == (2, 1)
  assert _names(tmp_path / 'data') == ['mnist']


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
  """A set of arrays, like most of tfds' own; only TensorFlow encodes them."""

  def _picture(self, k):
    return np.full((8, 8, 3), k, np.uint8)


class RemotePictures(PlainPictures):
  """A set with an archive of an address and a known checksum."""

  url_infos = {
    'http://a.test/p.zip': tfds.download.checksums.UrlInfo(
      size=1, checksum='00' * 32, filename='p.zip'
    )
  }

  def _split_generators(self, dl_manager):
    dl_manager.download('http://a.test/p.zip')
    return super()._split_generators(dl_manager)


class HandmadePictures(PlainPictures):
  """A set whose files the user has to fetch."""

  MANUAL_DOWNLOAD_INSTRUCTIONS = 'Ask the authors for pictures.zip.'

  def _split_generators(self, dl_manager):
    assert (dl_manager.manual_dir / 'pictures.zip').exists()
    return super()._split_generators(dl_manager)


def test_other_sets_of_tfds_are_prepared_by_name(tmp_path, load):
  official.prepare_other('plain_pictures', data_dir=tmp_path / 'data')
  assert _names(tmp_path / 'data') == ['plain_pictures']
  source = load('plain_pictures')
  assert source.image.shape == (12, 8, 8, 3)
  assert sorted(source.image[:6, 0, 0, 0]) == list(range(6))
  assert (source.label == source.image[:, 0, 0, 0] % 2).all()


def test_a_changed_description_of_a_set_is_named(tmp_path, load):
  folder = official.prepare_other('plain_pictures', data_dir=tmp_path / 'data')
  described = [p for p in folder.iterdir() if p.suffix in ('.json', '.txt')]
  assert {'features.json', 'dataset_info.json'} < {p.name for p in described}
  silent = []
  for path in described:
    whole = path.read_bytes()
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    for place in range(0, len(whole), 17):
      path.write_bytes(
        whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]
      )
      os.utime(path, ns=times)
      try:
        load('plain_pictures')
        silent.append((path.name, place))
      except ValueError as error:
        assert str(folder) in str(error)
    path.write_bytes(whole)
    os.utime(path, ns=times)
  assert not silent
  assert load('plain_pictures').num_dev == 6


def test_sets_that_need_tensorflow_name_the_way_round(tmp_path):
  with pytest.raises(ValueError) as error:
    official.prepare_other('numpy_pictures', data_dir=tmp_path / 'data')
  command = 'tfds build numpy_pictures --file_format=array_record'
  assert command in str(error.value)
  assert _names(tmp_path / 'data') == []


def test_other_sets_fail_at_once_offline(tmp_path, offline):
  with pytest.raises(ValueError, match='no network.* fetch p.zip elsewhere'):
    official.prepare_other('remote_pictures', data_dir=tmp_path / 'data')
  assert _names(tmp_path / 'data') == []
  # An archive at hand that is not the right one.
  (tmp_path / 'p.zip').write_bytes(b'x')
  with pytest.raises(ValueError, match='wrong checksum'):
    official.prepare_other(
      'remote_pictures', data_dir=tmp_path / 'data', manual_dir=tmp_path
    )
  assert _names(tmp_path / 'data') == []


def test_other_sets_take_files_of_the_user(tmp_path):
  with pytest.raises(ValueError, match='--manual_dir. Ask the authors'):
    official.prepare_other('handmade_pictures', data_dir=tmp_path / 'data')
  assert _names(tmp_path / 'data') == []
  (tmp_path / 'pictures.zip').write_bytes(b'')
  folder = official.prepare_other(
    'handmade_pictures', data_dir=tmp_path / 'data', manual_dir=tmp_path
  )
  assert formats.find_prepared(folder.parent) == [folder]


def test_set_that_only_tensorflow_reads_is_prepared_again(tmp_path, load):
  prepare = functools.partial(
    official.prepare_other, 'plain_pictures', data_dir=tmp_path / 'data'
  )
  info = prepare() / 'dataset_info.json'
  info.write_text(info.read_text().replace('array_record', 'tfrecord'))
  with pytest.raises(ValueError, match='plain_pictures --overwrite'):
    load('plain_pictures')
  prepare(overwrite=True)
  assert load('plain_pictures').num_dev == 6


def test_unknown_name_is_refused(tmp_path):
  with pytest.raises(ValueError, match="'no_such_set'.*cifar10, cifar100"):
    official.prepare_other('no_such_set', data_dir=tmp_path)
