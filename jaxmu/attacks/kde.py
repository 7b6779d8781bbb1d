"""KDE attack: likelihood ratios of kernel density estimates (RULI, 2025).

    log p_s(phi) = logsumexp_i(-(phi - phi_i)^2 / (2 h^2)) - log(k h sqrt(2 pi))

over the k models of kind s outside the scored model's unit, with
`h = 0.9 min(sd, IQR / 1.34) k^(-1/5)` per example and kind (Silverman), or a
fixed h: 1.0 in RULI's code.
"""

import numpy as np

from jaxmu.attacks import moments, neighbours, shrinkage

_SMALLEST_BANDWIDTH = 1e-6


def kde(
  score: np.ndarray,
  state: np.ndarray,
  group: np.ndarray,
  *,
  bandwidth: float | None = None,
  mode: moments.Mode = 'logo',
  threads: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
  """Compute log density ratios of forgotten against never seen.

  Args:
    score: float[P, N] or float[P, N, A], finite.
    state: int8[P, N], 1 forgotten, 2 never seen, others ignored.
    group: int[P], left out together.
    bandwidth: h in units of the score; None for Silverman's rule.
    mode: see `moments.make_units`.
    threads: worker threads; the number of processors if None.

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
        for kind in shrinkage.KINDS
      ]
    )

  return neighbours.ratio(
    densities, score, state, group, mode=mode, threads=threads
  )


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


def silverman(ordered: np.ndarray, count: np.ndarray) -> np.ndarray:
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
  upper = neighbours.quantile(ordered, count, 0.75)
  iqr = upper - neighbours.quantile(ordered, count, 0.25)
  # Half of the scores equal: an IQR of 0 says nothing about the width.
  spread = np.where(iqr > 0, np.minimum(sd, iqr / 1.34), sd)
  return np.maximum(0.9 * spread * k**-0.2, _SMALLEST_BANDWIDTH)
