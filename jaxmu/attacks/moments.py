"""Per-example moments of a population, each without the models being scored.

A score fitted on the model that it judges finds leaks where there are none, and
so does one fitted on its siblings of the same split. Everything here therefore
comes per *unit*: the models that are left out together (one split, one pair of
complementary splits, one model). Sums over a unit are subtracted from sums over
all, which equals refitting without it at a fraction of the cost.

Arrays are processed in slabs of examples [P, K]; memory is set by the slab.
"""

import dataclasses
from typing import Literal

import numpy as np
from scipy import special

from jaxmu.attacks import roc_report

Mode = Literal['in_sample', 'loo', 'logo']
MODES: tuple[Mode, ...] = ('in_sample', 'loo', 'logo')
Location = Literal['mean', 'median']

# Points on which prior variances are estimated: a median needs no more.
PRIOR_POINTS = 4096


@dataclasses.dataclass(frozen=True)
class Units:
  """Which models are left out together.

  Attributes:
    order: int[P] models sorted by unit.
    starts: int[U + 1] where each unit begins in that order.
    left_out: whether scoring a unit leaves it out of the fit.
  """

  order: np.ndarray
  starts: np.ndarray
  left_out: bool

  @property
  def count(self) -> int:
    return len(self.starts) - 1

  def slices(self):
    """Yields the rows of each unit in sorted order."""
    for start, stop in zip(self.starts[:-1], self.starts[1:], strict=True):
      yield slice(start, stop)


def make_units(group: np.ndarray, mode: Mode) -> Units:
  """Returns the units of a mode.

  Args:
    group: int[P], what 'logo' leaves out together.
    mode: 'logo' leaves out the group of the scored model, 'loo' the model
      alone, 'in_sample' nothing. Only 'logo' is a valid test: without any leak
      the other two give an AUC above one half.

  Raises:
    ValueError: unknown mode.
  """
  models = len(group)
  if mode == 'in_sample':
    return Units(np.arange(models), np.array([0, models]), left_out=False)
  if mode == 'loo':
    return Units(np.arange(models), np.arange(models + 1), left_out=True)
  if mode != 'logo':
    raise ValueError(f'mode is {mode!r}; choose one of {MODES}.')
  index = np.unique(group, return_inverse=True)[1]
  order = np.argsort(index, kind='stable')
  starts = np.flatnonzero(np.diff(index[order], prepend=-1))
  return Units(order, np.append(starts, models), left_out=True)


@dataclasses.dataclass(frozen=True)
class Moments:
  """Count, mean and unbiased variance per unit left out, f64[U, K] each.

  The variance is NaN where the count is below two.
  """

  count: np.ndarray
  mean: np.ndarray
  variance: np.ndarray


def slab(
  score: np.ndarray, state: np.ndarray, units: Units, columns: slice
) -> tuple[np.ndarray, np.ndarray]:
  """Returns score (f64) and state of some examples, models sorted by unit."""
  return (
    score[units.order, columns].astype(np.float64),
    state[units.order, columns],
  )


def centre(x: np.ndarray, state: np.ndarray) -> np.ndarray:
  """Subtracts a per-example offset in place and returns it, f64[K].

  Any offset near the data keeps sums of squares from cancelling; the mean of
  the used scores lies within one standard deviation of them and needs no sort.

  Raises:
    ValueError: a score of state 1 or 2 is not finite.
  """
  used = (state == roc_report.FORGOTTEN) | (state == roc_report.NEVER_SEEN)
  count = np.maximum(used.sum(axis=0), 1)
  offset = np.where(used, x, 0.0).sum(axis=0) / count
  if not np.isfinite(offset).all():
    raise ValueError(
      'some scores of forgotten or never-seen examples are not finite; pass '
      'them through log_odds.replace_non_finite and report its count.'
    )
  x -= offset
  return offset


def leave_out(
  x: np.ndarray,
  state: np.ndarray,
  units: Units,
  which: int,
  *,
  location: Location = 'mean',
) -> Moments:
  """Computes the moments of one state without each unit.

  Args:
    x: f64[P, K] scores of one slab, sorted by unit and centred.
    state: int[P, K].
    units: what is left out together.
    which: the state whose scores enter.
    location: 'mean', or 'median' for the location of the public LiRA code (the
      variance stays about the mean). The median is re-sorted for each unit.

  Returns:
    Moments, f64[U, K].
  """
  sums = np.empty((3, units.count, x.shape[1]))
  for u, rows in enumerate(units.slices()):
    mask = state[rows] == which
    kept = np.where(mask, x[rows], 0.0)
    sums[0, u] = np.count_nonzero(mask, axis=0)
    sums[1, u] = kept.sum(axis=0)
    sums[2, u] = np.einsum('pk,pk->k', kept, kept)
  total = sums.sum(axis=1)
  if units.left_out:
    np.subtract(total[:, None], sums, out=sums)
  else:
    sums = total[:, None]
  count, first, second = sums
  with np.errstate(divide='ignore', invalid='ignore'):
    mean = first / count
    variance = np.maximum(second - first * mean, 0.0) / (count - 1)
  variance[count < 2] = np.nan
  if location == 'median':
    mean = _medians(np.where(state == which, x, np.nan), units)
  elif location != 'mean':
    raise ValueError(f"location is {location!r}; use 'mean' or 'median'.")
  return Moments(count, mean, variance)


def _medians(x: np.ndarray, units: Units) -> np.ndarray:
  """Medians over models without each unit, ignoring NaN."""
  out = np.full((units.count, x.shape[1]), np.nan)
  for u, rows in enumerate(units.slices()):
    rest = np.delete(x, rows, axis=0) if units.left_out else x
    known = ~np.isnan(rest).all(axis=0)
    out[u, known] = np.nanmedian(rest[:, known], axis=0)
  return out


@dataclasses.dataclass(frozen=True)
class Prior:
  """Typical variance of one state, per unit left out.

  Attributes:
    variance: f64[U] tau_0^2.
    strength: f64[U] nu_0, how many observations the prior is worth.
  """

  variance: np.ndarray
  strength: np.ndarray

  @property
  def floor(self) -> np.ndarray:
    """Smallest variance used, f64[U, 1]."""
    return np.maximum(1e-6 * self.variance, 1e-12)[:, None]


def prior_points(examples: int) -> np.ndarray:
  """Returns evenly spaced examples, at most `PRIOR_POINTS`."""
  count = min(examples, PRIOR_POINTS)
  return np.linspace(0, examples - 1, count).round().astype(int)


def fit_prior(moments: Moments, strength: float | None) -> Prior:
  """Estimates the prior variance over examples.

  Args:
    moments: of `prior_points`.
    strength: nu_0; the variance is then the median over examples. None fits
      both by empirical Bayes: the log variances of Gaussian samples have known
      mean and spread (digamma, trigamma), and what they spread beyond that
      gives nu_0 (Smyth 2004).
  """
  fits = [
    _fit_unit(v, k, strength)
    for v, k in zip(moments.variance, moments.count, strict=True)
  ]
  variance, nu = np.array(fits).T
  return Prior(variance, nu)


def _fit_unit(variance, count, strength) -> tuple[float, float]:
  known = np.isfinite(variance)
  if not known.any():
    return 1.0, 0.0 if strength is None else strength
  median = float(np.median(variance[known]))
  if strength is not None:
    return median, strength
  known &= variance > 1e-12 * max(median, 1e-300)
  half = (count[known] - 1) / 2
  if known.sum() < 2:
    return median, 0.0
  log_v = np.log(variance[known]) - special.digamma(half) + np.log(half)
  excess = log_v.var(ddof=1) - special.polygamma(1, half).mean()
  if excess <= 1e-6:  # no more spread than noise: one variance for all
    return float(np.exp(log_v.mean())), 1e6
  nu = 2 * _inverse_trigamma(excess)
  shift = special.digamma(nu / 2) - np.log(nu / 2)
  return float(np.exp(log_v.mean() + shift)), nu


def _inverse_trigamma(y: float) -> float:
  """Solves trigamma(x) = y by Newton steps on the convex 1 / trigamma."""
  x = 0.5 + 1 / y
  for _ in range(50):
    trigamma = special.polygamma(1, x)
    step = trigamma * (1 - trigamma / y) / special.polygamma(2, x)
    x += step
    if abs(step) < 1e-10 * x:
      break
  return float(x)


def pooled_variance(moments: Moments) -> tuple[np.ndarray, np.ndarray]:
  """Returns sum (k - 1) v and sum (k - 1) over the examples, f64[U] each."""
  degrees = np.maximum(moments.count - 1, 0)
  squares = np.where(degrees > 0, degrees * moments.variance, 0.0)
  return squares.sum(axis=1), degrees.sum(axis=1)
