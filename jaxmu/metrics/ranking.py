"""Ranking methods: tests per cell, groups, ranks across cells.

A cell is a (data set, architecture). Within a cell, methods are compared over
seeds: a Friedman test decides whether they differ at all, and greedy groups
collect the methods that cannot be told from the best remaining one. Across
cells there are mean ranks with a bootstrap over cells, Nemenyi's critical
difference, and the Pareto front.

The benchmark does not publish the rule for its groups G1, G2 and G3. The rule
of this module is `greedy_groups`.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float64, Int
from scipy import stats

from jaxmu.metrics.interface import Card
from jaxmu.terms import BENCHMARK, Term

NOISE_FLOOR_DISC = 0.01  # smaller differences in Disc are ties
MIN_SEEDS = 5

# The metrics that rank methods over seeds, with their names in tables.
TITLES = {'ret_dev': 'RetDev', 'disc_test': 'Disc'}


@dataclasses.dataclass(frozen=True)
class CellRanking:
  """Ranking of the methods of one cell by one metric.

  Attributes:
    statistic: Friedman's chi-squared over methods that did not fail.
    p_value: of it.
    mean_rank: f64[K], 1 is best; failed methods have the worst.
    groups: groups of method indices, best first; failed ones are the last.
    failed: bool[K].
    seeds: number of seeds behind it.
  """

  statistic: float
  p_value: float
  mean_rank: Float64[np.ndarray, ' K']
  groups: tuple[tuple[int, ...], ...]
  failed: Bool[np.ndarray, ' K']
  seeds: int

  def placement(self) -> Int[np.ndarray, ' K']:
    """Return 1, 2 or 3 per method: G3 begins with the third group."""
    place = np.zeros(len(self.mean_rank), int)
    for number, group in enumerate(self.groups):
      place[list(group)] = min(number + 1, 3)
    place[self.failed] = 3
    return place


Test = Literal['wilcoxon', 'bootstrap']
PerSeed = Float64[np.ndarray, ' S']

_LEVEL = 0.05  # significance level of all tests
_RESAMPLES = 10_000
_RESAMPLED_CELLS = 2000


def rank_cell(
  values: Float64[np.ndarray, 'K S'],
  *,
  tie: float = 0.0,
  test: Test = 'wilcoxon',
) -> CellRanking:
  """Rank methods by a metric for which smaller is better.

  Args:
    values: f64[K, S] per method and seed, paired over seeds; NaN for runs that
      failed. A method with any NaN is failed: worst rank and flag, not a
      missing value.
    tie: mean differences from the best that always count as a tie.
    test: see `greedy_groups`.

  Raises:
    ValueError: fewer than two working methods or five seeds.
  """
  values = np.asarray(values, np.float64)
  failed = np.any(~np.isfinite(values), axis=1)
  working = np.flatnonzero(~failed)
  if len(working) < 2 or values.shape[1] < MIN_SEEDS:
    raise ValueError(
      f'methods that did not fail: {len(working)}, seeds: {values.shape[1]}; '
      f'ranking needs at least 2 methods and {MIN_SEEDS} seeds'
    )
  used = values[working]
  ranks = stats.rankdata(used, axis=0)
  statistic, p_value = _friedman(ranks)
  mean_rank = np.full(len(values), np.nan)
  mean_rank[working] = ranks.mean(axis=1)
  worst = len(values) - (failed.sum() - 1) / 2  # mean of the last ranks
  mean_rank[failed] = worst
  groups = [
    tuple(int(working[i]) for i in group)
    for group in greedy_groups(used, tie=tie, test=test)
  ]
  if failed.any():
    groups.append(tuple(np.flatnonzero(failed).tolist()))
  return CellRanking(
    statistic, p_value, mean_rank, tuple(groups), failed, values.shape[1]
  )


def rank_methods(
  per_seed: Mapping[str, Mapping[str, Float64[np.ndarray, ' S']]],
  *,
  classes: int,
) -> dict[str, CellRanking]:
  """Rank the methods of a cell by RetDev and by Disc = 1 - Indisc.

  A method fails if it guesses (TA below 2 / classes) or has a number that is
  not finite. The groups use Wilcoxon's test where there are enough seeds for it
  to separate anything, else the bootstrap.

  Args:
    per_seed: method -> metric -> f64[S], paired over seeds; 'ret_dev',
      'indisc_test' and 'ta' are read.
    classes: of the data set.

  Returns:
    The rankings by the keys of `TITLES`, methods in the order given; empty
    with fewer than two working methods or five seeds, and where a number is
    not available.
  """

  needed = ('ta', 'ret_dev', 'indisc_test')
  if not per_seed or any(
    set(needed) - metrics.keys() for metrics in per_seed.values()
  ):
    return {}

  def table(metric: str) -> Float64[np.ndarray, 'K S']:
    return np.stack(
      [np.asarray(one[metric], np.float64) for one in per_seed.values()]
    )

  accuracy = table('ta')
  values = {'ret_dev': table('ret_dev'), 'disc_test': 1 - table('indisc_test')}
  guessing = accuracy.mean(axis=1) < 2 / classes
  rankings = {}
  for metric, value in values.items():
    value = np.where(guessing[:, None], np.nan, value)
    working = int(np.isfinite(value).all(axis=1).sum())
    seeds = value.shape[1]
    if working < 2 or seeds < MIN_SEEDS:
      continue
    # The smallest p of the signed-rank test, Holm-adjusted.
    decisive = (working - 1) * 2.0 ** (1 - seeds) <= _LEVEL
    rankings[metric] = rank_cell(
      value,
      tie=NOISE_FLOOR_DISC if metric == 'disc_test' else 0.0,
      test='wilcoxon' if decisive else 'bootstrap',
    )
  return rankings


def greedy_groups(
  values: Float64[np.ndarray, 'K S'],
  *,
  tie: float = 0.0,
  test: Test = 'wilcoxon',
) -> list[list[int]]:
  """Group methods that cannot be told from the best one left.

  The best method has the smallest mean. Methods whose paired Wilcoxon
  signed-rank p (Holm-adjusted within the step) exceeds 0.05 join its group.
  The group is removed, and the step repeats.
  Ten seeds are needed for Holm over 17 comparisons (the smallest two-sided p
  is 0.00195); with five nothing can ever be significant.

  Args:
    values: f64[K, S], smaller is better, finite.
    tie: see `rank_cell`.
    test: 'wilcoxon', or 'bootstrap' of the paired mean difference, which can
      separate methods with five seeds but does so too easily.
  """
  compare = {'wilcoxon': _wilcoxon, 'bootstrap': _bootstrap}[test]
  left = list(np.argsort(values.mean(axis=1), kind='stable'))
  groups = []
  while left:
    best, others = left[0], left[1:]
    p_values = [compare(values[best], values[k]) for k in others]
    same = holm(np.array(p_values)) > _LEVEL
    near = [values[k].mean() - values[best].mean() < tie for k in others]
    joined = [
      int(k) for k, a, b in zip(others, same, near, strict=True) if a or b
    ]
    groups.append([int(best), *joined])
    left = [k for k in others if k not in joined]
  return groups


def holm(
  p_values: Float64[np.ndarray, ' n'],
) -> Float64[np.ndarray, ' n']:
  """Return Holm-adjusted p-values, in the given order."""
  count = len(p_values)
  order = np.argsort(p_values)
  scaled = p_values[order] * (count - np.arange(count))
  out = np.empty(count)
  out[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
  return out


@dataclasses.dataclass(frozen=True)
class OverallRanking:
  """Ranks across cells.

  Attributes:
    mean_rank: f64[K].
    low: f64[K] lower end of the bootstrap interval over cells.
    high: f64[K].
    critical_difference: Nemenyi's; mean ranks closer than that do not differ.
  """

  mean_rank: Float64[np.ndarray, ' K']
  low: Float64[np.ndarray, ' K']
  high: Float64[np.ndarray, ' K']
  critical_difference: float


def rank_overall(
  mean_ranks: Float64[np.ndarray, 'cells K'],
) -> OverallRanking:
  """Average the ranks of cells, with 95% intervals.

  Args:
    mean_ranks: f64[cells, K] of `rank_cell`.
  """
  cells, _ = mean_ranks.shape
  ranks = stats.rankdata(mean_ranks, axis=1)
  rng = np.random.default_rng(0)
  drawn = ranks[rng.integers(0, cells, (_RESAMPLED_CELLS, cells))].mean(axis=1)
  tail = (1 - 0.95) / 2
  low, high = np.quantile(drawn, [tail, 1 - tail], axis=0)
  return OverallRanking(
    ranks.mean(axis=0),
    low,
    high,
    critical_difference(ranks.shape[1], cells),
  )


def critical_difference(methods: int, blocks: int) -> float:
  """Return Nemenyi's critical difference of mean ranks over `blocks`."""
  q = stats.studentized_range.ppf(1 - _LEVEL, methods, np.inf) / np.sqrt(2)
  return float(q * np.sqrt(methods * (methods + 1) / (6 * blocks)))


def pareto_front(
  values: Float64[np.ndarray, 'K metrics'],
) -> Bool[np.ndarray, ' K']:
  """Return which methods are on the Pareto front.

  Args:
    values: f64[K, metrics], smaller is better; for instance (RetDev, Disc,
      1/RTE). A row with a NaN is never on the front.

  Returns:
    bool[K]: no other row is at most as large everywhere and smaller somewhere.
  """
  out = []
  for row in values:
    at_most = np.all(values <= row, axis=1)
    smaller = np.any(values < row, axis=1)
    finite = np.isfinite(row).all()
    out.append(finite and not np.any(at_most & smaller))
  return np.array(out, bool)


def kendall_tau(
  x: Float64[np.ndarray, '*R K'], y: Float64[np.ndarray, '*R K']
) -> Float64[np.ndarray, '*R']:
  """Return Kendall's tau-b of two rankings, which counts ties.

  Args:
    x: f64[..., K], may be infinite.
    y: f64[..., K].

  Returns:
    f64[...] in [-1, 1]; NaN where all values of one ranking are equal.
  """

  def order(
    values: Float64[np.ndarray, '*R K'],
  ) -> Float64[np.ndarray, '*R K K']:
    a, b = values[..., :, None], values[..., None, :]
    return (a > b).astype(np.float64) - (a < b)

  first, second = order(np.asarray(x)), order(np.asarray(y))
  agree = (first * second).sum((-2, -1))
  both = (first**2).sum((-2, -1)) * (second**2).sum((-2, -1))
  with np.errstate(invalid='ignore', divide='ignore'):
    return np.where(both > 0, agree / np.sqrt(both), np.nan)


def combined_rank(
  mean_ranks: Sequence[Float64[np.ndarray, ' K']],
) -> Float64[np.ndarray, ' K']:
  """Return the mean of the ranks by several metrics, without any test."""
  return np.mean([stats.rankdata(r) for r in mean_ranks], axis=0)


def _friedman(ranks: Float64[np.ndarray, 'K S']) -> tuple[float, float]:
  """Friedman's test from ranks f64[K, S], corrected for ties."""
  methods, seeds = ranks.shape
  spread = ((ranks.mean(axis=1) - (methods + 1) / 2) ** 2).sum()
  plain = 12 * seeds * spread / (methods * (methods + 1))
  ties = sum(
    (counts**3 - counts).sum()
    for counts in (np.unique(c, return_counts=True)[1] for c in ranks.T)
  )
  correction = 1 - ties / (seeds * methods * (methods**2 - 1))
  statistic = plain / correction if correction > 0 else 0.0
  return float(statistic), float(stats.chi2.sf(statistic, methods - 1))


def _wilcoxon(a: PerSeed, b: PerSeed) -> float:
  if (a == b).all():
    return 1.0
  result: Any = stats.wilcoxon(a, b)
  return float(result.pvalue)


def _bootstrap(a: PerSeed, b: PerSeed) -> float:
  """Two-sided p of a mean paired difference of 0, over resampled seeds."""
  difference = a - b
  rng = np.random.default_rng(0)
  drawn = difference[rng.integers(0, len(a), (_RESAMPLES, len(a)))].mean(axis=1)
  tail = min((drawn <= 0).mean(), (drawn >= 0).mean())
  return float(min(1.0, 2 * tail))


_DISC = 'One minus the indiscernibility: 0 when the population attack guesses.'

CARD = Card(
  title='Ranking',
  terms={
    'rank_combined': Term(
      'Combined rank',
      'Mean of the ranks by accuracies, by the population attack and by run '
      'time, without a significance test.',
      better='lower',
    ),
    **{
      f'disc_{name}': Term(
        f'Discernibility vs {words}',
        _DISC,
        'fraction',
        'lower',
        f'{BENCHMARK} (|2 MIA - 1|)',
      )
      for name, words in (('val', 'validation'), ('test', 'test'))
    },
  },
)

# Terms of '<kind>_<number>': how methods compare by that number.
RANKS: Mapping[str, Term] = {
  'rank': Term(
    'mean rank',
    'Rank among the unlearning methods by this number, 1 is best; mean over '
    'initialisations or, where several jobs are ranked, over jobs.',
    better='lower',
  ),
  'group': Term(
    'group',
    'Group 1 cannot be told from the best method by this number, group 2 '
    'cannot be told from the best of the others, and group 3 is the rest.',
    better='lower',
  ),
  **{
    kind: Term(
      f'jobs in group {number}',
      f'Jobs with the method in group {number}.',
      'count',
    )
    for number, kind in enumerate(('first', 'second', 'third'), 1)
  },
}
