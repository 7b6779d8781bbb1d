"""All stages of a job in order, each skipped where its output exists.

Finds out before training what would fail after it.

Every method's program is traced for one member, which takes a second or two and
no memory, and the room on the disk is compared with what will be written.
"""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from jaxmu import files, population
from jaxmu.draws import Draws
from jaxmu.report import paper_table, progress, tables
from jaxmu.study import job as job_lib
from jaxmu.study import planner, publish
from jaxmu.study import stages as stages_lib
from jaxmu.study.settings import Settings
from jaxmu.types import Problem, Split


def run(settings: Settings, command: str = '') -> job_lib.Job:
  """Run a job from splits to report.

  Args:
    settings: checked settings.
    command: what the user typed, for the report.

  Returns:
    The job, whose folder holds results.csv, report.html and the models.

  Raises:
    ValueError: something is wrong that can be known before training.
  """
  folder = pathlib.Path(settings.workdir).expanduser()
  with files.hold_workdir(folder), progress.Progress() as bars:
    job = job_lib.open_job(settings)
    stages = planner.plan_steps(job)
    check_job(job, stages)
    job = planner.choose_plan(job, planner.training_work(stages), bars.line)
    fresh = any(step.missing for step in stages)
    for name, people in job.populations.items():
      # Models that exist cost nothing here: programs are compiled when needed.
      layout = stages_lib.stage_layout(job, f'train {name}')
      trainer = population.Trainer(people.method, job.task, layout)
      stages_lib.train(job, name, trainer, bars)
      stages_lib.write_curves(
        job
      )  # to be looked at while the rest is still running
      stages_lib.measure_time(job, name, trainer, bars)
    for remark in stages_lib.curve_warnings(job):
      bars.line(remark)
    predictors: dict[population.Layout, population.Predictor] = {}
    for name in job.populations:
      stages_lib.predict(job, name, bars, predictors)
    if publish.is_current(job):
      bars.line('report: up to date' + ('' if fresh else ', nothing redone'))
    else:
      bars.line('report: evaluating and drawing')
      publish.publish(job, command)
  if len(job.unlearned) > 1:
    paper_table.show(publish.paper_results(job))
  else:
    tables.show_table(
      tables.headline(publish.report_rows(job), publish.plug_in_numbers(job)),
      failed=publish.report_shelf(job).info()['failed'],
      missing=publish.report_missing(job),
    )
  print(
    f'\n{job.folder / "report.html"} explains these and all other numbers; '
    'they are in results.csv beside it.'
  )
  return job


def check_job(job: job_lib.Job, stages: list[planner.Step]) -> None:
  """Refuse a job that cannot come to its end.

  Raises:
    ValueError: a model does not fit a method, or the disk is too small.
  """
  for people in job.populations.values():
    _trace(job, people)
  files.check_space(job.folder, planner.bytes_to_write(stages))


def _trace(job: job_lib.Job, people: job_lib.Population) -> None:
  """Trace a member's program without running it, to find what does not fit.

  Raises:
    ValueError: from the method or the model, with the population's name.
  """
  one = stages_lib.select_members(people.members, np.zeros(1, np.int32))
  split = jax.tree.map(lambda x: x[0], job_lib.index_sets(job.design, one))
  shapes = stages_lib.one_model_shapes(job)
  method = people.method

  def member(hparams, key, split, original):
    problem = Problem(job.task, split, original)
    state = method.init(hparams, Draws(key).at('init'), problem)
    draws = Draws(key).at('epoch', jnp.int32(0))
    method.epoch(hparams, draws, problem, state, jnp.int32(0))

  try:
    hparams = stages_lib.counted_hparams(
      job, people, job_lib.hyper_parameters(people)
    )
    jax.eval_shape(member, hparams, job.root, Split(*_leaves(split)), shapes)
  except ValueError as error:
    raise ValueError(f'{people.name}: {error}') from error


def _leaves(split: Split) -> tuple[jax.Array, ...]:
  return tuple(jnp.asarray(x) for x in (split.retain, split.forget, split.val))
