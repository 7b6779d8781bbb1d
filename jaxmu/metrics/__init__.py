"""Metrics of a population of models, one definition per file.

  interface         what a metric is
  accuracies        accuracy on retain, forget, validation and test set
  retention         how far accuracies are from those of retraining
  indiscernibility  how close a population attack is to guessing
  cost              run time and counted work, measured by other stages
  distances         between weights and outputs, measured by other stages
  ranking           ranks and groups of methods

A new metric takes one file and one line in `METRICS`.
"""

from collections.abc import Sequence
from typing import Any

from jaxmu.metrics import (
  accuracies,
  cost,
  distances,
  indiscernibility,
  interface,
  ranking,
  retention,
)
from jaxmu.metrics.interface import Card, Evaluated, Metric
from jaxmu.plugins import Registry

METRICS: Registry[Metric] = Registry(
  'metric',
  {
    'accuracy': accuracies.METRIC,
    'retention': retention.METRIC,
    'indiscernibility': indiscernibility.METRIC,
  },
  check=interface.check,
  title=lambda metric: metric.card.title,
)

# Numbers that other stages measure: described here, computed there.
MEASURED: tuple[Card, ...] = (
  cost.CARD,
  distances.WEIGHTS,
  distances.OUTPUTS,
  ranking.CARD,
)


def choose(specs: Sequence[Any]) -> list[Metric]:
  """Return the built-in metrics and further ones, each once.

  Args:
    specs: names or plug-ins, see `jaxmu.plugins`.

  Raises:
    ValueError: a plug-in that cannot be loaded, or that has the name of another
      metric or gives numbers of the same name.
  """
  chosen = list(METRICS.values())
  for spec in specs:
    metric = METRICS.resolve(spec)
    if metric in chosen:
      continue
    if metric.name in {other.name for other in chosen}:
      raise ValueError(
        f'metric {spec!r} has the name {metric.name!r}, which another metric '
        'has; choose another name'
      )
    cards = [*MEASURED, *(other.card for other in chosen)]
    taken = sorted({*metric.card.terms} & {n for c in cards for n in c.terms})
    if taken:
      raise ValueError(
        f'metric {spec!r} gives {taken}, which other metrics give; choose '
        'other names'
      )
    chosen.append(metric)
  return chosen


__all__ = ['MEASURED', 'METRICS', 'Card', 'Evaluated', 'Metric', 'choose']
