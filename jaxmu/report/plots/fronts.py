"""Pareto fronts: methods by two numbers that should both be small."""

from collections.abc import Sequence

import numpy as np
from matplotlib import axes, figure
from numpy.typing import ArrayLike

from jaxmu.report import glossary, names
from jaxmu.report.plots import style


@style.styled
def pareto(
  methods: Sequence[str],
  x: ArrayLike,
  y: ArrayLike,
  front: ArrayLike,
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
    front: bool[M], whom no other beats in both numbers; drawn filled.
    x_metric: key of the first number, for the axis.
    y_metric: key of the second number, for the axis.
    reference: key of the retrained models.
    original: key of the original models.
    title: headline.

  Returns:
    The figure. The retrained and original models do not compete.
  """
  x, y = (np.ravel(np.asarray(side, np.float64)) for side in (x, y))
  known = np.isfinite(x) & np.isfinite(y)
  order = list(methods)
  competes = np.array([name not in (reference, original) for name in order])
  front = np.flatnonzero(np.asarray(front, bool) & known & competes)
  fig = style.canvas(6.0, 4.6)
  panel = fig.add_subplot()
  path = front[np.argsort(x[front])]
  if path.size > 1:
    panel.step(x[path], y[path], where='post', color=style.QUIET, lw=1)
  for i in np.flatnonzero(known):
    hollow = bool(competes[i]) and i not in front
    _point(panel, order[i], x[i], y[i], hollow, reference, original)
  panel.set_xlabel(f'{glossary.describe(x_metric).title} (lower is better)')
  panel.set_ylabel(f'{glossary.describe(y_metric).title}\n(lower is better)')
  panel.margins(0.12)
  shown = [name for name, k in zip(order, known, strict=True) if k]
  _labels(fig, panel, shown, x[known], y[known])
  missing = [names.label(name) for name in order if name not in shown]
  if missing:
    style.note(panel, f'not shown: {", ".join(missing)}', x=0.98, ha='right')
  style.title(
    fig, title or 'Two goals at once; filled: no method beats it in both'
  )
  return fig


def _point(
  panel: axes.Axes,
  name: str,
  x: float,
  y: float,
  hollow: bool,
  reference: str,
  original: str,
) -> None:
  color = {reference: style.INK, original: style.VERMILION}.get(
    name, style.BLUE
  )
  panel.plot(
    x,
    y,
    marker='D' if name == reference else 'o',
    ms=6.5,
    color=color,
    markerfacecolor='white' if hollow else color,
    linestyle='none',
  )
  if name == reference:
    for line, at in ((panel.axvline, x), (panel.axhline, y)):
      line(at, color=style.INK, lw=0.9, linestyle=(0, (4, 2)), zorder=1)


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
