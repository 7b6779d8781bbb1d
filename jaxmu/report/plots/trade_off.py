"""Trade-off curves: which pairs of errors an attacker can choose between."""

from collections.abc import Mapping

import numpy as np
from matplotlib import figure
from numpy.typing import ArrayLike

from jaxmu.report import names
from jaxmu.report.plots import style


@style.styled
def trade_off(
  curves: Mapping[str, tuple[ArrayLike, ArrayLike]],
  *,
  remarks: Mapping[str, str] | None = None,
  reference: str = names.REFERENCE,
  original: str = names.ORIGINAL,
  title: str = 'Errors open to an attacker: closer to the diagonal, less leaks',
) -> figure.Figure:
  """Draw false negative against false positive rates.

  On the diagonal the attacker can only guess. The curve of retrained against
  other retrained models shows how far below it noise alone reaches.

  Args:
    curves: method -> (fpr f64[G], fnr f64[G]) on the lower convex hull.
    remarks: method -> what the legend says beside its name.
    reference: key of the retrained models.
    original: key of the original models.
    title: headline.

  Returns:
    The figure.
  """
  order = names.ordered(curves, reference, original)
  looks = style.looks(order, reference, original)
  fig = style.canvas(5.6 if len(order) <= 8 else 7.2, 5.2)
  panel = fig.add_subplot()
  panel.plot([0, 1], [1, 0], color=style.QUIET, lw=0.8, label='Guessing')
  panel.fill_between([0, 1], [1, 0], [1, 1], color=style.FAINT, alpha=0.5, lw=0)
  for name in order:
    fpr, fnr = (np.asarray(side, np.float64) for side in curves[name])
    text = ', '.join([style.label(name, reference), *_remark(remarks, name)])
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
  style.title(fig, title)
  return fig


def _remark(remarks: Mapping[str, str] | None, name: str) -> list[str]:
  return [remarks[name]] if remarks and name in remarks else []
