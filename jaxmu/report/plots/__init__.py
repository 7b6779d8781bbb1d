"""Results in pictures: plain arrays in, a matplotlib figure out.

All pictures share three rules. The retrained models are black and dashed, the
original models vermilion, in every one. Colours are those of Okabe and Ito,
which colour-blind readers tell apart, and never carry a meaning alone. Equal
arrays give equal bytes, whatever the user's matplotlib settings are.
"""

from jaxmu.report.plots.accuracy import accuracy_bars
from jaxmu.report.plots.curves import training_curves
from jaxmu.report.plots.fronts import pareto
from jaxmu.report.plots.histograms import log_odds
from jaxmu.report.plots.points import vulnerability
from jaxmu.report.plots.ranking import critical_difference
from jaxmu.report.plots.roc import Roc, roc
from jaxmu.report.plots.style import DPI, png, save
from jaxmu.report.plots.trade_off import trade_off

__all__ = [
  'DPI',
  'Roc',
  'accuracy_bars',
  'critical_difference',
  'log_odds',
  'pareto',
  'png',
  'roc',
  'save',
  'trade_off',
  'training_curves',
  'vulnerability',
]
