"""Histograms of log-odds: do forgotten points still look different?"""

from collections.abc import Mapping

import numpy as np
from matplotlib import axes, figure
from numpy.typing import ArrayLike

from jaxmu.report import names
from jaxmu.report.plots import style

_TAIL = 0.2  # percent of the points on each side that the edge bins collect
_OUTLYING = 1  # widths of the median side beyond its own ends


@style.styled
def log_odds(
  panels: Mapping[str, tuple[ArrayLike, ArrayLike]],
  *,
  bins: int = 40,
  reference: str = names.REFERENCE,
  original: str = names.ORIGINAL,
  title: str = 'How sure the models are of forgotten and of unseen points',
) -> figure.Figure:
  """Draw one panel per method with both histograms on common axes.

  Points beyond the drawn range are counted in the outermost bins. Values that
  are not finite are left out, and each panel says how many.

  Args:
    panels: method -> (log-odds of forgotten points, of unseen points), each of
      any shape.
    bins: number of bins.
    reference: key of the retrained models.
    original: key of the original models.
    title: headline.

  Returns:
    The figure.
  """
  order = names.ordered(panels, reference, original)
  forgotten = [np.ravel(np.asarray(panels[name][0], float)) for name in order]
  unseen = [np.ravel(np.asarray(panels[name][1], float)) for name in order]
  edges = _edges([*forgotten, *unseen], bins)
  fig, cells = style.grid(
    len(order), xlabel='Log-odds of the true class', ylabel='Share of points'
  )
  for i, (name, panel) in enumerate(zip(order, cells, strict=True)):
    _panel(panel, forgotten[i], unseen[i], edges)
    panel.set_title(
      style.label(name, reference),
      fontweight='bold' if name == reference else 'normal',
    )
  top = max(panel.dataLim.y1 for panel in cells)
  cells[0].set_ylim(0, 1.05 * top if top > 0 else 1)  # shared by all
  handles, labels = cells[0].get_legend_handles_labels()
  fig.legend(handles, labels, loc='outside lower center', ncols=2)
  style.title(fig, title)
  return fig


def _edges(sides: list[np.ndarray], bins: int) -> np.ndarray:
  """Return edges that hold nearly all points of all but outlying sides.

  A model that puts out 1e38 must not squeeze all others into one bin: the range
  ends one width of the median side beyond that side.
  """
  finite = [side[np.isfinite(side)] for side in sides]
  finite = [side for side in finite if side.size]
  if not finite:
    return np.linspace(-1, 1, bins + 1)
  tails = [_TAIL, 100 - _TAIL]
  low, high = np.percentile(np.concatenate(finite), tails)
  lows, highs = np.percentile([np.percentile(s, tails) for s in finite], 50, 0)
  room = _OUTLYING * (highs - lows)
  if room > 0:
    low, high = max(low, lows - room), min(high, highs + room)
  if not high > low:
    low, high = low - 1, high + 1
  return np.linspace(low, high, bins + 1)


def _panel(
  panel: axes.Axes,
  forgotten: np.ndarray,
  unseen: np.ndarray,
  edges: np.ndarray,
) -> None:
  panel.stairs(
    _shares(forgotten, edges),
    edges,
    fill=True,
    color=style.ORANGE,
    alpha=0.55,
    label='Forgotten',
  )
  panel.stairs(
    _shares(unseen, edges), edges, color=style.BLUE, lw=1.4, label='Never seen'
  )
  lost = sum(int((~np.isfinite(side)).sum()) for side in (forgotten, unseen))
  if lost:
    style.note(panel, f'{lost:,} values not finite')
  elif not (forgotten.size and unseen.size):
    style.note(panel, 'no values')


def _shares(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
  values = values[np.isfinite(values)]
  inside = np.clip(values, edges[0], edges[-1])
  return np.histogram(inside, edges)[0] / max(values.size, 1)
