"""Methods against each other: critical differences and Pareto fronts."""

from collections.abc import Sequence

import numpy as np
from matplotlib import axes, figure
from numpy.typing import ArrayLike

from jaxmu.report import glossary, names
from jaxmu.report.plots import style


@style.styled
def critical_difference(
  methods: Sequence[str],
  mean_rank: ArrayLike,
  difference: float,
  *,
  title: str = 'Mean rank of each method (1 is best)',
) -> figure.Figure:
  """Draw mean ranks, with a bar over methods that cannot be told apart.

  The diagram of Demšar (2006): methods joined by a bar differ by less than the
  critical difference.

  Args:
    methods: M keys.
    mean_rank: f64[M] mean ranks, 1 the best.
    difference: the critical difference of mean ranks, NaN for none.
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
  rank, labels = rank[order], [names.label(methods[i]) for i in order]
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
  for i, (x, text) in enumerate(zip(rank, labels, strict=True)):
    left = i < half
    y = top + 0.42 * (i if left else len(labels) - 1 - i)
    edge = 1 - 0.03 * worst if left else worst + 0.03 * worst
    panel.plot([x, x, edge], [0, y, y], color='#666666', lw=0.8)
    panel.plot(x, 0, 'o', color=style.INK, ms=3.5)
    panel.text(
      edge + (-0.01 if left else 0.01) * worst,
      y,
      f'{style.escape(text)}  {x:.1f}'
      if left
      else f'{x:.1f}  {style.escape(text)}',
      ha='right' if left else 'left',
      va='center',
    )
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


def _cliques(rank: np.ndarray, difference: float) -> list[tuple[int, int]]:
  """Return the maximal runs of sorted ranks within the critical difference."""
  runs: list[tuple[int, int]] = []
  for first in range(rank.size):
    last = int(np.flatnonzero(rank <= rank[first] + difference).max(initial=0))
    if last > first and (not runs or last > runs[-1][1]):
      runs.append((first, last))
  return runs


@style.styled
def pareto(
  methods: Sequence[str],
  x: ArrayLike,
  y: ArrayLike,
  *,
  x_metric: str = 'ret_dev',
  y_metric: str = 'excess_ulira_auc',
  reference: str = names.REFERENCE,
  original: str = names.ORIGINAL,
  title: str | None = None,
) -> figure.Figure:
  """Draw methods by two numbers that should both be small.

  Args:
    methods: M keys.
    x: f64[M], smaller is better.
    y: f64[M], smaller is better.
    x_metric: key of the first number, for the axis.
    y_metric: key of the second number, for the axis.
    reference: key of the retrained models.
    original: key of the original models.
    title: headline.

  Returns:
    The figure. Filled points are on the front: no other method is better in
    both numbers. The retrained and original models do not compete.
  """
  x, y = (np.ravel(np.asarray(side, np.float64)) for side in (x, y))
  known = np.isfinite(x) & np.isfinite(y)
  competes = np.array([name not in (reference, original) for name in methods])
  front = _front(x, y, known & competes)
  fig = style.canvas(6.0, 4.6)
  panel = fig.add_subplot()
  path = front[np.argsort(x[front])]
  if path.size > 1:
    panel.step(x[path], y[path], where='post', color=style.QUIET, lw=1)
  for i in np.flatnonzero(known):
    name = methods[i]
    color = {reference: style.INK, original: style.VERMILION}.get(
      name, style.BLUE
    )
    panel.plot(
      x[i],
      y[i],
      marker='D' if name == reference else 'o',
      ms=6.5,
      color=color,
      markerfacecolor=color if i in front or not competes[i] else 'white',
      linestyle='none',
    )
  if reference in methods and known[list(methods).index(reference)]:
    i = list(methods).index(reference)
    dashed = {'color': style.INK, 'lw': 0.9, 'linestyle': (0, (4, 2))}
    panel.axvline(x[i], zorder=1, **dashed)
    panel.axhline(y[i], zorder=1, **dashed)
  panel.set_xlabel(f'{glossary.describe(x_metric).title} (lower is better)')
  panel.set_ylabel(f'{glossary.describe(y_metric).title}\n(lower is better)')
  panel.margins(0.12)
  _labels(
    fig, panel, [methods[i] for i in np.flatnonzero(known)], x[known], y[known]
  )
  missing = [
    names.label(m) for m, k in zip(methods, known, strict=True) if not k
  ]
  if missing:
    style.note(panel, f'not shown: {", ".join(missing)}', x=0.98, ha='right')
  style.title(
    fig, title or 'Two goals at once; filled: no method beats it in both'
  )
  return fig


def _front(x: np.ndarray, y: np.ndarray, known: np.ndarray) -> np.ndarray:
  """Return the indices that no other beats in both numbers."""
  chosen = np.flatnonzero(known)
  return np.array(
    [
      i
      for i in chosen
      if not any(
        x[j] <= x[i] and y[j] <= y[i] and (x[j] < x[i] or y[j] < y[i])
        for j in chosen
      )
    ],
    int,
  )


def _labels(
  fig: figure.Figure,
  panel: axes.Axes,
  methods: Sequence[str],
  x: np.ndarray,
  y: np.ndarray,
) -> None:
  """Write each name beside its point, on the side with the most room."""
  fig.draw_without_rendering()
  points = panel.transData.transform(np.column_stack([x, y]))
  taken = [(px - 5, py - 5, px + 5, py + 5) for px, py in points]
  scale = fig.dpi / 72
  frame = panel.bbox.extents
  for name, (px, py), at in zip(
    methods, points, zip(x, y, strict=True), strict=True
  ):
    text = style.escape(names.label(name))
    width, height = 5.2 * len(text) * scale, 9 * scale
    sides = []
    for ha, va, dx, dy in _SIDES:
      left = (
        px + dx * scale - width * {'left': 0, 'center': 0.5, 'right': 1}[ha]
      )
      low = (
        py + dy * scale - height * {'bottom': 0, 'center': 0.5, 'top': 1}[va]
      )
      box = (left, low, left + width, low + height)
      cost = sum(_overlap(box, other) for other in taken)
      inside = _overlap(box, frame)
      sides.append((cost + width * height - inside, box))
    best = min(range(len(sides)), key=lambda i: sides[i][0])
    ha, va, dx, dy = _SIDES[best]
    taken.append(sides[best][1])
    panel.annotate(
      text,
      at,
      xytext=(dx, dy),
      textcoords='offset points',
      ha=ha,
      va=va,
      fontsize=8,
      bbox={'facecolor': 'white', 'alpha': 0.8, 'linewidth': 0, 'pad': 0.6},
      zorder=6,
    )


_SIDES = (
  ('left', 'center', 6, 0),
  ('left', 'bottom', 4, 4),
  ('right', 'center', -6, 0),
  ('center', 'bottom', 0, 6),
  ('center', 'top', 0, -6),
  ('left', 'top', 4, -4),
  ('right', 'bottom', -4, 4),
  ('right', 'top', -4, -4),
)

_Box = tuple[float, float, float, float]


def _overlap(a: _Box, b: _Box) -> float:
  width = min(a[2], b[2]) - max(a[0], b[0])
  height = min(a[3], b[3]) - max(a[1], b[1])
  return max(width, 0) * max(height, 0)
