"""Histogram attack: log ratio of smoothed bin counts.

Per example, both kinds share bins over the pooled range of the models outside
the scored model's unit; counts get one half added, so that no ratio is
infinite. Scores beyond the range fall into the outermost bins.
"""

import numpy as np

from jaxmu.attacks import moments, neighbours, shrinkage


def histogram(
  score: np.ndarray,
  state: np.ndarray,
  group: np.ndarray,
  *,
  bins: int | None = 20,
  mode: moments.Mode = 'logo',
  threads: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
  """Compute log ratios of bin frequencies, forgotten against never seen.

  Args:
    score: float[P, N] or float[P, N, A], finite.
    state: int8[P, N], 1 forgotten, 2 never seen, others ignored.
    group: int[P], left out together.
    bins: number of bins; None for the rule of Freedman and Diaconis, which
      makes bins 2 IQR k^(-1/3) wide (2 to 200 of them).
    mode: see `moments.make_units`.
    threads: worker threads; the number of processors if None.

  Returns:
    Ratios f64[P, N], NaN where unscored, and bool[P, N]. Decide above 0.

  Raises:
    ValueError: shapes that do not fit or fewer than two bins.
  """
  if bins is not None and bins < 2:
    raise ValueError(f'bins is {bins}; at least 2 are needed')

  def densities(target, sample, kinds):
    used = np.isin(kinds, shrinkage.KINDS)
    ordered = np.sort(np.where(used, sample, np.nan), axis=0)
    count = used.sum(axis=0)
    low = np.nan_to_num(ordered[0])
    high = np.nan_to_num(neighbours.quantile(ordered, count, 1.0))
    number = bins if bins is not None else _rule(ordered, count, high - low)
    width = np.maximum((high - low) / number, 1e-300)

    def bin_of(x):
      return np.clip(np.floor((x - low) / width), 0, number - 1)

    same = bin_of(target)[:, None] == bin_of(sample)  # bool[J, M, K]
    return np.stack(
      [
        np.log((same & (kinds == kind)).sum(axis=1) + 0.5)
        - np.log((kinds == kind).sum(axis=0) + 0.5 * number)
        for kind in shrinkage.KINDS
      ]
    )

  return neighbours.ratio(
    densities, score, state, group, mode=mode, threads=threads
  )


def _rule(ordered, count, span) -> np.ndarray:
  iqr = neighbours.quantile(ordered, count, 0.75) - neighbours.quantile(
    ordered, count, 0.25
  )
  width = 2 * np.nan_to_num(iqr) * np.maximum(count, 1) ** (-1 / 3)
  with np.errstate(divide='ignore', invalid='ignore'):
    number = np.nan_to_num(np.ceil(span / width), nan=2.0, posinf=200.0)
  return np.clip(number, 2, 200)
