"""A search that is killed at any moment and started again ends the same."""

import csv
import json
import pathlib
import shutil
import signal
import subprocess
import sys

import optuna
import pytest

from jaxmu.study import store
from jaxmu.tuning import records

ROOT = pathlib.Path(__file__).parents[2]
# A generation of six trials in two shards, and one of four.
SEARCH = {'trials': 5, 'generation': 3}

pytestmark = pytest.mark.xdist_group('search')

# The child kills itself when a function is called for the n-th time with a path
# that matches: polling from outside would miss what lives for milliseconds.
CHILD = """
import fnmatch, json, os, pathlib, signal, sys
from optuna.storages import journal
from jaxmu import files
from jaxmu.tuning import driver
from tests.tuning import small_search

workdir, search, moment = pathlib.Path(sys.argv[1]), *map(
  json.loads, sys.argv[2:]
)

def wrap(owner, name, when, pattern, number):
  function, calls = getattr(owner, name), []

  def killing(*args, **kwargs):
    hit = fnmatch.filter(map(str, args), pattern)
    calls.extend(hit)
    if hit and len(calls) == number and when == 'before':
      os.kill(os.getpid(), signal.SIGKILL)
    result = function(*args, **kwargs)
    if hit and len(calls) == number:
      os.kill(os.getpid(), signal.SIGKILL)
    return result

  setattr(owner, name, killing)

def append_half(backend, logs):
  backend._lock.acquire()
  with open(backend._file_path, 'a') as file:
    file.write('{"op_code":0,"worker_id":"')
  os.kill(os.getpid(), signal.SIGKILL)

match moment:
  case ['append_logs']:
    journal.JournalFileBackend.append_logs = append_half
  case [name, *rest]:
    wrap(os if name == 'replace' else files, name, *rest)
driver.run(small_search.settings(workdir, **search))
"""
SHARDS = '*/store/search/ft-*/shard_*'
MOMENTS = (
  # In a generation, after one of its shards.
  ('publish_folder', 'after', SHARDS, 1),
  # After the values of the first generation, before they are in the table.
  ('write_text', 'before', '*/trials.csv', 1),
  # Half a line is in Optuna's journal, and its lock is held.
  ('append_logs',),
  # In the second generation; a shard is written, but not in its place.
  ('publish_folder', 'before', SHARDS, 1),
  # While the finalists are judged, after the second generation.
  ('publish_folder', 'before', SHARDS, 2),
  # The settings are written, but not under their name.
  ('replace', 'before', '*/search/ft/settings.json', 1),
)


def _run(environment, workdir: pathlib.Path, moment: tuple = ()):
  """Run the search in a process; return its code and its output."""
  arguments = str(workdir), json.dumps(SEARCH), json.dumps(moment)
  done = subprocess.run(
    [sys.executable, '-c', CHILD, *arguments],
    cwd=ROOT,
    env=environment,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )
  return done.returncode, done.stdout


def _complete(environment, workdir: pathlib.Path) -> None:
  """Run the search to its end."""
  # In a process too: numbers depend on its number of devices in the last bit.
  code, output = _run(environment, workdir)
  assert code == 0, output


def table(folder: pathlib.Path) -> list[dict[str, str]]:
  """Return the trials of a search without their times."""
  with (folder / 'search' / 'ft' / 'trials.csv').open() as file:
    rows = list(csv.DictReader(file))
  return [{k: v for k, v in row.items() if k != 'seconds'} for row in rows]


def settings_file(folder: pathlib.Path) -> dict:
  """Return the chosen setting with its facts, without times."""
  content = json.loads((folder / 'search' / 'ft' / 'settings.json').read_text())
  del content['search']['seconds']
  return content


def journal(folder: pathlib.Path) -> dict:
  """Return the studies of a journal: names, objectives and trials."""
  path = folder / 'search' / records.JOURNAL
  backend = optuna.storages.journal.JournalFileBackend(str(path))
  storage = optuna.storages.JournalStorage(backend)
  names = optuna.get_all_study_names(storage)
  studies = [optuna.load_study(study_name=n, storage=storage) for n in names]
  return {
    study.study_name: (
      study.metric_names,
      [(t.number, t.params, t.values, t.user_attrs) for t in study.trials],
    )
    for study in studies
  }


def shards(folder: pathlib.Path) -> dict[pathlib.Path, int]:
  """Return when each shard of trials was written."""
  return {
    path: path.stat().st_mtime_ns
    for path in (folder / 'store' / 'search').glob('*/shard_???/record.json')
  }


def check_same(folder: pathlib.Path, whole: pathlib.Path) -> None:
  """Check that two searches ended the same, without anything left over."""
  assert not [p for p in folder.rglob('.*') if p.name != '.lock']
  assert not [*folder.glob('search/*.lock*')]
  for part in (table, journal, settings_file):
    assert part(folder) == part(whole)
  for one, other in ((folder, whole), (whole, folder)):
    for path in shards(one):
      assert (other / path.relative_to(one)).exists()


@pytest.fixture(scope='module')
def whole(tmp_path_factory, job_environment) -> pathlib.Path:
  folder = tmp_path_factory.mktemp('whole')
  _complete(job_environment, folder)
  return folder


@pytest.fixture
def started(whole, tmp_path) -> pathlib.Path:
  """A work directory with trained originals and no trials."""
  folder = tmp_path / 'started'
  shutil.copytree(whole / 'store' / 'models', folder / 'store' / 'models')
  return folder


@pytest.mark.slow
def test_a_search_killed_in_a_generation_ends_the_same(
  whole, started, job_environment
):
  code, output = _run(job_environment, started, MOMENTS[0])
  assert code == -signal.SIGKILL, output
  before = shards(started)
  assert len(before) == 1 and not (started / 'search').exists()
  # As if killed once more, while it wrote to the journal.
  place = started / 'search' / records.JOURNAL
  place.parent.mkdir()
  text = (whole / 'search' / records.JOURNAL).read_text()
  place.write_text(text[: len(text) // 2].rpartition('\n')[0] + '\n{"op_c')
  place.with_name(f'{place.name}.lock').symlink_to('optuna.journal')
  _complete(job_environment, started)
  check_same(started, whole)
  assert before.items() <= shards(started).items(), 'a shard was trained again'


@pytest.mark.slow
def test_a_search_killed_at_every_moment_ends_the_same(
  whole, started, job_environment
):
  stamps: dict[pathlib.Path, int] = {}
  for moment in MOMENTS:
    code, output = _run(job_environment, started, moment)
    assert code == -signal.SIGKILL, (moment, output)
    now = shards(started)
    assert stamps.items() <= now.items(), f'trained again before {moment}'
    stamps = now
  # All but the page is there.
  assert len(stamps) == len(shards(whole))
  assert not (started / 'search' / 'ft' / 'settings.json').exists()
  _complete(job_environment, started)
  check_same(started, whole)
  assert shards(started) == stamps


def test_a_second_process_is_refused_in_one_line(tmp_path, job_environment):
  with store.hold_workdir(tmp_path):
    done = subprocess.run(
      [
        *(sys.executable, '-m', 'jaxmu.search', '--config=ft_resnet'),
        *('--config.search.trials=1', f'--workdir={tmp_path}'),
      ],
      cwd=ROOT,
      env=job_environment,
      capture_output=True,
      text=True,
    )
  assert done.returncode == 1
  assert 'is in use by another run; wait for it to end' in done.stderr
  assert done.stderr.count('\n') == 1 and done.stdout == 'starting JAX\n'
  assert not (tmp_path / 'store').exists()
