"""Settles how a job uses the machine: asked for, measured or remembered.

1. `config.run.devices` and `config.run.chunk` hold where they are set.
2. What is open is chosen from what probes measured on this machine before, for
   this model, batch size, image shape and precision.
3. `--plan` measures what is not known yet. A job does so by itself only if the
   work left would take five minutes at the high speed of `choice.CEILING`, and
   only while probing stays below 2 % of its estimate.
4. Otherwise: all devices, chunks of 1 on a CPU and of 8 elsewhere.
"""

import dataclasses
import functools
import time
from collections.abc import Callable

import jax

from jaxmu import population
from jaxmu.execution import choice, hardware, memory, remembered
from jaxmu.pipeline import job as job_lib
from jaxmu.pipeline import notes, probe

Tell = Callable[[str], None]


def settle(job: job_lib.Job, work: float, tell: Tell) -> job_lib.Job:
  """Return the job with the layout it is to run with.

  Args:
    job: as opened.
    work: forward passes of one example still to be done in training.
    tell: takes a line about a probe.

  Raises:
    ValueError: every plan that was measured exceeds the memory limit.
  """
  run = job.settings.run
  if not work or (run.devices and run.chunk):
    return job
  known = notes.book(job).read()
  if not allowed(job, known.measured) and _is_large(job, work):
    known = measure_missing(job, tell, work=work)
  measured = allowed(job, known.measured)
  if not measured:
    return job
  best = choice.choose(measured, room(job)).best
  if best is None:
    raise ValueError(too_large(job))
  return dataclasses.replace(job, layout=population.Layout(*best.plan))


def too_large(job: job_lib.Job) -> str:
  """Say that no plan fits, and what helps."""
  run = job.settings.run
  allowance = memory.readable(hardware.limit(1, run.memory))
  return (
    f'a shard of {probe.largest_shard(job)} models does not fit into '
    f'{allowance} under any plan measured; lower config.run.shard '
    f'(= {run.shard}), or allow more with config.run.memory (in GB)'
  )


def measure_missing(
  job: job_lib.Job, tell: Tell, *, work: float | None = None
) -> remembered.Notes:
  """Probe the plans worth knowing that are not known yet.

  Args:
    job: the job.
    tell: takes a line about each.
    work: forward passes of one example to be done, to stop where probing
      costs too large a share of them; None to measure all.
  """
  book = notes.book(job)
  known = book.read()
  begin = time.perf_counter()
  while plan := _next(job, known):
    last = time.perf_counter()
    tell(f'probing {describe(plan)}')
    known = book.add(probe.measure(job, plan))
    now = time.perf_counter()
    best = max(one.images for one in allowed(job, known.measured))
    estimate = (work or 0.0) / max(3 * best, 1.0)
    if work is not None and not choice.may_go_on(
      now - begin, now - last, estimate
    ):
      break
  return known


def _next(job: job_lib.Job, known: remembered.Notes) -> choice.Plan | None:
  return choice.next_plan(
    known.measured,
    devices=job.settings.run.devices,
    chunk=job.settings.run.chunk,
    visible=len(jax.devices()),
    members=probe.largest_shard(job),
    on_cpu=jax.default_backend() == 'cpu',
  )


def allowed(
  job: job_lib.Job, measured: tuple[choice.Measured, ...]
) -> list[choice.Measured]:
  """Return the measurements that agree with the settings and this process."""
  run = job.settings.run
  return [
    one
    for one in measured
    if one.plan.devices <= len(jax.devices())
    and run.devices in (0, one.plan.devices)
    and run.chunk in (0, one.plan.chunk)
  ]


def room(job: job_lib.Job) -> choice.Room:
  """Return what a plan must fit into."""
  return choice.Room(
    members=probe.largest_shard(job),
    shared=memory.size_of(job.task.dataset),
    limit=functools.partial(hardware.limit, gigabytes=job.settings.run.memory),
    margin=memory.margin(jax.default_backend()),
  )


def _is_large(job: job_lib.Job, work: float) -> bool:
  platform = jax.default_backend()
  count = len(jax.devices())
  return choice.is_large(
    work * probe.operations_per_image(job), count, platform
  )


def describe(plan: choice.Plan) -> str:
  """Return a plan in words."""
  devices = '1 device' if plan.devices == 1 else f'{plan.devices} devices'
  return f'{devices}, chunks of {plan.chunk}'
