"""Run-time efficiency: how much cheaper than retraining.

RTE = T_R / T_U; a method above 1 is faster than retraining. A job gives three
values: wall-clock time with compilation and without (the median of
`config.timing.repeats` runs), and counted passes through the network, where a
backward pass counts as two, which do not depend on the machine. The cost of the
hyper-parameter search is not included.
"""

import math

from jaxmu.metrics.interface import Card
from jaxmu.terms import BENCHMARK, Term


def rte(reference_time: float, new_time: float) -> float:
  """Return T_R / T_U; infinity for a free method, NaN if both are free.

  Args:
    reference_time: of retraining, in seconds or passes.
    new_time: of the method, in the same unit.

  Raises:
    ValueError: a negative time.

  Example:
    >>> rte(6.0, 3.0)
    2.0
  """
  if reference_time < 0 or new_time < 0:
    raise ValueError(
      f'times must not be negative, got {reference_time} and {new_time}'
    )
  if new_time == 0:
    return math.inf if reference_time > 0 else math.nan
  return reference_time / new_time


CARD = Card(
  title='Run time and counted work',
  needs=('retrained',),
  terms={
    'rte': Term(
      'Speed-up over retraining (RTE)',
      'How many times faster than retraining one model, without compilation.',
      'times',
      'higher',
      f'{BENCHMARK} (time to retrain / time to unlearn, one model, warm)',
    ),
    'rte_cold': Term(
      'Speed-up with compilation',
      'How many times faster than retraining one model when both also have to '
      'compile their program first.',
      'times',
      'higher',
    ),
    'rte_counted': Term(
      'Speed-up in counted work',
      'How many times fewer passes of an image through the network than '
      'retraining needs; the same on any machine.',
      'times',
      'higher',
    ),
    'cost': Term(
      'Counted work',
      'Passes of one image through the network that the method needs for one '
      'model, a backward pass counting as two; the same on any machine.',
      'count',
      'lower',
    ),
    'seconds': Term(
      'Time for one model',
      'Wall-clock time for one model alone on the device, without compilation.',
      'seconds',
      'lower',
    ),
    'seconds_cold': Term(
      'Time for one model, with compilation',
      'Wall-clock time for one model alone on the device, from a cold start.',
      'seconds',
      'lower',
    ),
  },
)
