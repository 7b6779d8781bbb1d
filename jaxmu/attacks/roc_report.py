"""From scores of a population to numbers with intervals.

One attacker meets one model, so every metric is computed per model, averaged
over the models of a split, then over splits, with a t-interval over splits.

A TPR at low FPR needs `fpr * negatives >= 10`. Where single models have too
few never-seen examples, one threshold is shared by all models of a split, or
by the whole population (the interval is then a jackknife over splits); where
even that is too little the number is refused. `Estimate.pooling` says which.
The choice looks at counts only, never at scores, so that all methods scored on
the same states get the same rule. Sharing a threshold is a weaker attacker
than one per model if the models' scores differ in scale (raw losses do,
likelihood ratios hardly do).
"""

from collections.abc import Callable, Sequence
from concurrent import futures
from typing import Literal

import numpy as np

from jaxmu.attacks import arrange, intervals, roc

FPRS = (0.001, 0.01, 0.1)

Pooling = Literal['auto', 'model', 'split', 'population']
Pair = tuple[np.ndarray, np.ndarray]  # scores of positives, of negatives


def roc_report(
  score: np.ndarray,
  state: np.ndarray,
  group: np.ndarray,
  *,
  fprs: Sequence[float] = FPRS,
  threshold: float | None = 0.0,
  pooling: Pooling = 'auto',
  level: float = 0.95,
) -> dict[str, intervals.Estimate]:
  """Summarise how well scores tell forgotten from never-seen examples.

  Args:
    score: float[P, N], larger is more member-like; NaN where unscored.
    state: int8[P, N], 1 forgotten (positives), 2 never seen (negatives);
      anything else is ignored.
    group: int[P], the split of each model, or any coarser cluster (pairs of
      complementary splits); intervals are over these.
    fprs: false-positive rates at which to give the TPR.
    threshold: decision threshold fixed beforehand (0 for likelihood ratios),
      None if the score has none.
    pooling: 'auto' gives AUC and accuracies per model (per split if no model
      has both kinds, as with `arrange.against_retrained`) and each TPR at the
      finest level that the counts support; the others force one level.
    level: coverage of the intervals.

  Returns:
    Estimates under 'auc', 'balanced_accuracy' (unless `threshold` is None),
    'best_balanced_accuracy' (optimistic, see `roc`) and 'tpr_<fpr>'.

  Raises:
    ValueError: shapes that do not fit together.
  """
  pairs, group = _pairs(score, state, group)
  metrics: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    'auc': roc.auc
  }
  if threshold is not None:
    metrics['balanced_accuracy'] = lambda positives, negatives: (
      roc.balanced_accuracy(positives, negatives, threshold)
    )
  metrics['best_balanced_accuracy'] = roc.best_balanced_accuracy
  chosen = _coarsest_needed(pairs) if pooling == 'auto' else pooling
  report = {
    name: _estimate(pairs, group, metric, chosen, level)
    for name, metric in metrics.items()
  }
  for fpr in fprs:
    report[f'tpr_{fpr:g}'] = _tpr(pairs, group, fpr, pooling, level)
  return report


def curves(
  score: np.ndarray,
  state: np.ndarray,
  group: np.ndarray,
  *,
  fpr: np.ndarray,
  cross_fitted: bool = True,
  level: float = 0.95,
) -> dict[str, np.ndarray]:
  """Return the ROC for drawing, with a band over splits.

  One ROC per split (its models share thresholds), then the mean over splits.

  Args:
    score: as in `roc_report`.
    state: as in `roc_report`.
    group: as in `roc_report`.
    fpr: f64[K] grid, for a log-log plot `np.geomspace(1e-3, 1)`.
    cross_fitted: whether the scores of a group were fitted on the others, as
      likelihood ratios are; the band is then `intervals.cross_fitted`.
    level: coverage of the pointwise band.

  Returns:
    'fpr', 'tpr', 'low', 'high' (f64[K]), 'by_split' (f64[G, K]) and
    'supported' (bool[K]): whether every split has the ten false positives that
    make the point trustworthy.
  """
  pairs, group = _pairs(score, state, group)
  splits = _merge(pairs, group)
  tpr = np.stack([roc.curve(*pair, fpr) for pair in splits])  # f64[G, K]
  points = [
    intervals.over_splits(column, level=level, bounds=(0.0, 1.0))
    for column in tpr.T
  ]
  if cross_fitted:
    points = [intervals.cross_fitted(point) for point in points]
  smallest = min((len(n) for p, n in splits if len(p)), default=0)
  return {
    'fpr': np.asarray(fpr, np.float64),
    'tpr': np.array([point.value for point in points]),
    'low': np.array([point.low for point in points]),
    'high': np.array([point.high for point in points]),
    'by_split': tpr,
    'supported': np.array([roc.enough_negatives(smallest, f) for f in fpr]),
  }


def _pairs(score, state, group) -> tuple[list[Pair], np.ndarray]:
  score, state, group = map(np.asarray, (score, state, group))
  if score.ndim != 2 or score.shape != state.shape:
    raise ValueError(
      f'score has shape {score.shape} and state {state.shape}; expected both '
      'to be [models, examples] (average augmentations first)'
    )
  if group.shape != score.shape[:1]:
    raise ValueError(
      f'group has shape {group.shape}; expected one split per model, '
      f'({len(score)},)'
    )
  pairs = []
  for s, c in zip(score, state, strict=True):
    known = ~np.isnan(s)
    s, c = s[known], c[known]
    pairs.append((s[c == arrange.FORGOTTEN], s[c == arrange.NEVER_SEEN]))
  return pairs, np.unique(group, return_inverse=True)[1]


def _merge(pairs: list[Pair], group: np.ndarray) -> list[Pair]:
  """Join the models of each group."""
  merged = []
  for g in range(group.max() + 1):
    merged.append(_join([pairs[m] for m in np.flatnonzero(group == g)]))
  return merged


def _join(pairs: list[Pair]) -> Pair:
  positives = np.concatenate([p for p, _ in pairs])
  return positives, np.concatenate([n for _, n in pairs])


def _estimate(pairs, group, metric, pooling, level) -> intervals.Estimate:
  if pooling == 'population':
    return _jackknife(_merge(pairs, group), metric, level)
  if pooling == 'split':
    by_split = np.array([metric(*pair) for pair in _merge(pairs, group)])
  else:
    with futures.ThreadPoolExecutor() as pool:
      by_model = np.array(list(pool.map(lambda pair: metric(*pair), pairs)))
    by_split = intervals.group_means(by_model, group)
  return intervals.over_splits(
    by_split, level=level, bounds=(0.0, 1.0), pooling=pooling
  )


def _tpr(pairs, group, fpr, pooling, level) -> intervals.Estimate:
  if pooling == 'auto':
    pooling = _finest_supported(pairs, group, fpr)
  negatives = sum(len(n) for _, n in pairs)
  refused = not roc.enough_negatives(negatives, fpr)
  shared = pooling == 'population'  # a refusal there looks at the whole sample
  result = _estimate(
    pairs,
    group,
    lambda p, n: roc.tpr_at_fpr(p, n, fpr, refuse=refused or not shared),
    pooling,
    level,
  )
  if not np.isfinite(result.value):
    return intervals.Estimate(
      np.nan,
      np.nan,
      np.nan,
      0,
      result.by_split,
      'refused',
      f'{negatives} never-seen scores in all; an FPR of {fpr:g} needs '
      f'{roc.MIN_FALSE_POSITIVES / fpr:.0f} at level {pooling!r}',
    )
  if result.n > 1 and result.low == result.high:
    return _naive_interval(result, pairs, level)
  return result


def _coarsest_needed(pairs) -> Pooling:
  """Single models need both kinds of scores; splits share them otherwise."""
  return 'model' if any(len(p) and len(n) for p, n in pairs) else 'split'


def _finest_supported(pairs, group, fpr) -> Pooling:
  def supported(some: list[Pair]) -> bool:
    counts = [len(n) for p, n in some if len(p)]
    return bool(counts) and roc.enough_negatives(min(counts), fpr)

  if supported(pairs):
    return 'model'
  return 'split' if supported(_merge(pairs, group)) else 'population'


def _naive_interval(result, pairs, level) -> intervals.Estimate:
  """Give splits that all agree a binomial interval instead of a point."""
  positives = sum(len(p) for p, _ in pairs)
  low, high = intervals.clopper_pearson(
    round(result.value * positives), positives, level=level
  )
  return intervals.Estimate(
    result.value,
    low,
    high,
    result.n,
    result.by_split,
    result.pooling,
    'all splits agree: binomial interval that ignores dependence',
  )


def _jackknife(splits: list[Pair], metric, level) -> intervals.Estimate:
  """One threshold for all: delete-one-split jackknife."""
  whole = metric(*_join(splits))
  if not np.isfinite(whole) or len(splits) < 2:
    by_split = np.full(len(splits), whole)
    return intervals.over_splits(by_split[:1], pooling='population')

  def without(g: int) -> float:
    rest = splits[:g] + splits[g + 1 :]
    return metric(*_join(rest))

  count = len(splits)
  with futures.ThreadPoolExecutor() as pool:
    left = np.array(list(pool.map(without, range(count))))
  return intervals.over_splits(
    count * whole - (count - 1) * left,
    level=level,
    bounds=(0.0, 1.0),
    value=whole,
    pooling='population',
  )
