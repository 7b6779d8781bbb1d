"""The timing stage: how long one member takes, compilation apart.

A population run says nothing about the run time of a method, since many models
share the machine. Here one member runs alone on one device, several times, in
the program that trained the population; surgery and all epochs are in the
clock, data are already on the device. The clock stops when the result is there.
"""

import dataclasses
import time

import jax
import numpy as np

from jaxmu import population, training
from jaxmu.pipeline import digest, roster, store, train
from jaxmu.pipeline import job as job_lib
from jaxmu.report import progress


def shelf(job: job_lib.Job, name: str) -> store.Shelf:
  """Return where the times of a population lie."""
  address = digest.digest(
    'timing',
    job_lib.VERSION['timing'],
    job.populations[name].digest,
    dataclasses.asdict(job.settings.timing),
    jax.devices()[0].device_kind,
  )
  return job.shelf('timing', name, address)


def measure(
  job: job_lib.Job,
  name: str,
  trainer: training.Trainer,
  bars: progress.Progress,
) -> None:
  """Time one member of a population, unless that was done before.

  Args:
    job: the job.
    name: which population.
    trainer: that of the population; compiles only what is new to it.
    bars: where to show progress.
  """
  place = shelf(job, name)
  if not place.missing():
    bars.line(f'{name}: run time found')
    return
  repeats = job.settings.timing.repeats
  with bars.stage(f'time {name}', repeats + 1, unit='runs') as stage:
    trainer, loaded, only = _load(job, name, trainer)
    seconds = []
    for _ in range(repeats + 1):
      begin = time.perf_counter()
      jax.block_until_ready(trainer.train(loaded, only=only).variables)
      seconds.append(time.perf_counter() - begin)
      stage.advance(1)
  # The first run warms caches; it is not counted.
  place.save(
    0,
    info={
      'warm_seconds': seconds[1:],
      'compile_seconds': trainer.compile_seconds,
    },
  )


def _load(
  job: job_lib.Job, name: str, trainer: training.Trainer
) -> tuple[training.Trainer, training.Loaded, int | None]:
  people = job.populations[name]
  # A program of its own where members are vmapped; else one of a shard, so
  # that the shard's program serves.
  alone = trainer.layout.chunk > 1
  if alone:
    trainer = training.Trainer(people.method, job.task, population.Layout(1, 1))
  positions = np.zeros(1, np.int32) if alone else people.positions(0)
  members = train.select(people.members, positions)
  loaded = trainer.load(
    [job_lib.hyper_parameters(people)] * members.size,
    roster.draw_keys(job.root, name, members, shared=False),
    roster.index_sets(job.design, members),
    train.starting_models(job, people, members),
  )
  return trainer, loaded, None if alone else 0


def warm_seconds(job: job_lib.Job, name: str) -> float:
  """Return the median of the warm runs, in seconds."""
  return float(np.median(shelf(job, name).info()['warm_seconds']))


def cold_seconds(job: job_lib.Job, name: str) -> float:
  """Return the time of a run including compilation, in seconds."""
  info = shelf(job, name).info()
  return warm_seconds(job, name) + float(info['compile_seconds'])
