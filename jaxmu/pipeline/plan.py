"""What a job would do: stages, models, time, memory, disk, what is there.

Nothing is trained. The time is an estimate: counted work divided by the speed
of a short probe of the real training step on this machine, which is remembered
in the work directory, plus the time the probe took to compile, per program.
"""

import dataclasses
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmu import methods, training
from jaxmu.core.draws import Draws
from jaxmu.core.types import Problem, Split
from jaxmu.pipeline import digest, evaluate, roster, store, timing, train
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


class Speed(NamedTuple):
  """What the probe measured.

  Attributes:
    forwards: forward passes of one example per second, over all devices.
    compile_seconds: time to compile one training program.
    bytes_per_member: device memory of one member in training, estimated.
  """

  forwards: float
  compile_seconds: float
  bytes_per_member: int


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


def trace(job: job_lib.Job, people: job_lib.Population) -> None:
  """Trace a member's program without running it, to find what does not fit.

  Raises:
    ValueError: from the method or the model, with the population's name.
  """
  one = train.select(people.members, np.zeros(1, np.int32))
  split = jax.tree.map(lambda x: x[0], roster.index_sets(job.design, one))
  shapes = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), train.shapes(job, 1)
  )
  method = people.method

  def member(hparams, key, split, original):
    problem = Problem(job.task, split, original)
    state = method.init(hparams, Draws(key).at('init'), problem)
    draws = Draws(key).at('epoch', jnp.int32(0))
    method.epoch(hparams, draws, problem, state, jnp.int32(0))

  try:
    hparams = train.prepared(job, people, job_lib.hyper_parameters(people))
    jax.eval_shape(member, hparams, job.root, Split(*_leaves(split)), shapes)
  except ValueError as error:
    raise ValueError(f'{people.name}: {error}') from error


def _leaves(split: Split) -> tuple[jax.Array, ...]:
  return tuple(jnp.asarray(x) for x in (split.retain, split.forget, split.val))


def probe(job: job_lib.Job) -> Speed:
  """Measure the speed of training on this machine, or remember it."""
  address = digest.digest(
    'probe',
    1,
    job.settings.model,
    dict(job.settings.model_options),
    job.settings.train['batch_size'],
    dataclasses.asdict(job.layout),
    jax.devices()[0].device_kind,
  )
  place = job.shelf('probe', job.settings.model, address)
  if place.missing():
    _measure(job, place)
  return Speed(**place.info())


def _measure(job: job_lib.Job, place: store.Shelf) -> None:
  batch = job.settings.train['batch_size']
  width = job.layout.width
  people = job.populations['retrain']
  members = train.select(people.members, np.zeros(width, np.int32))
  steps_per_epoch = 4
  index = np.tile(
    np.resize(job.design.retain[0], steps_per_epoch * batch), (width, 1)
  )
  one = np.tile(job.design.val[:1], (width, 1))
  trainer = training.Trainer(methods.get('retrain'), job.task, job.layout)
  hparams = job_lib.hyper_parameters(people).replace(
    num_epochs=np.asarray(4, np.int32)
  )
  times = [time.perf_counter()]
  trainer.run(
    [hparams] * width,
    roster.draw_keys(job.root, 'probe', members, False),
    Split(index, one, one),
    train.starting_models(job, people, members),
    on_epoch=lambda _: times.append(time.perf_counter()),
  )
  seconds = np.diff(times)
  fastest = float(seconds[1:].min())
  place.save(
    0,
    info={
      'forwards': 3 * width * steps_per_epoch * batch / fastest,
      'compile_seconds': float(seconds[0] - fastest),
      # Weights, momentum, gradient and the original they start from.
      'bytes_per_member': 4 * train.bytes_per_model(job),
    },
  )


def text(job: job_lib.Job) -> str:
  """Describe the plan as a table with totals."""
  speed = probe(job)
  lines = [
    f'{"stage":<24}{"models":>8}{"cached":>8}{"to do":>8}{"time":>12}'
    f'{"disk":>12}'
  ]
  total = 0.0
  stages = steps(job)
  for step in stages:
    seconds = step.work / speed.forwards
    if step.missing:
      seconds += speed.compile_seconds
    total += seconds
    lines.append(
      f'{step.stage:<24}{step.models:>8}{step.models - step.missing:>8}'
      f'{step.missing:>8}{_duration(seconds):>12}{_size(step.disk):>12}'
    )
  members = min(job.settings.run.shard, job.populations['retrain'].members.size)
  memory = members * speed.bytes_per_member + job.source.image.nbytes
  lines += [
    '',
    f'time    about {_duration(total)} on {job.layout.devices} device(s), '
    f'compilation included',
    f'memory  about {_size(memory)} for a shard of {members} models and the '
    'data',
    f'disk    {_size(bytes_to_write(stages))} to write in {job.folder}',
  ]
  return '\n'.join(lines)


def _duration(seconds: float) -> str:
  if seconds < 90:
    return f'{seconds:.0f} s'
  if seconds < 5400:
    return f'{seconds / 60:.0f} min'
  return f'{seconds / 3600:.1f} h'


def _size(count: float) -> str:
  for unit in ('B', 'kB', 'MB', 'GB'):
    if count < 1000:
      return f'{count:.0f} {unit}' if unit == 'B' else f'{count:.1f} {unit}'
    count /= 1000
  return f'{count:.1f} TB'
