"""Which points are exposed: before against after unlearning, one by one."""

import numpy as np
from matplotlib import axes, colors, figure
from numpy.typing import ArrayLike

from jaxmu.report import names
from jaxmu.report.plots import style

_MANY = 4000  # more points than this are drawn as a density
_EXPOSED = 0.6


@style.styled
def vulnerability(
  original: ArrayLike,
  unlearned: ArrayLike,
  *,
  method: str,
  retrained: ArrayLike | None = None,
  title: str | None = None,
) -> figure.Figure:
  """Draw the AUC of each point under the original and the unlearned models.

  Args:
    original: f64[N] AUC per point under the original models, NaN where unknown.
    unlearned: f64[N] AUC per point under the unlearned models.
    method: key of the unlearning method.
    retrained: f64[N] AUC per point under retrained models: where nothing leaks
      it spreads around 0.5 by chance, and the dashed lines hold 95% of it.
    title: headline, or None for one with the method's name.

  Returns:
    The figure.

  Raises:
    ValueError: the two arrays do not have the same length.
  """
  x = np.ravel(np.asarray(original, np.float64))
  y = np.ravel(np.asarray(unlearned, np.float64))
  if x.shape != y.shape:
    raise ValueError(
      f'original has {x.size} points and unlearned {y.size}; give one AUC per '
      'point for both, NaN where a point was not scored'
    )
  known = np.isfinite(x) & np.isfinite(y)
  fig = style.canvas(5.4, 5.2)
  panel = fig.add_subplot()
  _cloud(panel, x[known], y[known])
  panel.plot([0, 1], [0, 1], color=style.QUIET, lw=0.8, zorder=2)
  _null(panel, retrained)
  _shares(panel, x[known], y[known])
  name = style.escape(names.label(method))
  panel.set(
    xlim=(-0.02, 1.02),
    ylim=(-0.02, 1.02),
    xlabel='AUC of the point, original models',
    ylabel=f'AUC of the point, {name}',
  )
  panel.set_box_aspect(1)
  if missing := int((~known).sum()):
    style.note(
      panel,
      f'{missing:,} points not scored',
      x=0.98,
      y=0.02,
      ha='right',
      va='bottom',
    )
  style.title(
    fig, title or f'Exposure of single points before and after {name}'
  )
  return fig


def _cloud(panel: axes.Axes, x: np.ndarray, y: np.ndarray) -> None:
  if x.size > _MANY:
    shades = colors.LinearSegmentedColormap.from_list(
      'blues', ['#d6e9f5', style.BLUE, '#00324f']
    )
    panel.hexbin(
      x,
      y,
      gridsize=50,
      extent=(0, 1, 0, 1),
      mincnt=1,
      bins='log',
      cmap=shades,
      linewidths=0,
    )
    return
  size = float(np.clip(4000 / max(x.size, 1), 5, 22))
  panel.scatter(x, y, s=size, color=style.BLUE, alpha=0.45, linewidths=0)


def _null(panel: axes.Axes, retrained: ArrayLike | None) -> None:
  """Mark where 95% of the points fall when nothing leaks."""
  if retrained is None:
    return
  null = np.ravel(np.asarray(retrained, np.float64))
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
      label=None if i else '95% of points, retrained (reference)',
    )
  panel.legend(loc='lower left')


def _shares(panel: axes.Axes, x: np.ndarray, y: np.ndarray) -> None:
  """Write how many points are exposed in each corner."""
  if not x.size:
    style.note(panel, 'no point was scored')
    return
  for line in (panel.axvline, panel.axhline):
    line(_EXPOSED, color=style.QUIET, lw=0.6, linestyle=':', zorder=1)
  before, after = x > _EXPOSED, y > _EXPOSED
  corners = (
    (0.98, 0.97, 'right', 'top', before & after, 'still exposed'),
    (
      0.02,
      0.97,
      'left',
      'top',
      ~before & after,
      f'newly exposed (AUC > {_EXPOSED})',
    ),
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
