"""The contract of metrics.

The metric is computed on a simulated population of six models, with models and
examples in another order, and with values that real models occasionally take.
"""

import dataclasses
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from jaxmu.attacks import intervals
from jaxmu.metrics import METRICS, interface
from jaxmu.metrics.interface import Evaluated, Metric, Number
from jaxmu.terms import EXCLUDED, FORGOTTEN
from jaxmu.testing import Findings, Rule, enforce

MODELS, EXAMPLES, TRAINING, FORGET = 6, 60, 36, 12
_LARGEST = float(np.finfo(np.float32).max)
_SHAPE = (MODELS, EXAMPLES)
_NONE = np.zeros(0, int)

# Unusual populations, as changes of the ordinary one.
EXTREMES: Mapping[str, dict[str, Any]] = {
  'constant log-odds': dict(
    log_odds=np.zeros(_SHAPE), correct=np.zeros(_SHAPE, bool)
  ),
  'diverged models': dict(
    log_odds=np.full(_SHAPE, -_LARGEST), correct=np.zeros(_SHAPE, bool)
  ),
  'huge log-odds': dict(
    log_odds=np.full(_SHAPE, _LARGEST) * (-1.0) ** np.arange(EXAMPLES)
  ),
  'no test examples': dict(test=_NONE),
  'no validation examples': dict(validation=_NONE),
  'nothing retained': dict(state=np.ones(_SHAPE, np.int8)),
  'nothing forgotten': dict(state=np.zeros(_SHAPE, np.int8)),
  'a single cluster': dict(cluster=np.zeros(MODELS, int)),
}


def simulated(
  seed: int = 0, name: str = 'simulated', **changes: Any
) -> Evaluated:
  """Return a population of six models with normal log-odds, without retrained.

  Each forgets 12 of 36 training examples; 4 are for validation, 20 for tests.

  Args:
    seed: of the log-odds and of the forget sets.
    name: of the population.
    **changes: other values of fields of `Evaluated`.
  """
  rng = np.random.default_rng(seed)
  test = TRAINING + 4
  state = np.zeros(_SHAPE, np.int8)
  state[:, TRAINING:] = EXCLUDED
  for p in range(MODELS):
    state[p, rng.permutation(TRAINING)[:FORGET]] = FORGOTTEN
  log_odds = rng.normal(1, 2, _SHAPE)
  fields = dict(
    name=name,
    log_odds=log_odds,
    correct=log_odds > 0,
    state=state,
    validation=np.arange(TRAINING, test),
    test=np.arange(test, EXAMPLES),
    cluster=np.arange(MODELS),
    split=np.zeros(MODELS, int),
    classes=2,
    failed=np.zeros(MODELS, bool),
  )
  return Evaluated(**{**fields, **changes})


def with_retrained(population: Evaluated) -> Evaluated:
  """Return a simulated population with retrained models of the same sets."""
  shared = ('state', 'validation', 'test', 'cluster')
  retrained = simulated(
    1, 'retrain', **{field: getattr(population, field) for field in shared}
  )
  return dataclasses.replace(population, retrained=retrained)


def reorder(
  population: Evaluated, models: np.ndarray, examples: np.ndarray
) -> Evaluated:
  """Return a population and its retrained models in another order.

  Args:
    population: of P models and N examples.
    models: i64[P], the model that takes each place.
    examples: i64[N], the example that takes each place.
  """
  place = np.argsort(examples)
  retrained = population.retrained
  return dataclasses.replace(
    population,
    log_odds=population.log_odds[models][:, examples],
    correct=population.correct[models][:, examples],
    state=population.state[models][:, examples],
    validation=np.sort(place[population.validation]),
    test=np.sort(place[population.test]),
    cluster=population.cluster[models],
    split=population.split[models],
    failed=population.failed[models],
    retrained=retrained and reorder(retrained, models, examples),
  )


def _card(metric: Metric) -> Findings:
  """Every number has a term, and no text is empty."""
  if not metric.card.title.strip():
    yield 'its title is empty.', 'Fill it in on the card.'
  for name, term in metric.card.terms.items():
    if not term.sentence.endswith('.'):
      yield (
        f'{term.sentence!r}, of {name}, is not a sentence.',
        'Say what the number means, with a full stop.',
      )
  try:
    interface.run(metric, with_retrained(simulated()))
  except ValueError as error:
    yield (
      f'{error}.',
      'Return, for each name in card.terms, one number per model, or an '
      'Estimate of the population.',
    )


def _retrained(metric: Metric) -> Findings:
  """Retrained models compared with themselves give the best value."""
  if 'retrained' not in metric.card.needs:
    return
  alone = simulated(1, 'retrain')
  given = interface.run(metric, dataclasses.replace(alone, retrained=alone))
  best = {'one': 1.0, 'zero': 0.0, 'higher': 1.0, 'lower': 0.0}
  for name, value in given.items():
    better = metric.card.terms[name].better
    number = value.value if isinstance(value, intervals.Estimate) else value
    if better in best and not np.allclose(number, best[better], 0, 1e-12):
      yield (
        f'{name} is {number} where retrained models are compared with '
        'themselves.',
        f'Scale it so that this gives {best[better]:g}, or describe another '
        'direction in Term.better.',
      )


def _same(
  metric: Metric, one: Evaluated, other: Evaluated, reason: str, remedy: str
) -> Findings:
  """Yield numbers of the population that differ but must agree."""
  first, second = (_totals(interface.run(metric, x)) for x in (one, other))
  for name, value in first.items():
    if not np.isclose(value, second[name], 1e-6, 1e-12, equal_nan=True):
      yield (
        f'{name} is {value:g} and {second[name]:g} though {reason}.',
        remedy,
      )


def _totals(given: Mapping[str, Number]) -> dict[str, float]:
  """Return one number per name: sums over models, NaN left out."""
  return {
    name: value.value
    if isinstance(value, intervals.Estimate)
    else float(value[np.isfinite(value)].sum())
    for name, value in given.items()
  }


_ORDER = 'Do not use the position of a row or column.'


def _model_order(metric: Metric) -> Findings:
  population = with_retrained(simulated())
  models = np.random.default_rng(3).permutation(MODELS)
  moved = reorder(population, models, np.arange(EXAMPLES))
  reason = 'only the order of the models differs'
  yield from _same(metric, population, moved, reason, _ORDER)
  before, after = (interface.run(metric, x) for x in (population, moved))
  for name, value in before.items():
    if isinstance(value, np.ndarray) and not np.allclose(
      value[models], np.asarray(after[name]), 1e-6, 1e-12, equal_nan=True
    ):
      yield (
        f'{name} of a model changes though {reason}.',
        'Give numbers in the order of the models.',
      )


def _example_order(metric: Metric) -> Findings:
  population = with_retrained(simulated())
  examples = np.random.default_rng(4).permutation(EXAMPLES)
  moved = reorder(population, np.arange(MODELS), examples)
  reason = 'only the order of the examples differs'
  yield from _same(metric, population, moved, reason, _ORDER)


def _extreme_values(metric: Metric) -> Findings:
  for given, population in _extreme(metric.card.needs):
    try:
      with warnings.catch_warnings():
        warnings.simplefilter('ignore', RuntimeWarning)  # empty means
        numbers = interface.run(metric, population)
    except Exception as error:
      yield (
        f'it ends in {type(error).__name__}: {error} with {given}.',
        'Give NaN where a number cannot be computed.',
      )
      continue
    for name, value in numbers.items():
      if isinstance(value, np.ndarray) and np.isinf(value).any():
        yield (
          f'{name} is infinite with {given}.',
          'Give NaN where a number cannot be computed.',
        )


def _extreme(needs: Sequence[str]) -> Iterator[tuple[str, Evaluated]]:
  """Yield populations that a metric with these needs may be given."""
  if 'retrained' not in needs:
    yield 'no retrained models', simulated()
  for name, changes in EXTREMES.items():
    if any(need in changes and not len(changes[need]) for need in needs):
      continue
    alone = dataclasses.replace(simulated(), **changes)
    yield name, with_retrained(alone)
    both = dataclasses.replace(alone, retrained=alone)
    yield f'{name}, also of the retrained models', both


def _repeat(metric: Metric) -> Findings:
  population = with_retrained(simulated())
  before = with_retrained(simulated())
  first, second = (interface.run(metric, population) for _ in range(2))
  for name, value in first.items():
    other = second[name]
    pair = (
      (v.value if isinstance(v, intervals.Estimate) else v)
      for v in (value, other)
    )
    if not np.array_equal(*pair, equal_nan=True):
      yield (
        f'{name} differs between two calls.',
        'Keep no state between calls, and seed what is random.',
      )
  for field in dataclasses.fields(Evaluated):
    old, new = (getattr(p, field.name) for p in (before, population))
    if isinstance(old, np.ndarray) and not np.array_equal(old, new):
      yield f'it changes {field.name} of its input.', 'Write to a copy.'


METRIC_RULES: dict[str, Rule[Metric]] = {
  'card': _card,
  'retrained': _retrained,
  'model_order': _model_order,
  'example_order': _example_order,
  'extreme_values': _extreme_values,
  'repeat': _repeat,
}


def check_metric(spec: Any, rules: Sequence[str] | None = None) -> None:
  """Check a metric against the contract that all metrics satisfy.

  Takes a second or two.

  Args:
    spec: the metric, as for `jaxmu.metrics.METRICS.resolve`.
    rules: names of rules to check, of `METRIC_RULES`; None for all.

  Raises:
    ValueError: there is no such metric or rule, or it is not a metric.
    ContractError: rules are broken; the message has one line for each with
      what to do.

  Example:
    >>> from jaxmu import testing
    >>> testing.check_metric('accuracy')
  """
  metric = METRICS.resolve(spec)
  enforce('metric', metric, METRIC_RULES, rules)
