"""What density attacks share: samples of an example without the left-out unit.

Density estimates cannot be updated by subtracting sums, so each left-out unit
meets all other models: P^2 comparisons per example, in slabs.
"""

from collections.abc import Callable

import numpy as np

from jaxmu.attacks import arrange, moments, streaming

_SLAB = 1 << 15  # scores per slab; a slab is compared with every model

# Maps targets f64[J, K], samples f64[M, K] and their kinds int[M, K] to log
# densities of the two kinds, f64[2, J, K].
Densities = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def ratio(
  densities: Densities,
  score: np.ndarray,
  state: np.ndarray,
  group: np.ndarray,
  *,
  mode: moments.Mode,
  threads: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
  """Compute log density ratios of forgotten against never seen.

  Args:
    densities: the estimator.
    score: float[P, N] or float[P, N, A].
    state: int8[P, N].
    group: int[P], left out together.
    mode: see `moments.make_units`.
    threads: as in `streaming.run`.

  Returns:
    Ratios f64[P, N], NaN where unscored (fewer than two observations of a kind
    outside the unit), and bool[P, N].
  """

  def begin(view: streaming.View) -> streaming.Work:
    def work(part: slice) -> np.ndarray:
      x, _, c = view.slab(part)
      out = np.empty_like(x)
      for rows in view.units.slices():
        rest = np.ones(len(x), bool)
        rest[rows] = not view.units.left_out
        log_f, log_n = densities(x[rows], x[rest], c[rest])
        enough = streaming.scored(c[rows])
        for kind in (arrange.FORGOTTEN, arrange.NEVER_SEEN):
          enough = enough & ((c[rest] == kind).sum(axis=0) >= 2)
        out[rows] = np.where(enough, log_f - log_n, np.nan)
      return out

    return work

  return streaming.run(
    begin, score, state, group, mode=mode, threads=threads, slab=_SLAB
  )


def quantile(ordered: np.ndarray, count: np.ndarray, q: float) -> np.ndarray:
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
