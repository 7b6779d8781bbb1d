"""Top-1 accuracy on the four sets: RA, FA, VA, TA."""

import numpy as np


def correct(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
  """Says which examples are classified correctly.

  Args:
    logits: float[..., N, C].
    labels: int[N].

  Returns:
    bool[..., N]. The first of tied classes wins; an example with a NaN logit
    is wrong.
  """
  logits = np.asarray(logits)
  broken = np.isnan(logits).any(-1)
  return (logits.argmax(-1) == np.asarray(labels)) & ~broken


def accuracy(
  correct: np.ndarray, where: np.ndarray | None = None
) -> np.ndarray:
  """Returns the fraction correct of a set of examples, f64[...].

  Args:
    correct: bool[..., N].
    where: bool, broadcastable to `correct`, the set; everything if None.

  Raises:
    ValueError: the set is empty for some model.
  """
  correct = np.asarray(correct, bool)
  if where is None:
    where = np.ones(correct.shape, bool)
  where = np.broadcast_to(where, correct.shape)
  size = where.sum(-1)
  if (size == 0).any():
    raise ValueError(
      'accuracy over an empty set of examples; check the masks of the split.'
    )
  return (correct & where).sum(-1) / size
