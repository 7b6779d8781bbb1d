"""What is remembered of a job's model on this machine, and what it is used for.

The notes lie in the cache folder of data sets, so that work directories share
them.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

from jaxmu import __version__, population
from jaxmu.data import cache
from jaxmu.execution import hardware, remembered
from jaxmu.pipeline import job as job_lib
from jaxmu.pipeline import provenance
from jaxmu.report import progress


def book(job: job_lib.Job) -> remembered.Book:
  """Open the notes on this model and this machine."""
  return remembered.Book(cache.default_dir(), facts(job))


def facts(job: job_lib.Job) -> dict[str, Any]:
  """Return everything a measurement depends on."""
  machine = provenance.hardware()
  versions = provenance.versions()
  return {
    'model': job.settings.model,
    'options': job.settings.all_model_options,
    'precision': job.settings.precision,
    'classes': job.source.num_classes,
    'image': list(job.task.dataset.image.shape[1:]),
    'transform': dataclasses.asdict(job.task.transform),
    'batch_size': job.settings.train['batch_size'],
    'hardware': {k: machine[k] for k in ('backend', 'device', 'processor')},
    'cores': hardware.cores(),
    'jax': [versions['jax'], versions['jaxlib']],
    'jaxmu': __version__,
  }


def layout_of(job: job_lib.Job, stage: str) -> population.Layout:
  """Return the layout of a stage, with chunks that fitted into memory before.

  Args:
    job: the job.
    stage: e.g. 'train scrub'.
  """
  if job.layout.chunk == 1 or job.settings.run.chunk:
    return job.layout
  most = book(job).read().most_chunk.get(stage, job.layout.chunk)
  return dataclasses.replace(job.layout, chunk=min(job.layout.chunk, most))


def on_smaller(
  job: job_lib.Job, stage: str, bars: progress.Progress
) -> Callable[[int], None]:
  """Return what is to be done when a stage runs out of memory.

  It says so beside the progress and remembers the chunk that is left.
  """

  def act(chunk: int) -> None:
    bars.line(f'{stage}: memory ran out; again in chunks of {chunk}')
    book(job).ran_out(stage, chunk)

  return act
