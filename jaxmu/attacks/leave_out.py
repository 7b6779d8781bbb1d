"""Per-example moments of a population, each without the models being scored.

A score fitted on the model that it evaluates shows leaks where there are none,
and so does one fitted on other models of the same split. All moments therefore
come per *unit*: the models that are left out together (one split, one pair of
complementary splits, one model). Sums over a unit are subtracted from sums over
all models, which equals refitting without it at a fraction of the cost.

Examples do not interact, except through a prior that is fitted first.
`run_in_slices` processes them in slabs [P, K], whose size sets the memory, in
parallel threads, since NumPy releases the interpreter lock.

A per-example variance of eight scores is off by half its size, which costs more
power at low FPR than anything else. `shrink` mixes it with the median variance
over examples; in simulations with 8 to 64 splits this is never worse than
either extreme.
"""

import dataclasses
import os
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Bool, Float, Float64, Int8, Integer
from scipy import special

from jaxmu.attacks import log_odds

Mode = Literal['in_sample', 'loo', 'logo']
MODES: tuple[Mode, ...] = get_args(Mode)
Location = Literal['mean', 'median']


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

  def slices(self) -> Iterator[slice]:
    """Yield the rows of each unit in sorted order."""
    for start, stop in zip(self.starts[:-1], self.starts[1:], strict=True):
      yield slice(start, stop)


def make_units(group: Integer[np.ndarray, ' P'], mode: Mode) -> Units:
  """Return the units of a mode.

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
    raise ValueError(f'mode is {mode!r}; choose one of {MODES}')
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


def centre(
  x: Float64[np.ndarray, 'P K'], state: Int8[np.ndarray, 'P K']
) -> Float64[np.ndarray, ' K']:
  """Subtract a per-example offset in place and return it, f64[K].

  Any offset near the data keeps sums of squares from cancelling; the mean of
  the used scores is within one standard deviation of them and needs no sort.

  Raises:
    ValueError: a score of state 1 or 2 is not finite.
  """
  used = scored(state)
  count = np.maximum(used.sum(axis=0), 1)
  offset = np.where(used, x, 0.0).sum(axis=0) / count
  if not np.isfinite(offset).all():
    raise ValueError(
      'some scores of forgotten or never-seen examples are not finite; pass '
      'them through log_odds.replace_non_finite and report its count'
    )
  x -= offset
  return offset


def leave_out(
  x: Float64[np.ndarray, 'P K'],
  state: Int8[np.ndarray, 'P K'],
  units: Units,
  which: int,
  *,
  location: Location = 'mean',
) -> Moments:
  """Compute the moments of one state without each unit.

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
    raise ValueError(f"location is {location!r}; use 'mean' or 'median'")
  return Moments(count, mean, variance)


def _medians(x: np.ndarray, units: Units) -> np.ndarray:
  """Medians over models without each unit, ignoring NaN, f64[U, K].

  Columns are sorted once; leaving a unit out only moves the middle past those
  of its members that come before it.
  """
  order = np.argsort(x, axis=0, kind='stable')  # NaN last
  ordered = np.take_along_axis(x, order, axis=0)
  rank = np.empty_like(order)
  np.put_along_axis(rank, order, np.arange(len(x))[:, None], axis=0)
  known = ~np.isnan(x)
  out = np.empty((units.count, x.shape[1]))
  for u, rows in enumerate(units.slices()):
    removed = np.sort(rank[rows], axis=0) if units.left_out else rank[:0]
    count = known.sum(axis=0)
    if units.left_out:
      count = count - known[rows].sum(axis=0)
    middle = []
    for place in ((count - 1) // 2, count // 2):
      index = np.maximum(place, 0)
      for before in removed:
        index = index + (before <= index)
      index = np.minimum(index, len(x) - 1)
      middle.append(np.take_along_axis(ordered, index[None], axis=0)[0])
    out[u] = np.where(count > 0, (middle[0] + middle[1]) / 2, np.nan)
  return out


_SLAB = 1 << 19  # scores per slab: 4 MiB in float64


@dataclasses.dataclass(frozen=True)
class View:
  """One augmentation of a population, divided into slabs.

  Attributes:
    score: float[P, N] scores to fit.
    target: float[P, N] scores to evaluate, often the same array.
    state: int8[P, N].
    units: what is left out together.
    columns: the slabs.
    pool: threads for passes that precede the scoring.
  """

  score: np.ndarray
  target: np.ndarray
  state: np.ndarray
  units: Units
  columns: list[slice]
  pool: futures.ThreadPoolExecutor

  def slab(
    self, part: slice | np.ndarray
  ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return scores, targets (f64, centred per example) and states [P, K].

    Rows are sorted by unit.
    """
    order = self.units.order
    x = self.score[:, part][order].astype(np.float64)
    c = self.state[:, part][order]
    offset = centre(x, c)
    if self.target is self.score:
      return x, x, c
    return x, self.target[:, part][order] - offset, c


Work = Callable[[slice], np.ndarray]  # a slab's scores f64[P, K], sorted rows


def run_in_slices(
  begin: Callable[[View], Work],
  score: Float[np.ndarray, 'P N *A'],
  state: Int8[np.ndarray, 'P N'],
  group: Integer[np.ndarray, ' P'],
  *,
  mode: Mode,
  target: Float[np.ndarray, 'P N *A'] | None = None,
  threads: int | None = None,
  slab: int = _SLAB,
) -> tuple[Float64[np.ndarray, 'P N'], Bool[np.ndarray, 'P N']]:
  """Score a population, averaging over augmentations.

  Args:
    begin: fits what examples share and returns the function of one slab.
    score: float[P, N] or float[P, N, A].
    state: int8[P, N].
    group: int[P].
    mode: see `leave_out.make_units`.
    target: as `score`; `score` if None.
    threads: worker threads; the number of processors if None.
    slab: scores per slab.

  Returns:
    f64[P, N], NaN where unscored, and bool[P, N] where scored.

  Raises:
    ValueError: shapes that do not fit.
  """
  score, state, group = map(np.asarray, (score, state, group))
  target = score if target is None else np.asarray(target)
  _check(score, state, group, target)
  units = make_units(group, mode)
  models, examples = state.shape
  columns = column_slices(models, examples, slab)
  views = [()] if score.ndim == 2 else [(a,) for a in range(score.shape[2])]
  total = np.zeros(state.shape)
  with futures.ThreadPoolExecutor(threads or os.cpu_count()) as pool:
    for index in views:
      one = score[(..., *index)]
      other = one if target is score else target[(..., *index)]
      work = begin(View(one, other, state, units, columns, pool))

      def add(part: slice, work: Work = work) -> None:
        total[units.order, part] += work(part)

      list(pool.map(add, columns))
  if len(views) > 1:
    total /= len(views)
  return total, ~np.isnan(total)


def column_slices(models: int, examples: int, slab: int) -> list[slice]:
  """Divide the examples into slabs of at most `slab` scores."""
  width = max(1, slab // max(models, 1))
  return [
    slice(start, min(start + width, examples))
    for start in range(0, examples, width)
  ]


def scored(state: Int8[np.ndarray, '*S']) -> Bool[np.ndarray, '*S']:
  """Say which entries are forgotten or never seen."""
  return (state == log_odds.FORGOTTEN) | (state == log_odds.NEVER_SEEN)


def _check(score, state, group, target) -> None:
  if state.ndim != 2 or score.ndim not in (2, 3):
    raise ValueError(
      f'score has shape {score.shape} and state {state.shape}; expected '
      '[models, examples] (score may have a last axis of augmentations)'
    )
  if score.shape[:2] != state.shape or target.shape != score.shape:
    raise ValueError(
      f'score {score.shape}, target {target.shape} and state {state.shape} '
      'must agree on [models, examples]'
    )
  if group.shape != state.shape[:1]:
    raise ValueError(
      f'group has shape {group.shape}; expected one per model, ({len(state)},)'
    )


Variance = Literal[
  'per_example', 'global', 'shrink', 'student', 'normal_inverse_gamma'
]
VARIANCES: tuple[Variance, ...] = get_args(Variance)
KINDS = (log_odds.FORGOTTEN, log_odds.NEVER_SEEN)

# Examples on which prior variances are estimated: a median needs no more.
_PRIOR_POINTS = 4096


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
  def floor(self) -> Float64[np.ndarray, 'U 1']:
    """Smallest variance used, f64[U, 1]."""
    return np.maximum(1e-6 * self.variance, 1e-12)[:, None]


def fit_prior(fit: Moments, strength: float | None) -> Prior:
  """Estimate the prior variance over examples.

  Args:
    fit: moments of many examples.
    strength: nu_0; the variance is then the median over examples. None fits
      both by empirical Bayes: the log variances of Gaussian samples have known
      mean and spread (digamma, trigamma), and what they spread beyond that
      gives nu_0 (Smyth 2004).
  """
  fits = [
    _fit_unit(v, k, strength)
    for v, k in zip(fit.variance, fit.count, strict=True)
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
  """Solve trigamma(x) = y by Newton steps on the convex 1 / trigamma."""
  x = 0.5 + 1 / y
  for _ in range(50):
    trigamma = special.polygamma(1, x)
    step = trigamma * (1 - trigamma / y) / special.polygamma(2, x)
    x += step
    if abs(step) < 1e-10 * x:
      break
  return float(x)


def priors(
  view: View, variance: Variance, strength: float | None
) -> list[Prior]:
  """Fit the priors of both kinds of observations, F then N.

  The median and the empirical Bayes fit are over at most 4,096 evenly spaced
  examples of those that are forgotten or never seen in some model, so that
  other examples of the data set change nothing; 'global' sums over all of them.
  """
  if variance == 'global':
    return _pooled(view)
  known = np.flatnonzero(scored(view.state).any(axis=0))
  count = min(known.size, _PRIOR_POINTS)
  points = known[np.linspace(0, known.size - 1, count).round().astype(int)]
  x, _, c = view.slab(points)
  return [
    fit_prior(leave_out(x, c, view.units, kind), strength) for kind in KINDS
  ]


def _pooled(view: View) -> list[Prior]:
  """Pool variances within examples: sum (k - 1) v / sum (k - 1)."""

  def sums(part: slice) -> list[Any]:
    x, _, c = view.slab(part)
    out = []
    for kind in KINDS:
      fit = leave_out(x, c, view.units, kind)
      degrees = np.maximum(fit.count - 1, 0)
      squares = np.where(degrees > 0, degrees * fit.variance, 0.0)
      out.append((squares.sum(axis=1), degrees.sum(axis=1)))
    return out

  total = np.sum(list(view.pool.map(sums, view.columns)), axis=0)  # [2, 2, U]
  pooled = total[:, 0] / np.maximum(total[:, 1], 1)
  return [Prior(v, np.full_like(v, np.inf)) for v in pooled]


def shrink(
  fit: Moments, prior: Prior, variance: Variance
) -> Float64[np.ndarray, 'U K']:
  """Return the variance to use, f64[U, K], floored at 1e-6 of the typical."""
  if variance == 'per_example':
    used = fit.variance
  elif variance == 'global':
    used = np.broadcast_to(prior.variance[:, None], fit.variance.shape)
  else:
    degrees = fit.count - 1
    nu, tau2 = prior.strength[:, None], prior.variance[:, None]
    used = (nu * tau2 + degrees * fit.variance) / (nu + degrees)
  return np.maximum(used, prior.floor)
