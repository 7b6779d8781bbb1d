"""Run-time efficiency: how much cheaper than retraining.

RTE = T_R / T_U, above 1 is faster than retraining. A job gives three: by the
clock with compilation and without (the median of `config.timing.repeats` runs),
and by counted passes through the network, a backward pass as two, which no
clock can distort. Search for hyper-parameters is charged to nobody.
"""

import math


def rte(reference_time: float, new_time: float) -> float:
  """Return T_R / T_U; infinity for a free method, NaN if both are free.

  Args:
    reference_time: of retraining, in seconds or passes.
    new_time: of the method, in the same unit.

  Raises:
    ValueError: a negative time.
  """
  if reference_time < 0 or new_time < 0:
    raise ValueError(
      f'times must not be negative, got {reference_time} and {new_time}'
    )
  if new_time == 0:
    return math.inf if reference_time > 0 else math.nan
  return reference_time / new_time
