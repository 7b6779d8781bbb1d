"""Estimates whose uncertainty is the spread between splits.

Examples of one model depend on each other, and so do the models of one split;
splits are the independent units. Every interval of this package is therefore a
t-interval over one value per split. For a statistic that cannot be averaged
over splits (a quantile of a small sample) the values per split are jackknife
pseudo-values: `G * whole - (G - 1) * without_split`.
"""

import dataclasses

import numpy as np
from jaxtyping import Float64, Int, Integer
from scipy import stats


@dataclasses.dataclass(frozen=True)
class Estimate:
  """A number with its interval.

  Attributes:
    value: the estimate; NaN if it was refused.
    low: lower end of the interval; NaN with fewer than two splits.
    high: upper end.
    n: number of splits behind the interval.
    by_split: f64[G] one value per split, NaN where a split has none; two
      estimates over the same splits are compared by `paired_difference`.
    pooling: the level at which an operating point is chosen: 'model'
      (one ROC per model), 'split' or 'population' (one threshold for all
      models of a split or of the population).
    note: why a value was refused or the interval is not the usual one.
    cross_fitted: whether the interval is widened, see `cross_fitted`.
  """

  value: float
  low: float
  high: float
  n: int
  by_split: np.ndarray = dataclasses.field(
    default_factory=lambda: np.zeros(0), repr=False
  )
  pooling: str = 'model'
  note: str = ''
  cross_fitted: bool = False


def over_splits(
  by_split: Float64[np.ndarray, ' G'],
  *,
  bounds: tuple[float, float] | None = None,
  value: float | None = None,
  pooling: str = 'model',
  note: str = '',
) -> Estimate:
  """Return the mean over splits with its 95% t-interval.

  Args:
    by_split: f64[G], NaN for splits without a value (left out and not counted).
    bounds: range of the metric, to which the interval is clipped.
    value: the estimate, where it is not the mean of `by_split`.
    pooling: see `Estimate`.
    note: see `Estimate`.
  """
  by_split = np.asarray(by_split, np.float64)
  known = by_split[np.isfinite(by_split)]
  n = len(known)
  if n == 0:
    note = note or 'no split has a value'
    return Estimate(np.nan, np.nan, np.nan, 0, by_split, pooling, note)
  mean = float(known.mean()) if value is None else float(value)
  if n == 1:
    note = note or 'one split: no interval'
    return Estimate(mean, np.nan, np.nan, 1, by_split, pooling, note)
  half = stats.t.ppf(0.975, n - 1) * known.std(ddof=1) / np.sqrt(n)
  low, high = mean - half, mean + half
  if bounds is not None:
    low, high = max(low, bounds[0]), min(high, bounds[1])
  return Estimate(mean, float(low), float(high), n, by_split, pooling, note)


def cross_fitted(
  estimate: Estimate, *, bounds: tuple[float, float] | None = (0.0, 1.0)
) -> Estimate:
  """Widen the interval of an attack that is fitted on the other groups.

  A group is scored with what the others say about an example, so any two groups
  share the product of their deviations: without a leak the mean over groups is
  a degenerate U-statistic of order two. Its variance is 2 (G-1)/G s^2, while
  the spread between the G values suggests (G-2)/G s^2. The plain t-interval is
  therefore too short by sqrt(2 (G-1)/(G-2)), however many groups there are;
  this function widens it by that factor. With a leak the interval is
  conservative.

  Args:
    estimate: over at least three groups. Estimates over fewer groups, refused
      ones and those already widened are returned unchanged.
    bounds: range of the metric, to which the interval is clipped; None for a
      difference.
  """
  n = estimate.n
  if n < 3 or estimate.cross_fitted or not np.isfinite(estimate.low):
    return estimate
  known = estimate.by_split[np.isfinite(estimate.by_split)]
  half = stats.t.ppf(0.975, n - 1) * known.std(ddof=1) / np.sqrt(n)
  half *= np.sqrt(2 * (n - 1) / (n - 2))
  low = min(estimate.low, estimate.value - half)
  high = max(estimate.high, estimate.value + half)
  if bounds is not None:
    low, high = max(low, bounds[0]), min(high, bounds[1])
  return dataclasses.replace(
    estimate, low=float(low), high=float(high), cross_fitted=True
  )


def group_means(
  by_model: Float64[np.ndarray, ' P'], group: Integer[np.ndarray, ' P']
) -> Float64[np.ndarray, ' G']:
  """Average models per group.

  Args:
    by_model: f64[P], NaN for models without a value.
    group: int[P].

  Returns:
    f64[G] in the order of the sorted groups, NaN for those without a value.
  """
  means = []
  for g in np.unique(group):
    known = by_model[(group == g) & np.isfinite(by_model)]
    means.append(known.mean() if len(known) else np.nan)
  return np.array(means)


def point(value: float, n: int, note: str = '') -> Estimate:
  """Return a number without an interval, based on n observations."""
  return Estimate(float(value), np.nan, np.nan, n, note=note)


def paired_difference(first: Estimate, second: Estimate) -> Estimate:
  """Return first - second, paired by split: the excess over retrained models.

  Raises:
    ValueError: the estimates are over different numbers of splits.
  """
  if first.by_split.shape != second.by_split.shape:
    raise ValueError(
      f'cannot pair estimates over {len(first.by_split)} and '
      f'{len(second.by_split)} splits; compute both from the same splits'
    )
  if not (np.isfinite(first.value) and np.isfinite(second.value)):
    note = first.note or second.note
    return Estimate(np.nan, np.nan, np.nan, 0, pooling='model', note=note)
  difference = first.by_split - second.by_split
  both_mean = first.pooling == second.pooling == 'model'
  result = over_splits(
    difference,
    value=None if both_mean else first.value - second.value,
    pooling=first.pooling,
    note=first.note or second.note,
  )
  widened = first.cross_fitted or second.cross_fitted
  return cross_fitted(result, bounds=None) if widened else result


def clopper_pearson(successes: int, trials: int) -> tuple[float, float]:
  """Return the exact 95% binomial interval of a rate.

  Valid for independent trials only; examples of one model are not.
  """
  if trials <= 0:
    return 0.0, 1.0
  tail = (1 - 0.95) / 2
  low, high = 0.0, 1.0
  if successes > 0:
    low = stats.beta.ppf(tail, successes, trials - successes + 1)
  if successes < trials:
    high = stats.beta.ppf(1 - tail, successes + 1, trials - successes)
  return float(low), float(high)


def clopper_pearson_upper(
  successes: Int[np.ndarray, '*S'], trials: int, *, level: float = 0.95
) -> Float64[np.ndarray, '*S']:
  """Return one-sided upper limits of rates, vectorised over `successes`."""
  successes = np.asarray(successes)
  upper = stats.beta.ppf(
    level, successes + 1, np.maximum(trials - successes, 1e-300)
  )
  return np.where(successes >= trials, 1.0, upper)
