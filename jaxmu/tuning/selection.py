"""Choose a setting from the trials of a search.

The smallest of hundreds of noisy values is not that of the best setting. By
default the best trials (`config.search.finalists`) are therefore judged again
on initialisations that no study searched (`config.search.judges`), and the
smallest mean wins. Finalists are taken from all studies alike, because
initialisations differ more than settings: where an original model is close to
the retrained one, every small step has a small norm. The default setting is
judged with them, so the choice is never worse than it on the judges.

With `judges=0` the choice is that of the reference: the smallest value of any
trial, ties to the lower initialisation, then to the lower number.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxmu.tuning.spaces import NoSetting

Setting = Mapping[str, Any]


class Choice(NamedTuple):
  """The setting that a search chooses.

  Attributes:
    setting: all hyper-parameters.
    norm: its norm, the mean over the judges; with the reference's rule, its
      value in the trial that won.
    trial: position of the winning trial; None if the default setting won.
    finalists: positions of the trials that were judged again.
    means: mean norms over the judges of the finalists and of the default
      setting, which is last, f64[F + 1].
  """

  setting: Setting
  norm: float
  trial: int | None
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


def alternate(order: np.ndarray, initialisation: np.ndarray) -> np.ndarray:
  """Return positions with the best of every study first, then the second best.

  Args:
    order: positions, the best first.
    initialisation: i64[T], the study of each trial.

  Example:
    >>> alternate(np.array([2, 0, 1, 3]), np.array([5, 6, 5, 6])).tolist()
    [2, 1, 0, 3]
  """
  seen: dict[int, int] = {}
  place = []
  for position in order:
    study = int(initialisation[position])
    place.append(seen.get(study, 0))
    seen[study] = place[-1] + 1
  return order[np.argsort(place, kind='stable')]


def finalists(
  order: np.ndarray,
  settings: Sequence[Setting],
  initialisation: np.ndarray,
  count: int,
) -> list[int]:
  """Return the trials that are judged again, with different settings.

  Args:
    order: positions of trials as `ranked` returns them.
    settings: of all trials.
    initialisation: i64[T], the study of each trial.
    count: at most so many.
  """
  return distinct(alternate(order, initialisation), settings, count)


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
  initialisation: np.ndarray,
  default: Setting,
  default_may_win: bool = True,
  count: int,
  judge: Callable[[list[Setting]], np.ndarray] | None,
) -> Choice:
  """Choose the setting of a search.

  Args:
    order: positions of trials as `ranked` returns them.
    norms: f64[T] of all trials.
    settings: of all trials.
    initialisation: i64[T], the study of each trial.
    default: a setting that is judged with the finalists.
    default_may_win: False where the method does not act as its name says at the
      default setting.
    count: how many of the best are judged again.
    judge: returns the mean norm of settings on further initialisations, f64[F];
      None to choose as the reference, which takes no default.

  Raises:
    NoSetting: no trial is usable.
  """
  if not len(order):
    raise NoSetting(
      'every trial failed or has a setting at which the method does not act as '
      'its name says; search other values with config.search.space'
    )
  if judge is None:
    best = int(order[0])
    return Choice(settings[best], float(norms[best]), best, [], np.zeros(0))
  positions = finalists(order, settings, initialisation, count)
  means = judge([*(settings[p] for p in positions), default])
  candidates = means if default_may_win else means[:-1]
  first = int(np.argmin(candidates))
  trial = positions[first] if first < len(positions) else None
  setting = default if trial is None else settings[trial]
  return Choice(setting, float(means[first]), trial, positions, means)
