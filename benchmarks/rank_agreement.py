"""How well two rankings of methods agree: Kendall's tau with an interval.

The rankings come from the same initialisations, at two settings of each method.
Intervals are percentiles over resampled initialisations, the same ones for both
rankings. As noise in either ranking lowers tau, it is shown beside the tau of
the same settings on two halves of the initialisations.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxmu.metrics import ranking
from jaxmu.metrics.ranking import kendall_tau

RESAMPLES = 2000
GROUP_RESAMPLES = 200  # each repeats the tests behind the groups
LEVEL = 0.95

PerSeed = Mapping[str, Mapping[str, Sequence[float]]]


def smaller_is_better(
  per_seed: PerSeed, names: Sequence[str], classes: int
) -> dict[str, np.ndarray]:
  """Return RetDev and 1 - Indisc of each method, f64[K, S] by title.

  A method that guesses or has a number that is not finite is the worst one, as
  in `jaxmu.metrics.ranking`: its values are infinite.
  """

  def table(metric: str) -> np.ndarray:
    return np.array([per_seed[name][metric] for name in names], np.float64)

  guessing = table('ta').mean(axis=1) < 2 / classes
  found = {}
  for title, values in (
    ('RetDev', table('ret_dev')),
    ('Indisc', 1 - table('indisc_test')),
  ):
    failed = guessing | ~np.isfinite(values).all(axis=1)
    found[title] = np.where(failed[:, None], np.inf, values)
  return found


def placements(
  per_seed: PerSeed, names: Sequence[str], classes: int, seeds: np.ndarray
) -> dict[str, np.ndarray]:
  """Return the benchmark's group 1, 2 or 3 of each method, i64[K] by metric.

  Args:
    per_seed: numbers by method and metric.
    names: of the methods.
    classes: of the data set.
    seeds: which initialisations to use.
  """
  chosen = {
    name: {
      metric: np.asarray(values, np.float64)[seeds]
      for metric, values in per_seed[name].items()
      if metric in ('ta', 'ret_dev', 'indisc_test')
    }
    for name in names
  }
  ranked = ranking.rank_methods(chosen, classes=classes)
  return {metric: one.placement() for metric, one in ranked.items()}


def halves(values: np.ndarray) -> float:
  """Return the mean tau of rankings by disjoint halves of initialisations.

  Args:
    values: f64[K, S]; all pairs of halves of floor(S / 2) are used.
  """
  seeds = range(values.shape[1])
  size = len(seeds) // 2
  found = []
  for first in itertools.combinations(seeds, size):
    rest = [seed for seed in seeds if seed not in first]
    for second in itertools.combinations(rest, size):
      if first < second:
        parts = [values[:, list(part)].mean(axis=1) for part in (first, second)]
        found.append(kendall_tau(*parts))
  return float(np.mean(found)) if found else np.nan


def agreement(
  default: PerSeed, tuned: PerSeed, names: Sequence[str], classes: int
) -> list[dict[str, Any]]:
  """Compare the rankings of methods at two settings; rows of a table.

  Args:
    default: numbers by method and metric, one per initialisation.
    tuned: the same at other settings, paired by initialisation.
    names: of the methods.
    classes: of the data set.
  """
  pair = [smaller_is_better(one, names, classes) for one in (default, tuned)]
  count = pair[0]['RetDev'].shape[1]
  rng = np.random.default_rng(0)
  drawn = rng.integers(0, count, (RESAMPLES, count))
  rows = []
  for title in pair[0]:
    values = [one[title] for one in pair]
    resampled = [one[:, drawn].mean(axis=2).T for one in values]
    rows.append(
      {
        'ranking': title,
        **_interval(
          kendall_tau(*(one.mean(axis=1) for one in values)),
          kendall_tau(*resampled),
        ),
        'halves_of_default': f'{halves(values[0]):.2f}',
        'halves_of_tuned': f'{halves(values[1]):.2f}',
      }
    )
  return rows + _group_rows(default, tuned, names, classes, drawn)


def _group_rows(
  default: PerSeed,
  tuned: PerSeed,
  names: Sequence[str],
  classes: int,
  drawn: np.ndarray,
) -> list[dict[str, Any]]:
  """Return the rows of the benchmark's groups, none with too few seeds."""

  def taus(seeds: np.ndarray) -> dict[str, float]:
    first, second = (
      placements(one, names, classes, seeds) for one in (default, tuned)
    )
    return {
      metric: float(kendall_tau(first[metric], second[metric]))
      for metric in first.keys() & second.keys()
    }

  found = taus(np.arange(drawn.shape[1]))
  if not found:
    return []
  resampled = [taus(seeds) for seeds in drawn[:GROUP_RESAMPLES]]
  return [
    {
      'ranking': f'groups by {title}',
      **_interval(
        np.float64(found[metric]),
        np.array([one.get(metric, np.nan) for one in resampled]),
      ),
      'halves_of_default': '',
      'halves_of_tuned': '',
    }
    for metric, title in (('ret_dev', 'RetDev'), ('disc_test', 'Indisc'))
    if metric in found
  ]


def _interval(tau: np.ndarray, resampled: np.ndarray) -> dict[str, str]:
  """Return tau and its interval as text, empty where it is not defined."""
  defined = resampled[np.isfinite(resampled)]
  low = high = np.nan
  if defined.size:
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(defined, [tail, 1 - tail])
  cells = {'tau': float(tau), 'low': float(low), 'high': float(high)}
  return {k: f'{v:.2f}' if np.isfinite(v) else '' for k, v in cells.items()}
