"""A small sweep from search to leaderboard, again, and with failures."""

import json
import shutil

import jax
import pytest

import jaxmu.sweep as command
from jaxmu import files, main
from jaxmu import store as store_command
from jaxmu.report import progress, results
from jaxmu.study import job, recipes, settings, store
from jaxmu.sweeps import design, graph, status, work
from tests.sweeps import small_sweep

pytestmark = pytest.mark.xdist_group('sweep')

FILE = """
from tests.sweeps import small_sweep

def get_config(folder):
  return small_sweep.config(folder{changes})
"""

BROKEN = """
from jaxmu.methods import ft

def init(hparams, draws, problem):
  raise RuntimeError('out of luck')

METHOD = ft.METHOD._replace(name='broken', init=init)
"""


@pytest.fixture(scope='module')
def home(tmp_path_factory):
  """A folder with a file of sweeps, for a process where JAX has started."""
  folder = tmp_path_factory.mktemp('sweep')
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(main, 'set_up_jax', lambda config: None)
    patch.setenv('JAXMU_CACHE_DIR', str(folder / 'cache'))
    patch.setenv('JAXMU_DATA_DIR', str(folder / 'data'))
    yield folder


def _arguments(home, name, changes=''):
  path = home / f'{name}.py'
  path.write_text(FILE.format(changes=changes))
  return [f'--config={path}:{home / name}']


@pytest.fixture(scope='module')
def swept(home):
  argv = _arguments(home, 'whole')
  command.main(argv)
  return home / 'whole', argv


def _sweep(argv):
  sweep = design.from_config(command.read(argv).config)
  return sweep, graph.build(sweep)


def _states(swept):
  sweep, units = swept
  found = status.survey(sweep, units, status.Keys(sweep))
  return {name: state.name for name, state in found.items()}


@pytest.mark.slow
def test_methods_have_the_settings_of_the_search_of_their_cell(swept):
  folder, _ = swept
  for search, study in (('search', 'main'), ('ulira_search', 'ulira')):
    facts = json.loads(
      (folder / f'digits_tiny/{study}/results.json').read_text()
    )
    for one in facts['provenance']['configuration']['unlearners']:
      path = folder / f'digits_tiny/{search}/search/{one["method"]}'
      chosen = json.loads((path / 'settings.json').read_text())['hparams']
      assert {n: one['hparams'][n] for n in chosen} == chosen


@pytest.mark.slow
def test_a_sweep_that_is_started_again_trains_nothing(swept, capsys):
  folder, argv = swept

  def stored():
    shards = (folder / 'digits_tiny').glob('*/store/*/*/shard_*/record.json')
    return {path: path.stat().st_mtime_ns for path in shards}

  before = stored()
  assert before
  command.main(argv)
  assert stored() == before
  assert capsys.readouterr().out.split('\n\n') == [
    'starting JAX',
    '24 of 24 units done\n',
  ]
  # Without records, or if a file was changed, the store is looked into.
  shutil.rmtree(folder / 'state')
  (folder / 'digits_tiny/main/results.csv').write_text('')
  command.main(argv)
  written = {p: t for p, t in stored().items() if p.parts[-4] != 'report'}
  assert written.items() <= before.items()
  out = capsys.readouterr().out
  assert 'report: up to date' in out and 'setting in' in out
  assert 'report: evaluating' in out and '24 of 24 units done' in out


@pytest.mark.slow
def test_what_was_deleted_is_made_again(swept, capsys):
  folder, argv = swept
  shard = next(
    (folder / 'digits_tiny/main/store/models').glob('original-*/shard_000')
  )
  shutil.rmtree(shard)
  for name in ('main/report.html', 'search/search/ft/settings.json'):
    (folder / 'digits_tiny' / name).unlink()
  (folder / 'state/digits_tiny/main/unlearned/ft.json').unlink()
  command.main(argv)
  assert '24 of 24 units done' in capsys.readouterr().out
  assert (shard / 'record.json').is_file()
  assert (folder / 'digits_tiny/main/report.html').is_file()
  assert (folder / 'digits_tiny/search/search/ft/settings.json').is_file()


@pytest.mark.slow
def test_the_state_of_a_finished_sweep(swept, capsys):
  folder, argv = swept
  before = {p: p.stat().st_mtime_ns for p in folder.rglob('*')}
  command.main([*argv, '--status'])
  out = capsys.readouterr().out
  assert '24 of 24 units done; no sweep is running' in out
  assert {p: p.stat().st_mtime_ns for p in folder.rglob('*')} == before
  changed = _sweep([*argv, '--config.main.train.num_epochs=3'])
  states = _states(changed)
  assert states['digits_tiny/main/originals'] == 'missing'
  assert states['digits_tiny/ulira/originals'] == 'done'
  changed = _sweep([*argv, '--config.all.search.trials=3'])
  states = _states(changed)
  assert states['digits_tiny/main/originals'] == 'done'
  assert states['digits_tiny/search/search/ft'] == 'missing'
  assert states['digits_tiny/main/unlearned/ft'] == 'missing'


def test_the_state_of_a_running_and_of_a_killed_sweep(tmp_path):
  sweep = design.from_config(small_sweep.config(tmp_path))
  units = graph.build(sweep)
  unit = units.units['digits_tiny/main/originals']
  keys = status.Keys(sweep)

  def state():
    return status.survey(sweep, units, keys)[unit.name].name

  record = status.Record('running', keys(unit))
  status.write(tmp_path, unit, record)
  assert state() == 'missing'
  with files.lock(tmp_path / status.LOCK):
    assert state() == 'running'
    text = status.text(sweep, units)
    assert 'a sweep is running' in text and f'running  {unit.name}' in text
    with pytest.raises(ValueError, match='in use by another sweep'):
      work.perform_all(sweep, units, '')
  status.forget_running(tmp_path, shared=False)
  assert status.read(tmp_path, unit) is None


def test_what_lacked_a_method_is_made_again_with_it(tmp_path):
  """Otherwise the report and the leaderboard would stay without it."""
  sweep = design.from_config(small_sweep.config(tmp_path, studies=('main',)))
  units = graph.build(sweep)
  keys = status.Keys(sweep)
  late = {f'digits_tiny/main/{n}/ga' for n in ('unlearned', 'predictions')}

  def missing():
    states = status.survey(sweep, units, keys)
    return {name for name, state in states.items() if state.left}

  for unit in units:
    if unit.name not in late:
      status.write(tmp_path, unit, status.Record('done', keys(unit)))
  assert missing() == late
  alone = units.select('digits_tiny/main/unlearned/ga')
  with work.Worker(sweep, alone, '', progress.Progress()):
    pass
  wrong = {'digits_tiny/main/report', 'leaderboard'}
  assert missing() == late | wrong
  for name in late | wrong:
    unit = units.units[name]
    status.write(tmp_path, unit, status.Record('done', keys(unit)))
  with work.Worker(sweep, units, '', progress.Progress()):
    assert missing() == set()


def test_what_one_process_made_without_a_part_is_made_again(
  tmp_path, monkeypatch
):
  """A part that failed in one process may succeed in another."""
  sweep = design.from_config(small_sweep.config(tmp_path, studies=('main',)))
  units = graph.build(sweep)
  unit = units.units['digits_tiny/main/predictions/ga']
  worker = work.Worker(sweep, units, '', progress.Progress(), shared=True)
  monkeypatch.setattr(worker, '_perform', lambda unit, parts: [])
  with worker:
    for other in units:  # the other process goes on without the method
      if other is not unit:
        record = status.Record('done', status.Keys(sweep)(other))
        status.write(tmp_path, other, record)
    assert not worker.survey()['leaderboard'].left
    worker(unit, range(unit.tasks))
    left = [name for name, state in worker.survey().items() if state.left]
    assert left == ['digits_tiny/main/report']
    worker(units.units['digits_tiny/main/report'], [0])
    left = [name for name, state in worker.survey().items() if state.left]
    assert left == ['leaderboard']


@pytest.fixture(scope='module')
def failed(home):
  """A sweep of which a data set is missing and a method cannot be traced."""
  (home / 'broken.py').write_text(BROKEN)
  methods = f"('ft', {str(home / 'broken.py')!r})"
  main = {**small_sweep.config(home)['main'], 'splits.seeds': 2, 'run.shard': 2}
  main['train.num_epochs'] = 1
  changes = (
    f", data=('mnist', 'digits'), methods={methods}, studies=('main',)"
    f', main={main}'
  )
  argv = _arguments(home, 'failed', changes)
  with pytest.raises(SystemExit) as end:
    command.main(argv)
  return home / 'failed', argv, end.value.code


def test_a_failed_unit_does_not_stop_the_others(failed):
  folder, argv, code = failed
  assert code == 1
  rows = results.read_csv(folder / 'digits_tiny/main/results.csv')
  assert {row.method for row in rows} == {'original', 'retrain', 'ft'}
  states = _states(_sweep(argv))
  assert [name for name, state in states.items() if state == 'failed'] == [
    'mnist_tiny/main/originals',
    'mnist_tiny/main/retrained',
    'digits_tiny/main/unlearned/broken',
  ]
  assert states['digits_tiny/main/predictions/broken'] == 'missing'
  assert states['leaderboard'] == 'done'
  text = (folder / 'leaderboard.md').read_text()
  assert 'Left out: mnist_tiny/main has no report' in text


def test_failures_are_listed_with_the_command_that_repeats_them(failed, capsys):
  folder, argv, _ = failed
  command.main([*argv, '--status'])
  listed = capsys.readouterr().out.splitlines()
  at = [i for i, line in enumerate(listed) if line.startswith('failed ')]
  assert len(at) == 2  # both units of MNIST have one reason
  first, second = (listed[i : i + 3] for i in at)
  assert 'mnist' in first[1] and first[2].endswith('--only=mnist_tiny/main')
  assert 'out of luck' in second[1]
  words = second[2].split()
  assert words[:3] == ['python', '-m', 'jaxmu.sweep']
  before = (folder / 'digits_tiny/main/results.csv').stat().st_mtime_ns
  with pytest.raises(SystemExit):
    command.main(words[3:])
  out = capsys.readouterr().out
  assert '1 of 2 units done' in out and 'out of luck' in out
  assert (folder / 'digits_tiny/main/results.csv').stat().st_mtime_ns == before


@pytest.mark.slow
def test_pruning_keeps_what_the_sweep_needs(swept, capsys):
  folder, argv = swept

  def stored():
    return {p: p.stat().st_mtime_ns for p in folder.rglob('record.json')}

  other = store.Shelf(
    folder / 'digits_tiny/main/store', 'models', 'ft', '0' * 12
  )
  before = stored()
  other.save(0)
  gone = folder / 'mnist_tiny/main'  # a cell that the sweep does not have
  store.Shelf(gone / 'store', 'models', 'ft', '0' * 12).save(0)
  store_command.main(['prune', str(folder), *argv, '--delete'])
  assert 'removed: 2 shelves' in capsys.readouterr().out
  assert stored() == before
  command.main(argv)
  assert stored() == before
  assert '24 of 24 units done' in capsys.readouterr().out


def test_processes_that_jax_distributed_joins_are_refused(monkeypatch):
  """Orbax would wait in each of them for all others."""
  monkeypatch.setattr(jax, 'process_count', lambda: 2)
  with pytest.raises(ValueError, match='leave out jax.distributed.initialize'):
    job.open_job(settings.from_config(recipes.job_config('ft')))


def test_a_process_of_several_keeps_the_programs_of_two_studies(home):
  """Its units come by turns; a report measures run times by these programs."""
  argv = _arguments(
    home, 'turns', ", methods=('ft',), studies=('main', 'ulira')"
  )
  sweep, units = _sweep(argv)
  with work.Worker(
    sweep, units, 'python x', progress.Progress(), shared=True
  ) as worker:
    for kind in ('originals', 'retrained'):
      for study in ('main', 'ulira'):
        unit = units.units[f'digits_tiny/{study}/{kind}']
        worker(unit, range(unit.tasks))
    main_study, ulira = (worker._open(study) for study in sweep.studies)
    for table in (main_study, ulira):
      assert table._trainers.keys() == {'original', 'retrain'}
      assert all(one.num_programs for one in table._trainers.values())
    assert main_study._job.task.dataset is ulira._job.task.dataset
  assert not worker._opened
