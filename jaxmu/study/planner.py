"""Choose the devices and the chunk of a job, and describe its cost.

1. `config.run.devices` and `config.run.chunk` apply where they are set.
2. Otherwise the choice follows from earlier probes on this machine, for this
   model, batch size, image shape and precision.
3. `--plan` measures what is not known yet. A job does so by itself only if the
   remaining work would take five minutes at the high speed of
   `execution.CEILING`, and only while probing stays below 2% of its estimate.
4. Otherwise: all devices, chunks of 1 on a CPU or a TPU and of 8 on a GPU.

A probe runs a few training steps of the job's own model under one plan. An
estimate of time is the counted work divided by the speed of the chosen plan,
plus the time that the probe took to compile, per program.
"""

import dataclasses
import functools
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import numpy as np

from jaxmu import files, methods, platforms, terms
from jaxmu import hparams as hp
from jaxmu.population import Layout, Loaded, Trainer
from jaxmu.study import execution, sharing, stages
from jaxmu.study import job as job_lib
from jaxmu.types import Split

Tell = Callable[[str], None]


def choose_plan(
  job: job_lib.Job, work: float, tell: Tell, *, probe: bool = True
) -> job_lib.Job:
  """Return the job with its layout.

  Args:
    job: as opened.
    work: forward passes of one example still to be done in training.
    tell: receives a line about each probe, and one if the plan follows from a
      stale measurement.
    probe: measure plans where the work is large and nothing is known.

  Raises:
    ValueError: every plan that was measured exceeds the memory limit.
  """
  run = job.settings.run
  if not work or (run.devices and run.chunk):
    return job
  known = stages.measurement_cache(job).read()
  unknown = probe and not allowed_plans(job, known.measured)
  if unknown and _is_large(job, work):
    known = probe_missing(job, tell, work=work)
  measured = allowed_plans(job, known.measured)
  if not measured:
    return job
  best = execution.choose_fastest(measured, memory_budget(job)).best
  if best is None:
    raise ValueError(does_not_fit(job))
  fault = best.fault(time.time())
  if fault:
    tell(
      f'plan: {describe_plan(best.plan)}, by a measurement of {best.day()} '
      f'({fault}); --plan measures again'
    )
  return dataclasses.replace(job, layout=Layout(*best.plan))


def does_not_fit(job: job_lib.Job) -> str:
  """Return the message that no plan fits."""
  run = job.settings.run
  allowance = terms.readable_bytes(execution.memory_limit(1, run.memory))
  return (
    f'a shard of {terms.count(largest_shard(job), "model")} does not fit into '
    f'{allowance} under any plan measured; lower config.run.shard '
    f'(= {run.shard}), or allow more with config.run.memory (in GB)'
  )


def probe_missing(
  job: job_lib.Job, tell: Tell, *, work: float | None = None
) -> execution.Measurements:
  """Probe the relevant plans that are not known yet, or only by stale probes.

  Args:
    job: the job.
    tell: receives a line about each probe.
    work: forward passes of one example to be done, so that probing stops when
      it takes too large a share of the job; None to measure all plans.
  """
  cache = stages.measurement_cache(job)
  known = cache.read()
  now = time.time()
  known = cache.drop(one for one in known.measured if one.fault(now))
  begin = time.perf_counter()
  if work is None and _next(job, known):
    tell('measuring a few steps under each plan; --quick leaves this out')
  while plan := _next(job, known):
    last = time.perf_counter()
    tell(f'probing {describe_plan(plan)}')
    known = cache.add(run_probe(job, plan))
    now = time.perf_counter()
    best = max(one.images for one in allowed_plans(job, known.measured))
    estimate = (work or 0.0) / max(3 * best, 1.0)
    if work is not None and not execution.may_go_on(
      now - begin, now - last, estimate
    ):
      break
  return known


def _next(
  job: job_lib.Job, known: execution.Measurements
) -> execution.Plan | None:
  return execution.next_plan(
    known.measured,
    devices=job.settings.run.devices,
    chunk=job.settings.run.chunk,
    visible=len(platforms.local_devices()),
    members=largest_shard(job),
    on_cpu=platforms.is_cpu(),
  )


def allowed_plans(
  job: job_lib.Job, measured: tuple[execution.Measured, ...]
) -> list[execution.Measured]:
  """Return the measurements that agree with the settings and this process."""
  run = job.settings.run
  return [
    one
    for one in measured
    if one.plan.devices <= len(platforms.local_devices())
    and run.devices in (0, one.plan.devices)
    and run.chunk in (0, one.plan.chunk)
  ]


def memory_budget(job: job_lib.Job) -> execution.Budget:
  """Return what a plan must fit into."""
  return execution.Budget(
    members=largest_shard(job),
    shared=functools.partial(execution.shared_bytes, dataset=job.task.dataset),
    limit=functools.partial(
      execution.memory_limit, gigabytes=job.settings.run.memory
    ),
    margin=execution.memory_margin(platforms.name()),
  )


def _is_large(job: job_lib.Job, work: float) -> bool:
  platform = platforms.name()
  count = len(platforms.local_devices())
  return execution.is_large(work * operations_per_image(job), count, platform)


def describe_plan(plan: execution.Plan) -> str:
  """Return a plan as text."""
  devices = '1 device' if plan.devices == 1 else f'{plan.devices} devices'
  return f'{devices}, chunks of {plan.chunk}'


def largest_shard(job: job_lib.Job) -> int:
  """Return how many models of a population are held at once."""
  largest = max(p.members.size for p in job.populations.values())
  return min(job.settings.run.shard, largest)


def operations_per_image(job: job_lib.Job) -> float:
  """Return the operations of one forward pass, without compiling it."""
  shape = job.task.dataset.image_shape
  image = jax.ShapeDtypeStruct((1, *shape), np.float32)
  one = stages.one_model_shapes(job)
  apply = jax.jit(lambda v, x: job.task.model.apply(v, x, train=False))
  cost = apply.lower(one, image).cost_analysis() or {}
  return float(cost.get('flops', 0.0))


_STEPS = {'cpu': 4}  # of an epoch; where steps are short, more are needed
_MORE_STEPS = 16
_EPOCHS = 4  # the first, which warms up, does not count


def run_probe(job: job_lib.Job, plan: execution.Plan) -> execution.Measured:
  """Train a few steps under a plan.

  Args:
    job: gives model, images, batch size and hyper-parameters.
    plan: the plan to measure.

  Returns:
    The median speed of a few epochs, and the memory of their program; a speed
    of 0 if memory ran out.
  """
  try:
    return _run_probe(job, plan)
  except Exception as error:
    if not execution.ran_out(error):
      raise
  return execution.Measured(
    plan,
    0.0,
    0.0,
    execution.MemoryEstimate(0.0, 0.0, 0.0),
    0,
    execution.Conditions(time.time(), 0.0, 0.0),
  )


def _run_probe(job: job_lib.Job, plan: execution.Plan) -> execution.Measured:
  layout = Layout(plan.devices, plan.chunk)
  trainer = Trainer(methods.get('retrain'), job.task, layout)
  loaded, images = _load_probe(job, trainer)
  load, times = execution.Load(), [time.perf_counter()]
  trainer.train(loaded, on_epoch=lambda _: times.append(time.perf_counter()))
  others, epochs = load.others(), np.diff(times)[1:]
  middle = float(np.median(epochs))
  resident = execution.bytes_of(loaded.members) / plan.devices
  members = len(loaded.epochs) // plan.devices
  return execution.Measured(
    plan=plan,
    images=images / middle,
    compile_seconds=trainer.compile_seconds,
    need=execution.estimate_memory(loaded.epoch, resident, members, plan.chunk),
    peak=execution.peak_memory(),
    made=execution.Conditions(
      time.time(), others, float(np.ptp(epochs)) / middle
    ),
  )


def _load_probe(job: job_lib.Job, trainer: Trainer) -> tuple[Loaded, int]:
  """Load two chunks per device, or one if it holds a whole shard.

  Returns:
    The population and the images that one of its epochs trains on.
  """
  width = trainer.layout.width
  size = width * min(2, -(-largest_shard(job) // width))
  batch = job.settings.train['batch_size']
  count = batch * _STEPS.get(platforms.name(), _MORE_STEPS)
  seeds = job.settings.splits.seeds
  everyone = job_lib.members_per_forget_set(job.design, seeds)
  members = stages.select_members(everyone, np.zeros(size, np.int32))
  index = np.tile(np.resize(job.design.retain[0], count), (size, 1))
  one = np.tile(job.design.val[:1], (size, 1))
  train = {**job.settings.train, 'num_epochs': _EPOCHS}
  hparams = hp.from_config(trainer.method.Hparams, train)
  loaded = trainer.load(
    [hparams] * size,
    job_lib.draw_keys(job.root, 'probe', members, False),
    Split(index, one, one),
    stages.fresh_models(job, members),
  )
  return loaded, size * count


SCORE_BYTES = 6  # of a prediction: log-odds in float32, two flags
FORWARDS = 3  # forward passes of one image that a training step takes


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


# Models that other jobs have finished, by stage and population; see
# `sharing.counts`.
Shared = Mapping[tuple[str, str], int]


def plan_steps(job: job_lib.Job, shared: Shared | None = None) -> list[Step]:
  """Return the stages of a job in order; reads the store, changes nothing.

  Args:
    job: the job.
    shared: models that it takes from other jobs.
  """
  verify = job.settings.run.verify
  examples = len(job.source.label)
  shared = shared or {}
  steps = training_steps(job, shared)
  for name, population in job.populations.items():
    left = population.count(population.scores.missing(verify=verify))
    left -= shared.get(('scores', name), 0)
    work, disk = left * examples, left * examples * SCORE_BYTES
    steps.append(
      Step(f'predict {name}', population.members.size, left, work, disk)
    )
  for name in job.populations:
    if not stages.is_timed(job, name):
      continue
    left = len(stages.timing_shelf(job, name).missing())
    left -= shared.get(('timing', name), 0)
    # One member runs on one device while the others wait.
    runs = left * (job.settings.timing.repeats + 1) * job.layout.devices
    steps.append(
      Step(f'time {name}', 1, left, runs * job.counted_cost(name), 0)
    )
  return steps


def training_steps(
  job: job_lib.Job, shared: Shared | None = None
) -> list[Step]:
  """Return the stages that train the models of a job, or read them.

  Args:
    job: the job.
    shared: as for `plan_steps`.
  """
  verify = job.settings.run.verify
  model = stages.bytes_per_model(job)
  steps = []
  for name, population in job.populations.items():
    left = population.count(population.models.missing(verify=verify))
    left -= (shared or {}).get(('models', name), 0)
    size = population.members.size
    stage, work = f'train {name}', left * job.counted_cost(name)
    if population.checkpoints:
      stage, work = f'read {name}', 0.0
    steps.append(Step(stage, size, left, work, left * model))
  return steps


def bytes_to_write(steps: list[Step]) -> int:
  """Return the bytes that the missing stages will write."""
  return sum(step.disk for step in steps)


def training_work(steps: list[Step]) -> float:
  """Return the forward passes of one example still to be done in training."""
  return sum(step.work for step in steps if step.stage.startswith('train '))


def plan_text(
  job: job_lib.Job, tell: Tell = lambda line: None, *, quick: bool = False
) -> str:
  """Measure the unknown plans, and describe the plan of the job with totals.

  Args:
    job: the job.
    tell: receives a line about each probe.
    quick: measure nothing; times and memory are those of earlier measurements,
      if there are any.
  """
  if quick:
    known = stages.measurement_cache(job).read()
  else:
    known = probe_missing(job, tell)
  measured = allowed_plans(job, known.measured)
  budget = memory_budget(job)
  if not measured and quick:
    return '\n'.join(_step_lines(job, None, budget))
  chosen = execution.choose_fastest(measured, budget)
  if chosen.best is None:
    raise ValueError(does_not_fit(job))
  layout = Layout(*chosen.best.plan)
  job = dataclasses.replace(job, layout=layout)
  return '\n'.join(
    [
      *_plans(measured, chosen, budget),
      *_limits(job, known),
      '',
      *_step_lines(job, chosen.best, budget),
    ]
  )


def _plans(
  measured: list[execution.Measured],
  chosen: execution.Choice,
  budget: execution.Budget,
) -> list[str]:
  """Describe the plans that were tried, one per line."""
  lines = [
    f'{"devices":>7}{"chunk":>7}{"images/s":>10}{"compile":>9}'
    f'{"memory/model":>14}{"of a shard":>12}{"measured":>12}'
  ]
  now = time.time()
  for one, why in zip(measured, chosen.why, strict=True):
    total = one.plan.devices * execution.bytes_per_device(one, budget)
    each = one.need.resident + one.need.copied
    lines.append(
      f'{one.plan.devices:>7}{one.plan.chunk:>7}{one.images:>10,.0f}'
      f'{duration(one.compile_seconds):>9}{terms.readable_bytes(each):>14}'
      f'{terms.readable_bytes(total):>12}{one.day():>12}  {why}'
      + (f'; peak {terms.readable_bytes(one.peak)}' if one.peak else '')
      + (f'; {fault}' if (fault := one.fault(now)) else '')
    )
  return lines


def _limits(job: job_lib.Job, known: execution.Measurements) -> list[str]:
  """Describe what limits the choice."""
  run, budget = job.settings.run, memory_budget(job)
  limit = budget.limit(1)
  lines = [
    f'limit   {terms.readable_bytes(limit)} '
    + ('from config.run.memory' if run.memory else 'from the machine')
    + f', for a shard of {terms.count(budget.members, "model")} '
    '(config.run.shard)'
  ]
  fixed = [
    f'config.run.{name} = {value}'
    for name, value in (('devices', run.devices), ('chunk', run.chunk))
    if value
  ]
  if fixed:
    lines.append(f'fixed   {", ".join(fixed)}')
  lines += [
    f'before  {stage}: memory ran out, so chunks of {chunk} are used'
    for stage, chunk in sorted(known.most_chunk.items())
  ]
  return lines


def _step_lines(
  job: job_lib.Job, best: execution.Measured | None, budget: execution.Budget
) -> list[str]:
  """Describe the stages, one per line, and the totals."""
  lines = [
    f'{"stage":<24}{"models":>8}{"cached":>8}{"to do":>8}{"time":>12}'
    f'{"disk":>12}'
  ]
  total = 0.0
  steps = plan_steps(job, sharing.counts(job))
  for step in steps:
    seconds = 0.0
    if best and step.missing:
      seconds = step.work / (FORWARDS * best.images) + best.compile_seconds
    total += seconds
    lines.append(
      f'{step.stage:<24}{step.models:>8}{step.models - step.missing:>8}'
      f'{step.missing:>8}{duration(seconds) if best else "?":>12}'
      f'{terms.readable_bytes(step.disk):>12}'
    )
  totals = ['time    not measured on this machine; leave out --quick']
  if best:
    needed = best.plan.devices * execution.bytes_per_device(best, budget)
    totals = [
      f'time    about {duration(total)} on {describe_plan(best.plan)}, '
      'compilation included',
      f'memory  about {terms.readable_bytes(needed)} for a shard of '
      f'{budget.members} models and the data',
    ]
  return [
    *lines,
    '',
    *totals,
    f'disk    {terms.readable_bytes(bytes_to_write(steps))} to write in '
    f'{files.shown(job.folder)}',
  ]


def images_per_second(job: job_lib.Job) -> float:
  """Return the training speed of the job's layout on this machine.

  Returns:
    Images per second; 0 if the layout has not been measured.
  """
  known = stages.measurement_cache(job).read()
  chosen = execution.Plan(job.layout.devices, job.layout.chunk)
  return max(
    (one.images for one in known.measured if one.plan == chosen), default=0.0
  )


def duration(seconds: float) -> str:
  """Return a duration as text."""
  if seconds < 90:
    return f'{seconds:.0f} s'
  if seconds < 5400:
    return f'{seconds / 60:.0f} min'
  return f'{seconds / 3600:.1f} h'
