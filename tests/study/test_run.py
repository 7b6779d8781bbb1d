"""A job in use: run, run again, change something, break something.

The job has been run once; each test works on a copy of its folder.
"""

import json
import pathlib
import re
import shutil

import jax
import numpy as np
import pytest

from jaxmu import main
from jaxmu import store as command
from jaxmu.methods.parts import weights
from jaxmu.report import progress
from jaxmu.report import results as results_lib
from jaxmu.study import job as job_lib
from jaxmu.study import planner, publish, run, stages
from tests.study import small_job

pytestmark = pytest.mark.xdist_group('job')


@pytest.fixture
def folder(finished, tmp_path) -> pathlib.Path:
  copy = tmp_path / 'job'
  shutil.copytree(finished, copy)
  return copy


def _stamps(folder: pathlib.Path, stage: str) -> dict[str, int]:
  """When each finished shard of a stage was written."""
  records_of = (folder / 'store' / stage).glob('*/shard_*/record.json')
  return {str(p.relative_to(folder)): p.stat().st_mtime_ns for p in records_of}


def test_files_of_the_report_are_there(finished):
  names = {p.name for p in finished.iterdir()}
  assert {
    'results.csv',
    'results.json',
    'timing.csv',
    'report.html',
    'paper_table.md',
    'plots',
    'scores',
  } <= names
  rows = results_lib.read_csv(finished / 'results.csv')
  metrics = {row.metric for row in rows if row.method == 'msg'}
  assert {'ra', 'fa', 'va', 'ta', 'ret_dev', 'indisc_test', 'mia_test'} <= (
    metrics
  )
  assert {'ulira_auc', 'ulira_tpr_0.1', 'excess_ulira_auc'} <= metrics
  with (finished / 'curves.csv').open() as file:
    methods = [line.partition(',')[0] for line in file]
  # 8 originals and 16 retrained models, 2 epochs each.
  assert methods == ['method', *['original'] * 16, *['retrain'] * 32]
  assert (finished / 'plots' / 'curves.png').is_file()
  clock = results_lib.read_csv(finished / 'timing.csv')
  assert 'rte' in {row.metric for row in clock}


def test_rte_comes_by_three_clocks(finished):
  clock = {
    (r.method, r.metric): r
    for r in results_lib.read_csv(finished / 'timing.csv')
  }
  for name in ('original', 'retrain', 'msg'):
    rte, seconds = clock[name, 'rte'], clock[name, 'seconds'].value
    assert rte.value == clock['retrain', 'seconds'].value / seconds
    assert clock[name, 'rte_cold'].value > 0
  counted = {
    r.method: r.value
    for r in results_lib.read_csv(finished / 'results.csv')
    if r.metric == 'rte_counted'
  }
  # 2 epochs of training; unlearning takes 1 and a pass to choose weights.
  assert counted['retrain'] == 1.0 and 1 < counted['msg'] < 2


def test_retention_is_given_of_means_and_as_tug_of_war_too(finished):
  rows = results_lib.read_csv(finished / 'results.csv')
  value = {(r.method, r.metric): r.value for r in rows}
  of_means, tug = 0.0, 1.0
  for metric in ('ra', 'fa', 'ta'):
    own, retrained = value['msg', metric], value['retrain', metric]
    of_means += abs(own / retrained - 1)
    tug *= 1 - abs(own - retrained)
  assert value['msg', 'ret_dev_means'] == pytest.approx(of_means)
  # Paired errors are no smaller than those of the means.
  assert value['msg', 'ret_dev'] >= of_means * 0.99
  assert 0 < value['msg', 'tow'] <= tug * 1.01
  assert value['retrain', 'tow'] == 1.0
  assert value['retrain', 'ret_dev_means'] == 0.0


def test_distances_of_weights_are_those_of_the_stored_models(finished):
  rows = results_lib.read_csv(finished / 'results.csv')
  value = {(r.method, r.metric): r for r in rows}
  job = job_lib.open_job(small_job.make(finished))
  first = stages.read_models(job, job.populations['msg'], np.zeros(1, int))
  live = weights.live_weights(
    job.task, jax.tree.map(lambda x: x[0], first['params'])
  )

  def flat(name, position):
    models = stages.read_models(
      job, job.populations[name], np.array([position])
    )['params']
    masked = jax.tree.map(
      lambda x, on: np.ravel(x[0] * np.asarray(on)), models, live
    )
    return np.concatenate(jax.tree.leaves(masked)).astype(np.float64)

  def length(x):
    return np.sqrt((x**2).sum())

  members = job.populations['retrain'].members
  of = job_lib.originals_of(members, job.populations['original'].members)
  for name in ('retrain', 'msg'):
    each = []
    for k in range(8):
      own = flat(name, k)
      reference = flat('retrain', (k + 1) % 8 if name == 'retrain' else k)
      others = flat('original', of[k]), reference
      each.append([length(own - other) / length(own) for other in others])
    for metric, expected in zip(
      ('distance_original', 'distance_retrained'),
      np.mean(each, axis=0),
      strict=True,
    ):
      assert value[name, metric].value == pytest.approx(expected, rel=1e-6)
  assert value['original', 'distance_original'].value == 0.0
  assert value['msg', 'distance_original'].n == 2  # pairs of splits


def test_rows_hold_the_retrained_value_and_the_gap(finished):
  rows = results_lib.read_csv(finished / 'results.csv')
  own = {(r.method, r.metric): r for r in rows}
  for (_, metric), row in own.items():
    reference = own.get(('retrain', metric))
    if reference is None or np.isnan(row.value):
      continue
    assert row.retrained == reference.value
    assert row.gap == pytest.approx(row.value - reference.value)


def test_second_run_redoes_nothing_and_says_so(folder, capsys):
  before = {stage: _stamps(folder, stage) for stage in ('models', 'scores')}
  results = (folder / 'results.csv').read_bytes()
  run.run(small_job.make(folder))
  assert before == {s: _stamps(folder, s) for s in ('models', 'scores')}
  assert results == (folder / 'results.csv').read_bytes()
  assert 'nothing redone' in capsys.readouterr().out


def test_changing_the_attack_retrains_nothing(folder):
  before = {stage: _stamps(folder, stage) for stage in ('models', 'scores')}
  results = (folder / 'results.csv').read_bytes()
  run.run(small_job.make(folder, attack__variance='global'))
  assert before == {s: _stamps(folder, s) for s in ('models', 'scores')}
  assert results != (folder / 'results.csv').read_bytes()


def test_changing_the_unlearning_retrains_no_original(folder):
  before = _stamps(folder, 'models')
  run.run(small_job.make(folder, unlearn__hparams__learning_rate=0.01))
  after = _stamps(folder, 'models')
  assert before.items() <= after.items()
  new = {name for name in after if name not in before}
  assert new and all('/msg-' in name for name in new)


def _swap(a: pathlib.Path, b: pathlib.Path) -> None:
  aside = a.with_name('aside')
  a.rename(aside)
  b.rename(a)
  aside.rename(b)


def _largest_file(store: pathlib.Path, shard: str) -> pathlib.Path:
  (place,) = store.glob(f'models/{shard}')
  files = [p for p in place.rglob('*') if p.is_file()]
  return max(files, key=lambda p: p.stat().st_size)


def _truncate(path: pathlib.Path) -> None:
  path.write_bytes(path.read_bytes()[:-10])


def _change(path: pathlib.Path) -> None:
  content = bytearray(path.read_bytes())
  content[len(content) // 2] ^= 1
  path.write_bytes(bytes(content))


def _edit_info(path: pathlib.Path) -> None:
  record = json.loads(path.read_text())
  record['info'] = {'warm_seconds': [1e-9], 'compile_seconds': 0.0}
  path.write_text(json.dumps(record))


DAMAGES = {
  'a truncated file': lambda store: _truncate(
    _largest_file(store, 'original-*/shard_001')
  ),
  'a changed bit': lambda store: _change(
    _largest_file(store, 'msg-*/shard_001')
  ),
  'the largest file less': lambda store: _largest_file(
    store, 'msg-*/shard_003'
  ).unlink(),
  'two shards swapped': lambda store: _swap(
    *sorted(store.glob('models/retrain-*/shard_*'))[:2]
  ),
  'method and retrained swapped': lambda store: _swap(
    next(store.glob('scores/msg-*/shard_000')),
    next(store.glob('scores/retrain-*/shard_000')),
  ),
  'a changed time': lambda store: _edit_info(
    next(store.glob('timing/msg-*/shard_000/record.json'))
  ),
  'a list in place of a record': lambda store: next(
    store.glob('scores/msg-*/shard_001/record.json')
  ).write_text('[]'),
  'null in place of the report': lambda store: next(
    store.glob('report/*/shard_000/record.json')
  ).write_text('null'),
  'a file less': lambda store: next(
    store.glob('models/msg-*/shard_002/failed.npy')
  ).unlink(),
}
DAMAGED = [
  'models/msg/shard_001',
  'models/msg/shard_002',
  'models/msg/shard_003',
  'models/original/shard_001',
  'models/retrain/shard_000',
  'models/retrain/shard_001',
  'report/report/shard_000',
  'scores/msg/shard_000',
  'scores/msg/shard_001',
  'scores/retrain/shard_000',
  'timing/msg/shard_000',
]


def _shard(path: str) -> str:
  """Return stage, population and number of a shard."""
  return re.sub('.*store/|-[0-9a-f]{12}(?=/)', '', path)


def test_damage_of_every_kind_is_named_and_repaired(folder, caplog):
  results = (folder / 'results.csv').read_bytes()
  before = {
    stage: _stamps(folder, stage)
    for stage in ('models', 'scores', 'timing', 'report')
  }
  for damage in DAMAGES.values():
    damage(folder / 'store')
  run.run(small_job.make(folder, curve__every=1))
  damaged = [line for line in caplog.messages if 'is damaged' in line]
  named = [_shard(line.partition(' is damaged')[0]) for line in damaged]
  assert sorted(named) == DAMAGED  # each once
  remade = [
    _shard(path.removesuffix('/record.json'))
    for stage, stamps in before.items()
    for path, stamp in _stamps(folder, stage).items()
    if stamps[path] != stamp
  ]
  assert sorted(remade) == DAMAGED
  assert results == (folder / 'results.csv').read_bytes()
  clock = results_lib.read_csv(folder / 'timing.csv')
  assert all(r.value > 1e-6 for r in clock if r.metric == 'seconds')


def test_planning_changes_nothing_on_the_disk(folder, monkeypatch, tmp_path):
  monkeypatch.setenv('JAXMU_CACHE_DIR', str(tmp_path / 'cache'))
  left = next((folder / 'store').glob('models/msg-*')) / '.draft-x' / 'new'
  left.mkdir(parents=True)
  (folder / '.results.json.x.tmp').write_text('being written')

  def seen():
    return {p: p.lstat().st_mtime_ns for p in folder.rglob('*')}

  before = seen()
  changed = small_job.make(folder, unlearn__hparams__learning_rate=0.01)
  for settings in (small_job.make(folder), changed):
    job = job_lib.open_job(settings)
    run.check_job(job, planner.plan_steps(job))
    publish.is_current(job)
  assert seen() == before
  # The next run removes both.
  run.run(small_job.make(folder))
  assert not left.exists() and not (folder / '.results.json.x.tmp').exists()


def test_training_goes_on_when_every_model_fails(tmp_path, capsys):
  job = job_lib.open_job(
    small_job.make(
      tmp_path,
      splits__num_splits=4,  # which the programs of the finished job train
      splits__forget_sets=1,
      unlearn__hparams__learning_rate=1e30,
    )
  )
  with progress.Progress() as bars:
    run.train_and_predict(job, bars)
  out = capsys.readouterr().out
  assert 'all models of msg failed, at epoch' in out
  assert 'of original failed' not in out
  for name, population in job.populations.items():
    assert population.models.missing() == [], name
    assert population.scores.missing() == [], name
  failed = stages.failed_epochs(job.populations['msg'].models)
  assert (failed >= 0).all()


def test_the_line_of_failures_counts_models_and_epochs():
  line = stages.failure_line
  assert line('msg', np.array([-1, -1])) == ''
  assert line('msg', np.array([2, 2])) == 'all models of msg failed, at epoch 2'
  assert line('ft', np.array([-1, 3, 1])) == (
    '2 of 3 models of ft failed, at epochs 1 to 3'
  )


def test_lost_report_is_written_again(folder):
  (folder / 'report.html').unlink()
  run.run(small_job.make(folder))
  assert (folder / 'report.html').is_file()


def test_pruning_keeps_what_the_job_needs(folder, capsys, monkeypatch):
  monkeypatch.setattr(main, 'set_up_jax', lambda config: None)
  config = folder.parent / 'pruned.py'
  config.write_text(
    'from tests.study import small_job\n'
    'def get_config(folder):\n'
    '  return small_job.config(folder)\n'
  )
  job = job_lib.open_job(small_job.make(folder, unlearn__hparams__num_epochs=2))
  stale = job.populations['msg'].models
  for number, members in enumerate(stale.members):
    stale.save(number, arrays={'failed': np.full(len(members), -1)})
  stages_of = ('models', 'scores', 'timing', 'report')
  before = {stage: _stamps(folder, stage) for stage in stages_of}
  argv = [str(folder), f'--config={config}:{folder}', '--delete']
  command.main(['prune', *argv])
  assert 'removed: 1 shelf' in capsys.readouterr().out
  assert not stale.folder.exists()
  run.run(small_job.make(folder))
  assert 'nothing redone' in capsys.readouterr().out
  for stage, stamps in before.items():
    left = {p for p in stamps if stale.folder.name not in p}
    assert _stamps(folder, stage) == {p: stamps[p] for p in left}
  command.main(['check', str(folder)])
  assert ' 0 of ' in f' {capsys.readouterr().out.splitlines()[-1]}'


def test_plan_counts_what_is_cached(folder):
  job = job_lib.open_job(small_job.make(folder))
  assert all(step.missing == 0 for step in planner.plan_steps(job))
  assert publish.is_current(job)
  changed = small_job.make(folder, unlearn__hparams__reinit_fraction=0.5)
  steps = {s.stage: s for s in planner.plan_steps(job_lib.open_job(changed))}
  assert steps['train original'].missing == 0
  assert steps['train retrain'].missing == 0
  assert steps['train msg'].missing == steps['train msg'].models == 16
  assert steps['train msg'].disk > 0


def test_plan_names_stages_time_memory_and_disk(folder, monkeypatch):
  monkeypatch.setenv('JAXMU_CACHE_DIR', str(folder / 'cache'))
  text = planner.plan_text(job_lib.open_job(small_job.make(folder)))
  for word in ('train original', 'predict msg', 'time', 'memory', 'disk'):
    assert word in text


@pytest.mark.slow
def test_same_members_in_other_shards_are_the_same_models(finished, tmp_path):
  run.run(small_job.make(tmp_path, run__shard=3, run__devices=1))
  a = results_lib.read_csv(finished / 'results.csv')
  b = results_lib.read_csv(tmp_path / 'results.csv')
  assert [(r.method, r.metric) for r in a] == [(r.method, r.metric) for r in b]
  np.testing.assert_allclose(
    [r.value for r in a], [r.value for r in b], atol=0.03
  )
