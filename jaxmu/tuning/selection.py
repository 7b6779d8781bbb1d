"""Choose a setting from the trials of a search.

The smallest of hundreds of noisy values is not that of the best setting. By
default the best trials (`config.search.finalists`) are therefore judged again
on initialisations that no study searched (`config.search.judges`), and the
smallest mean wins.

With `judges=0` the choice is that of the reference: the smallest value of any
trial, ties to the lower initialisation, then to the lower number.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

Setting = Mapping[str, Any]


class Choice(NamedTuple):
  """The setting that a search chooses.

  Attributes:
    setting: all hyper-parameters.
    norm: its norm, the mean over the judges; with the reference's rule, its
      value in the trial that won.
    trial: position of the winning trial.
    finalists: positions of the trials that were judged again.
    means: their norms, means over the judges, f64[F].
  """

  setting: Setting
  norm: float
  trial: int
  finalists: list[int]
  means: np.ndarray


def ranked(
  norms: np.ndarray,
  initialisation: np.ndarray,
  number: np.ndarray,
  usable: np.ndarray,
) -> np.ndarray:
  """Return positions of the usable trials, the smallest norm first.

  Args:
    norms: f64[T]; trials that are not finite are left out.
    initialisation: i64[T], which breaks ties.
    number: i64[T], which breaks further ties.
    usable: bool[T], trials whose setting may win.
  """
  order = np.lexsort([number, initialisation, norms])
  return order[(np.isfinite(norms) & usable)[order]]


def distinct(
  order: np.ndarray, settings: Sequence[Setting], count: int
) -> list[int]:
  """Return the first positions whose settings differ, at most `count`."""
  chosen: list[int] = []
  for position in order:
    if len(chosen) == count:
      break
    if all(settings[position] != settings[other] for other in chosen):
      chosen.append(int(position))
  return chosen


def choose(
  order: np.ndarray,
  norms: np.ndarray,
  settings: Sequence[Setting],
  *,
  finalists: int,
  judge: Callable[[list[Setting]], np.ndarray] | None,
) -> Choice:
  """Choose the setting of a search.

  Args:
    order: positions of trials as `ranked` returns them.
    norms: f64[T] of all trials.
    settings: of all trials.
    finalists: how many of the best are judged again.
    judge: returns the mean norm of settings on further initialisations, f64[F];
      None to choose as the reference.

  Raises:
    ValueError: no trial is usable.
  """
  if not len(order):
    raise ValueError(
      'every trial failed or has a setting at which the method does not act as '
      'its name says; search other values with config.search.space'
    )
  if judge is None:
    best = int(order[0])
    return Choice(settings[best], float(norms[best]), best, [], np.zeros(0))
  positions = distinct(order, settings, finalists)
  means = judge([settings[p] for p in positions])
  first = int(np.argmin(means))
  best = positions[first]
  return Choice(settings[best], float(means[first]), best, positions, means)
