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

__all__ = ['MEASURED', 'METRICS', 'Card', 'Evaluated', 'Metric']
