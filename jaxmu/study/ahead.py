"""Compile the programs of a job before its first stage, several at once.

A compiler works on one core most of the time. The stages would call it one
after the other; here as many programs as there are cores are compiled together.
On two hyperthreads of one core this gains nothing (docs/performance.md).
Programs are lowered by the calling thread, since lowering is Python code.
"""

import concurrent.futures
import functools
from collections.abc import Callable

from jaxmu.population import Layout, Predictor, Trainer
from jaxmu.report import progress
from jaxmu.study import execution, stages, store
from jaxmu.study import job as job_lib

_MOST = 8  # compilers at once; each may take a gigabyte

# Lowers programs, and returns what compiles them.
_Lower = Callable[[], Callable[[], None]]


def compile_programs(
  job: job_lib.Job, bars: progress.Progress
) -> tuple[dict[str, Trainer], dict[Layout, Predictor]]:
  """Compile what the missing models and predictions of a job need.

  A program that cannot be compiled is left to its stage, which compiles it
  again, and then takes a smaller chunk or reports the error.

  Args:
    job: opened and checked.
    bars: where to show progress.

  Returns:
    Trainers by the name of their population, and predictors by their layout.
  """
  trainers: dict[str, Trainer] = {}
  predictors: dict[Layout, Predictor] = {}
  programs = _training(job, trainers) + _prediction(job, predictors)
  if programs:
    with (
      bars.stage('compile', len(programs), unit='programs') as stage,
      concurrent.futures.ThreadPoolExecutor(
        min(execution.cores(), _MOST)
      ) as pool,
    ):
      tasks = [pool.submit(lower()) for lower in programs]
      for _ in concurrent.futures.as_completed(tasks):
        stage.advance(1)  # what a task raises is left to its stage
  return trainers, predictors


def _training(job: job_lib.Job, trainers: dict[str, Trainer]) -> list[_Lower]:
  """Return what lowers the programs of missing models; adds their trainers."""
  shared = job.settings.seed_mode == 'reference'
  found: list[_Lower] = []
  for name, population in job.populations.items():
    if population.checkpoints:
      continue
    for size, shard in _shards_by_size(population, population.models).items():
      if name not in trainers:
        trainers[name] = stages.trainer(job, name)
      positions = population.positions(shard)
      members = stages.select_members(population.members, positions)
      inputs = stages.training_inputs(job, population, members, shared=shared)
      starts = stages.model_shapes(job, size)
      found.append(functools.partial(trainers[name].prepare, *inputs, starts))
  return found


def _prediction(
  job: job_lib.Job, predictors: dict[Layout, Predictor]
) -> list[_Lower]:
  """Return what lowers the programs of missing predictions."""
  kinds = {
    (stages.predictor_of(job, name, predictors), size)
    for name, population in job.populations.items()
    for size in _shards_by_size(population, population.scores)
  }
  return [
    functools.partial(predictor.prepare, stages.model_shapes(job, size))
    for predictor, size in kinds
  ]


def _shards_by_size(
  population: job_lib.Population, shelf: store.Shelf
) -> dict[int, int]:
  """Return a missing shard of each size, by its size."""
  missing = shelf.missing()
  return {len(population.positions(shard)): shard for shard in missing}
