"""Rank of a score among those of the other models of the population.

An example counts as forgotten by the models with the highest confidence in it.
Unlike one threshold on the score, this accounts for examples that are easy or
hard for all models.
"""

import numpy as np

from jaxmu.attacks import interface


def score(population, data, options):
  """Return the rank of each log-odds among all models, f64[P, N]."""
  del data, options
  sure = np.where(np.isnan(population.mean), -np.inf, population.mean)
  rank = np.argsort(np.argsort(sure, axis=0, kind='stable'), axis=0)
  used = population.state != 3  # entries that are excluded have no score
  return np.where(used, rank / len(sure), np.nan)


ATTACK = interface.from_score(
  'margin_rank',
  score,
  interface.Card(
    title='Margin rank',
    subject='ranking the models by their score of an example',
    source='an example of jaxmu',
    question='forgotten_or_unseen',
    terms=interface.ROC_TERMS,
  ),
)
