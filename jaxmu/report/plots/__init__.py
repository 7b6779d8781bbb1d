"""Figures of results: functions from plain arrays to matplotlib figures.

All figures follow three rules. Retrained models are black and dashed, original
models are vermilion. Colours are those of Okabe and Ito, which colour-blind
readers can distinguish, and are never the only sign of a meaning. Equal arrays
give equal bytes, whatever the user's matplotlib settings are.
"""

from matplotlib.figure import Figure

from jaxmu.report.plots.curves import (
  Roc,
  log_odds,
  roc,
  trade_off,
  training_curves,
)
from jaxmu.report.plots.methods import (
  accuracies,
  critical_difference,
  pareto,
  vulnerability,
)
from jaxmu.report.plots.search import front, history, importances, parallel
from jaxmu.report.plots.style import DPI, png

__all__ = [
  'DPI',
  'Figure',
  'Roc',
  'accuracies',
  'critical_difference',
  'front',
  'history',
  'importances',
  'log_odds',
  'parallel',
  'pareto',
  'png',
  'roc',
  'trade_off',
  'training_curves',
  'vulnerability',
]
