"""What no configuration refers to is removed, and nothing else.

The shards are written by hand at the addresses of opened jobs.
"""

import json
import pathlib
import shutil

import numpy as np
import pytest

from jaxmu import files, main
from jaxmu import store as command
from jaxmu.study import job as job_lib
from jaxmu.study import settings, shelves, store, tuned
from jaxmu.sweeps import design, graph, pruning, status
from jaxmu.tuning import opening
from tests import bucket as fake
from tests.study import small_job
from tests.study.test_shelves import stamps
from tests.sweeps import small_sweep
from tests.tuning import small_search

pytestmark = pytest.mark.xdist_group('pruning')

FILE = """
from tests.study import small_job
from tests.sweeps import small_sweep
from tests.tuning import small_search

def get_config(folder):
  return {call}
"""


@pytest.fixture(autouse=True)
def _started(monkeypatch):
  """JAX has started in this process."""
  monkeypatch.setattr(main, 'set_up_jax', lambda config: None)


def _file(folder: pathlib.Path, call: str) -> str:
  """Write a configuration file; return the flag that names it."""
  path = folder.parent / f'{files.digest(call)}.py'
  path.write_text(FILE.format(call=call))
  return f'--config={path}:{files.shown(folder)}'


def _fill(shelf: store.Shelf) -> store.Shelf:
  for number, members in enumerate(shelf.members):
    rows = max(len(members), 1)
    shelf.save(number, arrays={'failed': np.full(rows, -1)})
  return shelf


def _make(job: job_lib.Job) -> set[pathlib.Path]:
  """Write the shelves of a job: models, scores, run times and the report."""
  made = []
  for name, population in job.populations.items():
    timing = job.shelf('timing', name, files.digest('another machine', name))
    made += [population.models, population.scores, timing]
  made.append(job.shelf('report', 'report', files.digest('report')))
  return {_fill(shelf).folder for shelf in made}


def _trials(job: job_lib.Job, *labels: str) -> set[pathlib.Path]:
  """Write the shelves of searches."""
  address = files.digest('trials')
  places = [(s, one) for s in ('search', 'searched') for one in labels]
  return {_fill(job.shelf(*place, address)).folder for place in places}


def _there(folder: pathlib.Path) -> set[pathlib.Path]:
  view = shelves.look(folder)
  found = shelves.job_folders(view)
  return {shelf.folder for job in found for shelf in view.shelves(job)}


@pytest.fixture(name='jobs')
def _jobs(tmp_path):
  """The work directory of a job, its search, and the job with another seed."""
  return _jobs_in(tmp_path / 'job')


def _jobs_in(folder: pathlib.Path):
  place = files.shown(folder)
  chosen = settings.from_config(small_search.config(place))
  search = opening.search_settings(chosen)
  job = job_lib.open_job(chosen)
  kept = _make(job) | _trials(job, 'ft')
  searched = job_lib.open_job(search, opening.search_design)
  for population in searched.populations.values():
    kept.add(_fill(population.models).folder)
  other = job_lib.open_job(
    settings.from_config(small_search.config(place, seed=5))
  )
  stale = {_fill(p.models).folder for p in other.populations.values()}
  stale |= _trials(job, 'ga')
  stale.add(_fill(job.shelf('timing', 'ga', files.digest(''))).folder)
  assert not kept & stale and kept | stale == _there(folder)
  return folder, kept, stale


CALL = 'small_search.config(folder)'


def test_pruning_shows_first_and_removes_on_demand(jobs, capsys):
  folder, kept, stale = jobs
  files.write_text(folder / 'notes.txt', 'mine')
  (folder / 'store/models/mine').mkdir()
  argv = ['prune', str(folder), _file(folder, CALL)]
  before = stamps(folder)
  command.main(argv)
  assert stamps(folder) == before
  *lines, last = capsys.readouterr().out.splitlines()
  assert {line.split('  ')[-1] for line in lines} == {str(p) for p in stale}
  assert f'to remove with --delete: {len(stale)} shelves, ' in last
  assert last.endswith(f'{len(kept)} shelves kept')
  command.main([*argv, '--delete'])
  assert f'removed: {len(stale)} shelves' in capsys.readouterr().out
  assert _there(folder) == kept
  assert (folder / 'notes.txt').exists()
  assert (folder / 'store/models/mine').is_dir()
  command.main([*argv, '--delete'])
  assert 'nothing to remove' in capsys.readouterr().out


def test_kept_shards_are_those_that_the_job_asks_for(jobs):
  folder, _, _ = jobs
  command.main(['prune', str(folder), _file(folder, CALL), '--delete'])
  job = job_lib.open_job(settings.from_config(small_search.config(folder)))
  for population in job.populations.values():
    assert not population.models.missing() and not population.scores.missing()


def test_several_configurations_keep_their_own(jobs, capsys):
  folder, kept, stale = jobs
  flag = _file(folder, CALL)
  argv = ['prune', str(folder), flag, flag, '--config.seed=5', '--delete']
  command.main(argv)
  gone = {path for path in stale if path.parent.name != 'models'}
  assert _there(folder) == (kept | stale) - gone
  assert f'removed: {len(gone)} shelves' in capsys.readouterr().out


def test_temporaries_of_killed_writers_are_removed(jobs, capsys):
  folder, kept, _ = jobs
  (folder / 'store/models/.draft-x/new').mkdir(parents=True)
  (folder / '.report.html.abc.tmp').write_text('half')
  command.main(['prune', str(folder), _file(folder, CALL), '--delete'])
  assert '2 temporaries' in capsys.readouterr().out
  assert files.leftovers(folder) == [] and _there(folder) == kept


def test_objects_of_a_store_are_removed(tmp_path, monkeypatch, capsys):
  """Also those that a second writer of a shard has left."""
  fake.use(monkeypatch, tmp_path / 'store')
  monkeypatch.setenv('JAXMU_CACHE_DIR', str(tmp_path / 'a'))
  url = 's3://bucket/job'
  mirror = files.workdir(url)
  folder, kept, stale = _jobs_in(mirror)
  there = tmp_path / 'store/bucket/job'
  monkeypatch.setenv('JAXMU_CACHE_DIR', str(tmp_path / 'b'))
  assert _there(files.workdir(url)) == {
    _moved(p, tmp_path) for p in kept | stale
  }
  kept_shard = there / sorted(kept)[0].relative_to(folder) / 'shard_000'
  for shard in (kept_shard, kept_shard.with_name('shard_900')):
    files.write_text(shard / '0123456789ab/failed.npy', 'of another writer')
  files.write_text(there / 'notes.txt', 'mine')
  argv = ['prune', url, _file(mirror, CALL)]
  before = stamps(there)
  command.main(argv)
  assert stamps(there) == before
  *lines, last = capsys.readouterr().out.splitlines()
  gone = {f'{url}/{p.relative_to(folder)}' for p in stale}
  lost = f'{url}/{sorted(kept)[0].relative_to(folder)}'
  gone |= {f'{lost}/shard_000/0123456789ab', f'{lost}/shard_900'}
  assert {line.split('  ')[-1].strip() for line in lines} == gone
  assert f'{len(stale)} shelves, 2 temporaries, ' in last
  intact = {p: p.read_bytes() for p in there.rglob('*') if p.is_file()}
  monkeypatch.setenv('JAXMU_CACHE_DIR', str(tmp_path / 'a'))
  command.main([*argv, '--delete'])
  assert _there(mirror) == kept
  assert {s.folder for s in shelves.on_disk(mirror)} == kept
  left = {p for p in there.rglob('*') if p.is_file()}
  assert all(p.read_bytes() == intact[p] for p in left)
  assert there / 'notes.txt' in left
  assert not [p for p in left if '0123456789ab' in p.parts]
  with store.hold_workdir(mirror):  # uploads what the store lacks
    pass
  assert _there(mirror) == kept
  command.main([*argv, '--delete'])
  assert 'nothing to remove' in capsys.readouterr().out


def _moved(path: pathlib.Path, tmp_path: pathlib.Path) -> pathlib.Path:
  """Return a path in the mirror of the other machine."""
  return tmp_path / 'b' / path.relative_to(tmp_path / 'a')


def test_a_link_is_not_followed(jobs, tmp_path):
  folder, kept, stale = jobs
  elsewhere = tmp_path / 'elsewhere'
  sorted(stale)[0].rename(elsewhere)
  sorted(stale)[0].symlink_to(elsewhere)
  shard = sorted(stale)[1] / 'shard_000'
  shard.rename(tmp_path / 'shard')
  shard.symlink_to(tmp_path / 'shard')
  command.main(['prune', str(folder), _file(folder, CALL), '--delete'])
  assert _there(folder) == kept
  assert (elsewhere / 'shard_000').is_dir()
  assert (tmp_path / 'shard' / store.RECORD).is_file()


def _refused(argv: list[str]) -> str:
  with pytest.raises(SystemExit) as end:
    command.main(argv)
  text = str(end.value.code)
  assert text.startswith('error: ') and '\n' not in text
  return text


def test_a_folder_in_use_is_refused(jobs):
  folder, kept, stale = jobs
  argv = ['prune', str(folder), _file(folder, CALL)]
  above = folder.parent.parent / status.LOCK
  for lock in (folder / store.LOCK, folder / status.LOCK, above):
    with files.lock(lock):
      for more in ([], ['--delete']):
        assert 'in use by a running job, search' in _refused([*argv, *more])
  assert _there(folder) == kept | stale


def test_a_job_that_starts_meanwhile_is_not_disturbed(jobs):
  folder, kept, stale = jobs
  chosen = settings.from_config(small_search.config(folder))
  plan = pruning.plan(
    shelves.look(folder), [pruning.of_job(chosen, '--config=x')]
  )
  with files.lock(folder / store.LOCK):
    with pytest.raises(ValueError, match='in use by a running job'):
      pruning.remove(plan)
  assert _there(folder) == kept | stale


def test_wrong_configurations_are_refused(jobs, tmp_path):
  folder, kept, stale = jobs
  flag = _file(folder, CALL)
  for argv, wanted in (
    ([flag, '--config.seed=9'], 'refers to nothing in'),
    ([flag, f'--workdir={folder / "other"}'], 'refers to nothing in'),
    ([flag, flag, '--config.seed=9'], 'refers to nothing in'),
    ([flag, f'--workdir={tmp_path}'], 'is not in'),
    ([flag, f'--config.workdir={tmp_path}'], 'is not in'),
    ([], 'no configuration'),
    (['--config=msg_resnett'], "did you mean 'msg_resnet'"),
  ):
    argv = ['prune', str(folder), *argv, '--delete']
    assert wanted in _refused(argv)
  assert _there(folder) == kept | stale


def test_other_jobs_are_left_alone(jobs, tmp_path, capsys):
  folder, kept, stale = jobs
  other = tmp_path / 'other'
  job = job_lib.open_job(
    settings.from_config(small_job.config(other).to_dict())
  )
  others = _make(job)
  flag = _file(folder, CALL)
  command.main(
    ['prune', str(tmp_path), flag, f'--workdir={folder}', '--delete']
  )
  assert f'without a configuration: {other}' in capsys.readouterr().out
  assert _there(tmp_path) == kept | others
  _refused(['prune', str(tmp_path), flag, '--delete'])


def test_an_unreadable_folder_is_said_in_one_line(jobs, monkeypatch):
  folder, kept, _ = jobs

  def refuse(path):
    raise PermissionError(13, 'Permission denied', str(path))

  monkeypatch.setattr(shelves.shutil, 'rmtree', refuse)
  text = _refused(['prune', str(folder), _file(folder, CALL), '--delete'])
  assert (
    'cannot be removed or locked (Permission denied); make its folder' in text
  )
  assert kept <= _there(folder)


SWEEP = 'small_sweep.config(folder{})'


def _swept(folder: pathlib.Path, **changes) -> set[pathlib.Path]:
  """Write the shelves, settings and states of a finished sweep."""
  sweep = design.from_config(small_sweep.config(folder, **changes))
  made = set()
  for study in sweep.studies:
    if study.searches:
      job = job_lib.open_job(
        opening.search_settings(study.settings), opening.search_design
      )
      made |= {_fill(p.models).folder for p in job.populations.values()}
      made |= _trials(job, *study.methods)
      for one in study.settings.unlearners:
        content = {
          'method': one.method,
          'data': study.cell.data,
          'model': study.cell.model,
          'hparams': {**one.hparams, 'num_epochs': 3},
        }
        path = tuned.folder(job.folder, one.method) / tuned.NAME
        tuned.write(path, content)
    else:
      made |= _make(job_lib.open_job(study.ready(study.methods)))
  keys = status.Keys(sweep)
  for unit in graph.build(sweep):
    status.write(folder, unit, status.Record('done', keys(unit)))
  return made


@pytest.fixture(name='sweep', scope='module')
def _sweep(tmp_path_factory):
  """A sweep of two models."""
  folder = tmp_path_factory.mktemp('sweep') / 'sweep'
  made = _swept(folder, models=('tiny', 'resnet18'), studies=('search', 'main'))
  return folder, made


def _flag(folder, changes=''):
  return _file(folder, SWEEP.format(f", studies=('search', 'main'){changes}"))


def test_a_sweep_loses_what_it_no_longer_has(sweep, tmp_path, capsys):
  folder, made = _copy(sweep, tmp_path)
  command.main(
    ['prune', str(folder), _flag(folder, ", models=('tiny', 'resnet18')")]
  )
  assert f'nothing to remove; {len(made)} shelves kept' in (
    capsys.readouterr().out
  )
  before = stamps(folder)
  argv = ['prune', str(folder), _flag(folder)]
  command.main(argv)
  assert stamps(folder) == before
  command.main([*argv, '--delete'])
  assert _there(folder) == {
    path for path in made if path.is_relative_to(folder / 'digits_tiny')
  }
  states = {path.relative_to(folder / 'state') for path in _states(folder)}
  # That of the leaderboard was of both models.
  assert {path.parts[0] for path in states} == {'digits_tiny'}
  assert len(states) == 13
  settings_file = folder / 'digits_resnet18/search/search/ft/settings.json'
  assert settings_file.is_file()  # it is no shard


def test_models_of_an_unfinished_search_are_kept(sweep, tmp_path):
  folder, made = _copy(sweep, tmp_path)
  flag = _flag(folder, ", models=('tiny', 'resnet18')")
  path = folder / 'digits_tiny/search/search/ga/settings.json'
  content = json.loads(path.read_text())
  path.unlink()
  command.main(['prune', str(folder), flag, '--delete'])
  assert _there(folder) == made
  content['hparams']['num_epochs'] = 4
  tuned.write(path, content)
  command.main(['prune', str(folder), flag, '--delete'])
  gone = {
    (p.parent.name, p.name.rpartition('-')[0]) for p in made - _there(folder)
  }
  assert gone == {('models', 'ga'), ('scores', 'ga')}


def test_a_study_that_cannot_be_opened_is_kept(
  sweep, tmp_path, capsys, monkeypatch
):
  folder, made = _copy(sweep, tmp_path)
  opened = job_lib.open_job

  def unopened(chosen, *given):
    if chosen.model == 'resnet18':
      raise ValueError('the data are not here')
    return opened(chosen, *given)

  monkeypatch.setattr(job_lib, 'open_job', unopened)
  flag = _flag(folder, ", models=('tiny', 'resnet18')")
  command.main(['prune', str(folder), flag, '--delete'])
  assert _there(folder) == made
  out = capsys.readouterr().out
  assert 'kept as a whole: digits_resnet18/main: the data are not here' in out


def test_states_of_parts_belong_to_their_unit(sweep, tmp_path):
  folder, _ = _copy(sweep, tmp_path)
  home = folder / 'state/digits_tiny/main'
  known = (home / 'originals.json').read_text()
  before = _states(folder)
  for name, text in (
    ('originals.part-1', known),
    ('gone.part-1', known),
    ('originals.part-2', known.replace('"key": "', '"key": "0')),
    ('originals.part-3', 'damaged'),
  ):
    files.write_text(home / f'{name}.json', text)
  flag = _flag(folder, ", models=('tiny', 'resnet18')")
  command.main(['prune', str(folder), flag, '--delete'])
  assert _states(folder) - before == {home / 'originals.part-1.json'}


def test_states_of_other_settings_go_with_their_shards(sweep, tmp_path):
  folder, made = _copy(sweep, tmp_path)
  flag = _flag(folder, ", models=('tiny', 'resnet18')")
  changed = '--config.main.unlearn.hparams.num_epochs=7'
  before = _states(folder)
  command.main(['prune', str(folder), flag, changed, '--delete'])
  assert _there(folder) == made  # settings of the search replace it
  gone = {path.relative_to(folder / 'state') for path in before}
  gone -= {path.relative_to(folder / 'state') for path in _states(folder)}
  assert {path.stem for path in gone} == {'ft', 'report'}


def test_a_running_sweep_is_not_pruned(sweep, tmp_path):
  folder, made = _copy(sweep, tmp_path)
  with files.lock(folder / status.LOCK):
    text = _refused(['prune', str(folder), _flag(folder), '--delete'])
    assert 'in use by a running job, search or sweep' in text
  assert _there(folder) == made


def _states(folder: pathlib.Path) -> set[pathlib.Path]:
  return set((folder / 'state').rglob('*.json'))


def _copy(sweep, tmp_path) -> tuple[pathlib.Path, set[pathlib.Path]]:
  """Copy a sweep; addresses do not depend on the folder."""
  folder, made = sweep
  copy = tmp_path / 'copy'
  shutil.copytree(folder, copy)
  return copy, {copy / path.relative_to(folder) for path in made}
