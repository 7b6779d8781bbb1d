"""Work directories in an object store, with a local folder as the store."""

import json
import pathlib
import shutil

import fsspec
import numpy as np
import pytest

from jaxmu import files, remote
from jaxmu.study import store
from tests import bucket as fake

URL = 's3://bucket/work'
NAMES = (((0, 0, -1), (0, 1, -1)), ((1, 0, -1), (1, 1, -1)))


@pytest.fixture
def bucket(tmp_path, monkeypatch):
  """The store; its objects are in `tmp_path / 'store'`."""
  monkeypatch.setenv('JAXMU_CACHE_DIR', str(tmp_path / 'a'))
  return fake.use(monkeypatch, tmp_path / 'store')


def _move(monkeypatch, tmp_path, machine):
  """Go on as on another machine, which has another mirror."""
  monkeypatch.setenv('JAXMU_CACHE_DIR', str(tmp_path / machine))
  return files.workdir(URL)


def _shelf():
  return store.Shelf(files.workdir(URL) / 'store', 'models', 'ft', 'abc', NAMES)


def _fill(shelf, numbers=(0, 1)):
  for number in numbers:
    array = np.full((2, 3), number)
    shelf.save(number, arrays={'losses': array}, info={'number': number})


def _objects(tmp_path, pattern='**/*'):
  root = tmp_path / 'store' / 'bucket' / 'work'
  return sorted(
    p.relative_to(root).as_posix() for p in root.glob(pattern) if p.is_file()
  )


def test_a_url_and_its_mirror_name_each_other(bucket, tmp_path, monkeypatch):
  path = files.workdir('s3://bucket/a//b/')
  assert path == tmp_path / 'a' / 'mirror-of-s3' / 'bucket' / 'a' / 'b'
  assert files.shown(path / 'c') == 's3://bucket/a/b/c'
  assert remote.url(files.workdir('gs://one')) == 'gs://one'
  # As pathlib writes it, and with a variable of the shell.
  monkeypatch.setenv('WHERE', 's3://bucket')
  assert files.workdir(pathlib.Path('s3://bucket/a/b')) == path
  assert files.workdir('$WHERE/a/b') == path
  for local_path in ('work', '/x/s3/y', '.', 'a/mirror-of-s3'):
    assert files.workdir(local_path) == pathlib.Path(local_path)
    assert remote.url(pathlib.Path(local_path)) == ''
    assert files.shown(pathlib.Path(local_path)) == local_path


@pytest.mark.parametrize(
  ('text', 'line'),
  [
    ('ftp://host/x', "no object store 'ftp'; give s3://BUCKET/PATH"),
    ('file:///x', "no object store 'file'; give s3://BUCKET/PATH"),
    ('s3://', 'names no bucket; give s3://BUCKET/PATH'),
    ('gs:///', 'names no bucket; give gs://BUCKET/PATH'),
    ('s3://bucket/../x', 'names no bucket'),
  ],
)
def test_other_urls_are_refused(text, line):
  with pytest.raises(ValueError, match=line):
    files.workdir(text)


def test_only_work_directories_are_in_a_store():
  with pytest.raises(ValueError, match='only work directories'):
    files.path('s3://bucket/models.npz')


def test_a_missing_package_is_named(monkeypatch, tmp_path):
  def absent(*args, **kwargs):
    raise ImportError('Install s3fs to access S3')

  remote._filesystem.cache_clear()
  monkeypatch.setattr(fsspec, 'filesystem', absent)
  monkeypatch.setenv('JAXMU_CACHE_DIR', str(tmp_path))
  with pytest.raises(ImportError, match=r"pip install 'jaxmu\[s3\]'"):
    store.check_workdir(URL)


def test_files_are_written_to_the_store(bucket, tmp_path):
  folder = files.workdir(URL)
  with store.hold_workdir(folder):
    files.write_text(folder / 'plots' / 'a.txt', 'one')
    files.write_text(folder / 'plots' / '.hidden', 'one')
    with files.atomic_folder(folder / 'store') as draft:
      files.write_text(draft / 'record.json', 'one')
    _fill(_shelf(), [1])
  record = json.loads((_shelf().shard(1) / store.RECORD).read_text())
  shard = 'store/models/ft-abc/shard_001'
  assert _objects(tmp_path) == sorted(
    [
      '.jaxmu',
      'plots/a.txt',
      f'{shard}/record.json',
      f'{shard}/{record["sha256"][:12]}/losses.npy',
    ]
  )
  assert bucket.written[-1].endswith(f'{shard}/record.json')
  files.remove(folder / 'plots' / 'a.txt')
  files.remove(folder / 'plots' / 'a.txt')
  assert 'plots/a.txt' not in _objects(tmp_path)


def test_another_machine_reads_what_the_store_has(
  bucket, tmp_path, monkeypatch
):
  folder = files.workdir(URL)
  files.write_text(folder / 'search' / 'ft' / 'settings.json', '{}')
  files.write_text(folder / 'results.csv', 'first')
  _fill(_shelf())
  other = _move(monkeypatch, tmp_path, 'b')
  assert not other.exists()
  assert _shelf().missing() == []
  np.testing.assert_array_equal(_shelf().arrays('losses')[:, 0], [0, 0, 1, 1])
  files.refresh(other)
  assert (other / 'search' / 'ft' / 'settings.json').read_text() == '{}'
  files.write_text(other / 'results.csv', 'later')
  folder = _move(monkeypatch, tmp_path, 'a')
  files.refresh(folder)
  assert (folder / 'results.csv').read_text() == 'later'
  # Without `missing`, a shard is fetched when it is first read.
  _move(monkeypatch, tmp_path, 'c')
  assert _shelf().has(1, 'losses') and not _shelf().has(0, 'other')
  assert _shelf().info(0) == {'number': 0}


def test_absent_shards_cost_one_request(bucket):
  assert _shelf().missing() == [0, 1]
  assert bucket.requests == ['ls']


def test_a_shard_without_its_record_is_not_there(bucket, tmp_path, monkeypatch):
  _fill(_shelf())
  _move(monkeypatch, tmp_path, 'b')
  (record,) = (tmp_path / 'store').glob('**/shard_000/record.json')
  record.unlink()
  assert _shelf().missing() == [0]


def _cut(path):
  path.write_bytes(path.read_bytes()[:-1])


def _change(path):
  path.write_bytes(path.read_bytes()[:-1] + b'x')


@pytest.mark.parametrize(
  ('name', 'damage', 'fault'),
  [
    ('*/losses.npy', pathlib.Path.unlink, 'losses.npy is missing'),
    ('*/losses.npy', _cut, 'losses.npy has 175 bytes instead of 176'),
    ('*/losses.npy', _change, 'losses.npy has changed since it was written'),
    ('record.json', _cut, 'unreadable record.json'),
    ('record.json', lambda path: path.write_text('{}'), 'record.json is not'),
  ],
)
def test_damaged_objects_count_as_missing(
  bucket, tmp_path, monkeypatch, caplog, name, damage, fault
):
  _fill(_shelf())
  _move(monkeypatch, tmp_path, 'b')
  (path,) = (tmp_path / 'store').glob(f'**/shard_001/{name}')
  damage(path)
  shelf = _shelf()
  assert shelf.missing() == [1]
  url = f'{URL}/store/models/ft-abc/shard_001'
  assert f'{url} is damaged ({fault}' in caplog.text
  _fill(shelf, [1])
  _move(monkeypatch, tmp_path, 'c')
  assert _shelf().missing() == []


def test_models_are_fetched_when_they_are_read(
  bucket, tmp_path, monkeypatch, caplog
):
  tree = {'kernel': np.arange(6, dtype=np.float32).reshape(2, 3)}
  shelf = _shelf()
  for number in range(2):
    shelf.save(number, models=tree, arrays={'failed': np.zeros(2)})
  _move(monkeypatch, tmp_path, 'b')
  shelf = _shelf()
  assert shelf.missing() == [] == shelf.missing()
  np.testing.assert_array_equal(shelf.arrays('failed'), np.zeros(4))
  assert not (shelf.shard(0) / store.MODELS).exists()
  # What a machine does not have whole, it does not upload.
  with store.hold_workdir(files.workdir(URL)):
    pass
  back = shelf.models(0, tree)
  np.testing.assert_array_equal(back['kernel'], tree['kernel'])
  assert (shelf.shard(0) / store.MODELS).exists() and shelf.missing() == []
  # Damage that sizes do not show is detected when the models are read.
  damaged = next((tmp_path / 'store').glob('**/shard_001/*/models/_METADATA'))
  _change(damaged)
  with pytest.raises(store.DamagedShard, match='start the job again'):
    shelf.models(1, tree)
  assert 'models/_METADATA has changed' in caplog.text
  assert shelf.missing() == [1]


def test_a_shard_damaged_here_is_fetched_again(bucket, caplog):
  shelf = _shelf()
  _fill(shelf)
  _cut(shelf.shard(0) / 'losses.npy')
  assert shelf.missing() == []
  assert 'is damaged (losses.npy' in caplog.text
  assert shelf.fault(0) == ''


def test_two_writers_do_not_mix_their_files(bucket, tmp_path, monkeypatch):
  shelf = _shelf()
  shelf.save(0, arrays={'losses': np.zeros((2, 3))}, info={'seconds': 1})
  _move(monkeypatch, tmp_path, 'b')
  shelf = _shelf()
  shelf.save(0, arrays={'losses': np.zeros((2, 3))}, info={'seconds': 2})
  _move(monkeypatch, tmp_path, 'c')
  assert _shelf().missing() == [1]
  assert _shelf().info(0) == {'seconds': 2}
  assert len(_objects(tmp_path, '**/losses.npy')) == 2


def test_requests_are_repeated_and_one_line_says_so(bucket, tmp_path, caplog):
  bucket.errors = [ConnectionError('refused'), OSError(5, 'busy')]
  _fill(_shelf(), [0])
  assert bucket.errors == []
  assert caplog.text.count('cannot be reached') == 1
  assert 's3://bucket cannot be reached (refused); trying again' in caplog.text
  assert len(_objects(tmp_path)) == 2


def test_what_is_finished_is_uploaded_by_the_next_start(
  bucket, tmp_path, monkeypatch
):
  folder = files.workdir(URL)
  bucket.errors = [ConnectionError('refused')] * 3
  with pytest.raises(OSError, match='the same command continues and uploads'):
    _fill(_shelf(), [0])
  # No time is spent on a store that was waited for, until it answers.
  bucket.errors = [ConnectionError('refused')]
  with pytest.raises(OSError, match='cannot be reached'):
    files.write_text(folder / 'results.csv', 'one')
  assert bucket.errors == []
  assert (folder / 'results.csv').read_text() == 'one'
  assert _objects(tmp_path) == []
  (folder / 'search').mkdir()
  (folder / 'search' / 'optuna.journal').write_text('written by others')
  with store.hold_workdir(folder):
    pass
  bucket.errors = [ConnectionError('refused')]
  _fill(_shelf(), [1])
  other = _move(monkeypatch, tmp_path, 'b')
  with store.hold_workdir(other):
    assert _shelf().missing() == []
  assert (other / 'results.csv').read_text() == 'one'
  assert (other / 'search' / 'optuna.journal').exists()


def test_damaged_shards_are_not_uploaded(bucket, tmp_path):
  shelf = _shelf()
  _fill(shelf)
  shutil.rmtree(tmp_path / 'store')
  _change(shelf.shard(0) / 'losses.npy')
  (shelf.shard(1) / store.RECORD).write_text('{}')
  with store.hold_workdir(files.workdir(URL)):
    pass
  assert _objects(tmp_path) == ['.jaxmu']


class NoCredentialsError(Exception):
  """As botocore names it."""


@pytest.mark.parametrize(
  ('error', 'line'),
  [
    (PermissionError('Access Denied'), 'refuses access .Access Denied.; check'),
    (NoCredentialsError('none found'), 'refuses access .none found.; check'),
    (FileNotFoundError('NoSuchBucket'), 'no such bucket'),
  ],
)
def test_waiting_is_for_what_it_can_cure(bucket, error, line):
  bucket.errors = [error]
  with pytest.raises(OSError, match=line):
    store.check_workdir(URL)
  assert len(bucket.requests) == 1


def test_a_full_disk_is_not_a_fault_of_the_store(bucket):
  bucket.errors = [OSError(28, 'No space left on device')]
  with pytest.raises(OSError, match='No space left on device'):
    remote.get({f'{URL}/x': pathlib.Path('x')})
  assert bucket.requests == ['get']


def test_messages_name_the_url(bucket, monkeypatch, tmp_path):
  folder = files.workdir(URL)
  monkeypatch.setattr(store, 'free_bytes', lambda folder: 0)
  with pytest.raises(ValueError, match=f'{URL}.*set JAXMU_CACHE_DIR'):
    store.check_space(folder, 10)
  with (
    store.hold_workdir(folder),
    pytest.raises(ValueError, match=f'{URL}.* is in use'),
    store.hold_workdir(folder),
  ):
    pass
