"""Evidence for statements: one-sided p-values that combine to a verdict.

A statement is supported by data that would be unlikely if it were false, and
contradicted by data that would be unlikely if it were true. `Evidence` holds
both p-values. A statement *holds* if the first is at most 2.5%, *does not hold*
if the second is, and is *undecided* otherwise; for a number compared with a
threshold, this asks on which side of the threshold its 95% interval lies.

Statements that have several parts combine their evidence:

  every      all parts are true: the largest p-value for it (an
             intersection-union test needs no correction), and the smallest
             against it, corrected for the number of parts
  at_least   k of n parts are true: the k-th smallest p-value after Holm's
             correction
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from jaxmu.attacks import intervals
from jaxmu.metrics import ranking

LEVEL = 0.025  # one-sided
RESAMPLES = 2000
HOLDS, FAILS, UNDECIDED = 'holds', 'does not hold', 'undecided'


class Evidence(NamedTuple):
  """One-sided p-values of a statement.

  Attributes:
    false: of the data if the statement were false; small where it holds.
    true: of the data if the statement were true; small where it does not hold.
  """

  false: float
  true: float

  @property
  def verdict(self) -> str:
    """`HOLDS`, `FAILS` or `UNDECIDED`."""
    if self.false <= LEVEL:
      return HOLDS
    return FAILS if self.true <= LEVEL else UNDECIDED


NONE = Evidence(1.0, 1.0)


class Number(NamedTuple):
  """A number with its 95% interval, NaN where there is none."""

  value: float
  low: float = math.nan
  high: float = math.nan


def certain(statement: bool) -> Evidence:
  """Return the evidence of a statement about the tables themselves.

  Example:
    >>> certain(True).verdict, certain(False).verdict
    ('holds', 'does not hold')
  """
  return Evidence(0.0, 1.0) if statement else Evidence(1.0, 0.0)


def every(parts: Sequence[Evidence]) -> Evidence:
  """Combine parts that must all be true; without any, nothing is known."""
  if not parts:
    return NONE
  smallest = min(part.true for part in parts)
  return Evidence(
    max(part.false for part in parts), min(1.0, len(parts) * smallest)
  )


def either(*parts: Evidence) -> Evidence:
  """Combine parts of which one must be true."""
  return at_least(1, parts)


def at_least(count: int, parts: Sequence[Evidence]) -> Evidence:
  """Combine parts of which at least `count` must be true.

  Example:
    >>> at_least(2, [certain(True), certain(True), certain(False)]).verdict
    'holds'
  """
  size = len(parts)
  if count <= 0:
    return certain(True)
  if count > size:
    return certain(False)
  false, true = (
    np.array(column, np.float64) for column in zip(*parts, strict=True)
  )
  # It is false if `size - count + 1` of the parts are.
  return Evidence(_partial(false, count), _partial(true, size - count + 1))


def _partial(p_values: np.ndarray, count: int) -> float:
  """Return the p-value that at least `count` of the tests reject."""
  if count == len(p_values):
    return float(p_values.max())
  return float(np.sort(ranking.holm(p_values))[count - 1])


def compare(
  number: Number, threshold: float, *, n: int, below: bool
) -> Evidence:
  """Compare a number that has a t-interval with a threshold.

  Args:
    number: with its 95% interval, of which one end may be clipped.
    threshold: the value that the statement names.
    n: clusters behind the interval.
    below: whether the statement is that the number is below it, else above.

  Example:
    >>> compare(Number(0.6, 0.55, 0.65), 0.5, n=8, below=False).verdict
    'holds'
  """
  value = number.value
  if not math.isfinite(value):
    return NONE
  half = np.fmax(value - number.low, number.high - value)
  if not math.isfinite(half) or n < 2:
    return NONE
  if half == 0:
    return certain(value < threshold if below else value > threshold)
  error = half / stats.t.ppf(1 - LEVEL, n - 1)
  t = (value - threshold) / error
  sides = float(stats.t.cdf(t, n - 1)), float(stats.t.sf(t, n - 1))
  return Evidence(*(sides if below else sides[::-1]))


def within(number: Number, low: float, high: float, *, n: int) -> Evidence:
  """Say whether a number lies inside [low, high]: both one-sided tests."""
  return every(
    [
      compare(number, low, n=n, below=False),
      compare(number, high, n=n, below=True),
    ]
  )


def mean(values: np.ndarray, *, fitted: bool = False) -> Number:
  """Return the mean over clusters with its 95% t-interval.

  Args:
    values: f64[G]; those that are not finite are left out.
    fitted: widen the interval as that of an attack which is fitted on the other
      clusters, see `intervals.cross_fitted`.
  """
  estimate = intervals.over_splits(np.asarray(values, np.float64))
  if fitted:
    estimate = intervals.cross_fitted(estimate, bounds=None)
  return Number(estimate.value, estimate.low, estimate.high)


def about_mean(
  values: np.ndarray, threshold: float, *, below: bool, fitted: bool = False
) -> Evidence:
  """Compare the mean over clusters with a threshold, by a t-test."""
  n = int(np.isfinite(values).sum())
  return compare(mean(values, fitted=fitted), threshold, n=n, below=below)


def smaller(first: np.ndarray, second: np.ndarray) -> Evidence:
  """Test whether the first of paired values are smaller, f64[S] each.

  Wilcoxon's signed-rank test, as in `jaxmu.metrics.ranking`. With fewer than
  six pairs it can never decide.

  Example:
    >>> smaller(np.arange(10.0), np.arange(10.0) + 1).verdict
    'holds'
  """
  difference = np.asarray(first, np.float64) - np.asarray(second, np.float64)
  difference = difference[np.isfinite(difference)]
  if not difference.any():
    return NONE

  def p_value(alternative: str) -> float:
    result: Any = stats.wilcoxon(difference, alternative=alternative)
    return float(result.pvalue)

  return Evidence(false=p_value('less'), true=p_value('greater'))


def resample(
  statistic: Callable[[np.ndarray], np.ndarray],
  clusters: int,
  *,
  resamples: int = RESAMPLES,
) -> np.ndarray:
  """Return a statistic of resampled clusters, f64[R].

  Args:
    statistic: from positions of clusters i64[R, clusters] to f64[R].
    clusters: how many there are.
    resamples: how often to draw, R.
  """
  rng = np.random.default_rng(0)
  return statistic(rng.integers(0, clusters, (resamples, clusters)))


def bootstrap(value: Any, drawn: np.ndarray) -> Number:
  """Return a number with the percentile interval of its resamples."""
  drawn = drawn[np.isfinite(drawn)]
  if not drawn.size:
    return Number(value)
  low, high = np.quantile(drawn, [LEVEL, 1 - LEVEL])
  return Number(float(value), float(low), float(high))


def about_resamples(
  drawn: np.ndarray, threshold: float, *, below: bool, closed: bool = False
) -> Evidence:
  """Compare a resampled number with a threshold.

  Args:
    drawn: the resamples; those that are not finite are left out.
    threshold: the value that the statement names.
    below: whether the statement is that the number is below it, else above.
    closed: whether the statement is true at the threshold.
  """
  drawn = drawn[np.isfinite(drawn)]
  if not drawn.size:
    return NONE
  agrees = drawn < threshold if below else drawn > threshold
  if closed:
    agrees |= drawn == threshold
  count, size = int(agrees.sum()), len(drawn)
  return Evidence((size - count + 1) / (size + 1), (count + 1) / (size + 1))


def deviation(values: np.ndarray) -> Number:
  """Return the standard deviation with the interval of normal values.

  Args:
    values: f64[S], finite.
  """
  n = len(values)
  if n < 2:
    return Number(math.nan)
  found = float(np.std(values, ddof=1))
  ends = stats.chi2.ppf([1 - LEVEL, LEVEL], n - 1)
  low, high = found * np.sqrt((n - 1) / ends)
  return Number(found, float(low), float(high))


def deviation_below(values: np.ndarray, threshold: float) -> Evidence:
  """Test whether the standard deviation of normal values is below a threshold.

  The test is that of the variance by chi-squared.
  """
  n = len(values)
  if n < 2 or not np.isfinite(values).all():
    return NONE
  scaled = (n - 1) * np.var(values, ddof=1) / threshold**2
  return Evidence(
    float(stats.chi2.cdf(scaled, n - 1)), float(stats.chi2.sf(scaled, n - 1))
  )
