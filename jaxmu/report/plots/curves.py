"""Training curves of a population: the median member and the range."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import axes, figure, ticker
from numpy.typing import ArrayLike

from jaxmu.report import names
from jaxmu.report.plots import style

_CROWD = 8  # more methods than this are drawn without their ranges


@style.styled
def training_curves(
  panels: Mapping[str, Mapping[str, ArrayLike]],
  *,
  ylabel: str = 'Accuracy',
  log: bool = False,
  reference: str = names.REFERENCE,
  original: str = names.ORIGINAL,
  title: str | None = None,
) -> figure.Figure:
  """Draw a number per epoch for every member of each population.

  Args:
    panels: title -> method -> f64[P, E], one row per member; NaN in epochs
      that were not scored, after a member failed or after it ended. Panels
      stand side by side with equal axes.
    ylabel: what the number is.
    log: draw it on a logarithmic axis.
    reference: key of the retrained models.
    original: key of the original models.
    title: headline, or None for one made from `ylabel`.

  Returns:
    The figure.
  """
  every = {name: None for curves in panels.values() for name in curves}
  order = names.ordered(every, reference, original)
  looks = style.looks(order, reference, original)
  few = len(order) <= _CROWD
  fig = style.canvas((3.2 if few else 4.4) + 3.2 * len(panels), 3.9)
  drawn = fig.subplots(1, len(panels), sharex=True, sharey=True, squeeze=False)
  for panel, (name, curves) in zip(drawn.flat, panels.items(), strict=True):
    _panel(panel, curves, order, looks, reference, few)
    panel.set(xlabel='Epoch', title=name, yscale='log' if log else 'linear')
    panel.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
  drawn[0, 0].set_ylabel(ylabel)
  drawn[0, -1].legend(
    loc='best' if few else 'center left',
    bbox_to_anchor=None if few else (1.01, 0.5),
  )
  spread = 'median and range' if few else 'median'
  style.title(fig, title or f'{ylabel} per epoch, {spread} of members')
  return fig


def _panel(
  panel: axes.Axes,
  curves: Mapping[str, ArrayLike],
  order: Sequence[str],
  looks: Mapping[str, style.Look],
  reference: str,
  ranges: bool,
) -> None:
  for name in order:
    if name in curves:
      text = style.label(name, reference)
      _population(panel, curves[name], looks[name], text, ranges)


def _population(
  panel: axes.Axes,
  values: ArrayLike,
  look: style.Look,
  text: str,
  ranges: bool,
) -> None:
  values = np.atleast_2d(np.asarray(values, np.float64))
  values = np.where(np.isfinite(values), values, np.nan)
  known = ~np.isnan(values).all(axis=0)
  epoch = np.arange(1, values.shape[1] + 1)[known]
  if not known.any():
    panel.plot([], [], color=look.color, label=f'{text}: no finite values')
    return
  values = values[:, known]
  panel.plot(
    epoch,
    np.nanmedian(values, axis=0),
    color=look.color,
    linestyle=look.line,
    marker='o' if epoch.size == 1 else None,
    zorder=look.order,
    label=text,
  )
  if ranges:
    panel.fill_between(
      epoch,
      np.nanmin(values, axis=0),
      np.nanmax(values, axis=0),
      color=look.color,
      alpha=0.14,
      linewidth=0,
      zorder=look.order - 2,
    )
