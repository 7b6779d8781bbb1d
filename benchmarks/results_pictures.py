"""Pictures of a study that no report of a single job has."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib import axes, figure, ticker

from jaxmu.attacks import per_example
from jaxmu.claims.cells import ORIGINAL, REFERENCE, CannotAnswer, Job
from jaxmu.claims.evidence import Number
from jaxmu.metrics import ranking
from jaxmu.report import glossary, plots, results
from jaxmu.report.plots import methods, style

SHOWN = 10  # examples of each kind


class Example(NamedTuple):
  """An example with its exposure.

  Attributes:
    position: in the data set.
    label: its class.
    auc: of the original, the unlearned and the retrained models, by name.
  """

  position: int
  label: int
  auc: Mapping[str, float]


def leak(job: Job) -> str:
  """Return the number that measures the leak in a job."""
  known = any(metric == 'excess_ulira_auc' for _, metric in job.rows)
  return 'excess_ulira_auc' if known else 'disc_test'


def leak_of(job: Job, method: str, metric: str) -> Number:
  """Return the leak of a method with its interval, NaN if it is not known."""
  if metric == 'excess_ulira_auc' and method == REFERENCE:
    return Number(0.0)
  try:
    number = job.number(
      method, 'indisc_test' if metric == 'disc_test' else metric
    )
  except CannotAnswer:
    return Number(math.nan)
  if metric == 'disc_test':
    return Number(1 - number.value, 1 - number.high, 1 - number.low)
  return number


def front(job: Job, metric: str) -> figure.Figure | None:
  """Draw accuracy against leak; methods that guess are named below."""
  names = results.ordered(job.values)
  both = np.array(
    [
      [_mean(job, name, 'ret_dev'), leak_of(job, name, metric).value]
      for name in names
    ]
  )
  both[[name in _guessing(job) for name in names]] = np.nan
  competes = [name not in (REFERENCE, ORIGINAL) for name in names]
  competing = np.where(np.array(competes)[:, None], both, np.nan)
  if not np.isfinite(competing).all(axis=1).any():
    return None
  return plots.pareto(
    names,
    *both.T,
    ranking.pareto_front(competing),
    y_metric=metric,
  )


def _guessing(job: Job) -> list[str]:
  return [name for name in job.unlearners if name not in job.working]


def _mean(job: Job, method: str, metric: str) -> float:
  try:
    return float(job.clusters(method, metric).mean())
  except CannotAnswer:
    return math.nan


@style.styled
def speed(job: Job, metric: str) -> figure.Figure | None:
  """Draw run time against leak, with 95% intervals of the leak."""
  points = []
  for name in job.working:
    number = leak_of(job, name, metric)
    try:
      fast = job.speed(name)
    except CannotAnswer:
      continue
    if math.isfinite(number.value):
      points.append((name, fast, number))
  if not points:
    return None
  fig = style.canvas(6.0, 4.6)
  panel = fig.add_subplot()
  panel.set_xscale('log')
  for _, x, number in points:
    if math.isfinite(number.low):
      panel.plot([x, x], number[1:], color=style.QUIET, lw=1, zorder=1)
    panel.plot(x, number.value, 'o', ms=6, color=style.BLUE, zorder=3)
  original = leak_of(job, ORIGINAL, metric).value
  null = leak_of(job, REFERENCE, metric).value
  lines = (
    ('original', original, style.VERMILION),
    ('retrained', null, style.INK),
  )
  for name, value, color in lines:
    if math.isfinite(value):
      panel.axhline(value, color=color, lw=1, ls=(0, (4, 2)), zorder=0)
      panel.annotate(
        name,
        (1, value),
        xycoords=('axes fraction', 'data'),
        xytext=(-2, 2),
        textcoords='offset points',
        ha='right',
        fontsize=8,
        color=color,
      )
  _plain_ticks(panel, [x for _, x, _ in points])
  panel.margins(x=0.15, y=0.12)
  clock = glossary.describe(job.clock).title
  panel.set_xlabel(f'{clock} (higher is better)')
  panel.set_ylabel(f'{glossary.describe(metric).title}\n(lower is better)')
  style.title(fig, 'Run time and leak of each method')
  names, fast, leaks = zip(*points, strict=True)
  values = np.array([number.value for number in leaks])
  methods.label_points(fig, panel, names, np.array(fast), values)
  missing = [results.label(n) for n in job.unlearners if n not in names]
  if missing:
    text = f'not shown: {", ".join(missing)}'
    style.note(panel, text, x=0.98, ha='right')
  return fig


def _plain_ticks(panel: axes.Axes, values: Sequence[float]) -> None:
  """Write plain numbers on the logarithmic axis of positive values."""
  if max(values) / min(values) >= 4:
    panel.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
  else:
    panel.xaxis.set_major_locator(ticker.MaxNLocator(5))
  panel.xaxis.set_major_formatter(ticker.FuncFormatter(lambda x, _: f'{x:g}'))
  panel.xaxis.set_minor_locator(ticker.NullLocator())


def exposures(job: Job, method: str) -> dict[str, per_example.PerExample]:
  """Return the exposure of every example by population."""
  data = job.scores(method)
  return {
    name: per_example.exposure(one) for name, one in data.populations.items()
  }


def extremes(
  job: Job, method: str, exposed: Mapping[str, per_example.PerExample]
) -> tuple[list[Example], list[Example]]:
  """Return the most and the least exposed examples of the original models."""
  auc = exposed['original'].auc
  known = np.flatnonzero(np.isfinite(auc))
  order = known[np.argsort(-auc[known], kind='stable')]
  positions, labels = job.examples(method)

  def example(n: int) -> Example:
    aucs = {name: float(one.auc[n]) for name, one in exposed.items()}
    return Example(int(positions[n]), int(labels[n]), aucs)

  return (
    [example(n) for n in order[:SHOWN]],
    [example(n) for n in order[::-1][:SHOWN]],
  )


@style.styled
def examples(
  images: np.ndarray,
  rows: Sequence[tuple[str, Sequence[Example]]],
  method: str,
) -> figure.Figure:
  """Draw images of examples, a row per kind, with their AUCs.

  Args:
    images: u8[N, H, W, C] of the data set.
    rows: heading and examples of each row.
    method: the unlearning method.
  """
  columns = max(len(some) for _, some in rows)
  fig = style.canvas(1.0 * columns + 0.4, 1.75 * len(rows) + 0.5)
  parts = np.atleast_1d(fig.subfigures(len(rows), 1))
  for part, (heading, some) in zip(parts, rows, strict=True):
    part.suptitle(heading, x=0.01, ha='left', fontsize=9)
    panels = part.subplots(1, columns, squeeze=False)[0]
    for panel in panels:
      panel.set_axis_off()
    for panel, one in zip(panels, some, strict=False):
      image = images[one.position]
      panel.imshow(
        image if image.shape[-1] == 3 else image[..., 0], cmap='gray'
      )
      panel.set_title(
        f'{one.auc["original"]:.2f} → {one.auc["unlearned"]:.2f}',
        fontsize=8,
        loc='center',
      )
  name = style.escape(results.label(method))
  style.title(fig, f'AUC of single images: original models → {name}')
  return fig
