"""ROC curves on logarithmic axes, where a privacy leak is visible first."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from matplotlib import artist, axes, figure, lines, patches, ticker
from numpy.typing import ArrayLike

from jaxmu.report import names
from jaxmu.report.plots import style

_CROWD = 6  # more unlearners than this get a panel each


@dataclasses.dataclass(frozen=True)
class Roc:
  """A ROC curve with its band over splits.

  Attributes:
    fpr: f64[G] increasing false positive rates.
    tpr: f64[G] true positive rates, mean over splits.
    low: f64[G] lower edge of the band, or None.
    high: f64[G] upper edge of the band, or None.
    supported: bool[G] False where there are too few unseen points to trust the
      curve, or None if it is trusted everywhere.
    remark: a few characters for the legend, such as 'AUC 0.64'.
  """

  fpr: ArrayLike
  tpr: ArrayLike
  low: ArrayLike | None = None
  high: ArrayLike | None = None
  supported: ArrayLike | None = None
  remark: str = ''


@style.styled
def roc(
  curves: Mapping[str, Roc],
  *,
  reference: str = names.REFERENCE,
  original: str = names.ORIGINAL,
  title: str = 'Forgotten against unseen points: ROC of the attack',
) -> figure.Figure:
  """Draw log-log ROC curves of original, retrained and unlearned models.

  Up to six unlearners share one panel; more get a panel each, with the
  original and the retrained models repeated for comparison.

  Args:
    curves: method -> curve.
    reference: key of the retrained models.
    original: key of the original models.
    title: headline.

  Returns:
    The figure.
  """
  order = names.ordered(curves, reference, original)
  looks = style.looks(order, reference, original)
  crowd = len([n for n in order if n not in (reference, original)]) > _CROWD
  draw = _many if crowd else _few
  fig = draw(curves, order, looks, reference, original)
  style.title(fig, title)
  return fig


def _few(
  curves: Mapping[str, Roc],
  order: Sequence[str],
  looks: Mapping[str, style.Look],
  reference: str,
  original: str,
) -> figure.Figure:
  """Draw all curves in one panel."""
  del original
  corner = _corner(curves)
  fig = style.canvas(5.6, 5.2)
  panel = fig.add_subplot()
  for name in order:
    _draw(panel, name, curves[name], looks[name], corner, reference)
  _axes(panel, corner, list(curves.values()))
  handles = [*panel.get_legend_handles_labels()[0], *_marks(curves.values())]
  panel.legend(handles=handles, loc='lower right', handlelength=2.6)
  panel.set(
    xlabel='False positive rate (unseen points called forgotten)',
    ylabel='True positive rate (forgotten points found)',
  )
  return fig


def _many(
  curves: Mapping[str, Roc],
  order: Sequence[str],
  looks: Mapping[str, style.Look],
  reference: str,
  original: str,
) -> figure.Figure:
  """Draw a panel per unlearner, with the same context in each."""
  corner = _corner(curves)
  context = [name for name in order if name in (reference, original)]
  unlearned = [name for name in order if name not in context]
  fig, panels = style.grid(
    len(unlearned), xlabel='False positive rate', ylabel='True positive rate'
  )
  subject = dataclasses.replace(looks[unlearned[0]], color=style.BLUE)
  for name, panel in zip(unlearned, panels, strict=True):
    for other in context:
      _draw(panel, other, curves[other], looks[other], corner, reference)
    _draw(panel, name, curves[name], subject, corner, reference)
    _axes(panel, corner, [curves[name]])
    parts = [style.escape(names.label(name)), curves[name].remark]
    panel.set_title(', '.join(part for part in parts if part))
  handles = _context_handles(context, looks, reference)
  handles += _marks(curves.values())
  fig.legend(handles=handles, loc='outside lower center', ncols=5)
  return fig


def _corner(curves: Mapping[str, Roc]) -> float:
  """Return the smallest rate worth drawing, common to both axes.

  A third of the smallest rate that the counts support, within the grid: most
  of the picture is then what can be trusted.
  """
  corners = []
  for curve in curves.values():
    fpr = np.asarray(curve.fpr, np.float64)
    trusted = fpr > 0
    if curve.supported is not None:
      trusted &= np.asarray(curve.supported, bool)
    if trusted.any():
      third = 3.0 if curve.supported is not None else 1.0
      corners.append(max(fpr[trusted].min() / third, fpr[fpr > 0].min()))
  return float(min(corners, default=1e-3))


def _draw(
  panel: axes.Axes,
  name: str,
  curve: Roc,
  look: style.Look,
  corner: float,
  reference: str,
) -> None:
  fpr = np.asarray(curve.fpr, np.float64)
  tpr = np.asarray(curve.tpr, np.float64)
  text = style.label(name, reference)
  if curve.remark:
    text = f'{text}, {curve.remark}'
  if not np.isfinite(tpr).any():
    text = f'{text}: no finite scores'
  panel.plot(
    fpr,
    np.maximum(tpr, corner / 2),  # a rate of 0 leaves at the lower edge
    color=look.color,
    linestyle=look.line,
    zorder=look.order,
    label=text,
  )
  if curve.low is not None and curve.high is not None:
    panel.fill_between(
      fpr,
      np.maximum(np.asarray(curve.low, np.float64), corner / 2),
      np.maximum(np.asarray(curve.high, np.float64), corner / 2),
      color=look.color,
      alpha=0.16,
      linewidth=0,
      zorder=look.order - 2,
    )


def _axes(panel: axes.Axes, corner: float, curves: list[Roc]) -> None:
  panel.set(xscale='log', yscale='log', xlim=(corner, 1), ylim=(corner, 1.05))
  steps = (1.0,) if corner < 0.005 else (1.0, 2.0, 5.0)
  for axis in (panel.xaxis, panel.yaxis):
    axis.set_major_locator(ticker.LogLocator(subs=steps))
    axis.set_minor_formatter(ticker.NullFormatter())
    axis.set_major_formatter(ticker.FuncFormatter(_percent))
  panel.set_box_aspect(1)
  panel.plot([corner, 1], [corner, 1], color=style.QUIET, lw=0.8, zorder=1)
  edges = [
    np.asarray(curve.fpr)[np.asarray(curve.supported, bool)].min(initial=1.0)
    for curve in curves
    if curve.supported is not None
  ]
  if edges and max(edges) > corner:
    panel.axvspan(corner, max(edges), color=style.FAINT, alpha=0.6, zorder=0)


def _percent(rate: float, position: int | None = None) -> str:
  del position
  return f'{100 * rate:g}%'


def _marks(curves: Iterable[Roc]) -> list[artist.Artist]:
  """Return legend entries for the diagonal and the shaded region."""
  marks: list[artist.Artist] = [
    lines.Line2D([], [], color=style.QUIET, lw=0.8, label='Guessing')
  ]
  if any(
    curve.supported is not None and not np.all(curve.supported)
    for curve in curves
  ):
    marks.append(
      patches.Patch(color=style.FAINT, label='Too few unseen points')
    )
  return marks


def _context_handles(
  context: list[str], looks: Mapping[str, style.Look], reference: str
) -> list[artist.Artist]:
  handles: list[artist.Artist] = []
  for name in context:
    handle = lines.Line2D([], [], color=looks[name].color)
    handle.set_linestyle(looks[name].line)
    handle.set_label(style.label(name, reference))
    handles.append(handle)
  handles.append(lines.Line2D([], [], color=style.BLUE, label='Unlearned'))
  return handles
