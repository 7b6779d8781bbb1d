"""The membership score of the benchmark's released code, for comparison only.

Not a calibrated test, and named apart for that reason: the statistic is 0/1
correctness; Gaussians with population deviations are fitted to it; the scored
observation is inside its own fit, which finds a leak where there is none; only
forgotten observations are scored, so there is no false-positive rate; and where
all models of a kind agree the deviation is 0 and the score is NaN (more than
half of CIFAR-10's examples at its accuracies).
"""

import numpy as np
from scipy import stats

from jaxmu.attacks import arrange


def reference_ulira(correct: np.ndarray, state: np.ndarray) -> np.ndarray:
  """Compute P(member) = N(z; F) / (N(z; F) + N(z; N)) as released.

  Args:
    correct: bool[P, N], whether the model classifies the example correctly.
    state: int8[P, N].

  Returns:
    f64[P, N]; for forgotten observations the score, or NaN where a deviation
    is 0 (or no never-seen model exists); NaN everywhere else. Count the loss
    with `unscored_share`.
  """
  z = np.asarray(correct, np.float64)
  forgotten = state == arrange.FORGOTTEN
  densities = []
  with np.errstate(invalid='ignore', divide='ignore'):
    for kind in (forgotten, state == arrange.NEVER_SEEN):
      count = kind.sum(axis=0)
      mean = np.where(kind, z, 0.0).sum(axis=0) / count
      square = np.where(kind, (z - mean) ** 2, 0.0).sum(axis=0) / count
      densities.append(stats.norm.pdf(z, mean, np.sqrt(square)))
    member = densities[0] / (densities[0] + densities[1])
  return np.where(forgotten, member, np.nan)


def unscored_share(score: np.ndarray, state: np.ndarray) -> float:
  """Return the share of forgotten observations whose score is NaN."""
  forgotten = state == arrange.FORGOTTEN
  return float(np.isnan(score[forgotten]).mean())
