"""ROC numbers of one score vector: positives are forgotten, larger is member.

Everything here takes two plain vectors, the scores of positives and of
negatives; `jaxmu.attacks.roc_report` applies it to populations. AUC is by
mid-ranks (a tie counts one half), TPR at a fixed FPR never exceeds the asked
FPR and is refused where too few negatives could support it.
"""

import math

import numpy as np

MIN_FALSE_POSITIVES = 10


def auc(positives: np.ndarray, negatives: np.ndarray) -> float:
  """Return the area under the ROC curve, NaN if a side is empty."""
  if not (len(positives) and len(negatives)):
    return math.nan
  below, tied = _placements(positives, np.sort(negatives))
  return float((below + 0.5 * tied).mean() / len(negatives))


def enough_negatives(count: int, fpr: float) -> bool:
  """Say whether `count` negatives support a TPR at this FPR."""
  return fpr * count >= MIN_FALSE_POSITIVES * (1 - 1e-12)


def threshold_at_fpr(negatives: np.ndarray, fpr: float) -> float:
  """Return the (floor(fpr * n0) + 1)-th largest negative.

  Calling positive what lies *above* it makes at most `fpr * n0` errors,
  without interpolation.
  """
  allowed = math.floor(fpr * len(negatives) * (1 + 1e-12))
  if allowed >= len(negatives):
    return -math.inf
  place = len(negatives) - 1 - allowed
  return float(np.partition(negatives, place)[place])


def tpr_at_fpr(
  positives: np.ndarray,
  negatives: np.ndarray,
  fpr: float,
  *,
  refuse: bool = True,
) -> float:
  """Return the TPR at a fixed FPR, NaN if refused.

  Conservative on the given negatives: at most `fpr * n0` lie above the
  threshold. On new ones the expected rate is a little above `fpr`,
  `(floor(fpr * n0) + 1) / (n0 + 1)`, and so is the TPR without any leak.

  Refused when a side is empty or fewer than `MIN_FALSE_POSITIVES` negatives
  would lie above the threshold; `refuse=False` is for resampling, after the
  whole sample has passed that test.
  """
  if not (len(positives) and len(negatives)):
    return math.nan
  if refuse and not enough_negatives(len(negatives), fpr):
    return math.nan
  return float(np.mean(positives > threshold_at_fpr(negatives, fpr)))


def balanced_accuracy(
  positives: np.ndarray, negatives: np.ndarray, threshold: float = 0.0
) -> float:
  """Return (TPR + TNR) / 2 at a threshold fixed beforehand."""
  if not (len(positives) and len(negatives)):
    return math.nan
  return 0.5 * float(
    np.mean(positives > threshold) + np.mean(negatives <= threshold)
  )


def best_balanced_accuracy(
  positives: np.ndarray, negatives: np.ndarray
) -> float:
  """Return the largest (TPR + TNR) / 2 over thresholds: optimistic.

  The threshold is chosen on the scores it is judged by, so it exceeds one half
  without any leak; never read it without the retrained models' value.
  """
  if not (len(positives) and len(negatives)):
    return math.nan
  cuts = np.sort(np.concatenate([positives, negatives]))
  tpr = 1 - np.searchsorted(np.sort(positives), cuts, 'right') / len(positives)
  fpr = 1 - np.searchsorted(np.sort(negatives), cuts, 'right') / len(negatives)
  return max(0.5, float((0.5 * (1 + tpr - fpr)).max()))


def curve(
  positives: np.ndarray, negatives: np.ndarray, fpr: np.ndarray
) -> np.ndarray:
  """Return the conservative TPR on a grid of FPR (nothing is refused)."""
  if not (len(positives) and len(negatives)):
    return np.full(len(fpr), np.nan)
  n0 = len(negatives)
  descending = np.sort(negatives)[::-1]
  allowed = np.floor(np.asarray(fpr) * n0 * (1 + 1e-12)).astype(int)
  padded = np.append(descending, -np.inf)
  thresholds = padded[np.minimum(allowed, n0)]
  above = np.searchsorted(np.sort(positives), thresholds, 'right')
  return 1.0 - above / len(positives)


def _placements(scores: np.ndarray, ordered: np.ndarray):
  """Count the entries of `ordered` below and equal to each score."""
  below = np.searchsorted(ordered, scores, 'left')
  return below, np.searchsorted(ordered, scores, 'right') - below
