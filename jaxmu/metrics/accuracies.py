"""Top-1 accuracy on the four sets: RA, FA, VA, TA."""

import numpy as np
from jaxtyping import Bool, Float64

from jaxmu.metrics.interface import Card, Evaluated, Metric
from jaxmu.terms import BENCHMARK, Term


def accuracy(
  correct: Bool[np.ndarray, '*M N'], where: Bool[np.ndarray, '*M N']
) -> Float64[np.ndarray, '*M']:
  """Return the share of a set of examples that is correct, f64[...].

  Args:
    correct: bool[..., N].
    where: bool, broadcastable to `correct`, the set; NaN where it is empty.

  Example:
    >>> accuracy(np.array([True, False, True]), np.array([1, 1, 0], bool))
    np.float64(0.5)
  """
  correct = np.asarray(correct, bool)
  where = np.broadcast_to(where, correct.shape)
  size = where.sum(-1)
  share = (correct & where).sum(-1) / np.maximum(size, 1)
  return np.where(size > 0, share, np.nan)[()]


def accuracies(population: Evaluated) -> dict[str, Float64[np.ndarray, ' P']]:
  """Return RA, FA, VA and TA of each model, f64[P]."""
  sets = {
    'ra': population.retained,
    'fa': population.forgotten,
    'va': population.columns(population.validation),
    'ta': population.columns(population.test),
  }
  return {
    name: accuracy(population.correct, where) for name, where in sets.items()
  }


def _term(title: str, sentence: str) -> Term:
  return Term(title, sentence, 'fraction', 'retrained', BENCHMARK)


METRIC = Metric(
  'accuracy',
  accuracies,
  Card(
    title='Accuracy on each set',
    undefined='the set of examples is empty',
    terms={
      'ra': _term(
        'Retain accuracy (RA)',
        'Share of the training images to be kept that the model gets right.',
      ),
      'fa': _term(
        'Forget accuracy (FA)',
        'Share of the images to be forgotten that the model gets right; a '
        'model that never saw them gets them right about as often as test '
        'images.',
      ),
      'va': _term(
        'Validation accuracy (VA)',
        'Share of the validation images, on which no model was trained, that '
        'the model gets right.',
      ),
      'ta': _term(
        'Test accuracy (TA)',
        'Share of the test images, which are used for nothing else, that the '
        'model gets right.',
      ),
    },
  ),
)
