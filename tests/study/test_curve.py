"""Learning curves: scored between epochs, kept with the shard, never forced."""

import csv
import shutil

import jax
import numpy as np
import pytest

from jaxmu import population
from jaxmu.report import progress
from jaxmu.study import job as job_lib
from jaxmu.study import stages
from tests.study import small_job

pytestmark = pytest.mark.xdist_group('job')

# Two members, a shard each.
SMALL = {
  'splits__design': 'main',
  'splits__num_splits': 1,
  'splits__forget_sets': 1,
  'splits__seeds': 2,
  'train__num_epochs': 3,
  'run__shard': 1,
  'run__devices': 1,
}


def _originals(folder, trainer=None, **changes):
  """Train the originals; return the job and what can train them again."""
  job = job_lib.open_job(small_job.make(folder, **SMALL, **changes))
  original = job.populations['original']
  trainer = trainer or population.Trainer(original.method, job.task, job.layout)
  with progress.Progress() as bars:
    stages.train(job, 'original', trainer, bars)
  return job, trainer


def test_curves_are_added_without_training_again(tmp_path):
  job, trainer = _originals(tmp_path)
  shelf = job.populations['original'].models
  stamps = [shelf.shard(n).stat().st_mtime_ns for n in range(2)]
  assert stages.curve_warnings(job) == []

  asked, _ = _originals(tmp_path, trainer, curve__every=2)
  assert asked.populations['original'].digest == shelf.folder.name[9:]
  assert [shelf.shard(n).stat().st_mtime_ns for n in range(2)] == stamps
  assert (
    'original: no learning curve of 2 of 2 models'
    in stages.curve_warnings(asked)[0]
  )
  assert stages.write_curves(asked) == []

  like = stages.model_shapes(job, 1)
  before = shelf.models(0, like)
  shutil.rmtree(shelf.shard(0))
  _originals(tmp_path, trainer, curve__every=2)
  assert (
    'original: no learning curve of 1 of 2 models'
    in stages.curve_warnings(asked)[0]
  )
  jax.tree.map(np.testing.assert_array_equal, before, shelf.models(0, like))

  # Epoch 2, and the last one; of the member that was trained now.
  (path,) = stages.write_curves(asked)
  with path.open() as file:
    rows = list(csv.DictReader(file))
  assert [(r['method'], r['seed'], r['epoch']) for r in rows] == [
    ('original', '0', '2'),
    ('original', '0', '3'),
  ]
  # What was scored last is what the finished model does.
  correct = population.Predictor(job.task, job.layout).run(before).correct[0]
  dev = job.source.num_dev
  assert float(rows[1]['test']) == pytest.approx(correct[dev:].mean(), abs=1e-5)
  retain = job.design.retain[0]
  count = len(correct) - dev
  some = [correct[retain[i * len(retain) // count]] for i in range(count)]
  assert float(rows[1]['retain']) == pytest.approx(np.mean(some), abs=1e-5)


def test_even_choice_has_no_repeats_and_takes_all_of_a_small_set():
  index = np.arange(20).reshape(2, 10)
  assert stages.evenly(index, 4).tolist() == [[0, 2, 5, 7], [10, 12, 15, 17]]
  assert stages.evenly(index, 30).tolist() == index.tolist()


def test_a_curve_of_an_earlier_job_does_not_stay(tmp_path):
  job = job_lib.open_job(small_job.make(tmp_path, **SMALL))
  (tmp_path / stages.CURVES_FILE).write_text('old\n')
  assert stages.write_curves(job) == []
  assert not (tmp_path / stages.CURVES_FILE).exists()
