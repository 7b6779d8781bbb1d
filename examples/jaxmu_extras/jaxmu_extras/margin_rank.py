"""Rank of a model's log-odds of an example among those of all models.

The higher the rank, the more likely the model was trained on the example.
Unlike one threshold on log-odds, ranks allow for easy and hard examples.
"""

import numpy as np
from scipy import stats

from jaxmu.attacks import interface
from jaxmu.terms import EXCLUDED


def score(population, data, options):
  """Return the share of models with lower or equal log-odds, f64[P, N]."""
  del data, options
  log_odds = np.where(population.state == EXCLUDED, np.nan, population.mean)
  rank = stats.rankdata(log_odds, axis=0, nan_policy='omit')
  return rank / np.isfinite(log_odds).sum(axis=0)


ATTACK = interface.from_score(
  'margin_rank',
  score,
  interface.Card(
    title='Margin rank',
    subject='ranking the models by their log-odds of an example',
    source='an example of jaxmu',
    question='forgotten_or_unseen',
    terms=interface.ROC_TERMS,
  ),
)
