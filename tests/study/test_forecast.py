"""The plan for another machine, here this CPU described as one."""

import dataclasses

import pytest

from jaxmu import platforms
from jaxmu.study import compiled, execution, forecast, planner
from jaxmu.study import job as job_lib
from tests.study import small_job

pytestmark = pytest.mark.xdist_group('forecast')

STAGES = [
  f'{action} {name}'
  for action in ('train', 'predict')
  for name in ('original', 'retrain', 'msg')
]


CYCLES = 2e9  # of each program, which a CPU's compiler does not estimate


def _job(tmp_path, **changes):
  return job_lib.open_job(
    small_job.make(tmp_path / 'job', run__chunk=2, **changes)
  )


def _machine(**changes):
  devices = tuple(platforms.local_devices()[:2])
  return platforms.Machine('cpu:2', 'cpu', devices, 1e9, 0.0)._replace(
    **changes
  )


@pytest.fixture(scope='module')
def planned(tmp_path_factory):
  """A job, its plans without and with a clock, and what the first told."""
  job, told = _job(tmp_path_factory.mktemp('forecast')), []
  cycles, compile_stage, made = compiled.cycles, forecast._forecast, {}

  def compile_once(job, compiler, step, *arguments):
    if step.stage not in made:
      made[step.stage] = compile_stage(job, compiler, step, *arguments)
    return made[step.stage]

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(compiled, 'cycles', lambda text: cycles(text) + CYCLES)
    patch.setattr(forecast, '_forecast', compile_once)
    bare = forecast.plan_text(job, _machine(), tell=told.append)
    timed = forecast.plan_text(job, _machine(clock=1e9))
  return job, bare, timed, told


def _rows(text):
  """The words of each stage's line."""
  lines = text.splitlines()
  found = {
    stage: [one[len(stage) :].split() for one in lines if one.startswith(stage)]
    for stage in STAGES
  }
  return {stage: rows[0] for stage, rows in found.items()}


def test_every_stage_is_compiled_and_nothing_runs(planned):
  job, text, _, told = planned
  # One program predicts for all populations.
  assert told == [f'compiling {stage} in chunks of 2' for stage in STAGES[:4]]
  for stage, row in _rows(text).items():
    models = '8' if stage.endswith('original') else '16'
    assert row[:2] == [models, '2'], stage
    assert row[-4:] == ['-'] * 4, stage
  assert 'no time, and nothing ran' in text
  assert not list(job.folder.rglob('*.npz'))


def test_times_follow_from_cycles(planned):
  job, _, text, _ = planned
  steps = {step.stage: step for step in planner.plan_steps(job)}
  total = 0.0
  for stage, row in _rows(text).items():
    calls = 1
    if stage.startswith('train '):  # init, and the epochs
      calls += {'msg': 1}.get(stage.split()[1], 2)
    models = int(row[0])
    seconds = calls * CYCLES / 1e9 * models / 4  # shards of four
    total += seconds
    images = steps[stage].work / 3 / seconds
    assert row[-4:] == [
      f'{CYCLES / 1e9 * calls:.2f}',
      f'{images:,.0f}',
      f'{models / seconds * 3600:,.0f}',
      f'{2 * seconds / 3600:.2g}',
    ]
  assert f'{2 * total / 3600:.2g} device hours' in text
  assert "Estimates of the compiler's cost model; nothing ran." in text


def test_the_last_shard_counts_by_its_size():
  for models, size, width, shards in [
    *(
      (16, 8, 4, 2),
      (10, 8, 4, 1.5),
      (9, 8, 1, 1.125),
      (3, 3, 2, 1),
      (9, 8, 8, 2),
    ),
  ]:
    assert forecast._shards(models, size, width) == shards


def test_chunks_shrink_until_they_fit(planned):
  job, wide, *_ = planned
  job = dataclasses.replace(
    job, populations={'original': job.populations['original']}
  )
  shown = wide.split('train original')[1].split()[2:4]
  needed = float(shown[0]) * {'MB': 1e6}[shown[1]]
  data = execution.bytes_of(job.task.dataset)
  memory = data + (needed - data) * 4 / 3  # with the margin of a CPU
  told = []
  text = forecast.plan_text(
    job, _machine(memory=memory * 0.97), tell=told.append
  )
  assert told[:2] == [
    'compiling train original in chunks of 2',
    'compiling train original in chunks of 1',
  ]
  assert text.split('train original')[1].split()[:2] == ['8', '1']
  text = forecast.plan_text(job, _machine(memory=1e3))
  assert text.split('train original')[1].split()[1:4] == ['does', 'not', 'fit']
  assert 'train original: memory ran out with one model at a time' in text


def test_the_machine_has_the_devices_that_are_asked_for(tmp_path):
  with pytest.raises(ValueError, match='devices = 4; 2 are given'):
    forecast.plan_text(_job(tmp_path, run__devices=4), _machine())
