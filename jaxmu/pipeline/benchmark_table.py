"""The benchmark's table of a job: what it shows and where it lies."""

import numpy as np

from jaxmu.metrics import retention, runtime
from jaxmu.pipeline import evaluate, timing
from jaxmu.pipeline import job as job_lib
from jaxmu.report import names, paper_table

FILE = 'paper_table.md'
_KEPT = ('per_seed', 'floor', 'failed')


def results(
  job: job_lib.Job, found: evaluate.Evaluation
) -> paper_table.Results:
  """Return what the table of a job shows, run times included."""
  per_seed = {
    name: {
      metric: np.asarray(values)
      for metric, values in {**metrics, 'rte': _speed_ups(job, name)}.items()
      if metric in paper_table.COLUMNS
    }
    for name, metrics in found.per_cluster.items()
  }
  failed = {name: count for name, count in found.failed.items() if count[0]}
  one_split = len(np.unique(job.design.pair)) == 1
  floor = noise_floor(per_seed[names.REFERENCE]) if one_split else {}
  return paper_table.Results(per_seed, floor, failed)


def noise_floor(retrained: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Compare each retrained model with that of the next seed, in a circle.

  Args:
    retrained: 'ra', 'fa' and 'ta' of the retrained models, f64[S].

  Returns:
    'rr', 'fr', 'tr' and 'ret_dev', f64[S]; nothing for a single seed.
  """
  ra, fa, ta = (retrained[name] for name in ('ra', 'fa', 'ta'))
  if len(ra) < 2:
    return {}
  kept = retention.retention(
    (ra, fa, ta), (np.roll(ra, -1), np.roll(fa, -1), np.roll(ta, -1))
  )
  return dict(
    rr=kept.retain, fr=kept.forget, tr=kept.test, ret_dev=kept.deviation
  )


def pack(table: paper_table.Results) -> dict:
  """Return a table as what JSON can hold."""

  def lists(values):
    return {metric: np.asarray(v).tolist() for metric, v in values.items()}

  per_seed = {name: lists(values) for name, values in table.per_seed.items()}
  return dict(
    per_seed=per_seed, floor=lists(table.floor), failed=dict(table.failed)
  )


def unpack(packed: dict) -> paper_table.Results:
  """Return the table that `pack` packed."""
  return paper_table.Results(**{name: packed[name] for name in _KEPT})


def _speed_ups(job: job_lib.Job, name: str) -> np.ndarray:
  reference = timing.warm_seconds(job, names.REFERENCE)
  seconds = timing.shelf(job, name).info()['warm_seconds']
  return np.array([runtime.rte(reference, one) for one in seconds])
