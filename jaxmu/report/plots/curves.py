"""Training curves of a population: the median member and the range."""

from collections.abc import Mapping

import numpy as np
from matplotlib import axes, figure, ticker
from numpy.typing import ArrayLike

from jaxmu.report import names
from jaxmu.report.plots import style

_CROWD = 8  # more methods than this are drawn without their ranges


@style.styled
def training_curves(
  curves: Mapping[str, ArrayLike],
  *,
  ylabel: str = 'Loss',
  log: bool = False,
  reference: str = names.REFERENCE,
  original: str = names.ORIGINAL,
  title: str | None = None,
) -> figure.Figure:
  """Draw a number per epoch for every member of each population.

  Args:
    curves: method -> f64[P, E], one row per member; NaN after a member failed
      or, with different numbers of epochs, after it ended.
    ylabel: what the number is.
    log: draw it on a logarithmic axis.
    reference: key of the retrained models.
    original: key of the original models.
    title: headline, or None for one made from `ylabel`.

  Returns:
    The figure.
  """
  order = names.ordered(curves, reference, original)
  looks = style.looks(order, reference, original)
  fig = style.canvas(6.4 if len(order) <= _CROWD else 7.6, 3.9)
  panel = fig.add_subplot()
  for name in order:
    text = style.label(name, reference)
    _population(panel, curves[name], looks[name], text, len(order) <= _CROWD)
  panel.set(xlabel='Epoch', ylabel=ylabel, yscale='log' if log else 'linear')
  panel.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
  panel.legend(
    loc='best' if len(order) <= _CROWD else 'center left',
    bbox_to_anchor=None if len(order) <= _CROWD else (1.01, 0.5),
  )
  spread = 'median and range' if len(order) <= _CROWD else 'median'
  style.title(fig, title or f'{ylabel} per epoch, {spread} of members')
  return fig


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
