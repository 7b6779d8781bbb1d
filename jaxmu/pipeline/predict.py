"""The prediction stage: log-odds of every example under every model."""

import functools

import numpy as np

from jaxmu import population, prediction
from jaxmu.execution import fallback
from jaxmu.pipeline import job as job_lib
from jaxmu.pipeline import notes, train
from jaxmu.report import progress


def predict(
  job: job_lib.Job,
  name: str,
  bars: progress.Progress,
  predictors: dict[population.Layout, prediction.Predictor] | None = None,
) -> None:
  """Score all examples with the missing shards of a population.

  Args:
    job: the job.
    name: which of its populations.
    bars: where to show progress.
    predictors: the compiled programs so far, to which a new one is added; all
      populations of a layout share one.
  """
  people = job.populations[name]
  missing = people.scores.missing(verify=job.settings.run.verify)
  if not missing:
    bars.line(f'{name}: predictions found')
    return
  label = f'predict {name}'
  predictors = {} if predictors is None else predictors
  layout = notes.layout_of(job, label)
  if layout not in predictors:
    predictors[layout] = prediction.Predictor(job.task, layout)
  predictor = predictors[layout]
  count = sum(len(people.positions(n)) for n in missing)
  with bars.stage(label, count, unit='models') as stage:
    for shard in missing:
      positions = people.positions(shard)
      variables = people.models.models(shard, train.shapes(job, len(positions)))
      found = fallback.attempt(
        functools.partial(predictor.run, variables),
        predictor,
        on_smaller=notes.on_smaller(job, label, bars),
      )
      people.scores.save(shard, arrays=found._asdict())
      stage.advance(len(positions))


def read(people: job_lib.Population) -> prediction.Predictions:
  """Read the predictions of a whole population."""
  fields = prediction.Predictions._fields
  arrays = {field: people.scores.arrays(field) for field in fields}
  return prediction.Predictions(
    log_odds=np.asarray(arrays['log_odds']),
    correct=np.asarray(arrays['correct']),
    finite=np.asarray(arrays['finite']),
  )
