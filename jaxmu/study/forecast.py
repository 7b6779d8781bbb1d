"""The plan of a job for a machine that is not available.

The programs of the job are compiled for a description of the machine's devices
(`jaxmu.platforms.machine`), without data and without weights. The compiler says
how much memory they need, from which the largest chunk that fits follows. Times
are estimates of its cost model, and nothing runs: use them to compare programs,
and measure before you rely on them.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxmu import files, platforms, terms
from jaxmu.population import Predictor, Trainer, shapes
from jaxmu.study import compiled, execution, planner, stages
from jaxmu.study import job as job_lib

# Without a GPU, NVIDIA's compiler cannot try its kernels.
_OPTIONS = {'gpu': {'xla_gpu_autotune_level': 0}}


class Forecast(NamedTuple):
  """The compiler's estimates for one stage.

  Attributes:
    step: the stage, with the number of models that are still missing.
    chunk: models that run together on each device.
    memory: bytes that each device needs.
    flops: floating-point operations of the last program on each device, with
      each loop counted once: one chunk, a full batch and the remainder.
    bytes: memory read and written, counted in the same way.
    cycles: of each device for one shard; 0 if the compiler estimates none.
    shards: how many shards are still missing; the last counts by its size.
    fault: why the stage cannot run; '' if it can.
  """

  step: planner.Step
  chunk: int
  memory: float = 0.0
  flops: float = 0.0
  bytes: float = 0.0
  cycles: float = 0.0
  shards: float = 0.0
  fault: str = ''


def plan_text(
  job: job_lib.Job,
  machine: platforms.Machine,
  tell: planner.Tell = lambda line: None,
) -> str:
  """Compile the programs of a job for a machine, and describe its plan.

  Args:
    job: an opened job; only the shape of its data set is used.
    machine: the machine.
    tell: receives a line about each program.

  Raises:
    ValueError: the settings ask for more devices than the machine has.
  """
  job = _moved(job, machine)
  known: dict[tuple[str, int], Forecast] = {}
  found, compiler = [], _Compiler(machine)
  with platforms.target(machine.platform):
    for step in planner.plan_steps(job):
      action, name = step.stage.split(' ', 1)
      if not step.missing or action not in ('train', 'predict'):
        continue
      size = min(job.settings.run.shard, step.models)
      # One program predicts for all populations.
      kind = (name if action == 'train' else '', size)
      if kind not in known:
        known[kind] = _forecast(job, compiler, step, size, tell)
      width = job.layout.devices * known[kind].chunk
      shards = _shards(step.missing, size, width)
      found.append(known[kind]._replace(step=step, shards=shards))
  return '\n'.join(_lines(job, machine, found))


def _shards(models: int, size: int, width: int) -> float:
  """Return how many shards of `size` models take as long as all `models`.

  Args:
    models: how many there are.
    size: of a shard.
    width: models that run at once.

  Example:
    >>> _shards(10, 8, 4)  # twice four models, then two
    1.5
  """
  full, rest = divmod(models, size)
  return full + math.ceil(rest / width) / math.ceil(size / width)


def _moved(job: job_lib.Job, machine: platforms.Machine) -> job_lib.Job:
  """Return the job on the machine, with shapes in place of its data."""
  dataset = jax.eval_shape(lambda x: x, job.task.dataset)
  with platforms.target(machine.platform):
    layout = job_lib.default_layout(job.settings, machine.devices)
  task = dataclasses.replace(job.task, dataset=dataset)
  return dataclasses.replace(job, task=task, layout=layout)


class _Compiler:
  """Compiles for a machine; programs that are equal only once."""

  def __init__(self, machine: platforms.Machine):
    self.machine = machine
    self._made: dict[str, Any] = {}

  def __call__(self, lowered: Any) -> Any:
    key = files.digest(lowered.as_text())
    if key not in self._made:
      options = _OPTIONS.get(self.machine.platform)
      self._made[key] = lowered.compile(compiler_options=options)
    return self._made[key]


def _forecast(
  job: job_lib.Job,
  compiler: _Compiler,
  step: planner.Step,
  size: int,
  tell: planner.Tell,
) -> Forecast:
  """Compile the programs of a stage for shards of `size` models."""
  action, name = step.stage.split(' ', 1)
  program: Trainer | Predictor
  if action == 'train':
    program = Trainer(job.populations[name].method, job.task, job.layout)
    lower = _lowered_training(job, name, size, program)
  else:
    program = Predictor(job.task, job.layout)
    lower = _lowered_prediction(job, size, program)

  def work() -> tuple[list[Any], float, int]:
    tell(f'compiling {step.stage} in chunks of {program.layout.chunk}')
    lowered, resident, epochs = lower()
    programs = list(map(compiler, lowered))
    shared = execution.bytes_of(job.task.dataset)
    resident /= job.layout.devices
    allowed = job.settings.run.memory * 1e9 or compiler.machine.memory
    execution.check_memory(programs, resident, shared, allowed)
    need = max(execution.total_bytes(p, resident, shared) for p in programs)
    return programs, need, epochs

  try:
    programs, need, epochs = execution.retry_smaller(work, program)
  except ValueError as error:
    if not (error.__cause__ and execution.ran_out(error.__cause__)):
      raise
    return Forecast(step, 1, fault=str(error))
  costs = [compiled.cost(one) for one in programs]
  rounds = [1, epochs][: len(costs)] if action == 'train' else [1]
  return Forecast(
    step,
    program.layout.chunk,
    need,
    costs[-1].flops,
    costs[-1].bytes,
    sum(n * one.cycles for n, one in zip(rounds, costs, strict=True)),
  )


def _lowered_training(
  job: job_lib.Job, name: str, size: int, trainer: Trainer
) -> Callable[[], tuple[list[Any], float, int]]:
  """Return a function that lowers the programs of a shard.

  It returns them, the bytes of the loaded members, and the number of epochs.
  """
  population = job.populations[name]
  members = stages.select_members(population.members, np.arange(size))

  def lower() -> tuple[list[Any], float, int]:
    loaded = trainer.lower(
      *stages.training_inputs(job, population, members),
      stages.model_shapes(job, size),
    )
    resident = execution.bytes_of(loaded.members)
    return loaded.programs, resident, int(max(loaded.epochs))

  return lower


def _lowered_prediction(
  job: job_lib.Job, size: int, predictor: Predictor
) -> Callable[[], tuple[list[Any], float, int]]:
  """Return what `_lowered_training` does, for the predictions of a shard."""
  models = stages.model_shapes(job, size)
  return lambda: (
    [predictor.lower(models)],
    execution.bytes_of(shapes(models, predictor.layout)),
    1,
  )


def _lines(
  job: job_lib.Job, machine: platforms.Machine, found: list[Forecast]
) -> list[str]:
  devices = terms.count(job.layout.devices, 'device')
  shard = f'shards of {terms.count(planner.largest_shard(job), "model")}'
  allowed = job.settings.run.memory * 1e9 or machine.memory
  lines = [
    '',
    f'{machine.name}: {devices}, {terms.readable_bytes(allowed)} on each, '
    f'{shard}',
    "Estimates of the compiler's cost model; nothing ran."
    if machine.clock
    else 'Compiled without its devices (experimental); the compiler estimates '
    'no time, and nothing ran.',
    '',
    f'{"stage":<24}{"to do":>7}{"chunk":>7}{"memory":>10}{"flops":>9}'
    f'{"bytes":>10}{"Gcycles":>9}{"images/s":>10}{"models/h":>10}'
    f'{"device h":>10}',
  ]
  seconds = 0.0
  for one in found:
    spent = one.shards * one.cycles / machine.clock if machine.clock else 0.0
    seconds += spent
    lines.append(_line(one, spent, job.layout.devices))
  lines += [f'{one.step.stage}: {one.fault}' for one in found if one.fault]
  if seconds:
    hours = seconds * job.layout.devices / 3600
    lines += [
      '',
      f'time    about {planner.duration(seconds)} on {devices}, {hours:.2g} '
      'device hours, without compilation, timing runs and the report',
    ]
  return [
    *lines,
    '',
    'memory: of each device, for a shard and the data. flops, bytes: of one '
    'device, each loop counted once:',
    'one chunk, a full batch and the remainder. Gcycles: of each device for a '
    'shard, all epochs.',
    'images/s: one image takes three forward passes.',
  ]


def _line(one: Forecast, seconds: float, devices: int) -> str:
  start = f'{one.step.stage:<24}{one.step.missing:>7}'
  if one.fault:
    return f'{start}{"does not fit":>17}'
  texts = ['-'] * 4
  if seconds:
    texts = [
      f'{one.cycles / 1e9:.2f}',
      f'{one.step.work / planner.FORWARDS / seconds:,.0f}',
      f'{one.step.missing / seconds * 3600:,.0f}',
      f'{seconds * devices / 3600:.2g}',
    ]
  cycles, images, models, hours = texts
  return (
    f'{start}{one.chunk:>7}{terms.readable_bytes(one.memory):>10}'
    f'{f"{one.flops:.1e}" if one.flops else "-":>9}'
    f'{terms.readable_bytes(one.bytes) if one.bytes else "-":>10}'
    f'{cycles:>9}{images:>10}{models:>10}{hours:>10}'
  )
