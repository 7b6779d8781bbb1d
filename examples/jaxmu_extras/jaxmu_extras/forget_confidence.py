"""Confidence of models on the examples that they should have forgotten."""

import numpy as np

from jaxmu.metrics.interface import Card, Metric
from jaxmu.terms import Term


def compute(population):
  """Return the median log-odds of the forgotten examples, f64[P]."""
  log_odds = np.where(population.forgotten, population.log_odds, np.nan)
  return {'forget_log_odds': np.nanmedian(log_odds, axis=1)}


METRIC = Metric(
  'forget_confidence',
  compute,
  Card(
    title='Confidence on forgotten examples',
    terms={
      'forget_log_odds': Term(
        title='Log-odds of forgotten examples',
        sentence='Median log-odds of the true class of forgotten examples.',
        better='retrained',
        source='an example of jaxmu',
      )
    },
  ),
)
