"""Run all stages of a job in order; skip those whose output exists.

Problems that would appear after training are detected before it: the program of
every method is traced for one member, which takes a second or two and no
memory; the first file of the originals is read; and the free space on the disk
is compared with the expected output.
"""

from collections.abc import Collection

import jax
import jax.numpy as jnp
import numpy as np

from jaxmu import files, methods, platforms
from jaxmu import population as population_lib
from jaxmu.draws import Draws
from jaxmu.report import progress, tables
from jaxmu.study import job as job_lib
from jaxmu.study import (
  originals,
  planner,
  publish,
  sharing,
  stages,
  store,
)
from jaxmu.study.settings import Settings
from jaxmu.types import Problem, Split


def run(settings: Settings, command: str = '') -> job_lib.Job:
  """Run a job from splits to report.

  Args:
    settings: checked settings.
    command: the command line of the user, for the report.

  Returns:
    The job, whose folder holds results.csv, report.html and the models.

  Raises:
    ValueError: the job cannot be completed, or would replace the report of
      another method; raised before training.
  """
  folder = files.workdir(settings.workdir)
  with store.hold_workdir(folder), progress.Progress() as bars:
    job = job_lib.open_job(settings)
    publish.check_report(job)
    unused = platforms.unused_accelerator()
    if unused:
      bars.line(unused)
    sharing.adopt(job, bars.line)
    steps = planner.plan_steps(job)
    check_job(job, steps)
    job = planner.choose_plan(job, planner.training_work(steps), bars.line)
    train_and_predict(job, bars)
    if publish.is_current(job):
      fresh = any(step.missing for step in steps)
      bars.line('report: up to date' + ('' if fresh else ', nothing redone'))
    else:
      bars.line('report: evaluating and drawing')
      publish.publish(job, command)
  if len(job.unlearned) > 1:
    tables.show_paper_table(publish.paper_results(job))
  else:
    tables.show_table(
      tables.headline(publish.report_rows(job), publish.plug_in_numbers(job)),
      failed=publish.report_shelf(job).info()['failed'],
      missing=publish.report_missing(job),
    )
  print(
    f'\n{files.shown(job.folder / "report.html")} explains these and all other '
    'numbers; they are in results.csv beside it.'
  )
  return job


def train_and_predict(
  job: job_lib.Job, bars: progress.Progress, *, timed: bool = True
) -> None:
  """Run all stages except the report.

  Args:
    job: opened and checked; its work directory must be held.
    bars: where to show progress.
    timed: whether to measure run times.
  """
  predictors: dict[population_lib.Layout, population_lib.Predictor] = {}
  for name in job.populations:
    # A trainer is not kept. Its programs take memory, and thousands of the
    # 65,530 memory maps that Linux gives a process.
    train(job, name, stages.trainer(job, name), bars, timed=timed)
  for warning in stages.curve_warnings(job):
    bars.line(warning)
  for name in job.populations:
    stages.predict(job, name, bars, predictors)
  if job.populations['original'].checkpoints:
    bars.line(stages.checkpoints_line(job))


def train(
  job: job_lib.Job,
  name: str,
  trainer: population_lib.Trainer,
  bars: progress.Progress,
  shards: Collection[int] | None = None,
  *,
  timed: bool = True,
) -> None:
  """Train and time one population; those it starts from are in the store.

  Args:
    job: opened and checked; its work directory must be held.
    name: which of its populations.
    trainer: for the population's method.
    bars: where to show progress.
    shards: which of the missing shards; None for all.
    timed: whether to measure the run time.
  """
  stages.train(job, name, trainer, bars, shards)
  stages.write_curves(job)  # readable while the remaining stages run
  if timed:
    stages.measure_time(job, name, trainer, bars)


def check_job(job: job_lib.Job, steps: list[planner.Step]) -> None:
  """Check that a job can be completed.

  Raises:
    ValueError: a model does not fit a method, a checkpoint does not fit the
      model, or the disk is too small.
  """
  for name in job.populations:
    check_population(job, name)
  store.check_space(job.folder, planner.bytes_to_write(steps))


def check_population(job: job_lib.Job, name: str) -> None:
  """Check that the models of a population can be trained or read.

  Raises:
    ValueError: a model does not fit the method, or a checkpoint the model.
  """
  population = job.populations[name]
  if population.checkpoints:
    _read_first(job, population)
  else:
    _trace(job, population)


def _read_first(job: job_lib.Job, population: job_lib.Population) -> None:
  """Read a checkpoint; the others are read before anything is trained."""
  like = stages.one_model_shapes(job)
  originals.read(job.task.model, population.checkpoints[:1], like)


def _trace(job: job_lib.Job, population: job_lib.Population) -> None:
  """Trace the program of a member without running it.

  Raises:
    ValueError: from the method or the model, with the population's name; or
      whatever a plug-in raises, with its place.
  """
  one = stages.select_members(population.members, np.zeros(1, np.int32))
  split = jax.tree.map(lambda x: x[0], job_lib.index_sets(job.design, one))
  shapes = stages.one_model_shapes(job)
  method = population.method

  def member(hparams, key, split, original):
    problem = Problem(job.task, split, original)
    state = method.init(hparams, Draws(key).at('init'), problem)
    draws = Draws(key).at('epoch', jnp.int32(0))
    state, _ = method.epoch(hparams, draws, problem, state, jnp.int32(0))
    method.finish(hparams, state)

  try:
    with methods.naming(method):
      hparams = stages.counted_hparams(
        job, population, job_lib.hyper_parameters(population)
      )
      split = Split(*map(jnp.asarray, (split.retain, split.forget, split.val)))
      jax.eval_shape(member, hparams, job.root, split, shapes)
  except ValueError as error:
    raise ValueError(f'{population.name}: {error}') from error
