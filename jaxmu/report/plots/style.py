"""The style that all figures share, and their files."""

import dataclasses
import functools
import io
import math
from collections.abc import Callable, Iterable
from typing import Any, ParamSpec, TypeVar

import matplotlib.style
from matplotlib import axes, figure
from matplotlib.backends import backend_agg

from jaxmu.report import results

# Okabe & Ito 2008; their yellow is too pale for lines on white.
INK = '#222222'
QUIET = '#8a8a8a'
FAINT = '#e3e3e3'
VERMILION = '#d55e00'
BLUE = '#0072b2'
GREEN = '#009e73'
ORANGE = '#e69f00'
PURPLE = '#cc79a7'
SKY = '#56b4e9'

_CYCLE = (BLUE, GREEN, ORANGE, PURPLE, SKY)
_LINES = ('-', '-.', ':', (0, (1, 1, 4, 1)))
_MARKERS = ('o', 's', '^', 'D', 'v', 'P', 'X')
DPI = 144

_SETTINGS: dict[str, Any] = {
  'font.family': 'DejaVu Sans',
  'font.size': 9,
  'axes.titlesize': 9.5,
  'axes.titlelocation': 'left',
  'axes.labelcolor': INK,
  'axes.edgecolor': QUIET,
  'axes.linewidth': 0.8,
  'axes.spines.top': False,
  'axes.spines.right': False,
  'axes.axisbelow': True,
  'axes.grid': True,
  'grid.color': FAINT,
  'grid.linewidth': 0.6,
  'text.color': INK,
  'xtick.color': '#555555',
  'ytick.color': '#555555',
  'legend.frameon': False,
  'legend.fontsize': 8.5,
  'lines.linewidth': 1.6,
  'lines.solid_capstyle': 'round',
  'figure.facecolor': 'white',
  'savefig.facecolor': 'white',
}

P = ParamSpec('P')
T = TypeVar('T')


@dataclasses.dataclass(frozen=True)
class Look:
  """How one method is drawn."""

  color: str
  line: Any  # a line style of matplotlib: a string, or offset and dashes
  marker: str
  order: int


def styled(draw: Callable[P, T]) -> Callable[P, T]:
  """Run a function under the project's settings, then restore the user's."""

  @functools.wraps(draw)
  def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
    with matplotlib.style.context(['default', _SETTINGS]):
      return draw(*args, **kwargs)

  return wrapper


def looks(
  methods: Iterable[str],
) -> dict[str, Look]:
  """Return the look of each method, by its position among the unlearners."""
  result, i = {}, 0
  for method in methods:
    if method == results.REFERENCE:
      result[method] = Look(INK, (0, (4.0, 2.0)), 'D', 5)
    elif method == results.ORIGINAL:
      result[method] = Look(VERMILION, '-', 's', 3)
    else:
      line = _LINES[i // len(_CYCLE) % len(_LINES)]
      marker = _MARKERS[i % len(_MARKERS)]
      result[method] = Look(_CYCLE[i % len(_CYCLE)], line, marker, 4)
      i += 1
  return result


def colors(count: int) -> list[str]:
  """Return as many colours, repeating after five."""
  return [_CYCLE[i % len(_CYCLE)] for i in range(count)]


def label(method: str) -> str:
  """Return the label of a method in a figure; the reference is marked."""
  name = escape(results.label(method))
  return f'{name} (reference)' if method == results.REFERENCE else name


def escape(text: str) -> str:
  """Return text that matplotlib draws literally, including dollar signs."""
  return text.replace('$', r'\$')


def canvas(width: float, height: float) -> figure.Figure:
  """Return an empty figure of this size in inches, free of global state."""
  fig = figure.Figure(figsize=(width, height), dpi=DPI, layout='constrained')
  backend_agg.FigureCanvasAgg(fig)
  return fig


def grid(
  count: int,
  *,
  xlabel: str,
  ylabel: str,
) -> tuple[figure.Figure, list[axes.Axes]]:
  """Return a figure with `count` panels that share both axes."""
  columns = min(4, count)
  rows = math.ceil(count / columns)
  extra = 0.9  # inches for the title and the legend
  fig = canvas(max(columns * 2.4, 4.8), rows * 2.2 + extra)
  panels = fig.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
  used = list(panels.flat)
  for panel in used[count:]:
    panel.set_axis_off()
  for panel in used[max(count - columns, 0) : count]:
    panel.tick_params(labelbottom=True)
    panel.set_xlabel(xlabel)
  for panel in used[:count:columns]:
    panel.set_ylabel(ylabel)
  return fig, used[:count]


def title(fig: figure.Figure, text: str) -> None:
  """Write the headline of a figure at its left edge."""
  fig.suptitle(text, x=0.01, ha='left', fontsize=11, fontweight='bold')


def note(panel: axes.Axes, text: str, **place: Any) -> None:
  """Write a small grey note, by default in the upper left corner."""
  at = {'x': 0.03, 'y': 0.97, 'va': 'top', 'ha': 'left', **place}
  panel.text(s=text, transform=panel.transAxes, fontsize=7.5, color=QUIET, **at)


@styled
def png(fig: figure.Figure) -> bytes:
  """Return a figure as PNG; equal figures give equal bytes."""
  file = io.BytesIO()
  fig.savefig(file, format='png', dpi=DPI, metadata={'Software': None})
  return file.getvalue()
