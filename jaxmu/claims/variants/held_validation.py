"""Accuracy on the validation images that `kde_disjoint` leaves out."""

import numpy as np

from jaxmu.claims.variants import kde_disjoint
from jaxmu.metrics.interface import Card, Evaluated, Metric
from jaxmu.terms import Term


def _accuracy(population: Evaluated) -> dict[str, np.ndarray]:
  index = population.validation
  held = index[kde_disjoint.held_from(len(index)) :]
  return {'va_held': population.correct[:, held].mean(axis=1)}


METRIC = Metric(
  'held_validation',
  _accuracy,
  Card(
    title='Accuracy on held-out validation images',
    terms={
      'va_held': Term(
        'Held-out validation accuracy',
        'Share of the second half of the validation images that the model gets '
        'right.',
        'fraction',
        'retrained',
      )
    },
    needs=('validation',),
  ),
)
