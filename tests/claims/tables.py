"""Made-up tables of jobs, with numbers that are known."""

import json
import math
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy import stats

from jaxmu.attacks import intervals
from jaxmu.claims.cells import REFERENCE, Cell, Job
from jaxmu.report import results
from jaxmu.report.results import Row

SEEDS = 10


def around(mean: float, deviation: float = 0.0, turn: int = 0, size=SEEDS):
  """Return values with this mean and deviation, in some order.

  They differ by 1e-10 between turns: SciPy takes long for differences that are
  equal.
  """
  z = stats.norm.ppf((np.arange(size) + 0.5) / size)
  z = (z - z.mean()) / z.std(ddof=1)
  order = np.random.default_rng(turn).permutation(size)
  distinct = 1e-10 * np.random.default_rng(turn + 1000).normal(size=size)
  return mean + deviation * z[order] + distinct


def rows(values, speed=None, widened=()) -> dict[tuple[str, str], Row]:
  """Return the rows of a report of these values."""
  found = {}
  for method, metrics in values.items():
    for metric, one in metrics.items():
      estimate = intervals.over_splits(np.asarray(one))
      if metric in widened:
        estimate = intervals.cross_fitted(estimate, bounds=None)
      found[method, metric] = Row(
        method,
        metric,
        estimate.value,
        estimate.low,
        estimate.high,
        n=estimate.n,
      )
  for method, value in (speed or {}).items():
    found[method, 'rte'] = Row(method, 'rte', value)
  return found


def job(
  name: str,
  values: Mapping[str, Mapping[str, Any]],
  *,
  speed: Mapping[str, float] | None = None,
  hparams: Mapping[str, Mapping[str, Any]] | None = None,
  epochs: int = 50,
  classes: int = 10,
  folder: pathlib.Path = pathlib.Path('nowhere'),
) -> Job:
  """Return a job with these numbers per cluster."""
  facts = {
    'data': {'classes': classes},
    'configuration': {
      'train': {'num_epochs': epochs},
      'unlearners': [
        {'method': method, 'hparams': dict(one)}
        for method, one in (hparams or {}).items()
      ],
    },
  }
  widened = ('ulira_auc', 'excess_ulira_auc')
  tables = {m: dict(v) for m, v in values.items()}
  known = rows(tables, speed, widened)
  for method, metrics in tables.items():
    own, null = (
      t.get('ulira_auc') for t in (metrics, tables.get(REFERENCE, {}))
    )
    if method != REFERENCE and own is not None and null is not None:
      excess = {method: {'excess_ulira_auc': own - null}}
      known |= rows(excess, widened=widened)
  return Job(name, folder, facts, known, tables)


def method(
  ret_dev: float = 0.1,
  *,
  ta: float = 0.8,
  fa: float = 0.85,
  ra: float = 0.99,
  va: float | None = None,
  mia: float = 0.5,
  indisc: float | None = None,
  noise: float = 0.001,
  turn: int = 0,
) -> dict[str, np.ndarray]:
  """Return the numbers of a method of the main study."""
  numbers = {
    'ret_dev': ret_dev,
    'ta': ta,
    'fa': fa,
    'ra': ra,
    'va': ta if va is None else va,
    'mia_test': mia,
    'indisc_test': 1 - abs(2 * mia - 1) if indisc is None else indisc,
  }
  return {
    metric: around(value, noise, turn + k)
    for k, (metric, value) in enumerate(numbers.items())
  }


def retrained(**numbers: float) -> dict[str, np.ndarray]:
  """Return the numbers of retrained models."""
  given = {'ta': 0.85, 'fa': 0.85, 'ra': 0.999, 'turn': 50, **numbers}
  return method(0.0, **given) | {'ret_dev': np.zeros(SEEDS)}


def cell(*jobs: Job, name: str = 'digits_resnet18') -> Cell:
  """Return a cell with these jobs."""
  return Cell(name, {one.name: one for one in jobs})


def nan(size: int = SEEDS) -> np.ndarray:
  """Return values that are not available."""
  return np.full(size, math.nan)


def save(folder: pathlib.Path, made: Job) -> None:
  """Write a made-up job as a published one."""
  folder.mkdir(parents=True, exist_ok=True)
  timed = [row for row in made.rows.values() if row.metric == 'rte']
  others = [row for row in made.rows.values() if row.metric != 'rte']
  results.write_csv(folder / 'results.csv', others)
  results.write_csv(folder / 'timing.csv', timed)
  observations = [
    results.Observation(method, metric, k, float(value))
    for method, metrics in made.values.items()
    for metric, values in metrics.items()
    for k, value in enumerate(values)
  ]
  results.write_csv(
    folder / 'per_cluster.csv', observations, results.Observation
  )
  (folder / 'record.json').write_text(json.dumps(made.facts))
