"""All stages of a job in order, each skipped where its output exists."""

import pathlib

from jaxmu import population, prediction, training
from jaxmu.pipeline import (
  check,
  curve,
  notes,
  plan,
  predict,
  publish,
  settle,
  timing,
  train,
  workdir,
)
from jaxmu.pipeline import job as job_lib
from jaxmu.pipeline.settings import Settings
from jaxmu.report import paper_table, progress, table


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
  with workdir.held(folder), progress.Progress() as bars:
    job = job_lib.open_job(settings)
    stages = plan.steps(job)
    check.check(job, stages)
    job = settle.settle(job, plan.training_work(stages), bars.line)
    fresh = any(step.missing for step in stages)
    for name, people in job.populations.items():
      # Models that exist cost nothing here: programs are compiled when needed.
      layout = notes.layout_of(job, f'train {name}')
      trainer = training.Trainer(people.method, job.task, layout)
      train.train(job, name, trainer, bars)
      curve.write(job)  # to be looked at while the rest is still running
      timing.measure(job, name, trainer, bars)
    for remark in curve.remarks(job):
      bars.line(remark)
    predictors: dict[population.Layout, prediction.Predictor] = {}
    for name in job.populations:
      predict.predict(job, name, bars, predictors)
    if publish.is_current(job):
      bars.line('report: up to date' + ('' if fresh else ', nothing redone'))
    else:
      bars.line('report: evaluating and drawing')
      publish.publish(job, command)
  if len(job.unlearned) > 1:
    paper_table.show(publish.paper_results(job))
  else:
    table.show(
      table.headline(publish.rows(job)),
      failed=publish.shelf(job).info()['failed'],
    )
  print(
    f'\n{job.folder / "report.html"} explains these and all other numbers; '
    'they are in results.csv beside it.'
  )
  return job
