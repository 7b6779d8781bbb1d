"""Curves: ROC, trade-off, training, and distributions of log-odds."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from matplotlib import artist, axes, figure, lines, patches, ticker
from numpy.typing import ArrayLike

from jaxmu.report import results
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
    supported: bool[G] False where there are too few unseen examples to trust
      the curve, or None if it is trusted everywhere.
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
) -> figure.Figure:
  """Draw log-log ROC curves of original, retrained and unlearned models.

  Up to six unlearners share one panel; more get a panel each, with the
  original and the retrained models repeated for comparison.

  Args:
    curves: method -> curve.

  Returns:
    The figure.
  """
  order = results.ordered(curves)
  looks = style.looks(order)
  crowd = (
    len([n for n in order if n not in (results.REFERENCE, results.ORIGINAL)])
    > _CROWD
  )
  draw = _many if crowd else _few
  fig = draw(curves, order, looks)
  style.title(fig, 'Forgotten against unseen examples: ROC of the attack')
  return fig


def _few(
  curves: Mapping[str, Roc],
  order: Sequence[str],
  looks: Mapping[str, style.Look],
) -> figure.Figure:
  """Draw all curves in one panel."""
  corner = _corner(curves)
  fig = style.canvas(5.6, 5.2)
  panel = fig.add_subplot()
  for name in order:
    _draw(panel, name, curves[name], looks[name], corner)
  _axes(panel, corner, list(curves.values()))
  handles = [*panel.get_legend_handles_labels()[0], *_marks(curves.values())]
  panel.legend(handles=handles, loc='lower right', handlelength=2.6)
  panel.set(
    xlabel='False positive rate (unseen examples called forgotten)',
    ylabel='True positive rate (forgotten examples detected)',
  )
  return fig


def _many(
  curves: Mapping[str, Roc],
  order: Sequence[str],
  looks: Mapping[str, style.Look],
) -> figure.Figure:
  """Draw a panel per unlearner, with the same context in each."""
  corner = _corner(curves)
  context = [
    name for name in order if name in (results.REFERENCE, results.ORIGINAL)
  ]
  unlearned = [name for name in order if name not in context]
  fig, panels = style.grid(
    len(unlearned), xlabel='False positive rate', ylabel='True positive rate'
  )
  subject = dataclasses.replace(looks[unlearned[0]], color=style.BLUE)
  for name, panel in zip(unlearned, panels, strict=True):
    for other in context:
      _draw(panel, other, curves[other], looks[other], corner)
    _draw(panel, name, curves[name], subject, corner)
    _axes(panel, corner, [curves[name]])
    parts = [style.escape(results.label(name)), curves[name].remark]
    panel.set_title(', '.join(part for part in parts if part))
  handles = _context_handles(context, looks)
  handles += _marks(curves.values())
  fig.legend(handles=handles, loc='outside lower center', ncols=5)
  return fig


def _corner(curves: Mapping[str, Roc]) -> float:
  """Return the smallest rate of both axes.

  It is a third of the smallest rate that the counts support, within the grid,
  so that most of the figure is reliable.
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
) -> None:
  fpr = np.asarray(curve.fpr, np.float64)
  tpr = np.asarray(curve.tpr, np.float64)
  text = style.label(name)
  if curve.remark:
    text = f'{text}, {curve.remark}'
  if not np.isfinite(tpr).any():
    text = f'{text}: no finite scores'
  panel.plot(
    fpr,
    np.maximum(tpr, corner / 2),  # draws a rate of 0 at the lower edge
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
      patches.Patch(color=style.FAINT, label='Too few unseen examples')
    )
  return marks


def _context_handles(
  context: list[str], looks: Mapping[str, style.Look]
) -> list[artist.Artist]:
  handles: list[artist.Artist] = []
  for name in context:
    handle = lines.Line2D([], [], color=looks[name].color)
    handle.set_linestyle(looks[name].line)
    handle.set_label(style.label(name))
    handles.append(handle)
  handles.append(lines.Line2D([], [], color=style.BLUE, label='Unlearned'))
  return handles


@style.styled
def trade_off(
  curves: Mapping[str, tuple[ArrayLike, ArrayLike]],
  *,
  remarks: Mapping[str, str] | None = None,
) -> figure.Figure:
  """Draw false negative against false positive rates.

  The diagonal is guessing. The curve of retrained models shows how far below it
  noise alone reaches.

  Args:
    curves: method -> (fpr f64[G], fnr f64[G]) on the lower convex hull.
    remarks: method -> what the legend says beside its name.

  Returns:
    The figure.
  """
  order = results.ordered(curves)
  looks = style.looks(order)
  fig = style.canvas(5.6 if len(order) <= 8 else 7.2, 5.2)
  panel = fig.add_subplot()
  panel.plot([0, 1], [1, 0], color=style.QUIET, lw=0.8, label='Guessing')
  panel.fill_between([0, 1], [1, 0], [1, 1], color=style.FAINT, alpha=0.5, lw=0)
  for name in order:
    fpr, fnr = (np.asarray(side, np.float64) for side in curves[name])
    text = ', '.join([style.label(name), *_remark(remarks, name)])
    if not (np.isfinite(fpr) & np.isfinite(fnr)).any():
      text = f'{text}: no finite values'
    look = looks[name]
    panel.plot(
      fpr,
      fnr,
      color=look.color,
      linestyle=look.line,
      zorder=look.order,
      label=text,
    )
  panel.set(
    xlim=(0, 1),
    ylim=(0, 1),
    xlabel='False positive rate',
    ylabel='False negative rate',
  )
  panel.set_box_aspect(1)
  if len(order) <= 8:
    panel.legend(loc='upper right', handlelength=2.6)
  else:
    panel.legend(loc='center left', bbox_to_anchor=(1.01, 0.5))
  title = 'Error rates of an attacker: closer to the diagonal is safer'
  style.title(fig, title)
  return fig


def _remark(remarks: Mapping[str, str] | None, name: str) -> list[str]:
  return [remarks[name]] if remarks and name in remarks else []


_CURVES_CROWD = 8  # more methods than this are drawn without their ranges


@style.styled
def training_curves(
  panels: Mapping[str, Mapping[str, ArrayLike]],
  *,
  ylabel: str = 'Accuracy',
) -> figure.Figure:
  """Draw a number per epoch for every member of each population.

  Args:
    panels: title -> method -> f64[P, E], one row per member; NaN in epochs
      that were not scored, after a member failed or after it ended. Panels
      are side by side with equal axes.
    ylabel: what the number is.

  Returns:
    The figure.
  """
  every = {name: None for curves in panels.values() for name in curves}
  order = results.ordered(every)
  looks = style.looks(order)
  few = len(order) <= _CURVES_CROWD
  fig = style.canvas((3.2 if few else 4.4) + 3.2 * len(panels), 3.9)
  drawn = fig.subplots(1, len(panels), sharex=True, sharey=True, squeeze=False)
  for panel, (name, curves) in zip(drawn.flat, panels.items(), strict=True):
    _panel(panel, curves, order, looks, few)
    panel.set(xlabel='Epoch', title=name)
    panel.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
  drawn[0, 0].set_ylabel(ylabel)
  drawn[0, -1].legend(
    loc='best' if few else 'center left',
    bbox_to_anchor=None if few else (1.01, 0.5),
  )
  spread = 'median and range' if few else 'median'
  style.title(fig, f'{ylabel} per epoch, {spread} of members')
  return fig


def _panel(
  panel: axes.Axes,
  curves: Mapping[str, ArrayLike],
  order: Sequence[str],
  looks: Mapping[str, style.Look],
  ranges: bool,
) -> None:
  for name in order:
    if name in curves:
      text = style.label(name)
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


_BINS = 40
_TAIL = 0.2  # percent of the scores on each side that the edge bins collect
_OUTLYING = 1  # median widths between the median side and the end


@style.styled
def log_odds(
  panels: Mapping[str, tuple[ArrayLike, ArrayLike]],
) -> figure.Figure:
  """Draw one panel per method with both histograms on common axes.

  Scores beyond the drawn range are counted in the outermost bins. Values that
  are not finite are left out, and each panel says how many.

  Args:
    panels: method -> (log-odds of forgotten examples, of unseen examples),
      each of any shape.

  Returns:
    The figure.
  """
  order = results.ordered(panels)
  forgotten = [np.ravel(np.asarray(panels[name][0], float)) for name in order]
  unseen = [np.ravel(np.asarray(panels[name][1], float)) for name in order]
  edges = _edges([*forgotten, *unseen])
  fig, cells = style.grid(
    len(order), xlabel='Log-odds of the true class', ylabel='Share of scores'
  )
  for i, (name, panel) in enumerate(zip(order, cells, strict=True)):
    _histograms_panel(panel, forgotten[i], unseen[i], edges)
    panel.set_title(
      style.label(name),
      fontweight='bold' if name == results.REFERENCE else 'normal',
    )
  top = max(panel.dataLim.y1 for panel in cells)
  cells[0].set_ylim(0, 1.05 * top if top > 0 else 1)  # shared by all
  handles, labels = cells[0].get_legend_handles_labels()
  fig.legend(handles, labels, loc='outside lower center', ncols=2)
  title = 'Confidence of the models on forgotten and on unseen examples'
  style.title(fig, title)
  return fig


def _edges(sides: list[np.ndarray]) -> np.ndarray:
  """Return edges that hold nearly all scores of all but outlying sides.

  A model with outputs of 1e38 must not squeeze all others into one bin, so the
  range ends one width of the median side beyond that side.
  """
  finite = [side[np.isfinite(side)] for side in sides]
  finite = [side for side in finite if side.size]
  if not finite:
    return np.linspace(-1, 1, _BINS + 1)
  tails = [_TAIL, 100 - _TAIL]
  low, high = np.percentile(np.concatenate(finite), tails)
  lows, highs = np.percentile([np.percentile(s, tails) for s in finite], 50, 0)
  room = _OUTLYING * (highs - lows)
  if room > 0:
    low, high = max(low, lows - room), min(high, highs + room)
  if not high > low:
    low, high = low - 1, high + 1
  return np.linspace(low, high, _BINS + 1)


def _histograms_panel(
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
