"""Critical-difference diagrams: which methods cannot be told apart."""

from collections.abc import Sequence

import numpy as np
from matplotlib import axes, figure
from numpy.typing import ArrayLike

from jaxmu.report import names
from jaxmu.report.plots import style


@style.styled
def critical_difference(
  methods: Sequence[str],
  mean_rank: ArrayLike,
  difference: float,
  *,
  reference: str = names.REFERENCE,
  title: str = 'Mean rank of each method (1 is best)',
) -> figure.Figure:
  """Draw mean ranks, with a bar over methods that cannot be told apart.

  The diagram of Demšar (2006): methods joined by a bar differ by less than the
  critical difference.

  Args:
    methods: M keys.
    mean_rank: f64[M] mean ranks, 1 the best.
    difference: the critical difference of mean ranks, NaN for none.
    reference: key of the retrained models, led to by a dashed line.
    title: headline.

  Returns:
    The figure.

  Raises:
    ValueError: not one rank per method.
  """
  rank = np.ravel(np.asarray(mean_rank, np.float64))
  if rank.size != len(methods):
    raise ValueError(f'{len(methods)} methods but {rank.size} mean ranks')
  keep = np.flatnonzero(np.isfinite(rank))
  order = keep[np.argsort(rank[keep], kind='stable')]
  rank, labels = rank[order], [list(methods)[i] for i in order]
  bars = _cliques(rank, difference)
  half = -(-len(labels) // 2)
  top = 0.9 + 0.22 * len(bars)  # depth of the first name below the axis
  depth = top + 0.42 * half
  fig = style.canvas(7.6, 1.2 + 0.52 * depth)
  panel = fig.add_subplot()
  panel.set_axis_off()
  worst = max(len(methods), 2)
  pad = 0.28 * (worst - 1)
  panel.set(xlim=(1 - pad, worst + pad), ylim=(depth, -1.5))
  _axis(panel, worst, difference)
  for i, (first, last) in enumerate(bars):
    y = 0.45 + 0.22 * i
    ends = [rank[first] - 0.008 * worst, rank[last] + 0.008 * worst]
    panel.plot(ends, [y, y], color=style.BLUE, lw=4, solid_capstyle='butt')
  _names(panel, rank, labels, worst, top, reference)
  missing = len(methods) - len(labels)
  if missing:
    style.note(panel, f'{missing} methods without a rank', y=0.02, va='bottom')
  style.title(fig, title)
  return fig


def _axis(panel: axes.Axes, worst: int, difference: float) -> None:
  panel.plot([1, worst], [0, 0], color=style.INK, lw=1.2)
  step = 1 if worst <= 12 else 2
  for tick in range(1, worst + 1, step):
    panel.plot([tick, tick], [-0.14, 0], color=style.INK, lw=1)
    panel.text(tick, -0.24, str(tick), ha='center', va='bottom', fontsize=8)
  if np.isfinite(difference):
    end = min(1 + difference, worst)
    panel.plot([1, end], [-1.05, -1.05], color=style.INK, lw=1.4)
    for x in (1, end):
      panel.plot([x, x], [-1.15, -0.95], color=style.INK, lw=1.4)
    panel.text(
      end + 0.015 * worst,
      -1.05,
      f'critical difference {difference:.2f}',
      va='center',
      fontsize=8,
    )


def _names(
  panel: axes.Axes,
  rank: np.ndarray,
  labels: Sequence[str],
  worst: int,
  top: float,
  reference: str,
) -> None:
  """Lead from each rank to its name: the better half left, the rest right."""
  half = -(-len(labels) // 2)
  for i, (x, label) in enumerate(zip(rank, labels, strict=True)):
    left = i < half
    y = top + 0.42 * (i if left else len(labels) - 1 - i)
    edge = 1 - 0.03 * worst if left else worst + 0.03 * worst
    name = style.label(label, reference)
    line = (0, (4, 2)) if label == reference else '-'
    panel.plot([x, x, edge], [0, y, y], color='#666666', lw=0.8, ls=line)
    panel.plot(x, 0, 'o', color=style.INK, ms=3.5)
    panel.text(
      edge + (-0.01 if left else 0.01) * worst,
      y,
      f'{name}  {x:.1f}' if left else f'{x:.1f}  {name}',
      ha='right' if left else 'left',
      va='center',
    )


def _cliques(rank: np.ndarray, difference: float) -> list[tuple[int, int]]:
  """Return the maximal runs of sorted ranks within the critical difference."""
  runs: list[tuple[int, int]] = []
  for first in range(rank.size):
    last = int(np.flatnonzero(rank <= rank[first] + difference).max(initial=0))
    if last > first and (not runs or last > runs[-1][1]):
      runs.append((first, last))
  return runs
