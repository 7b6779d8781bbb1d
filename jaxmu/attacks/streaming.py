"""Runs a per-example attack over slabs of examples, with threads.

Attacks fit something per example and per left-out unit, then score the models.
Examples do not interact (but through a prior, fitted beforehand), so they are
processed in slabs: memory is set by the slab, not by the population, and slabs
run in parallel, since NumPy releases the interpreter lock.
"""

import dataclasses
import os
from collections.abc import Callable
from concurrent import futures

import numpy as np

from jaxmu.attacks import arrange, moments

_SLAB = 1 << 19  # scores per slab: 4 MiB in float64


@dataclasses.dataclass(frozen=True)
class View:
  """One augmentation of a population, and how it is cut.

  Attributes:
    score: float[P, N] scores to fit.
    target: float[P, N] scores to judge, often the same array.
    state: int8[P, N].
    units: what is left out together.
    columns: the slabs.
    pool: threads for passes that precede the scoring.
  """

  score: np.ndarray
  target: np.ndarray
  state: np.ndarray
  units: moments.Units
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
    offset = moments.centre(x, c)
    if self.target is self.score:
      return x, x, c
    return x, self.target[:, part][order] - offset, c


Work = Callable[[slice], np.ndarray]  # a slab's scores f64[P, K], sorted rows


def run(
  begin: Callable[[View], Work],
  score: np.ndarray,
  state: np.ndarray,
  group: np.ndarray,
  *,
  mode: moments.Mode,
  target: np.ndarray | None = None,
  threads: int | None = None,
  slab: int = _SLAB,
) -> tuple[np.ndarray, np.ndarray]:
  """Score a population, averaging over augmentations.

  Args:
    begin: fits what examples share and returns the function of one slab.
    score: float[P, N] or float[P, N, A].
    state: int8[P, N].
    group: int[P].
    mode: see `moments.make_units`.
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
  units = moments.make_units(group, mode)
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
  """Cut the examples into slabs of at most `slab` scores."""
  width = max(1, slab // max(models, 1))
  return [
    slice(start, min(start + width, examples))
    for start in range(0, examples, width)
  ]


def scored(state: np.ndarray) -> np.ndarray:
  """Say which entries are either kind of observation."""
  return (state == arrange.FORGOTTEN) | (state == arrange.NEVER_SEEN)


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
