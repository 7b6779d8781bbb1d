"""`list` and `check` say what a work directory holds, and change nothing."""

import os
import pathlib
import re

import numpy as np
import pytest

from jaxmu import files
from jaxmu import store as command
from jaxmu.study import shelves, store
from tests import bucket as fake

NAMES = (((0, 0, -1), (0, 1, -1)), ((1, 0, -1),))


def fill(
  job: pathlib.Path, stage='models', label='ft', address='a' * 12, shards=(0, 1)
) -> store.Shelf:
  """Write some of the two shards of a shelf, which has three members."""
  shelf = store.Shelf(job / 'store', stage, label, address, NAMES)
  for number in shards:
    rows = len(NAMES[number])
    shelf.save(number, arrays={'failed': np.full(rows, -1)})
  return shelf


def make(folder: pathlib.Path) -> None:
  """Make a sweep with a table and a search."""
  main, search = folder / 'digits_tiny/main', folder / 'digits_tiny/search'
  fill(main)
  fill(main, label='kde-x', address='0123456789ab', shards=(1,))
  record = store.Shelf(main / 'store', 'timing', 'ft', 'b' * 12)
  record.save(0, info={'warm_seconds': [1.0]})
  fill(search, stage='search')
  files.write_text(main / 'report.html', 'report')
  files.write_text(search / 'search/ft/settings.json', '{}')


@pytest.fixture(name='workdir')
def _workdir(tmp_path) -> pathlib.Path:
  """A sweep with a killed writer."""
  make(tmp_path)
  main = tmp_path / 'digits_tiny/main'
  (main / 'store/models/.draft-x/new').mkdir(parents=True)
  (main / '.results.csv.abc.tmp').write_text('half')
  return tmp_path


def stamps(folder: pathlib.Path) -> dict[str, tuple[int, int]]:
  """Return size and time of everything below a folder."""
  return {
    str(path): (path.lstat().st_size, path.lstat().st_mtime_ns)
    for path in [folder, *folder.rglob('*')]
  }


def test_a_listing_has_shards_models_and_sizes(workdir, capsys):
  command.main(['list', str(workdir)])
  lines = [
    re.split(r'  +', line) for line in capsys.readouterr().out.split('\n')
  ]
  rows = {tuple(line[1:4]): line[4:6] for line in lines if len(line) == 8}
  assert rows == {
    ('stage', 'label', 'address'): ['shards', 'models'],
    ('models', 'ft', 'a' * 12): ['2 of 2', '3'],
    ('models', 'kde-x', '0123456789ab'): ['1 of 2', '1'],
    ('timing', 'ft', 'b' * 12): ['1 of 1', '-'],
    ('search', 'ft', 'a' * 12): ['2 of 2', '3'],
  }
  text = '\n'.join('  '.join(line) for line in lines)
  assert 'report.html: 6 B, ' in text and 'searched settings: ft' in text
  assert ['temporaries of killed writers', '2', '4 B'] in lines
  every = [path for path in workdir.rglob('*') if path.is_file()]
  assert ['total', f'{len(every)} files'] in [line[:2] for line in lines]


def test_sizes_are_those_of_the_disk(workdir):
  (first, *_) = shelves.on_disk(workdir / 'digits_tiny/main')
  sizes = [p.stat().st_size for p in first.folder.rglob('*') if p.is_file()]
  assert sorted(shelves.sizes(first.folder)) == sorted(sizes)
  assert shelves.sizes(first.shards[0] / store.RECORD)[0] in sizes
  assert shelves.sizes(workdir / 'gone') == []


def test_an_age_is_that_of_the_last_shard(workdir, capsys):
  records = (workdir / 'digits_tiny/search').glob('store/*/*/*/record.json')
  for days, path in enumerate(records, 3):
    os.utime(path, (path.stat().st_mtime - days * 86400,) * 2)
  command.main(['list', str(workdir / 'digits_tiny/search')])
  assert '3 days' in capsys.readouterr().out


def test_reading_commands_change_nothing(workdir):
  """Also while a job writes: its temporaries are not left over."""
  job = workdir / 'digits_tiny/main'
  with (
    files.lock(job / store.LOCK),
    files.atomic_folder(job / 'store') as draft,
  ):
    (draft / 'x').write_text('being written')
    with files.replacing(job / 'results.json'):
      before = stamps(workdir)
      for argv in (['list'], ['check'], ['check', '--quick']):
        command.main([argv[0], str(workdir), *argv[1:]])
      assert stamps(workdir) == before
      assert len(files.leftovers(workdir)) == 2


def test_a_listing_says_where_a_job_runs(workdir, capsys):
  with files.lock(workdir / 'digits_tiny/main' / store.LOCK):
    command.main(['list', str(workdir)])
  out = capsys.readouterr().out
  assert f'{workdir / "digits_tiny/main"}, in use by a running job' in out
  assert out.count('in use') == 1


def test_leftovers_are_what_a_sweep_of_the_folder_removes(workdir):
  left = files.leftovers(workdir)
  assert [path.name for path in left] == ['.results.csv.abc.tmp', '.draft-x']
  files.remove_leftovers(workdir)
  assert not any(path.exists() for path in left)
  assert files.leftovers(workdir) == []


def _flip(path: pathlib.Path) -> None:
  path.write_bytes(path.read_bytes()[:-1] + b'\1')


def _shorten(path: pathlib.Path) -> None:
  path.write_bytes(path.read_bytes()[:-1])


def _move(path: pathlib.Path) -> None:
  path.parent.rename(path.parent.with_name('shard_007'))


# File of a shard, what happens to it, the reason that is given, and whether
# sizes tell.
DAMAGE = {
  'changed': ('failed.npy', _flip, 'has changed since it was written', False),
  'cut': ('failed.npy', _shorten, 'bytes instead of', True),
  'gone': ('failed.npy', pathlib.Path.unlink, 'failed.npy is missing', True),
  'no record': (store.RECORD, pathlib.Path.unlink, 'unreadable', True),
  'other record': (
    store.RECORD,
    lambda path: path.write_text(path.read_text().replace('-1', '-2')),
    'record.json has changed',
    True,
  ),
  'moved': ('failed.npy', _move, 'it belongs elsewhere', True),
}


@pytest.mark.parametrize('damage', DAMAGE)
def test_damaged_shards_are_named_with_the_reason(workdir, capsys, damage):
  name, act, reason, by_size = DAMAGE[damage]
  command.main(['check', str(workdir)])
  assert '0 of 6 shards damaged' in capsys.readouterr().out
  shard = fill(workdir / 'digits_tiny/main').shard(0)
  act(shard / name)
  with pytest.raises(SystemExit) as end:
    command.main(['check', str(workdir)])
  assert end.value.code == 1
  out = capsys.readouterr().out
  (line,) = [line for line in out.splitlines() if line.startswith(str(workdir))]
  assert reason in line and '1 of 6 shards damaged' in out
  shown = shard.with_name('shard_007') if damage == 'moved' else shard
  assert line.startswith(f'{shown}: ')
  if by_size:
    with pytest.raises(SystemExit):
      command.main(['check', str(workdir), '--quick'])
  else:
    command.main(['check', str(workdir), '--quick'])
  command.main(['list', str(workdir)])
  wanted = damage in ('no record', 'other record', 'moved')
  assert ('1 damaged' in capsys.readouterr().out.split('total')[0]) == wanted


def test_what_a_shelf_refuses_a_check_refuses_too(tmp_path):
  """A record with a valid hash that does not fit its arrays or its number."""
  shelf = fill(tmp_path)
  path = shelf.shard(0) / store.RECORD
  for field, value, reason in (
    ('members', [[0, 0, -1]], 'shape [2] and the shard 1 members'),
    ('place', {'shards': 0}, 'it is shard 0 of 0'),
    ('place', {'label': 'ga'}, 'it belongs elsewhere'),
  ):
    record = store.read_record(fill(tmp_path).shard(0))
    if isinstance(value, dict):
      value = record[field] | value
    record[field] = value
    record['sha256'] = files.digest(record, digits=64)
    files.write_text(path, str(record).replace("'", '"'))
    assert reason in store.fault_in(shelf.shard(0))
    assert shelf.missing() == [0]


def test_only_shelves_are_listed(workdir):
  job = workdir / 'digits_tiny/main'
  before = shelves.on_disk(job)
  (job / 'store/models/notes').mkdir()
  (job / 'store/models/ft-short').mkdir()
  (job / 'store/readme-0123456789ab').write_text('')
  (job / 'store/models/ln-0123456789ab').symlink_to(before[0].folder)
  (before[0].folder / 'notes.txt').write_text('')
  assert shelves.on_disk(job) == before
  assert [p.name for p in shelves.job_folders(shelves.look(workdir))] == [
    'main',
    'search',
  ]


URL = 's3://bucket/sweep'


@pytest.fixture(name='bucket')
def _bucket(tmp_path, monkeypatch) -> pathlib.Path:
  """The same sweep in an object store, seen from another machine."""
  monkeypatch.setenv('JAXMU_CACHE_DIR', str(tmp_path / 'a'))
  fake.use(monkeypatch, tmp_path / 'store')
  make(files.workdir(URL))
  monkeypatch.setenv('JAXMU_CACHE_DIR', str(tmp_path / 'b'))
  return tmp_path / 'store/bucket/sweep'


def test_a_listing_of_an_object_store_is_that_of_a_folder(
  bucket, tmp_path, capsys
):
  make(tmp_path / 'here')
  files.write_text(
    bucket / MODELS / 'shard_000/0123456789ab/failed.npy', 'lost'
  )
  files.write_text(
    bucket / MODELS / 'shard_005/0123456789ab/failed.npy', 'half'
  )
  before = stamps(bucket)
  command.main(['list', URL])
  out = capsys.readouterr().out
  command.main(['list', str(tmp_path / 'here')])
  local = capsys.readouterr().out.replace(str(tmp_path / 'here'), URL)

  def table(text):
    return [line.split()[:-2] for line in text.splitlines()[:-3]]

  assert table(out) == table(local) and len(table(out)) > 8
  assert 'files that no record names' in out
  assert re.search(r'no record names +2 +8 B', out)
  assert stamps(bucket) == before
  assert not (tmp_path / 'b').exists()


MODELS = 'digits_tiny/main/store/models/ft-' + 'a' * 12


@pytest.mark.parametrize('damage', ['changed', 'cut', 'gone', 'other record'])
def test_damaged_objects_are_named_with_the_reason(
  bucket, tmp_path, capsys, damage
):
  name, act, reason, by_size = DAMAGE[damage]
  command.main(['check', URL])
  assert '0 of 6 shards damaged' in capsys.readouterr().out
  (path,) = (bucket / MODELS / 'shard_000').rglob(name)
  act(path)
  before = stamps(bucket)
  for flags in ([], ['--quick']) if by_size else ([],):
    with pytest.raises(SystemExit) as end:
      command.main(['check', URL, *flags])
    assert end.value.code == 1
    out = capsys.readouterr().out
    assert f'{URL}/{MODELS}/shard_000: ' in out and reason in out
    assert '1 of 6 shards damaged' in out
  if not by_size:
    command.main(['check', '--quick', URL])
  assert stamps(bucket) == before and not (tmp_path / 'b').exists()


def test_a_store_that_does_not_answer_is_no_damage(
  bucket, tmp_path, monkeypatch
):
  one = fake.use(monkeypatch, tmp_path / 'store')
  one.errors = [ConnectionError('refused')] * 3
  with pytest.raises(SystemExit, match='cannot be reached'):
    command.main(['check', URL])


def test_a_folder_without_stored_work_is_refused(tmp_path, monkeypatch):
  fake.use(monkeypatch, tmp_path / 'store')
  (tmp_path / 'store').mkdir()
  for folder, wanted in (
    (tmp_path, 'holds no stored work; give the work directory'),
    (tmp_path / 'none', 'is not a folder; give the work directory'),
    ('s3://bucket/none', "'s3://bucket/none' holds no stored work"),
  ):
    with pytest.raises(SystemExit, match=wanted):
      command.main(['list', str(folder)])
