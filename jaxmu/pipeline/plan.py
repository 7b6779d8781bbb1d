"""What a job would do: stages, models, time, memory, disk, what is there.

Nothing is trained. The time is an estimate: counted work divided by the speed
of the chosen execution plan, which a probe measured on this machine once, plus
the time the probe took to compile, per program.
"""

import dataclasses
from typing import NamedTuple

from jaxmu import population
from jaxmu.execution import choice, memory, remembered
from jaxmu.pipeline import evaluate, settle, timing, train
from jaxmu.pipeline import job as job_lib

_SCORE_BYTES = 6  # log-odds in float32, two flags


class Step(NamedTuple):
  """One stage of the plan.

  Attributes:
    stage: what is done.
    models: how many models it concerns.
    missing: how many of them are still to be done.
    work: forward passes of one example still to be done.
    disk: bytes still to be written.
  """

  stage: str
  models: int
  missing: int
  work: float
  disk: int


def steps(job: job_lib.Job) -> list[Step]:
  """Return the stages of a job in order."""
  verify = job.settings.run.verify
  examples = len(job.source.label)
  model = train.bytes_per_model(job)
  found = []
  for name, people in job.populations.items():
    left = _left(people, people.models.missing(verify=verify))
    work = left * evaluate.counted_cost(job, name)
    size = people.members.size
    found.append(Step(f'train {name}', size, left, work, left * model))
  for name, people in job.populations.items():
    left = _left(people, people.scores.missing(verify=verify))
    disk = left * examples * _SCORE_BYTES
    found.append(
      Step(f'predict {name}', people.members.size, left, left * examples, disk)
    )
  for name in job.populations:
    left = len(timing.shelf(job, name).missing())
    # One member on one device, so all others wait.
    runs = left * (job.settings.timing.repeats + 1) * job.layout.devices
    work = runs * evaluate.counted_cost(job, name)
    found.append(Step(f'time {name}', 1, left, work, 0))
  return found


def _left(people: job_lib.Population, missing: list[int]) -> int:
  return sum(len(people.positions(shard)) for shard in missing)


def bytes_to_write(stages: list[Step]) -> int:
  """Return the bytes that the missing stages will write."""
  return sum(step.disk for step in stages)


def training_work(stages: list[Step]) -> float:
  """Return the forward passes of one example still to be done in training."""
  return sum(step.work for step in stages if step.stage.startswith('train '))


def text(job: job_lib.Job, tell: settle.Tell = lambda line: None) -> str:
  """Measure what is not known yet and describe the plan, with totals.

  Args:
    job: the job.
    tell: takes a line about each probe.
  """
  known = settle.measure_missing(job, tell)
  measured = settle.allowed(job, known.measured)
  room = settle.room(job)
  chosen = choice.choose(measured, room)
  if chosen.best is None:
    raise ValueError(settle.too_large(job))
  layout = population.Layout(*chosen.best.plan)
  job = dataclasses.replace(job, layout=layout)
  return '\n'.join(
    [
      *_plans(measured, chosen, room),
      *_settled(job, known),
      '',
      *_stages(job, chosen.best, room),
    ]
  )


def _plans(
  measured: list[choice.Measured], chosen: choice.Choice, room: choice.Room
) -> list[str]:
  """The plans that were tried, one a line."""
  lines = [
    f'{"devices":>7}{"chunk":>7}{"images/s":>10}{"compile":>9}'
    f'{"memory/model":>14}{"of a shard":>12}'
  ]
  for one, why in zip(measured, chosen.why, strict=True):
    total = one.plan.devices * choice.bytes_per_device(one, room)
    each = one.need.resident + one.need.copied
    lines.append(
      f'{one.plan.devices:>7}{one.plan.chunk:>7}{one.images:>10,.0f}'
      f'{_duration(one.compile_seconds):>9}{memory.readable(each):>14}'
      f'{memory.readable(total):>12}  {why}'
      + (f'; {memory.readable(one.peak)} seen in use' if one.peak else '')
    )
  return lines


def _settled(job: job_lib.Job, known: remembered.Notes) -> list[str]:
  """What the choice was bound by."""
  run, room = job.settings.run, settle.room(job)
  limit = room.limit(1)
  lines = [
    f'limit   {memory.readable(limit)} '
    + ('as config.run.memory says' if run.memory else 'as the machine has it')
    + f', for a shard of {room.members} models (config.run.shard)'
  ]
  fixed = [
    f'config.run.{name} = {value}'
    for name, value in (('devices', run.devices), ('chunk', run.chunk))
    if value
  ]
  if fixed:
    lines.append(f'fixed   {", ".join(fixed)}')
  lines += [
    f'before  {stage}: memory ran out, chunks of {chunk} were left'
    for stage, chunk in sorted(known.most_chunk.items())
  ]
  return lines


def _stages(
  job: job_lib.Job, best: choice.Measured, room: choice.Room
) -> list[str]:
  """The stages, one a line, and the totals."""
  forwards = 3 * best.images
  lines = [
    f'{"stage":<24}{"models":>8}{"cached":>8}{"to do":>8}{"time":>12}'
    f'{"disk":>12}'
  ]
  total = 0.0
  stages = steps(job)
  for step in stages:
    seconds = step.work / forwards
    if step.missing:
      seconds += best.compile_seconds
    total += seconds
    lines.append(
      f'{step.stage:<24}{step.models:>8}{step.models - step.missing:>8}'
      f'{step.missing:>8}{_duration(seconds):>12}'
      f'{memory.readable(step.disk):>12}'
    )
  needed = best.plan.devices * choice.bytes_per_device(best, room)
  return [
    *lines,
    '',
    f'time    about {_duration(total)} on {settle.describe(best.plan)}, '
    'compilation included',
    f'memory  about {memory.readable(needed)} for a shard of {room.members} '
    'models and the data',
    f'disk    {memory.readable(bytes_to_write(stages))} to write in '
    f'{job.folder}',
  ]


def _duration(seconds: float) -> str:
  if seconds < 90:
    return f'{seconds:.0f} s'
  if seconds < 5400:
    return f'{seconds / 60:.0f} min'
  return f'{seconds / 3600:.1f} h'
