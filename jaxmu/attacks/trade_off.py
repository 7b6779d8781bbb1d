"""Trade-off curves: the best FNR at every FPR, and their Gaussian summary.

A better summary than one epsilon: a mechanism is mu-GDP if it is no easier to
attack than telling N(0, 1) from N(mu, 1) (Dong et al. 2022).
"""

import numpy as np
from scipy import stats


def trade_off(
  positives: np.ndarray, negatives: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Return the lower convex hull of (FPR, FNR) over thresholds.

  Randomising between two thresholds reaches every point of the hull. It is an
  in-sample curve: below the diagonal even without any difference.

  Args:
    positives: float[n1] scores, larger for positive.
    negatives: float[n0].

  Returns:
    FPR f64[K] increasing from 0 to 1, FNR f64[K] decreasing to 0.
  """
  cuts = np.unique(np.concatenate([positives, negatives]))
  cuts = np.append(cuts, np.inf)[::-1]  # from "nobody" to "everybody"
  fpr = 1 - np.searchsorted(np.sort(negatives), cuts, 'left') / len(negatives)
  fnr = np.searchsorted(np.sort(positives), cuts, 'left') / len(positives)
  hull: list[tuple[float, float]] = []
  for point in zip(fpr.tolist(), fnr.tolist(), strict=True):
    while len(hull) > 1 and _above(hull[-2], hull[-1], point):
      hull.pop()
    hull.append(point)
  hull = [p for p in hull if p[1] <= 1 - p[0] + 1e-15]
  x, y = np.array(hull).T
  return x, y


def gaussian_mu(fpr: np.ndarray, fnr: np.ndarray) -> float:
  """Fit mu = Phi^-1(1 - FPR) - Phi^-1(FNR): the median over inner points.

  Returns:
    mu, 0 for indistinguishable, infinite for separated samples. For Gaussians
    of equal variance it is their distance in standard deviations.
  """
  fpr, fnr = np.asarray(fpr), np.asarray(fnr)
  inner = (fpr > 0) & (fpr < 1) & (fnr > 0) & (fnr < 1)
  if not inner.any():
    return np.inf if ((fpr == 0) & (fnr == 0)).any() else 0.0
  mu = stats.norm.isf(fpr[inner]) - stats.norm.ppf(fnr[inner])
  return float(np.median(mu))


def _above(a, b, c) -> bool:
  """Say whether b lies on or above the chord from a to c."""
  cross = (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
  return cross <= 0
