"""Top-1 accuracy on the four sets: RA, FA, VA, TA."""

import numpy as np


def accuracy(correct: np.ndarray, where: np.ndarray) -> np.ndarray:
  """Return the fraction correct of a set of examples, f64[...].

  Args:
    correct: bool[..., N].
    where: bool, broadcastable to `correct`, the set.

  Raises:
    ValueError: the set is empty for some model.
  """
  correct = np.asarray(correct, bool)
  where = np.broadcast_to(where, correct.shape)
  size = where.sum(-1)
  if (size == 0).any():
    raise ValueError(
      'accuracy over an empty set of examples; check the masks of the split'
    )
  return (correct & where).sum(-1) / size
