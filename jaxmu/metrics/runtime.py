"""Run-time efficiency: how much cheaper than retraining.

RTE = T_R / T_U, above 1 is faster than retraining. Three readings: `cold` (with
compilation), `warm` (without), and `work`, a count of examples pushed through
the network that no clock can distort. A backward pass counts twice a forward
pass. Search for hyper-parameters is charged to nobody.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

MIN_RUNS = 3
BACKWARD_COST = 2.0  # in forward passes


@dataclasses.dataclass(frozen=True)
class Cost:
  """What one run of one member cost.

  Attributes:
    cold_seconds: first run, compilation included.
    warm_seconds: repeated runs on the same device with nothing beside them.
    forward_examples: examples pushed forward through the network.
    backward_examples: examples of which gradients were taken.
  """

  cold_seconds: float
  warm_seconds: Sequence[float]
  forward_examples: int
  backward_examples: int

  @property
  def work(self) -> float:
    """Work in forward passes."""
    return self.forward_examples + BACKWARD_COST * self.backward_examples


@dataclasses.dataclass(frozen=True)
class Efficiency:
  """RTE by three clocks; NaN where a run cost nothing measurable."""

  cold: float
  warm: float
  work: float


def rte(reference_time: float, new_time: float) -> float:
  """Returns T_R / T_U; infinity for a free method, NaN if both are free.

  Raises:
    ValueError: a negative time.
  """
  if reference_time < 0 or new_time < 0:
    raise ValueError(
      f'times must not be negative, got {reference_time} and {new_time}.'
    )
  if new_time == 0:
    return math.inf if reference_time > 0 else math.nan
  return reference_time / new_time


def efficiency(retrained: Cost, unlearned: Cost) -> Efficiency:
  """Compares the cost of an unlearned member with that of a retrained one.

  Raises:
    ValueError: fewer than three warm runs on a side.
  """
  for name, cost in (('retrained', retrained), ('unlearned', unlearned)):
    if len(cost.warm_seconds) < MIN_RUNS:
      raise ValueError(
        f'{len(cost.warm_seconds)} warm runs of the {name} member; the median '
        f'needs at least {MIN_RUNS}.'
      )
  return Efficiency(
    cold=rte(retrained.cold_seconds, unlearned.cold_seconds),
    warm=rte(
      float(np.median(retrained.warm_seconds)),
      float(np.median(unlearned.warm_seconds)),
    ),
    work=rte(retrained.work, unlearned.work),
  )
