"""Originals that are read from files, and jobs without retrained models."""

import jax
import numpy as np
import pytest

from jaxmu import population
from jaxmu.models import checkpoints
from jaxmu.report import progress
from jaxmu.study import job as job_lib
from jaxmu.study import originals, planner, run, settings, stages
from tests.study import small_job

pytestmark = pytest.mark.xdist_group('job')

# Four originals in two shards; each with a file. Padded to four devices, both
# shards need the same programs.
SMALL = {
  'splits__num_splits': 2,
  'splits__seeds': 2,
  'splits__forget_sets': 1,
  'train__num_epochs': 1,
  'run__shard': 3,
  'run__devices': 4,
}
FILES = 'runs/{seed}/split{split}.npz'


def _write(folder, pattern=FILES, seeds=2, splits=2, fill=None):
  """Write a file per original and return the setting that names them."""
  job = job_lib.open_job(small_job.make(folder / 'none', **SMALL))
  for seed in range(seeds):
    for split in range(splits):
      path = folder / pattern.format(seed=seed, split=split)
      path.parent.mkdir(parents=True, exist_ok=True)
      checkpoints.write(
        job.task.model, _variables(job, seed, split, fill), path
      )
  return str(folder / pattern)


def _variables(job, seed, split, fill=None):
  rng = np.random.default_rng([seed, split])
  return jax.tree.map(
    lambda x: (
      np.abs(rng.normal(0.5, 0.1, x.shape)).astype(x.dtype)
      if fill is None
      else np.full(x.shape, fill, x.dtype)
    ),
    stages.one_model_shapes(job),
  )


def _open(folder, **changes):
  return job_lib.open_job(small_job.make(folder / 'job', **SMALL, **changes))


def _run(job):
  """Run all stages except the report; return the printed lines."""
  steps = planner.plan_steps(job)
  run.check_job(job, steps)
  with progress.Progress() as bars:
    run.train_and_predict(job, bars)
  return steps


def test_files_become_the_originals_of_their_splits(tmp_path, capsys):
  chosen = _write(tmp_path)
  job = _open(tmp_path, originals__checkpoints=chosen)
  steps = {step.stage: step for step in _run(job)}
  assert steps['read original'].missing == 4
  assert 'train original' not in steps and 'time original' not in steps
  assert 'time msg' in steps
  read = job.populations['original']
  assert read.members.names == [
    (0, 0, -1),
    (0, 1, -1),
    (1, 0, -1),
    (1, 1, -1),
  ]
  stored = stages.read_models(job, read, np.arange(4))
  for row, (seed, split, _) in enumerate(read.members.names):
    one = jax.tree.map(lambda x, row=row: x[row], stored)
    written = _variables(job, seed, split)
    jax.tree.map(np.testing.assert_array_equal, one, written)
  # The methods start from them, and everybody is scored.
  start = stages.starting_models(
    job, job.populations['msg'], job.populations['msg'].members
  )
  jax.tree.map(np.testing.assert_array_equal, start, stored)
  for one in job.populations.values():
    assert one.scores.missing() == []
  printed = capsys.readouterr().out
  assert 'read original: 4 models' in printed
  correct = stages.read_predictions(read).correct
  retain = job.design.retain[read.members.row]
  share = np.mean(
    [row[index] for row, index in zip(correct, retain, strict=True)]
  )
  assert (
    f'original: the models from files have an accuracy of {share:.1%}'
    in printed
  )
  # Nothing is left to do, and nothing is timed.
  assert not any(step.missing for step in planner.plan_steps(job))


def test_the_content_of_the_files_is_in_the_addresses(tmp_path):
  chosen = _write(tmp_path)
  before = _open(tmp_path, originals__checkpoints=chosen)
  trained = _open(tmp_path)
  path = before.populations['original'].checkpoints[2]
  checkpoints.write(before.task.model, _variables(before, 9, 9), path)
  after = _open(tmp_path, originals__checkpoints=chosen)
  for name in ('original', 'msg'):
    digests = {j.populations[name].digest for j in (before, after, trained)}
    assert len(digests) == 3, name
  digests = {j.populations['retrain'].digest for j in (before, after, trained)}
  assert len(digests) == 1
  # How originals would have been trained does not matter to files.
  other = _open(
    tmp_path,
    originals__checkpoints=chosen,
    train__learning_rate=0.01,
    retrained__train=False,
  )
  for name in ('original', 'msg'):
    assert other.populations[name].digest == after.populations[name].digest


def test_without_retrained_models_there_are_none(tmp_path):
  job = _open(
    tmp_path, originals__checkpoints=_write(tmp_path), retrained__train=False
  )
  assert list(job.populations) == ['original', 'msg']
  _run(job)
  assert not list((tmp_path / 'job').glob('store/*/retrain-*'))
  assert 'retrain' not in job_lib.provenance(job)['results']
  files = job_lib.provenance(job)['checkpoints']
  assert len(files) == 4 and all(len(hash) == 64 for hash in files.values())


def _refused(tmp_path, chosen, message):
  with pytest.raises(ValueError, match=message) as caught:
    job = _open(tmp_path, originals__checkpoints=chosen)
    run.check_job(job, planner.plan_steps(job))
  assert '\n' not in str(caught.value)
  assert not (tmp_path / 'job').exists()


def test_what_does_not_fit_is_refused_before_training(tmp_path):
  chosen = _write(tmp_path)
  one = chosen.format(seed=0, split=0)
  _refused(tmp_path, one, 'names 1 file, and this design needs 4')
  _refused(tmp_path, f'{one},{one},{one},{one}', 'more than once')
  by_seed = str(tmp_path / 'runs/{seed}/split0.npz')
  _refused(tmp_path, by_seed, 'more than once.*{split}')
  _refused(tmp_path, str(tmp_path / 'runs/*.pth'), 'matches no file')
  _refused(
    tmp_path, str(tmp_path / 'x{seed}{split}.pth'), "no file '.*x00.pth'"
  )
  np.savez(one, weight=np.zeros(3))
  _refused(tmp_path, chosen, 'config.originals.checkpoints: .*split0.npz')


@pytest.mark.filterwarnings('ignore:.*not finite')
def test_weights_that_are_not_finite_count_as_failed(tmp_path, capsys):
  chosen = _write(tmp_path, fill=np.nan)
  job = _open(tmp_path, originals__checkpoints=chosen, retrained__train=False)
  original = job.populations['original']
  trainer = population.Trainer(original.method, job.task, job.layout)
  with progress.Progress() as bars:
    stages.train(job, 'original', trainer, bars)
  assert 'all models of original failed' in capsys.readouterr().out


def test_a_missing_package_is_one_line(tmp_path, monkeypatch):
  def read_population(model, paths):
    raise ImportError('this file needs torch')

  monkeypatch.setattr(checkpoints, 'read_population', read_population)
  chosen = _write(tmp_path)
  _refused(tmp_path, chosen, 'config.originals.checkpoints: .*needs torch')


def test_patterns_sort_numbers_as_numbers(tmp_path):
  for number in (0, 1, 2, 10):
    (tmp_path / f'seed{number}.pth').write_text('')
  members = [(seed, 0, -1) for seed in range(4)]
  paths = originals.find([str(tmp_path / 'seed*.pth')], members)
  assert [p.stem for p in paths] == ['seed0', 'seed1', 'seed2', 'seed10']
  listed = [str(path) for path in reversed(paths)]
  assert [str(p) for p in originals.find(listed, members)] == listed
  (tmp_path / '[1].pth').write_text('')
  literal = originals.find([str(tmp_path / '[1].pth')], members[:1])
  assert literal[0].name == '[1].pth'


@pytest.mark.parametrize('value', [3, ['a', 3], {'a': 1}, [''], None])
def test_other_types_are_refused(tmp_path, value):
  config = small_job.config(tmp_path).to_dict()
  config['originals'] = {'checkpoints': value}
  with pytest.raises(ValueError, match='checkpoints = .*give a path'):
    settings.from_config(config)


def test_lists_and_commas_name_several_files(tmp_path):
  config = small_job.config(tmp_path).to_dict()
  for value in ('a, b', ['a', 'b'], ('a', 'b')):
    config['originals'] = {'checkpoints': value}
    assert settings.from_config(config).originals.checkpoints == ('a', 'b')
  del config['originals'], config['retrained']
  assert settings.from_config(config).originals.checkpoints == ()
