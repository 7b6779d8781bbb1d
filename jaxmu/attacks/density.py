"""Density attacks: ratios of kernel densities (KDE) and of histograms.

KDE (RULI, 2025):

    log p_s(x) = logsumexp_i(-(x - x_i)^2 / (2 h^2)) - log(k h sqrt(2 pi))

over the k models of kind s outside the scored model's unit, with
`h = 0.9 min(sd, IQR / 1.34) k^(-1/5)` per example and kind (Silverman), or a
fixed h: 1.0 in RULI's code.

Histogram: log ratio of smoothed bin counts. Per example, both kinds share bins
over the pooled range of the models outside the scored model's unit; counts get
one half added, so that no ratio is infinite. Scores beyond the range fall into
the outermost bins.

Density estimates cannot be updated by subtracting sums, so each left-out unit
is compared with all other models: P^2 comparisons per example, in slabs.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float64, Int, Int8, Integer

from jaxmu.attacks import leave_out, log_odds
from jaxmu.attacks.interface import Card, ScoreFunction, from_score
from jaxmu.terms import PROJECT

_SMALLEST_BANDWIDTH = 1e-6
_SLAB = 1 << 15  # scores per slab; a slab is compared with every model

# Maps targets f64[J, K], samples f64[M, K] and their kinds int[M, K] to log
# densities of the two kinds, f64[2, J, K].
Densities = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def kde(
  score: Float[np.ndarray, 'P N *A'],
  state: Int8[np.ndarray, 'P N'],
  group: Integer[np.ndarray, ' P'],
  *,
  bandwidth: float | None = None,
  mode: leave_out.Mode = 'logo',
) -> tuple[Float64[np.ndarray, 'P N'], Bool[np.ndarray, 'P N']]:
  """Compute log density ratios of forgotten against never seen.

  Args:
    score: float[P, N] or float[P, N, A], finite.
    state: int8[P, N], 1 forgotten, 2 never seen, others ignored.
    group: int[P], left out together.
    bandwidth: h in units of the score; None for Silverman's rule.
    mode: see `leave_out.make_units`.

  Returns:
    Ratios f64[P, N], NaN where unscored, and bool[P, N]. Decide above 0.

  Raises:
    ValueError: shapes that do not fit or a bandwidth that is not positive.
  """
  if bandwidth is not None and not bandwidth > 0:
    raise ValueError(f'bandwidth is {bandwidth}; it must be positive')

  def densities(target, sample, kinds):
    return np.stack(
      [
        _log_density(target, np.where(kinds == kind, sample, np.nan), bandwidth)
        for kind in leave_out.KINDS
      ]
    )

  return density_ratio(densities, score, state, group, mode=mode)


def _log_density(target, sample, bandwidth) -> np.ndarray:
  """Log density f64[J, K] of columns of `sample` (NaN for absent)."""
  ordered = np.sort(sample, axis=0)
  count = np.count_nonzero(~np.isnan(sample), axis=0)
  ordered = ordered[: max(int(count.max(initial=0)), 1)]
  if bandwidth is None:
    h = silverman(ordered, count)
  else:
    h = np.full(len(count), bandwidth)
  with np.errstate(invalid='ignore', divide='ignore'):
    exponent = (target[:, None] - ordered) / h  # f64[J, M, K]
    exponent *= -0.5 * exponent
    exponent[np.isnan(exponent)] = -np.inf
    top = exponent.max(axis=1)
    top = np.where(np.isfinite(top), top, 0.0)
    mass = np.exp(exponent - top[:, None]).sum(axis=1)
    return top + np.log(mass) - np.log(count * h * np.sqrt(2 * np.pi))


def silverman(
  ordered: Float64[np.ndarray, 'M K'], count: Int[np.ndarray, ' K']
) -> Float64[np.ndarray, ' K']:
  """Return 0.9 min(sd, IQR / 1.34) k^(-1/5) of columns.

  Args:
    ordered: f64[M, K] sorted along the first axis, NaN last.
    count: int[K] entries that are not NaN.
  """
  k = np.maximum(count, 1)
  present = np.arange(len(ordered))[:, None] < count
  mean = np.where(present, ordered, 0.0).sum(axis=0) / k
  squares = np.where(present, (ordered - mean) ** 2, 0.0).sum(axis=0)
  sd = np.sqrt(squares / np.maximum(count - 1, 1))
  upper = neighbour_quantile(ordered, count, 0.75)
  iqr = upper - neighbour_quantile(ordered, count, 0.25)
  # The IQR is 0 if half of the scores are equal; use the deviation then.
  spread = np.where(iqr > 0, np.minimum(sd, iqr / 1.34), sd)
  return np.maximum(0.9 * spread * k**-0.2, _SMALLEST_BANDWIDTH)


def histogram(
  score: Float[np.ndarray, 'P N *A'],
  state: Int8[np.ndarray, 'P N'],
  group: Integer[np.ndarray, ' P'],
  *,
  bins: int | None = 20,
  mode: leave_out.Mode = 'logo',
) -> tuple[Float64[np.ndarray, 'P N'], Bool[np.ndarray, 'P N']]:
  """Compute log ratios of bin frequencies, forgotten against never seen.

  Args:
    score: float[P, N] or float[P, N, A], finite.
    state: int8[P, N], 1 forgotten, 2 never seen, others ignored.
    group: int[P], left out together.
    bins: number of bins; None for the rule of Freedman and Diaconis, which
      makes bins 2 IQR k^(-1/3) wide (2 to 200 of them).
    mode: see `leave_out.make_units`.

  Returns:
    Ratios f64[P, N], NaN where unscored, and bool[P, N]. Decide above 0.

  Raises:
    ValueError: shapes that do not fit or fewer than two bins.
  """
  if bins is not None and bins < 2:
    raise ValueError(f'bins is {bins}; at least 2 are needed')

  def densities(target, sample, kinds):
    used = np.isin(kinds, leave_out.KINDS)
    ordered = np.sort(np.where(used, sample, np.nan), axis=0)
    count = used.sum(axis=0)
    low = np.nan_to_num(ordered[0])
    high = np.nan_to_num(neighbour_quantile(ordered, count, 1.0))
    number = (
      bins
      if bins is not None
      else _freedman_diaconis(ordered, count, high - low)
    )
    width = np.maximum((high - low) / number, 1e-300)

    def bin_of(x):
      return np.clip(np.floor((x - low) / width), 0, number - 1)

    same = bin_of(target)[:, None] == bin_of(sample)  # bool[J, M, K]
    return np.stack(
      [
        np.log((same & (kinds == kind)).sum(axis=1) + 0.5)
        - np.log((kinds == kind).sum(axis=0) + 0.5 * number)
        for kind in leave_out.KINDS
      ]
    )

  return density_ratio(densities, score, state, group, mode=mode)


def _freedman_diaconis(ordered, count, span) -> np.ndarray:
  iqr = neighbour_quantile(ordered, count, 0.75) - neighbour_quantile(
    ordered, count, 0.25
  )
  width = 2 * np.nan_to_num(iqr) * np.maximum(count, 1) ** (-1 / 3)
  with np.errstate(divide='ignore', invalid='ignore'):
    number = np.nan_to_num(np.ceil(span / width), nan=2.0, posinf=200.0)
  return np.clip(number, 2, 200)


def density_ratio(
  densities: Densities,
  score: Float[np.ndarray, 'P N *A'],
  state: Int8[np.ndarray, 'P N'],
  group: Integer[np.ndarray, ' P'],
  *,
  mode: leave_out.Mode,
) -> tuple[Float64[np.ndarray, 'P N'], Bool[np.ndarray, 'P N']]:
  """Compute log density ratios of forgotten against never seen.

  Args:
    densities: the estimator.
    score: float[P, N] or float[P, N, A].
    state: int8[P, N].
    group: int[P], left out together.
    mode: see `leave_out.make_units`.

  Returns:
    Ratios f64[P, N], NaN where unscored (fewer than two observations of a kind
    outside the unit), and bool[P, N].
  """

  def begin(view: leave_out.View) -> leave_out.Work:
    def work(part: slice) -> np.ndarray:
      x, _, c = view.slab(part)
      out = np.empty_like(x)
      for rows in view.units.slices():
        rest = np.ones(len(x), bool)
        rest[rows] = not view.units.left_out
        with np.errstate(invalid='ignore'):  # excluded entries may be NaN
          log_f, log_n = densities(x[rows], x[rest], c[rest])
          ratio = log_f - log_n
        enough = leave_out.scored(c[rows])
        for kind in (log_odds.FORGOTTEN, log_odds.NEVER_SEEN):
          enough = enough & ((c[rest] == kind).sum(axis=0) >= 2)
          out[rows] = np.where(enough, ratio, np.nan)
      return out

    return work

  return leave_out.run_in_slices(
    begin, score, state, group, mode=mode, slab=_SLAB
  )


def neighbour_quantile(
  ordered: Float64[np.ndarray, 'M K'], count: Int[np.ndarray, ' K'], q: float
) -> Float64[np.ndarray, ' K']:
  """Return linearly interpolated quantiles of columns.

  Args:
    ordered: f64[M, K] sorted along the first axis, NaN last.
    count: int[K] entries that are not NaN.
    q: in [0, 1].
  """
  place = q * np.maximum(count - 1, 0)
  low = np.floor(place).astype(int)
  high = np.minimum(low + 1, np.maximum(count - 1, 0))
  a, b = (
    np.take_along_axis(ordered, index[None], axis=0)[0] for index in (low, high)
  )
  return a + (place - low) * (b - a)


def _score_by(function: Callable[..., Any]) -> ScoreFunction:
  return lambda population, data, options: function(
    population.log_odds, population.audited_state, population.group
  )[0]


KDE = from_score(
  'kde',
  _score_by(kde),
  Card(
    title='Kernel density attack',
    subject='the attack with kernel densities',
    source='RULI 2025',
    cost='costly',
  ),
  threshold=0.0,
  cross_fitted=True,
)

HISTOGRAM = from_score(
  'histogram',
  _score_by(histogram),
  Card(
    title='Histogram attack',
    subject='the attack with histograms',
    source=PROJECT,
    cost='costly',
  ),
  threshold=0.0,
  cross_fitted=True,
)
