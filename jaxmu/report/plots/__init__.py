"""Results in pictures: plain arrays in, a matplotlib figure out.

All pictures share three rules. The retrained models are black and dashed, the
original models vermilion, in every one. Colours are those of Okabe and Ito,
which colour-blind readers tell apart, and never carry a meaning alone. Equal
arrays give equal bytes, whatever the user's matplotlib settings are.
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
  accuracy_bars,
  critical_difference,
  pareto,
  vulnerability,
)
from jaxmu.report.plots.style import DPI, png, save

__all__ = [
  'DPI',
  'Figure',
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
