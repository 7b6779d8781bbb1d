"""A small job in an S3 store: from other machines, at once, in bad weather.

The store is moto's server on this machine; Google's is an emulator, of which
single requests are tested:

    pip install -e '.[test,servers]'
    pytest -m cluster tests/study/test_object_store.py
"""

import hashlib
import os
import pathlib
import re
import subprocess
import sys
import time
from collections.abc import Sequence

import pytest

from jaxmu import remote
from jaxmu.study import store
from tests import servers
from tests.study import small_job

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group('object_store')]

ROOT = pathlib.Path(__file__).parent.parent.parent
ARGUMENTS = [
  *small_job.ARGUMENTS,
  '--config.run.devices=2',
  '--config.run.chunk=1',
]

# The child stops in front of its first upload of a retrained model until the
# file `gone` is there, and goes on without the store.
WITHOUT_STORE = """
import pathlib, runpy, sys, time
from jaxmu import remote

folder = pathlib.Path(sys.argv.pop(1))
remote.PAUSES = (0.2,) * 200
put = remote.put

def waiting(copies):
  if any('/retrain-' in place for place in copies.values()):
    (folder / 'stop').touch()
    while not (folder / 'gone').exists():
      time.sleep(0.01)
  put(copies)

remote.put = waiting
runpy.run_module('jaxmu.main', run_name='__main__', alter_sys=True)
"""


@pytest.fixture(scope='module')
def server():
  servers.needs('moto.server', 's3fs')
  one = servers.Server()
  yield one
  one.gate.close()
  one.stop()


class Machine:
  """A machine with a mirror of its own, which runs the job."""

  def __init__(self, folder: pathlib.Path, environment: dict[str, str]):
    self.folder = folder
    self.environment = {**environment, 'JAXMU_CACHE_DIR': str(folder)}

  def mirror(self, name: str) -> pathlib.Path:
    return self.folder / 'mirror-of-s3' / 'bucket' / name

  def start(
    self, workdir: str, *python: str, flags: Sequence[str] = ()
  ) -> subprocess.Popen:
    return subprocess.Popen(
      [sys.executable, *(python or ('-m', 'jaxmu.main')), *ARGUMENTS]
      + [f'--workdir={workdir}', *flags],
      cwd=ROOT,
      env=self.environment,
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
    )

  def store(self, *words: str, fails: bool = False) -> str:
    """Run `python -m jaxmu.store`."""
    done = subprocess.run(
      [sys.executable, '-m', 'jaxmu.store', *words],
      cwd=ROOT,
      env=self.environment,
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
      check=False,
    )
    assert done.returncode == int(fails), done.stdout
    return done.stdout

  def run(self, workdir: str, *python: str, flags: Sequence[str] = ()) -> str:
    return _finished(self.start(workdir, *python, flags=flags))


def _finished(process: subprocess.Popen) -> str:
  output, _ = process.communicate()
  assert process.returncode == 0, output
  return output


@pytest.fixture(scope='module')
def plain(tmp_path_factory, job_environment):
  """The same job in a local folder."""
  folder = tmp_path_factory.mktemp('plain')
  machine = Machine(folder / 'cache', job_environment)
  machine.run(str(folder / 'work'))
  return folder / 'work'


@pytest.fixture
def machine(tmp_path, server, job_environment):
  """Returns machines by name."""

  def get(name: str) -> Machine:
    return Machine(tmp_path / name, job_environment | server.environment)

  return get


def _files(folder: pathlib.Path) -> dict[str, bytes]:
  """Content of all files but models and hidden ones."""
  return {
    path.relative_to(folder).as_posix(): path.read_bytes()
    for path in folder.rglob('*')
    if path.is_file()
    and 'models' not in path.relative_to(folder).parts[2:]
    and path.name[0] != '.'
  }


def _same_results(folder: pathlib.Path, plain: pathlib.Path) -> None:
  for name in ('results.csv', 'per_cluster.csv'):
    assert (folder / name).read_bytes() == (plain / name).read_bytes()


def test_another_machine_finds_everything(server, machine, plain):
  one, other = machine('a'), machine('b')
  output = one.run('s3://bucket/job')
  assert 's3://bucket/job/report.html explains' in output
  _same_results(one.mirror('job'), plain)
  assert set(_files(one.mirror('job'))) >= set(_files(plain)) - {
    name for name in _files(plain) if name.startswith('store/')
  }
  assert 'report: up to date, nothing redone' in other.run('s3://bucket/job')
  assert _files(other.mirror('job')) == _files(one.mirror('job'))
  # The store has lost everything: the next start brings it back.
  before = server.filesystem().find('bucket/job')
  server.stop()
  server.start()
  assert server.filesystem().find('bucket') == []
  assert 'nothing redone' in one.run('s3://bucket/job')
  assert server.filesystem().find('bucket/job') == before
  # Models are copied by a stage that starts from them.
  folders = other.mirror('job') / 'store' / 'models'
  assert not [*folders.glob('original-*/shard_*/models')]
  other.run('s3://bucket/job', flags=['--config.unlearn.hparams.num_epochs=2'])
  assert len([*folders.glob('original-*/shard_*/models')]) > 1


def test_a_damaged_object_is_computed_again(server, machine, plain):
  machine('a').run('s3://bucket/damaged')
  store = server.filesystem()
  path = next(
    path
    for path in store.find('bucket/damaged/store/scores')
    if path.endswith('.npy')
  )
  content = store.cat_file(path)
  store.pipe_file(path, content[:-1] + bytes([content[-1] ^ 1]))
  output = machine('b').run('s3://bucket/damaged')
  shard = path.rpartition('/')[0].rpartition('/')[0]
  assert f's3://{shard} is damaged ({path.rpartition("/")[2]}' in output
  _same_results(machine('b').mirror('damaged'), plain)
  output = machine('c').run('s3://bucket/damaged')
  assert 'nothing redone' in output and 'damaged (' not in output


def test_stored_work_is_listed_checked_and_pruned(server, machine):
  url = 's3://bucket/job'
  machine('a').run(url)
  machine('a').run(url, flags=['--config.unlearn.hparams.num_epochs=2'])
  store, other = server.filesystem(), machine('b')
  before = store.find('bucket/job')
  text = other.store('list', url)
  assert url in text and 'report.html: ' in text
  assert 'damaged' not in text and re.search(r'total +\d+ files', text)
  assert f'  {len(before)} files' in text
  assert ' 0 of ' in other.store('check', url)
  lost = next(p for p in before if p.endswith('/record.json'))
  lost = lost.replace('record.json', '0123456789ab/failed.npy')
  store.pipe_file(lost, b'of another writer')
  argv = ['prune', url, *ARGUMENTS]
  text = other.store(*argv)
  assert 'to remove with --delete: ' in text and '1 temporary' in text
  assert set(store.find('bucket/job')) == {*before, lost}
  text = machine('a').store(*argv, '--delete')
  assert 'removed: ' in text and 'shelves' in text
  left = set(store.find('bucket/job'))
  assert left < set(before)
  assert 'nothing to remove' in other.store(*argv)
  assert not re.search('^train ', machine('c').run(url), re.M)
  assert left <= set(store.find('bucket/job'))
  path = next(p for p in sorted(left) if p.endswith('.npy'))
  content = store.cat_file(path)
  store.pipe_file(path, content[:-1] + bytes([content[-1] ^ 1]))
  assert 'has changed since' in other.store('check', url, fails=True)
  other.store('check', url, '--quick')


def test_two_machines_at_once(server, machine, plain):
  pair = [machine('a'), machine('b')]
  for process in [one.start('s3://bucket/two') for one in pair]:
    _finished(process)
  for one in pair:
    _same_results(one.mirror('two'), plain)
  assert 'nothing redone' in machine('c').run('s3://bucket/two')
  _same_results(machine('c').mirror('two'), plain)


def test_a_store_that_is_away_for_a_while(tmp_path, server, machine, plain):
  one = machine('a')
  process = one.start('s3://bucket/storm', '-c', WITHOUT_STORE, str(tmp_path))
  while not (tmp_path / 'stop').exists():
    assert process.poll() is None, process.communicate()[0]
    time.sleep(0.1)
  server.gate.close()
  (tmp_path / 'gone').touch()
  time.sleep(3)
  server.gate.open()
  output = _finished(process)
  assert output.count('cannot be reached') == 1
  _same_results(one.mirror('storm'), plain)
  assert 'nothing redone' in machine('b').run('s3://bucket/storm')


@pytest.mark.parametrize(
  ('workdir', 'without', 'line'),
  [
    ('s3://nobucket/x', (), 's3://nobucket/x: no such bucket or object'),
    (
      's3://bucket/x',
      ('AWS_ACCESS_KEY_ID', 'AWS_SECRET_ACCESS_KEY'),
      's3://bucket/x: the store refuses access (Unable to locate credentials)',
    ),
    ('ftp://host/x', (), "'ftp://host/x': no object store 'ftp'"),
  ],
)
def test_one_line_before_training(tmp_path, server, workdir, without, line):
  environment = {**os.environ, **server.environment, 'HOME': str(tmp_path)}
  environment['AWS_EC2_METADATA_DISABLED'] = 'true'
  for name in without:
    environment.pop(name)
  process = Machine(tmp_path / 'a', environment).start(workdir)
  output, _ = process.communicate()
  assert process.returncode == 1
  assert output.splitlines()[-1].startswith(f'error: {line}')
  assert 'Traceback' not in output and 'training' not in output


@pytest.fixture
def google(monkeypatch):
  """An emulator of Google's store with one bucket."""
  servers.needs('gcp_storage_emulator', 'gcsfs')
  port = servers.free_port()
  process = subprocess.Popen(
    [sys.executable, '-m', 'gcp_storage_emulator', 'start', '--in-memory']
    + ['--host=127.0.0.1', f'--port={port}', '--default-bucket=bucket'],
    stdout=subprocess.DEVNULL,
    stderr=subprocess.DEVNULL,
  )
  servers.wait_for(port)
  monkeypatch.setenv('STORAGE_EMULATOR_HOST', f'http://127.0.0.1:{port}')
  yield
  process.kill()
  process.wait()


def test_requests_to_google_cloud_storage(tmp_path, google):
  url = 'gs://bucket/work'
  assert remote.entries(url) == remote.objects(url) == {}
  assert remote.read(url) is None
  store.check_workdir(url)
  with pytest.raises(OSError, match='gs://nobucket/work: no such bucket'):
    store.check_workdir('gs://nobucket/work')
  (tmp_path / 'full').write_bytes(b'content')
  (tmp_path / 'empty').write_bytes(b'')
  names = ('full', 'empty')
  remote.put({tmp_path / name: f'{url}/a/{name}' for name in names})
  remote.put({tmp_path / 'full': 'gs://bucket/work2/full'})
  children = remote.entries(url)
  assert children['a'].folder and not children['.jaxmu'].folder
  known = {n: (e.size, e.md5) for n, e in remote.entries(f'{url}/a').items()}
  assert known == {
    name: (len(content), hashlib.md5(content).hexdigest())
    for name, content in (('full', b'content'), ('empty', b''))
  }
  found = remote.objects(f'{url}/a')
  assert {n: one.size for n, one in found.items()} == {'full': 7, 'empty': 0}
  assert all(abs(one.written - time.time()) < 3600 for one in found.values())
  remote.get({f'{url}/a/{name}': tmp_path / 'back' / name for name in names})
  assert (tmp_path / 'back' / 'full').read_bytes() == b'content'
  for _ in range(2):
    remote.remove(f'{url}/a/full')
  assert remote.read(f'{url}/a/full') is None
