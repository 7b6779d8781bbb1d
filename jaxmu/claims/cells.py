"""The tables of a study by cell, as the claims read them.

A cell is a data set and a model. Each of its jobs has a folder CELL/JOB with
the files that the job wrote, published (`jaxmu.published`) or in the work
directory of a sweep: `results.csv`, `per_cluster.csv`, `timing.csv`,
`curves.csv`, scores, and a record of its configuration. `main` and `ulira` are
the studies of a sweep (`jaxmu.sweeps.design`); the other jobs of a cell are
those of `benchmarks/claim_jobs.py`.
"""

import dataclasses
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxmu import files, terms
from jaxmu.attacks import scores
from jaxmu.claims.evidence import Number
from jaxmu.report import results

REFERENCE, ORIGINAL = results.REFERENCE, results.ORIGINAL
ACCURACIES = ('ra', 'fa', 'va', 'ta')


class CannotAnswer(ValueError):
  """A cell lacks numbers that a claim needs; the message names them."""


@dataclasses.dataclass(frozen=True, eq=False)
class Job:
  """The tables of one job.

  Attributes:
    name: 'main', 'ulira' or the name of an extra job.
    folder: where the files are.
    facts: its record: 'configuration' and 'data'.
    rows: every number with its interval, by (method, metric).
    values: f64[G] of the clusters, by method and metric. A method without a
      setting, since every trial of its search failed, has the numbers of failed
      models.
  """

  name: str
  folder: pathlib.Path
  facts: Mapping[str, Any]
  rows: Mapping[tuple[str, str], results.Row]
  values: Mapping[str, Mapping[str, np.ndarray]]

  @property
  def unlearners(self) -> list[str]:
    """The unlearning methods, in the order of the job."""
    return [n for n in self.values if n not in (REFERENCE, ORIGINAL)]

  @property
  def without_setting(self) -> list[str]:
    """The unlearning methods for which the search found no setting."""
    return list(self.facts.get('no_setting', ()))

  @property
  def working(self) -> list[str]:
    """The unlearning methods that do not guess and have finite numbers."""
    return [name for name in self.unlearners if not self.collapsed(name)]

  def collapsed(self, method: str) -> bool:
    """Whether a method guesses (TA below 2 / classes) or has no number."""
    ta, deviation = (self.values[method].get(m) for m in ('ta', 'ret_dev'))
    if ta is None or deviation is None:
      return True
    finite = np.isfinite(ta).all() and np.isfinite(deviation).all()
    return not finite or ta.mean() < 2 / self.classes

  def clusters(self, method: str, metric: str) -> np.ndarray:
    """Return a number of every initialisation or pair of splits, f64[G].

    Raises:
      CannotAnswer: the job does not have it.
    """
    found = self.values.get(method, {}).get(metric)
    if found is None or not np.isfinite(found).any():
      raise CannotAnswer(f'{metric} of {results.label(method)} in {self.name}')
    return found

  def clusters_or_nan(self, method: str, metric: str) -> np.ndarray:
    """Return a number of every cluster, NaN where the job does not have it."""
    found = self.values.get(method, {}).get(metric)
    size = max(
      (len(v) for one in self.values.values() for v in one.values()), default=0
    )
    return np.full(size, math.nan) if found is None else found

  def row(self, method: str, metric: str) -> results.Row:
    """Return a number with its interval.

    Raises:
      CannotAnswer: the job does not have it.
    """
    row = self.rows.get((method, metric))
    if row is None or math.isnan(row.value):
      raise CannotAnswer(f'{metric} of {results.label(method)} in {self.name}')
    return row

  def number(self, method: str, metric: str) -> Number:
    """Return the value and interval of `row`."""
    row = self.row(method, metric)
    return Number(row.value, row.low, row.high)

  @property
  def clock(self) -> str:
    """The metric of run times: measured ones if they are published."""
    measured = any(metric == 'rte' for _, metric in self.rows)
    return 'rte' if measured else 'rte_counted'

  def speed(self, method: str) -> float:
    """Return how many times faster than retraining a method is.

    Raises:
      CannotAnswer: it was not timed.
    """
    return self.row(method, self.clock).value

  @property
  def classes(self) -> int:
    """Number of classes of the data set."""
    return self.facts['data']['classes']

  @property
  def train_epochs(self) -> int:
    """Epochs of the training of original models."""
    return self.facts['configuration']['train']['num_epochs']

  def hparams(self, method: str) -> Mapping[str, Any]:
    """Return the hyper-parameters of a method.

    Raises:
      CannotAnswer: the job does not have it.
    """
    for one in self.facts['configuration']['unlearners']:
      if one['method'].rpartition('.')[2] == method:
        return one['hparams']
    raise CannotAnswer(f'{results.label(method)} in {self.name}')

  def scores(self, method: str) -> scores.Scores:
    """Return the log-odds of a method's models, with both baselines.

    The originals have one row for every forget set of a split.

    Raises:
      CannotAnswer: they are not published.
    """
    if method not in self.scored():
      raise CannotAnswer(
        f'the scores of {results.label(method)} in {self.name}'
      )
    if (self.folder / 'scores' / 'design.npz').is_file():
      from jaxmu.published import record
      from jaxmu.published import scores as published

      root = self.folder.parents[2]
      arrays = published.arrays(record.read(self.folder, root), method)
    else:
      with np.load(self.folder / 'scores' / f'{method}.npz') as file:
        arrays = {key: file[key] for key in file.files}
    return scores.from_arrays(arrays)

  def examples(self, method: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the positions in the data set of the columns of `scores`.

    Returns:
      Positions and labels, i64[N] each; labels are -1 if they are not known.

    Raises:
      CannotAnswer: the scores are not published.
    """
    columns = self.scores(method).state.shape[1]
    path = self.folder / 'scores' / 'design.npz'
    if not path.is_file():  # a work directory scores all examples in order
      return np.arange(columns), np.full(columns, -1)
    from jaxmu.published import record
    from jaxmu.published import scores as published

    root = self.folder.parents[2]
    found = published.read(record.read(self.folder, root), ())
    audited = (found.state == terms.FORGOTTEN).any(axis=0)
    return found.examples[audited], found.labels[audited]

  def scored(self) -> list[str]:
    """The methods whose scores are published."""
    return [
      name
      for name in self.unlearners
      if (self.folder / 'scores' / f'{name}.npz').is_file()
    ]


@dataclasses.dataclass(frozen=True, eq=False)
class Cell:
  """A data set and a model, with its published jobs by name."""

  name: str
  jobs: Mapping[str, Job]

  @property
  def data(self) -> str:
    """The name of the data set."""
    return self.name.rpartition('_')[0]

  @property
  def model(self) -> str:
    """The name of the model."""
    return self.name.rpartition('_')[2]

  def job(self, name: str) -> Job:
    """Return a job.

    Raises:
      CannotAnswer: it is not published.
    """
    if name not in self.jobs:
      raise CannotAnswer(f'the job {name!r}')
    return self.jobs[name]


def read(folder: files.Path) -> list[Cell]:
  """Read all cells below a folder, sorted by name.

  Args:
    folder: holds CELL/JOB; a folder that is not there has no cells.

  Raises:
    ValueError: a file is damaged.
  """
  found: dict[str, dict[str, Job]] = {}
  for path in sorted(pathlib.Path(folder).glob('*/*/results.csv')):
    job = read_job(path.parent)
    found.setdefault(path.parent.parent.name, {})[job.name] = job
  return [Cell(name, jobs) for name, jobs in found.items()]


def read_job(folder: pathlib.Path) -> Job:
  """Read the tables of a job from its folder CELL/JOB.

  Raises:
    OSError: it has none.
    ValueError: a file is damaged.
  """
  rows = results.read_csv(folder / 'results.csv')
  if (folder / 'timing.csv').is_file():
    rows += results.read_csv(folder / 'timing.csv')
  values: dict[str, dict[str, list[float]]] = {}
  path = folder / results.PER_CLUSTER_FILE
  for one in results.read_csv(path, results.Observation):
    values.setdefault(one.method, {}).setdefault(one.metric, []).append(
      one.value
    )
  found = {
    method: {metric: np.array(v) for metric, v in metrics.items()}
    for method, metrics in values.items()
  }
  facts = _facts(folder)
  for method in facts.get('no_setting', ()):
    found.setdefault(method, _failed(found[REFERENCE]))
  return Job(
    folder.name,
    folder,
    facts,
    {(row.method, row.metric): row for row in rows},
    found,
  )


def _failed(retrained: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Return the numbers of a method whose models all fail.

  Predictions of failed models count as wrong; other numbers do not exist.
  """
  return {
    metric: np.full(len(one), 0.0 if metric in ACCURACIES else math.nan)
    for metric, one in retrained.items()
  }


def _facts(folder: pathlib.Path) -> Mapping[str, Any]:
  """Return the record of published results, or that of a work directory."""
  if (folder / 'record.json').is_file():
    return results.read_json(folder / 'record.json')
  return results.read_json(folder / 'results.json')['provenance']


def labels(methods: Sequence[str]) -> str:
  """Return the labels of methods as a list in words."""
  words = [results.label(name) for name in methods]
  if len(words) < 2:
    return ''.join(words) or 'none'
  return f'{", ".join(words[:-1])} and {words[-1]}'


def text(number: Number, decimals: int = 3) -> str:
  """Return a number with its interval, as '.123 [.100, .146]'."""
  # Without the exponents of differences that are zero but for rounding.
  value, low, high = (round(end, 12) + 0.0 for end in number)
  span = results.format_interval(low, high, decimals=decimals)
  value = results.format_value(value, decimals=decimals)
  return f'{value} {span}'.rstrip()
