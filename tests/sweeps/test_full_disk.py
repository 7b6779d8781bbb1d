"""A disk that fills up while a sweep runs: one line per unit, no damage."""

import contextlib
import errno
import os
import pathlib
import subprocess
import time

import numpy as np
import pytest

from jaxmu import files
from jaxmu.report import progress
from jaxmu.study import shelves, store
from jaxmu.sweeps import design, engine, graph, status, work
from tests.sweeps import small_sweep
from tests.sweeps.processes import assert_equal, finish, start


class _Study:
  """In place of an opened study: a unit writes a shard and a file for users."""

  def __init__(self, folder):
    self.folder, self.made = folder, []

  def perform(self, unit, parts):
    job = self.folder / unit.owner
    label = unit.name.replace('/', '-')
    names = tuple(((n,),) for n in range(unit.tasks))
    shelf = store.Shelf(job / 'store', unit.kind, label, '0' * 12, names)
    for part in range(unit.tasks) if parts is None else parts:
      if shelf.missing(among=[part]):
        self.made.append((unit.name, part))
        shelf.save(part, arrays={'x': np.full((1, 1000), part, np.float32)})
    return [files.write_text(job / f'{label}.txt', unit.name)]


def _run(folder, monkeypatch, run_units=engine.local):
  """Run the small sweep with such studies; return what was made and failed."""
  sweep = design.from_config(small_sweep.config(folder))
  every = graph.build(sweep)
  units = graph.Graph([unit for unit in every if unit.kind != 'table'])
  one = _Study(folder)
  monkeypatch.setattr(work.Worker, '_open', lambda self, study: one)
  return one, units, work.perform_all(sweep, units, 'python x', run_units)


class Disk:
  """Is full for files whose path has a word in it."""

  def __init__(self, patch, word):
    for where, name in ((np, 'save'), (os, 'replace'), (files, '_temporary')):
      patch.setattr(where, name, self._full(getattr(where, name), word))

  def _full(self, write, word):
    def wrapped(*args, **kwargs):
      if any(word in str(one) for one in args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(args[0]))
      return write(*args, **kwargs)

    return wrapped


# What is full -> units that cannot be made.
FULL = {
  'main/store/originals': ['digits_tiny/main/originals'],
  '-main-retrained.txt': ['digits_tiny/main/retrained'],
  'state/digits_tiny/ulira/originals': ['digits_tiny/ulira/originals'],
}
SHARED = engine.Shared(engine.Share(0, 1), pause=0.01)
ENGINES = {'local': engine.local, 'shared': SHARED}


@pytest.mark.parametrize('word', FULL)
@pytest.mark.parametrize('kind', ENGINES)
def test_what_can_be_written_is_made(tmp_path, monkeypatch, capsys, word, kind):
  with pytest.MonkeyPatch.context() as patch:
    Disk(patch, word)
    _, units, failed = _run(tmp_path, monkeypatch, ENGINES[kind])
  assert list(failed) == FULL[word]
  for why, command in failed.values():
    assert 'No space left on device' in why and 'finished work is kept' in why
    assert word in why and '\n' not in why
    assert command.startswith('python x --only=')
  out = capsys.readouterr().out
  lines = [line for line in out.splitlines() if 'No space left' in line]
  assert len(lines) == 2  # when it fails, and in the list at the end
  _assert_whole(tmp_path)
  # With space, only what is missing is made.
  before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob('record.json')}
  one, units, failed = _run(tmp_path, monkeypatch, ENGINES[kind])
  assert failed == {}
  after = {p: p.stat().st_mtime_ns for p in tmp_path.rglob('record.json')}
  assert before.items() <= after.items()
  assert len(one.made) == len(after) - len(before)
  assert len(after) == sum(unit.tasks for unit in units)


def _assert_whole(folder):
  """Check that nothing stored is damaged, and that nothing is left over."""
  with progress.Progress() as bars:
    count, damaged = shelves.check(shelves.look(folder), bars)
  assert count and damaged == {}
  assert files.leftovers(folder) == []


def test_a_disk_on_which_nothing_can_be_written(tmp_path, monkeypatch):
  _run(tmp_path, monkeypatch)
  for path in (tmp_path / 'state').rglob('*.json'):
    path.unlink()
  for run_units in ENGINES.values():
    with pytest.MonkeyPatch.context() as patch:
      Disk(patch, str(tmp_path))
      _, units, failed = _run(tmp_path, monkeypatch, run_units)
    assert failed and {n.split('/')[2] for n in failed} >= {'originals'}
    assert all('No space left on device' in why for why, _ in failed.values())
    _assert_whole(tmp_path)
  one, _, failed = _run(tmp_path, monkeypatch)
  assert failed == {} and one.made == []


def test_the_reason_says_how_much_room_is_needed(tmp_path):
  shelf = store.Shelf(tmp_path, 'models', 'ft', '0' * 12)
  with pytest.MonkeyPatch.context() as patch:
    Disk(patch, 'x.npy')
    with pytest.raises(ValueError, match='make room for 8.0 MB, and') as caught:
      shelf.save(0, arrays={'x': np.zeros((1000, 1000))})
  assert engine.reason(caught.value) == ' '.join(str(caught.value).split())


def test_models_are_not_begun_without_room_for_them(tmp_path, monkeypatch):
  """Orbax would print pages of what its threads raise."""
  shelf = store.Shelf(tmp_path, 'models', 'ft', '0' * 12)
  models = {'w': np.zeros((250, 1000), np.float32)}
  monkeypatch.setattr(store, 'free_bytes', lambda folder: 1_500_000)
  with pytest.raises(ValueError, match='No space left.*make room for 2.1 MB'):
    shelf.save(0, models=models)
  assert not [*tmp_path.rglob('shard_*')]
  monkeypatch.setattr(store, 'free_bytes', lambda folder: 3_000_000)
  shelf.save(0, models=models)
  assert shelf.missing() == []


def test_a_claim_that_cannot_be_written_is_a_failed_unit(tmp_path, monkeypatch):
  @contextlib.contextmanager
  def claimed(workdir, unit, parts):
    if 'originals' in unit.name:
      raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), 'x.lock')
    yield list(parts)

  monkeypatch.setattr(status, 'claimed', claimed)
  _, _, failed = _run(tmp_path, monkeypatch, ENGINES['shared'])
  assert failed and all('originals' in name for name in failed)
  assert all(
    'x.lock: No space left on device; make room' in why
    for why, _ in failed.values()
  )


@pytest.fixture(name='small_disk')
def _small_disk(tmp_path):
  """A file system of 48 MB."""
  folder = tmp_path / 'disk'
  folder.mkdir()
  mount = ['mount', '-t', 'tmpfs', '-o', 'size=48m', 'tmpfs', str(folder)]
  done = subprocess.run(mount, capture_output=True, text=True, check=False)
  if done.returncode:
    pytest.skip(f'a file system cannot be mounted: {done.stderr.strip()}')
  yield folder
  subprocess.run(['umount', '-l', str(folder)], check=True)


def _fill(folder: pathlib.Path) -> pathlib.Path:
  """Leave no byte free."""
  ballast = folder / 'ballast'
  with contextlib.suppress(OSError), ballast.open('ab', buffering=0) as file:
    while True:
      file.write(bytes(1 << 12))
  return ballast


@pytest.mark.xdist_group('processes')
@pytest.mark.parametrize(
  'shards',
  [
    pytest.param(1, marks=pytest.mark.cluster),
    pytest.param(6, marks=pytest.mark.slow),
  ],
)
def test_a_sweep_on_a_disk_that_fills_up(home, alone, small_disk, shards):
  folder = small_disk / 'sweep'
  process = start(home, folder)  # its name is a whole path
  while len([*folder.glob('*/*/store/*/*/*/record.json')]) < shards:
    time.sleep(0.01)
    assert process.poll() is None, process.communicate()[0]
  ballast = _fill(small_disk)
  out, _ = process.communicate(timeout=560)
  assert process.returncode == 1 and 'Traceback' not in out, out
  assert 'No space left on device' in out or 'B free and the job needs' in out
  _assert_whole(folder)
  ballast.unlink()
  finish(start(home, folder))
  assert_equal(folder, alone)
