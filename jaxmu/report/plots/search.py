"""Figures of a search for hyper-parameters."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import figure

from jaxmu.report.plots import style


@style.styled
def history(
  norms: Mapping[str, np.ndarray],
  references: Mapping[str, float],
  *,
  what: str = 'Norm',
) -> figure.Figure:
  """Draw the norm of every trial and the best so far, by initialisation.

  Args:
    norms: f64[T] per study in the order of trials; infinite where they failed.
    references: norms to compare with, such as that of the default setting.
    what: the norm is called, with a capital.
  """
  fig = style.canvas(6.4, 3.6)
  panel = fig.subplots()
  for (name, values), color in zip(
    norms.items(), style.colors(len(norms)), strict=True
  ):
    number = np.arange(len(values))
    fine = np.isfinite(values)
    panel.plot(number[fine], values[fine], 'o', color=color, ms=3, alpha=0.5)
    best = np.minimum.accumulate(values)
    panel.step(
      number[np.isfinite(best)],
      best[np.isfinite(best)],
      where='post',
      color=color,
      label=style.escape(name),
    )
  for (name, value), line in zip(references.items(), ('--', ':'), strict=False):
    panel.axhline(
      value, color=style.QUIET, linestyle=line, label=name, zorder=1
    )
  panel.set_yscale('log')
  panel.set_xlabel('Trial')
  panel.set_ylabel(f'{what} (smaller is better)')
  fig.legend(loc='outside lower center', ncols=4)
  style.title(fig, f'{what} of each trial, and the best so far')
  return fig


@style.styled
def front(
  objectives: np.ndarray,
  names: Sequence[str],
  chosen: int,
) -> figure.Figure:
  """Draw pairs of objectives; non-dominated trials stand out.

  Args:
    objectives: f64[T, 4], finite.
    names: of the objectives.
    chosen: position of the chosen trial; -1 for none.
  """
  best = non_dominated(objectives)
  fig = style.canvas(7.6, 2.9)
  count = objectives.shape[1] - 1
  panels = list(fig.subplots(1, count, sharey=True, squeeze=False)[0])
  for k, panel in enumerate(panels):
    x, y = objectives[:, k], objectives[:, -1]
    panel.plot(x, y, 'o', color=style.QUIET, ms=3, alpha=0.5, label='trial')
    panel.plot(
      x[best], y[best], 'o', color=style.BLUE, ms=4, label='not dominated'
    )
    if chosen >= 0:
      panel.plot(
        x[chosen], y[chosen], '*', color=style.VERMILION, ms=11, label='chosen'
      )
    panel.set_xlabel(style.escape(names[k]))
  panels[0].set_ylabel(style.escape(names[-1]))
  panels[-1].legend(loc='upper right')
  style.title(fig, 'Objectives of all trials (0 is best)')
  return fig


def non_dominated(objectives: np.ndarray) -> np.ndarray:
  """Return which trials are not dominated, bool[T].

  A trial dominates another if it is at least as good in every objective and
  better in one.

  Args:
    objectives: f64[T, K], smaller is better.
  """
  a, b = objectives[:, None], objectives[None]
  better = np.all(b <= a, axis=2) & np.any(b < a, axis=2)
  return ~np.any(better, axis=1, keepdims=True)[:, 0]


@style.styled
def parallel(
  settings: Mapping[str, np.ndarray],
  norms: np.ndarray,
  logarithmic: Sequence[str],
) -> figure.Figure:
  """Draw every trial as a line over its hyper-parameters, the best on top.

  Args:
    settings: f64[T] values by hyper-parameter.
    norms: f64[T], finite; the darker, the smaller.
    logarithmic: names of those whose axis is logarithmic.
  """
  fig = style.canvas(max(6.4, 1.1 * len(settings)), 3.6)
  panel = fig.subplots()
  columns, ticks = [], []
  for name, values in settings.items():
    log = name in logarithmic
    scaled = np.log10(values) if log else np.asarray(values, float)
    low, high = scaled.min(), scaled.max()
    columns.append((scaled - low) / (high - low or 1.0))
    ends = [f'{10**end:.1e}' if log else f'{end:.3g}' for end in (low, high)]
    ticks.append(ends)
  table = np.stack(columns, axis=1)
  order = np.argsort(-norms)
  rank = np.argsort(np.argsort(norms)) / max(len(norms) - 1, 1)
  for t in order:
    best = rank[t] <= 0.1
    panel.plot(
      table[t],
      color=style.BLUE if best else style.QUIET,
      alpha=0.9 if best else 0.15,
      lw=1.2 if best else 0.8,
    )
  for k, (low, high) in enumerate(ticks):
    panel.annotate(low, (k, -0.06), ha='center', va='top', fontsize=7.5)
    panel.annotate(high, (k, 1.03), ha='center', va='bottom', fontsize=7.5)
  panel.set_xticks(range(len(settings)), [style.escape(n) for n in settings])
  panel.tick_params(axis='x', pad=16, rotation=20 if len(settings) > 5 else 0)
  panel.set_yticks([])
  panel.set_ylim(-0.14, 1.12)
  panel.grid(axis='y', visible=False)
  style.title(fig, 'Hyper-parameters of all trials; the best tenth in blue')
  return fig


@style.styled
def importances(values: Mapping[str, float]) -> figure.Figure:
  """Draw the importance of hyper-parameters as bars.

  Args:
    values: share of the variance of the norm, by hyper-parameter.
  """
  names = sorted(values, key=lambda name: values[name])
  fig = style.canvas(6.4, 0.9 + 0.28 * len(names))
  panel = fig.subplots()
  panel.barh(
    [style.escape(n) for n in names],
    [values[n] for n in names],
    color=style.BLUE,
    height=0.6,
  )
  panel.set_xlabel('Share of the variance of the norm (fANOVA)')
  panel.grid(axis='y', visible=False)
  style.title(fig, 'Importance of hyper-parameters')
  return fig
