"""How a job chooses and keeps its plan, without timing anything."""

import dataclasses
import json
import time

import jax
import numpy as np
import pytest

from jaxmu import population
from jaxmu.report import progress
from jaxmu.study import execution, planner, stages
from jaxmu.study import job as job_lib
from tests.study import small_job

pytestmark = pytest.mark.xdist_group('job')

# Images per second that the fake probe reports.
SPEED = {(8, 1): 100.0, (2, 1): 90.0, (2, 2): 150.0, (2, 4): 80.0, (1, 1): 60.0}


QUIET = execution.Conditions(0.0, 0.0, 0.0)


@pytest.fixture
def probed(monkeypatch, tmp_path):
  """Fake probes, remembered in a folder of the test; lists what was probed."""
  monkeypatch.setenv('JAXMU_CACHE_DIR', str(tmp_path / 'cache'))
  seen = []

  def measure(job, tried):
    seen.append(tuple(tried))
    need = execution.MemoryEstimate(1e6, 1e6, 1e6 * tried.chunk)
    return execution.Measured(
      tried,
      SPEED.get(tuple(tried), 50.0),
      1.0,
      need,
      0,
      QUIET._replace(date=time.time()),
    )

  monkeypatch.setattr(planner, 'run_probe', measure)
  return seen


def _job(tmp_path, **changes):
  changes = {'run__chunk': 0, 'run__shard': 8, **changes}
  return job_lib.open_job(small_job.make(tmp_path / 'job', **changes))


def test_a_small_job_does_not_probe(probed, tmp_path):
  job = _job(tmp_path)
  work = planner.training_work(planner.plan_steps(job))
  assert work > 0
  chosen = planner.choose_plan(job, work, print)
  assert chosen.layout == job.layout == population.Layout(2, 1)
  assert not probed


def test_a_large_job_probes_once_and_remembers(probed, tmp_path):
  work = 1e14
  chosen = planner.choose_plan(_job(tmp_path), work, print)
  assert probed == [(2, 1), (2, 2), (2, 4)]
  assert chosen.layout == population.Layout(2, 2)
  # Another work directory, another day: nothing is left to find out.
  other = _job(tmp_path / 'other')
  assert planner.choose_plan(other, 1.0, print).layout == population.Layout(
    2, 2
  )
  assert len(probed) == 3


def test_settings_override_the_plan(probed, tmp_path):
  planner.probe_missing(_job(tmp_path), print)
  before = list(probed)
  fixed = planner.choose_plan(_job(tmp_path, run__chunk=1), 1e14, print)
  assert fixed.layout == population.Layout(2, 1)
  alone = planner.choose_plan(_job(tmp_path, run__devices=1), 1.0, print)
  assert alone.layout == population.Layout(1, 1)
  assert probed == before


def test_the_plan_changes_no_address(probed, tmp_path):
  job = _job(tmp_path)
  planner.probe_missing(job, print)
  chosen = planner.choose_plan(job, 1e14, print)
  for changed in (chosen, _job(tmp_path, run__chunk=4, run__memory=1.0)):
    assert changed.layout != job.layout
    for name, one in job.populations.items():
      assert changed.populations[name].digest == one.digest


def test_a_memory_limit_is_respected_or_refused(probed, tmp_path):
  planner.probe_missing(_job(tmp_path), print)
  # Each device: four models of 2 MB and the chunk's 1 or 2 MB; the data 6 MB,
  # once.
  data = execution.bytes_of(_job(tmp_path).task.dataset) / 1e9
  tight = _job(tmp_path, run__memory=data + 2 * 0.0095 * 4 / 3)
  assert planner.choose_plan(tight, 1.0, print).layout == population.Layout(
    2, 1
  )
  none = _job(tmp_path, run__memory=0.001)
  with pytest.raises(ValueError, match='1.0 MB.*lower config.run.shard'):
    planner.choose_plan(none, 1.0, print)


def test_plan_shows_what_was_tried_and_why(probed, tmp_path):
  text = planner.plan_text(_job(tmp_path))
  assert probed == [(2, 1), (2, 2), (2, 4)]
  lines = {tuple(line.split()[:2]): line for line in text.splitlines()}
  assert 'chosen: fastest' in lines['2', '2']
  assert '150' in lines['2', '2'] and '80' in lines['2', '4']
  assert 'fixed   config.run.devices = 2' in text
  assert '2 devices, chunks of 2' in text
  planner.plan_text(_job(tmp_path))
  assert len(probed) == 3


def test_a_quick_plan_measures_nothing(probed, tmp_path):
  told = []
  text = planner.plan_text(_job(tmp_path), told.append, quick=True)
  assert not probed and not told
  assert 'time    not measured on this machine; leave out --quick' in text
  assert 'train original' in text and 'to write in' in text
  planner.plan_text(_job(tmp_path), told.append)
  assert told[0] == (
    'measuring a few steps under each plan; --quick leaves this out'
  )
  assert len(probed) == 3
  known = planner.plan_text(_job(tmp_path), quick=True)
  assert 'on 2 devices, chunks of 2, compilation included' in known
  assert len(probed) == 3


def _age(job, days, **made):
  """Make the stored measurements older; return the plans."""
  cache = stages.measurement_cache(job)
  known = cache.read().measured
  for one in known:
    date = one.made.date - days * 86400
    cache.add(one._replace(made=one.made._replace(date=date, **made)))
  return [tuple(one.plan) for one in known]


def test_only_plan_measures_again_what_is_stale(probed, tmp_path):
  job, lines = _job(tmp_path), []
  planner.plan_text(job)
  planner.choose_plan(job, 1e14, lines.append)
  assert not lines
  for changes, fault in (
    ({'days': 31}, '31 days old'),
    ({'days': 0, 'load': 0.5}, 'other programs took 50% of the processor'),
    ({'days': 0, 'spread': 0.6}, 'epochs differed by 60%'),
  ):
    _age(job, **changes)
    del probed[:]
    # A job uses them, and says so.
    chosen = planner.choose_plan(job, 1e14, lines.append)
    assert chosen.layout == population.Layout(2, 2)
    assert not probed
    day = stages.measurement_cache(job).read().measured[1].day()
    assert lines == [
      f'plan: 2 devices, chunks of 2, by a measurement of {day} ({fault}); '
      '--plan measures again'
    ]
    lines.clear()
    text = planner.plan_text(job)
    assert probed == [(2, 1), (2, 2), (2, 4)]
    assert time.strftime('%Y-%m-%d', time.gmtime()) in text
    assert fault not in text


def test_stale_measurements_of_plans_that_are_not_tried_any_more_are_dropped(
  probed, tmp_path, monkeypatch
):
  job = _job(tmp_path)
  planner.plan_text(job)
  _age(job, 31)
  monkeypatch.setitem(SPEED, (2, 2), 50.0)
  monkeypatch.setitem(SPEED, (2, 4), 40.0)
  planner.plan_text(job)
  known = stages.measurement_cache(job).read().measured
  assert [tuple(one.plan) for one in known] == [(2, 1), (2, 2)]
  chosen = planner.choose_plan(job, 1e14, print)
  assert chosen.layout == population.Layout(2, 1)


def test_a_noisy_machine_is_measured_once_and_shown_as_such(
  probed, tmp_path, monkeypatch
):
  monkeypatch.setattr(f'{__name__}.QUIET', execution.Conditions(0.0, 0.3, 0.0))
  text = planner.plan_text(_job(tmp_path))
  assert probed == [(2, 1), (2, 2), (2, 4)]
  assert 'chosen: fastest; other programs took 30% of the processor' in text


def test_a_damaged_file_of_measurements_stops_no_job(probed, tmp_path, caplog):
  job = _job(tmp_path)
  path = stages.measurement_cache(job).path
  path.parent.mkdir(parents=True)
  for text in ('[]', 'null', '{"facts": ', '{"most_chunk": {"train": -4}}'):
    path.write_text(text)
    caplog.clear()
    assert planner.choose_plan(job, 1.0, print).layout == job.layout
    assert len(caplog.records) == 1
    assert planner.plan_text(job)


def test_a_job_without_retrained_models_is_planned_too(probed, tmp_path):
  job = _job(tmp_path, retrained__train=False)
  assert 'train retrain' not in planner.plan_text(job)
  assert probed


def test_the_probe_measures_speed_and_memory(monkeypatch, tmp_path):
  job = _job(tmp_path)
  found = planner.run_probe(job, execution.Plan(2, 2))
  model = stages.bytes_per_model(job)
  assert found.images > 0 and found.compile_seconds > 0
  assert model < found.need.copied < 2.5 * model
  assert found.need.working > 0
  assert abs(found.made.date - time.time()) < 3600
  assert 0 <= found.made.load <= 1 and found.made.spread >= 0
  # What does not fit is reported as such, not raised.
  full = jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: no')
  monkeypatch.setattr(population.Trainer, 'load', _raise(full))
  assert planner.run_probe(job, execution.Plan(2, 2)).images == 0


def _raise(error):
  def fail(*args, **options):
    raise error

  return fail


@pytest.fixture
def little_memory(monkeypatch):
  """Chunks above 1 run out of memory after the first epoch; counts it."""
  train, failures = population.Trainer.train, []

  def train_once(self, loaded, *, on_epoch, watch=None):
    def fail(count):
      on_epoch(count)
      if self.layout.chunk > 1:
        failures.append(self.layout.chunk)
        raise jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: no')

    return train(self, loaded, on_epoch=fail, watch=watch)

  monkeypatch.setattr(population.Trainer, 'train', train_once)
  return failures


def test_training_goes_on_in_smaller_chunks(little_memory, tmp_path, capsys):
  results = {}
  for chunk in (1, 2):
    job = job_lib.open_job(
      small_job.make(tmp_path / str(chunk), run__chunk=chunk)
    )
    original = job.populations['original']
    trainer = population.Trainer(original.method, job.task, job.layout)
    with progress.Progress() as bars:
      stages.train(job, 'original', trainer, bars)
    results[chunk] = [
      np.load(path)
      for path in sorted(original.models.folder.glob('*/loss.npy'))
    ]
    stored = original.models.models(0, stages.model_shapes(job, 4))
    results[chunk] += jax.tree.leaves(stored)
  assert little_memory == [2]
  for a, b in zip(results[1], results[2], strict=True):
    np.testing.assert_array_equal(a, b)
  out = capsys.readouterr().out
  assert 'train original: memory ran out; retrying in chunks of 1' in out
  assert 'train original: 2 epochs of 8 models in' in out


def test_chunks_that_ran_out_are_remembered(probed, tmp_path):
  job = dataclasses.replace(_job(tmp_path), layout=population.Layout(2, 4))
  with progress.Progress() as bars:
    stages.on_smaller_chunk(job, 'train msg', bars)(2)
  assert stages.stage_layout(job, 'train msg').chunk == 2
  assert stages.stage_layout(job, 'predict msg').chunk == 4
  fixed = dataclasses.replace(
    _job(tmp_path, run__chunk=4), layout=population.Layout(2, 4)
  )
  assert stages.stage_layout(fixed, 'train msg').chunk == 4
  assert 'train msg: memory ran out' in planner.plan_text(job)


def test_a_program_beyond_the_limit_is_not_started(tmp_path):
  job = _job(tmp_path, run__memory=0.001)
  original = job.populations['original']
  trainer = population.Trainer(original.method, job.task, job.layout)
  with progress.Progress() as bars:
    with pytest.raises(ValueError, match='500.0 kB allowed'):
      stages.train(job, 'original', trainer, bars)
  assert not original.models.folder.exists()


def test_the_file_of_measurements_names_model_and_machine(probed, tmp_path):
  job = _job(tmp_path)
  planner.probe_missing(job, print)
  found = json.loads(stages.measurement_cache(job).path.read_text())['facts']
  assert found['model'] == 'tiny' and found['batch_size'] == 64
  assert {'precision', 'image', 'hardware', 'jax'} <= set(found)


def test_run_time_is_that_of_one_member_also_where_members_are_vmapped(
  tmp_path,
):
  job = _job(tmp_path, run__chunk=4)
  original = job.populations['original']
  trainer = population.Trainer(original.method, job.task, job.layout)
  alone, loaded, only = stages._load_one(job, 'original', trainer)
  assert alone.layout == population.Layout(1, 1)
  assert only is None
  assert loaded.members.key.shape == (1,)
