"""Comparisons of methods and examples: accuracies, fronts, ranks, exposure."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import axes, colors, figure, ticker
from matplotlib import text as text_lib
from numpy.typing import ArrayLike

from jaxmu import terms
from jaxmu.attacks import per_example
from jaxmu.report import glossary, results
from jaxmu.report.plots import style

SETS = ('Retain (RA)', 'Forget (FA)', 'Validation (VA)', 'Test (TA)')


@style.styled
def accuracies(
  methods: Sequence[str],
  values: ArrayLike,
  low: ArrayLike | None = None,
  high: ArrayLike | None = None,
) -> figure.Figure:
  """Draw one panel per set with one point per method.

  Each panel shows the range of its numbers: from 0 to 1, accuracies that matter
  would look alike. The dashed line is the retrained models' accuracy; the
  numbers beside each point are the accuracy and its gap to that line.

  Args:
    methods: M keys; the reference may be absent.
    values: f64[M, 4] accuracies on the `SETS` in [0, 1], NaN where unknown.
    low: f64[M, 4] lower ends of intervals, or None.
    high: f64[M, 4] upper ends of intervals, or None.

  Returns:
    The figure.

  Raises:
    ValueError: `values` is not of shape [M, 4].
  """
  values = np.asarray(values, np.float64)
  if values.shape != (len(methods), len(SETS)):
    raise ValueError(
      f'values has shape {values.shape}, expected {len(methods)} methods × '
      f'{len(SETS)} sets'
    )
  low = values if low is None else np.asarray(low, np.float64)
  high = values if high is None else np.asarray(high, np.float64)
  order = results.ordered(methods)
  rows = [list(methods).index(name) for name in order]
  width = 1.5 + 2.1 * len(SETS)
  fig = style.canvas(width, 1.0 + 0.25 * len(order))
  panels = fig.subplots(1, len(SETS), sharey=True, squeeze=False)
  ends = np.stack([values[rows], low[rows], high[rows]])  # f64[3, M, K]
  for k, panel in enumerate(panels.flat):
    _panel(panel, order, ends[:, :, k])
    panel.set_title(SETS[k])
  first = panels[0, 0]
  first.set_yticks(range(len(order)), [style.label(name) for name in order])
  first.set_ylim(len(order) - 0.5, -0.5)
  style.title(fig, 'Accuracy on each set, with the gap to retrained models')
  return fig


_ROOM = 0.6  # share of a panel's width that the range takes; numbers the rest


def _panel(panel: axes.Axes, order: Sequence[str], ends: np.ndarray) -> None:
  """Draw value, low and high of each method, f64[3, M]."""
  value, low, high = ends
  target = np.nan
  if results.REFERENCE in order:
    target = value[order.index(results.REFERENCE)]
  for i, name in enumerate(order):
    if np.isnan(value[i]):
      _write(panel, _ROOM + 0.03, i, 'n/a', 7.5, color=style.QUIET)
      continue
    if np.isfinite(low[i]) and np.isfinite(high[i]) and high[i] > low[i]:
      panel.plot([low[i], high[i]], [i, i], color=style.INK, lw=1.2, zorder=2)
    _mark(panel, value[i], i, name)
    _write(panel, _ROOM + 0.03, i, f'{value[i]:.3f}', 7.5)
    gap = value[i] - target
    if name != results.REFERENCE and np.isfinite(gap):
      _write(panel, 1.0, i, f'{gap:+.3f}', 6.5, ha='right', color='#555555')
  if np.isfinite(target):
    panel.axvline(target, color=style.INK, linestyle=(0, (4, 2)), lw=1.0)
  finite = ends[np.isfinite(ends)]
  start, end = (finite.min(), finite.max()) if finite.size else (0.0, 1.0)
  pad = 0.06 * (end - start) or 0.05
  start, end = start - pad, end + pad
  ticks = ticker.MaxNLocator(3).tick_values(start, end)
  panel.set_xticks([tick for tick in ticks if start <= tick <= end])
  panel.set_xlim(start, start + (end - start) / _ROOM)
  panel.grid(axis='y', visible=False)
  panel.tick_params(axis='y', length=0)
  panel.spines['left'].set_visible(False)


def _mark(panel: axes.Axes, value: float, i: int, name: str) -> None:
  shape, color, face = 'o', style.BLUE, style.BLUE
  if name == results.REFERENCE:
    shape, color, face = 'D', style.INK, 'white'
  elif name == results.ORIGINAL:
    color = face = style.VERMILION
  look: dict[str, Any] = {
    'color': color,
    'markerfacecolor': face,
    'linestyle': 'none',
  }
  panel.plot(value, i, marker=shape, ms=6, zorder=3, **look)


def _write(
  panel: axes.Axes, x: float, i: int, text: str, size: float, **look: Any
) -> None:
  """Write a number beside a method; x is a share of the panel's width."""
  place = panel.get_yaxis_transform()
  panel.text(x, i, text, va='center', fontsize=size, transform=place, **look)


@style.styled
def pareto(
  methods: Sequence[str],
  x: ArrayLike,
  y: ArrayLike,
  front: ArrayLike,
  *,
  y_metric: str = 'excess_ulira_auc',
) -> figure.Figure:
  """Draw methods by RetDev and another number that should be small.

  Args:
    methods: M keys.
    x: f64[M] RetDev, smaller is better.
    y: f64[M], smaller is better.
    front: bool[M], methods that no other beats in both numbers; drawn filled.
    y_metric: key of the second number, for the axis.

  Returns:
    The figure. The retrained and original models do not compete.
  """
  x, y = (np.ravel(np.asarray(side, np.float64)) for side in (x, y))
  known = np.isfinite(x) & np.isfinite(y)
  order = list(methods)
  competes = np.array(
    [name not in (results.REFERENCE, results.ORIGINAL) for name in order]
  )
  front = np.flatnonzero(np.asarray(front, bool) & known & competes)
  fig = style.canvas(6.0, 4.6)
  panel = fig.add_subplot()
  path = front[np.argsort(x[front])]
  if path.size > 1:
    panel.step(x[path], y[path], where='post', color=style.QUIET, lw=1)
  for i in np.flatnonzero(known):
    hollow = bool(competes[i]) and i not in front
    _point(panel, order[i], x[i], y[i], hollow)
  panel.set_xlabel(f'{glossary.describe("ret_dev").title} (lower is better)')
  panel.set_ylabel(f'{glossary.describe(y_metric).title}\n(lower is better)')
  panel.margins(0.12)
  shown = [name for name, k in zip(order, known, strict=True) if k]
  label_points(fig, panel, shown, x[known], y[known])
  missing = [results.label(name) for name in order if name not in shown]
  if missing:
    style.note(panel, f'not shown: {", ".join(missing)}', x=0.98, ha='right')
  style.title(fig, 'Accuracy and privacy; filled: no method is better in both')
  return fig


def _point(
  panel: axes.Axes,
  name: str,
  x: float,
  y: float,
  hollow: bool,
) -> None:
  color = {results.REFERENCE: style.INK, results.ORIGINAL: style.VERMILION}.get(
    name, style.BLUE
  )
  panel.plot(
    x,
    y,
    marker='D' if name == results.REFERENCE else 'o',
    ms=6.5,
    color=color,
    markerfacecolor='white' if hollow else color,
    linestyle='none',
  )
  if name == results.REFERENCE:
    for line, at in ((panel.axvline, x), (panel.axhline, y)):
      line(at, color=style.INK, lw=0.9, linestyle=(0, (4, 2)), zorder=1)


def label_points(
  fig: figure.Figure,
  panel: axes.Axes,
  methods: Sequence[str],
  x: np.ndarray,
  y: np.ndarray,
) -> None:
  """Write each name at its point, on the side with the most room.

  Where there is none beside the point, a line leads from it to its name.
  """
  fig.draw_without_rendering()
  points = panel.transData.transform(np.column_stack([x, y]))
  scale = fig.dpi / 72  # pixels per point
  half = 4 * scale  # of a marker
  taken = [(u - half, v - half, u + half, v + half) for u, v in points]
  frame = panel.bbox.extents
  for name, (px, py), at in zip(
    methods, points, zip(x, y, strict=True), strict=True
  ):
    note = panel.annotate(
      style.escape(results.label(name)),
      at,
      xytext=(0, 0),
      textcoords='offset points',
      fontsize=8,
      bbox={'facecolor': 'white', 'alpha': 0.8, 'linewidth': 0, 'pad': 0.6},
      arrowprops={'arrowstyle': '-', 'lw': 0.6, 'color': style.QUIET},
      zorder=6,
    )
    written = text_lib.Text.get_window_extent(note)  # without its line
    width, height = written.width, written.height
    sides = []
    for ha, va, dx, dy, far in _PLACES:
      left = (
        px + dx * scale - width * {'left': 0, 'center': 0.5, 'right': 1}[ha]
      )
      low = (
        py + dy * scale - height * {'bottom': 0, 'center': 0.5, 'top': 1}[va]
      )
      box = (left, low, left + width, low + height)
      cost = sum(_overlap(box, other) for other in taken)
      outside = width * height - _overlap(box, frame)
      sides.append((cost + outside + far * half**2, box))
    best = min(range(len(sides)), key=lambda i: sides[i][0])
    ha, va, dx, dy, far = _PLACES[best]
    taken.append(sides[best][1])
    note.set(position=(dx, dy), ha=ha, va=va)
    if not far and note.arrow_patch:
      note.arrow_patch.set_visible(False)


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

# Alignment, offset in points, and how far it is: 0 beside the point.
_PLACES = tuple(
  (ha, va, times * dx, times * dy, far)
  for far, times in enumerate((1, 3, 5, 8))
  for ha, va, dx, dy in _SIDES
)

_Box = tuple[float, float, float, float]


def _overlap(a: _Box, b: _Box) -> float:
  width = min(a[2], b[2]) - max(a[0], b[0])
  height = min(a[3], b[3]) - max(a[1], b[1])
  return max(width, 0) * max(height, 0)


@style.styled
def critical_difference(
  methods: Sequence[str],
  mean_rank: ArrayLike,
  difference: float,
  *,
  title: str = 'Mean rank of each method (1 is best)',
) -> figure.Figure:
  """Draw mean ranks, with a bar over methods that do not differ.

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
  _names(panel, rank, labels, worst, top)
  missing = len(methods) - len(labels)
  if missing:
    style.note(
      panel,
      f'{terms.count(missing, "method")} without a rank',
      y=0.02,
      va='bottom',
    )
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
) -> None:
  """Connect each rank to its name: the better half left, the rest right."""
  half = -(-len(labels) // 2)
  for i, (x, label) in enumerate(zip(rank, labels, strict=True)):
    left = i < half
    y = top + 0.42 * (i if left else len(labels) - 1 - i)
    edge = 1 - 0.03 * worst if left else worst + 0.03 * worst
    name = style.label(label)
    line = (0, (4, 2)) if label == results.REFERENCE else '-'
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


_MANY = 4000  # more examples than this are drawn as a density


@style.styled
def vulnerability(
  original: per_example.PerExample,
  unlearned: per_example.PerExample,
  *,
  method: str,
  retrained: per_example.PerExample | None = None,
  title: str | None = None,
) -> figure.Figure:
  """Draw the AUC of each example under the original and the unlearned models.

  An example is exposed by the rule of the tables: its AUC is above one half at
  a false-discovery rate of 5%.

  Args:
    original: exposure of N examples by the original models.
    unlearned: the same, unlearned models.
    method: key of the unlearning method.
    retrained: the same, retrained models, which varies around 0.5 by chance;
      95% of its AUCs are between the dashed lines.
    title: headline, or None for one with the method's name.

  Returns:
    The figure.

  Raises:
    ValueError: the exposures are not of the same number of examples.
  """
  x, y = (np.asarray(one.auc, np.float64) for one in (original, unlearned))
  if x.shape != y.shape:
    raise ValueError(
      f'original has {terms.count(x.size, "example")} and unlearned has '
      f'{y.size}; give one AUC per example for both, NaN where it was not '
      'scored'
    )
  known = np.isfinite(x) & np.isfinite(y)
  before, after = original.exposed[known], unlearned.exposed[known]
  fig = style.canvas(5.4, 5.2)
  panel = fig.add_subplot()
  label = f'exposed: {_share(unlearned)}'
  if retrained is not None:
    _null(panel, retrained)
    label += f' (retrained: {_share(retrained)})'
  _cloud(panel, x[known], y[known], after, label)
  panel.plot([0, 1], [0, 1], color=style.QUIET, lw=0.8, zorder=2)
  panel.legend(loc='lower left')
  if known.any():
    _corners(panel, before, after)
  else:
    style.note(panel, 'no example was scored')
  name = style.escape(results.label(method))
  panel.set(
    xlim=(-0.02, 1.02),
    ylim=(-0.02, 1.02),
    xlabel='AUC of the example, original models',
    ylabel=f'AUC of the example, {name}',
  )
  panel.set_box_aspect(1)
  if missing := int((~known).sum()):
    style.note(
      panel,
      f'{terms.count(missing, "example")} not scored',
      x=0.98,
      y=0.02,
      ha='right',
      va='bottom',
    )
  style.title(
    fig, title or f'Exposure of single examples before and after {name}'
  )
  return fig


def _cloud(
  panel: axes.Axes,
  x: np.ndarray,
  y: np.ndarray,
  exposed: np.ndarray,
  label: str,
) -> None:
  """Draw all examples, and those that are exposed after unlearning on top."""
  size = float(np.clip(4000 / max(x.size, 1), 5, 22))
  quiet = ~exposed
  if x.size > _MANY:
    shades = colors.LinearSegmentedColormap.from_list(
      'blues', ['#d6e9f5', style.BLUE, '#00324f']
    )
    panel.hexbin(
      x[quiet],
      y[quiet],
      gridsize=50,
      extent=(0, 1, 0, 1),
      mincnt=1,
      bins='log',
      cmap=shades,
      linewidths=0,
    )
  else:
    panel.scatter(
      x[quiet], y[quiet], s=size, color=style.BLUE, alpha=0.45, linewidths=0
    )
  look = {'color': style.VERMILION, 'alpha': 0.6, 'linewidths': 0}
  panel.scatter(x[exposed], y[exposed], s=size, label=label, **look)


def _null(panel: axes.Axes, retrained: per_example.PerExample) -> None:
  """Mark where 95% of the examples are when nothing leaks."""
  null = np.asarray(retrained.auc, np.float64)
  null = null[np.isfinite(null)]
  if not null.size:
    return
  low, high = np.percentile(null, [2.5, 97.5])
  panel.axhspan(low, high, color=style.QUIET, alpha=0.13, zorder=0)
  for i, level in enumerate((low, high)):
    panel.axhline(
      level,
      color=style.INK,
      linestyle=(0, (4, 2)),
      lw=1,
      zorder=3,
      label=None if i else '95% of examples, retrained (reference)',
    )


def _share(one: per_example.PerExample) -> str:
  return f'{per_example.summarise(one).exposed:.1%}'


def _corners(panel: axes.Axes, before: np.ndarray, after: np.ndarray) -> None:
  """Write how many examples are exposed before and after, bool[N]."""
  corners = (
    (0.98, 0.97, 'right', 'top', before & after, 'still exposed'),
    (0.02, 0.97, 'left', 'top', ~before & after, 'newly exposed'),
    (0.98, 0.08, 'right', 'bottom', before & ~after, 'no longer exposed'),
  )
  for px, py, ha, va, chosen, words in corners:
    panel.text(
      px,
      py,
      f'{chosen.mean():.1%} {words}',
      transform=panel.transAxes,
      ha=ha,
      va=va,
      fontsize=8.5,
      bbox={'facecolor': 'white', 'alpha': 0.75, 'linewidth': 0, 'pad': 1.5},
      zorder=7,
    )
