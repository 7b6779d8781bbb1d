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

from jaxmu.attacks import arrange

Mode = Literal['in_sample', 'loo', 'logo']
MODES: tuple[Mode, ...] = ('in_sample', 'loo', 'logo')
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

  def slices(self):
    """Yield the rows of each unit in sorted order."""
    for start, stop in zip(self.starts[:-1], self.starts[1:], strict=True):
      yield slice(start, stop)


def make_units(group: np.ndarray, mode: Mode) -> Units:
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


def centre(x: np.ndarray, state: np.ndarray) -> np.ndarray:
  """Subtract a per-example offset in place and returns it, f64[K].

  Any offset near the data keeps sums of squares from cancelling; the mean of
  the used scores lies within one standard deviation of them and needs no sort.

  Raises:
    ValueError: a score of state 1 or 2 is not finite.
  """
  used = (state == arrange.FORGOTTEN) | (state == arrange.NEVER_SEEN)
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
  x: np.ndarray,
  state: np.ndarray,
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
