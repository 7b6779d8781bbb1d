"""Accuracies beside those of the retrained models."""

from collections.abc import Sequence

import numpy as np
from matplotlib import axes, figure
from numpy.typing import ArrayLike

from jaxmu.report import names
from jaxmu.report.plots import style

SETS = ('Retain (RA)', 'Forget (FA)', 'Validation (VA)', 'Test (TA)')


@style.styled
def accuracy_bars(
  methods: Sequence[str],
  values: ArrayLike,
  low: ArrayLike | None = None,
  high: ArrayLike | None = None,
  *,
  sets: Sequence[str] = SETS,
  reference: str = names.REFERENCE,
  original: str = names.ORIGINAL,
  title: str = 'Accuracy on each set, with the gap to retrained models',
) -> figure.Figure:
  """Draw one panel per set with one bar per method.

  A dashed line through each panel continues the retrained models' bar; beside
  each bar stand the accuracy and its gap to that line.

  Args:
    methods: M keys; the reference may be absent.
    values: f64[M, K] accuracies in [0, 1], NaN where unknown.
    low: f64[M, K] lower ends of intervals, or None.
    high: f64[M, K] upper ends of intervals, or None.
    sets: K titles.
    reference: key of the retrained models.
    original: key of the original models.
    title: headline.

  Returns:
    The figure.

  Raises:
    ValueError: `values` is not of shape [M, K].
  """
  values = np.asarray(values, np.float64)
  if values.shape != (len(methods), len(sets)):
    raise ValueError(
      f'values has shape {values.shape}, expected {len(methods)} methods × '
      f'{len(sets)} sets'
    )
  low = values if low is None else np.asarray(low, np.float64)
  high = values if high is None else np.asarray(high, np.float64)
  order = names.ordered(methods, reference, original)
  rows = [list(methods).index(name) for name in order]
  width = 1.5 + 2.1 * len(sets)
  fig = style.canvas(width, 1.0 + 0.25 * len(order))
  panels = fig.subplots(1, len(sets), sharex=True, sharey=True, squeeze=False)
  bars = np.stack([values[rows], low[rows], high[rows]])  # f64[3, M, K]
  for k, panel in enumerate(panels.flat):
    _panel(panel, order, bars[:, :, k], reference, original)
    panel.set_title(sets[k])
  first = panels[0, 0]
  first.set_yticks(
    range(len(order)), [style.label(name, reference) for name in order]
  )
  first.set_ylim(len(order) - 0.5, -0.5)
  style.title(fig, title)
  return fig


def _panel(
  panel: axes.Axes,
  order: Sequence[str],
  bars: np.ndarray,
  reference: str,
  original: str,
) -> None:
  value, low, high = bars
  target = value[order.index(reference)] if reference in order else np.nan
  for i, name in enumerate(order):
    if np.isnan(value[i]):
      panel.text(0.02, i, 'n/a', va='center', fontsize=8, color=style.QUIET)
      continue
    _bar(panel, i, value[i], name, reference, original)
    if np.isfinite(low[i]) and np.isfinite(high[i]) and high[i] > low[i]:
      panel.plot([low[i], high[i]], [i, i], color=style.INK, lw=1.2, zorder=6)
    _number(panel, i, value[i], target, name == reference)
  if np.isfinite(target):
    panel.axvline(target, color=style.INK, linestyle=(0, (4, 2)), lw=1.0)
  panel.set_xlim(0, 1.85)  # room for the numbers
  panel.set_xticks([0, 0.5, 1])
  panel.grid(axis='y', visible=False)
  panel.tick_params(axis='y', length=0)
  panel.spines['left'].set_visible(False)


def _bar(
  panel: axes.Axes,
  i: int,
  value: float,
  name: str,
  reference: str,
  original: str,
) -> None:
  if name == reference:
    panel.barh(
      i,
      value,
      height=0.66,
      facecolor='white',
      edgecolor=style.INK,
      linestyle=(0, (4, 2)),
      linewidth=1.0,
    )
    return
  color = style.VERMILION if name == original else style.BLUE
  panel.barh(i, value, height=0.66, color=color, alpha=0.75)


def _number(
  panel: axes.Axes, i: int, value: float, target: float, is_reference: bool
) -> None:
  panel.text(1.04, i, f'{value:.3f}', va='center', fontsize=7.5)
  gap = value - target
  if is_reference or not np.isfinite(gap):
    return
  panel.text(
    1.85,
    i,
    f'{gap:+.3f}',
    va='center',
    ha='right',
    fontsize=6.5,
    color='#555555',
  )
