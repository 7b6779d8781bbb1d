"""What a metric is: a function from one evaluated population to numbers.

A metric is a function of arrays. It gives one number per model, or one for the
population; `jaxmu.study.evaluate` adds averages, intervals and comparisons with
retrained models to every metric.

    import numpy as np
    from jaxmu.metrics.interface import Card, Evaluated, Metric
    from jaxmu.terms import Term

    def confidence(population: Evaluated) -> dict[str, np.ndarray]:
      scores = np.where(population.forgotten, population.log_odds, np.nan)
      return {'forget_log_odds': np.nanmedian(scores, axis=1)}

    METRIC = Metric(
      'confidence',
      confidence,
      Card(
        title='Confidence on forgotten images',
        terms={
          'forget_log_odds': Term(
            title='Median log-odds of forgotten images',
            sentence='How sure the model is of the labels to be forgotten.',
            better='retrained',
          )
        },
      ),
    )

`config.metrics = ('confidence.py',)` adds it to a job, and
`jaxmu.testing.check_metric('confidence.py')` says what is wrong with it.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float64, Int8, Integer

from jaxmu.attacks import intervals, log_odds
from jaxmu.terms import Term

Number = Float64[np.ndarray, ' P'] | intervals.Estimate
NEEDS = ('retrained', 'validation', 'test')


@dataclasses.dataclass(frozen=True)
class Evaluated:
  """What a metric may read of one population of P models and N examples.

  Attributes:
    name: 'original', 'retrain' or the unlearning method.
    log_odds: f64[P, N] log-odds of the true class, finite; the most negative
      finite number where a prediction is not finite.
    correct: bool[P, N], False where a prediction is not finite.
    state: int8[P, N], what the model did with the example: 0 retained, 1
      forgotten, 2 never seen, 3 excluded.
    validation: i64[V] columns of the validation examples.
    test: i64[T] columns of the test examples.
    cluster: i64[P], the independent units; averages are over clusters.
    split: i64[P], the training set of each model.
    classes: number of classes.
    failed: bool[P], models that are not finite in a loss, a weight or all
      outputs.
    retrained: the retrained population, row by row for the same forget sets;
      itself for the retrained population; None where there is none.
  """

  name: str
  log_odds: Float[np.ndarray, 'P N']
  correct: Bool[np.ndarray, 'P N']
  state: Int8[np.ndarray, 'P N']
  validation: Integer[np.ndarray, ' V']
  test: Integer[np.ndarray, ' T']
  cluster: Integer[np.ndarray, ' P']
  split: Integer[np.ndarray, ' P']
  classes: int
  failed: Bool[np.ndarray, ' P']
  retrained: 'Evaluated | None' = None

  @property
  def size(self) -> int:
    """Number of models P."""
    return len(self.state)

  @property
  def retained(self) -> Bool[np.ndarray, 'P N']:
    """Which examples each model keeps, bool[P, N]."""
    return self.state == log_odds.RETAINED

  @property
  def forgotten(self) -> Bool[np.ndarray, 'P N']:
    """Which examples each model forgets, bool[P, N]."""
    return self.state == log_odds.FORGOTTEN

  def columns(
    self, index: Integer[np.ndarray, ' n']
  ) -> Bool[np.ndarray, 'P N']:
    """Return a mask bool[P, N] of the same examples for all models."""
    where = np.zeros(self.state.shape, bool)
    where[:, index] = True
    return where


@dataclasses.dataclass(frozen=True)
class Card:
  """Facts about a metric that reports, documents and tests read.

  Attributes:
    title: a few words.
    terms: the meaning of each number that the metric gives, by its name in
      results.csv; in the order of the report.
    needs: what it requires, from `NEEDS`.
    undefined: why the number of a model can be NaN; it follows
      'not available: '.
    exempt: rules of the contract test (`jaxmu.testing.METRIC_RULES`) that do
      not apply, each with the reason.
  """

  title: str
  terms: Mapping[str, Term]
  needs: tuple[str, ...] = ()
  undefined: str = 'it is not a number for some model'
  exempt: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Metric:
  """One definition of one or several named numbers.

  Attributes:
    name: name by which users choose it.
    compute: returns, for every name in `card.terms`, f64[P] with one number
      per model (NaN where it is not available), or an `intervals.Estimate` for
      a number of the whole population.
    card: what the numbers mean.
  """

  name: str
  compute: Callable[[Evaluated], Mapping[str, Number]]
  card: Card


def check(entry: Any) -> Metric:
  """Check that an object is a metric, and return it.

  Raises:
    ValueError: it is not a metric; the message says what is missing.
  """
  if not isinstance(entry, Metric):
    raise ValueError(
      f'{type(entry).__name__} is not a metric; define METRIC = '
      'jaxmu.metrics.interface.Metric(name, compute, card)'
    )
  if not entry.card.terms:
    raise ValueError(
      f'metric {entry.name!r} gives no numbers; describe each in card.terms'
    )
  for need in entry.card.needs:
    if need not in NEEDS:
      raise ValueError(
        f'metric {entry.name!r} needs {need!r}; choose from {", ".join(NEEDS)}'
      )
  return entry


def run(metric: Metric, population: Evaluated) -> dict[str, Number]:
  """Compute a metric and check its numbers.

  Raises:
    ValueError: something that it needs is missing, or its numbers do not match
      its card.
  """
  if 'retrained' in metric.card.needs and population.retrained is None:
    raise ValueError('it compares with retrained models, and there are none')
  for need in ('validation', 'test'):
    if need in metric.card.needs and not len(getattr(population, need)):
      raise ValueError(f'there are no {need} examples')
  given = dict(metric.compute(population))
  if given.keys() != metric.card.terms.keys():
    raise ValueError(
      f'metric {metric.name!r} gives {sorted(given)}, but its card describes '
      f'{sorted(metric.card.terms)}'
    )
  for name, value in given.items():
    if isinstance(value, intervals.Estimate):
      continue
    values = np.asarray(value, np.float64)
    if values.shape != (population.size,):
      raise ValueError(
        f'{name} has shape {values.shape}; expected one number for each of '
        f'{population.size} models'
      )
    given[name] = values
  return {name: given[name] for name in metric.card.terms}
