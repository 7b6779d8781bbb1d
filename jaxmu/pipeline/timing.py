"""The timing stage: how long one member takes, compilation apart.

A population run says nothing about the run time of a method, since many models
share the machine. Here one member runs alone on one device, first with a cold
start, then warm several times; surgery and all epochs are in the clock, data
are already on the device. The clock stops when the result is there.
"""

import dataclasses
import time
from typing import Any

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


def measure(job: job_lib.Job, name: str, bars: progress.Progress) -> None:
  """Time one member of a population, unless that was done before."""
  place = shelf(job, name)
  if not place.missing():
    bars.line(f'{name}: run time found')
    return
  repeats = job.settings.timing.repeats
  with bars.stage(f'time {name}', repeats + 1, unit='runs') as stage:
    run = _single_run(job, name)
    seconds = []
    for _ in range(repeats + 1):
      begin = time.perf_counter()
      jax.block_until_ready(run())
      seconds.append(time.perf_counter() - begin)
      stage.advance(1)
  place.save(0, info={'cold_seconds': seconds[0], 'warm_seconds': seconds[1:]})


def _single_run(job: job_lib.Job, name: str) -> Any:
  people = job.populations[name]
  one = train.select(people.members, np.zeros(1, np.int32))
  layout = population.Layout(devices=1, chunk=1)
  trainer = training.Trainer(people.method, job.task, layout)
  start = train.starting_models(job, people, one)
  hparams = [job_lib.hyper_parameters(people)]
  keys = roster.draw_keys(job.root, name, one, shared=False)
  sets = roster.index_sets(job.design, one)
  return lambda: trainer.run(hparams, keys, sets, start).variables


def warm_seconds(job: job_lib.Job, name: str) -> float:
  """Return the median of the warm runs, in seconds."""
  return float(np.median(shelf(job, name).info()['warm_seconds']))


def cold_seconds(job: job_lib.Job, name: str) -> float:
  """Return the time of the first run, compilation included, in seconds."""
  return float(shelf(job, name).info()['cold_seconds'])
