"""ROC numbers of scores, per model or over a population, with intervals.

The first functions take two plain vectors, the scores of positives (forgotten)
and of negatives (never seen), larger for more member-like. AUC is by mid-ranks
(a tie counts one half). TPR at a fixed FPR never exceeds that FPR and is
refused where there are too few negatives.

`roc_report` applies them to a population. An attacker attacks one model, so
every number is computed per model, averaged over the models of a split, then
over splits, with a t-interval over splits. A TPR at low FPR needs
`fpr * negatives >= 10`. Where single models have too few never-seen examples,
all models of a split share one threshold, or the whole population does (the
interval is then a jackknife over splits); where even those are too few the
number is refused. `Estimate.pooling` says which. The choice depends on counts
only, never on scores, so that all methods scored on the same states get the
same rule. A shared threshold is weaker than one per model if the models' scores
differ in scale (raw losses do, likelihood ratios hardly do).

`trade_off` gives the smallest FNR at every FPR; `gaussian_mu` summarises it: a
mechanism is mu-GDP if attacking it is no easier than telling N(0, 1) from
N(mu, 1) (Dong et al. 2022).
"""

import math
from collections.abc import Callable, Sequence
from concurrent import futures
from typing import Literal

import numpy as np
from jaxtyping import Float, Float64, Int8, Integer
from scipy import stats

from jaxmu.attacks import intervals, log_odds

MIN_FALSE_POSITIVES = 10
FPRS = (0.001, 0.01, 0.1)
FPR_GRID = np.geomspace(1e-3, 1.0, 61)  # of ROC curves to draw

Pooling = Literal['model', 'split', 'population']
Pair = tuple[np.ndarray, np.ndarray]  # scores of positives, of negatives


def auc(
  positives: Float[np.ndarray, ' n1'], negatives: Float[np.ndarray, ' n0']
) -> float:
  """Return the area under the ROC curve, NaN if either is empty."""
  if not (len(positives) and len(negatives)):
    return math.nan
  below, tied = _placements(positives, np.sort(negatives))
  return float((below + 0.5 * tied).mean() / len(negatives))


def enough_negatives(count: int, fpr: float) -> bool:
  """Say whether `count` negatives support a TPR at this FPR."""
  return fpr * count >= MIN_FALSE_POSITIVES * (1 - 1e-12)


def threshold_at_fpr(negatives: Float[np.ndarray, ' n0'], fpr: float) -> float:
  """Return the (floor(fpr * n0) + 1)-th largest negative.

  Calling positive what is *above* it makes at most `fpr * n0` errors,
  without interpolation.
  """
  allowed = math.floor(fpr * len(negatives) * (1 + 1e-12))
  if allowed >= len(negatives):
    return -math.inf
  place = len(negatives) - 1 - allowed
  return float(np.partition(negatives, place)[place])


def tpr_at_fpr(
  positives: Float[np.ndarray, ' n1'],
  negatives: Float[np.ndarray, ' n0'],
  fpr: float,
  *,
  refuse: bool = True,
) -> float:
  """Return the TPR at a fixed FPR, NaN if refused.

  Conservative on the given negatives: at most `fpr * n0` are above the
  threshold. On new ones the expected rate is a little above `fpr`,
  `(floor(fpr * n0) + 1) / (n0 + 1)`, and so is the TPR without any leak.

  Refused when either is empty or fewer than `MIN_FALSE_POSITIVES` negatives
  would be above the threshold; `refuse=False` is for resampling, after the
  whole sample has passed that test.
  """
  if not (len(positives) and len(negatives)):
    return math.nan
  if refuse and not enough_negatives(len(negatives), fpr):
    return math.nan
  return float(np.mean(positives > threshold_at_fpr(negatives, fpr)))


def balanced_accuracy(
  positives: Float[np.ndarray, ' n1'],
  negatives: Float[np.ndarray, ' n0'],
  threshold: float = 0.0,
) -> float:
  """Return (TPR + TNR) / 2 at a threshold fixed in advance."""
  if not (len(positives) and len(negatives)):
    return math.nan
  return 0.5 * float(
    np.mean(positives > threshold) + np.mean(negatives <= threshold)
  )


def best_balanced_accuracy(
  positives: Float[np.ndarray, ' n1'], negatives: Float[np.ndarray, ' n0']
) -> float:
  """Return the largest (TPR + TNR) / 2 over thresholds: optimistic.

  The threshold is chosen on the same scores, so the value exceeds one half even
  without a leak; always compare it with that of the retrained models.
  """
  if not (len(positives) and len(negatives)):
    return math.nan
  cuts = np.sort(np.concatenate([positives, negatives]))
  tpr = 1 - np.searchsorted(np.sort(positives), cuts, 'right') / len(positives)
  fpr = 1 - np.searchsorted(np.sort(negatives), cuts, 'right') / len(negatives)
  return max(0.5, float((0.5 * (1 + tpr - fpr)).max()))


def curve(
  positives: Float[np.ndarray, ' n1'],
  negatives: Float[np.ndarray, ' n0'],
  fpr: Float64[np.ndarray, ' K'],
) -> Float64[np.ndarray, ' K']:
  """Return the conservative TPR on a grid of FPR (nothing is refused)."""
  if not (len(positives) and len(negatives)):
    return np.full(len(fpr), np.nan)
  n0 = len(negatives)
  descending = np.sort(negatives)[::-1]
  allowed = np.floor(np.asarray(fpr) * n0 * (1 + 1e-12)).astype(int)
  padded = np.append(descending, -np.inf)
  thresholds = padded[np.minimum(allowed, n0)]
  above = np.searchsorted(np.sort(positives), thresholds, 'right')
  return 1.0 - above / len(positives)


def _placements(
  scores: np.ndarray, ordered: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Count the entries of `ordered` below and equal to each score."""
  below = np.searchsorted(ordered, scores, 'left')
  return below, np.searchsorted(ordered, scores, 'right') - below


def roc_report(
  score: Float[np.ndarray, 'P N'],
  state: Int8[np.ndarray, 'P N'],
  group: Integer[np.ndarray, ' P'],
  *,
  fprs: Sequence[float] = FPRS,
  threshold: float | None = 0.0,
) -> dict[str, intervals.Estimate]:
  """Summarise how well scores tell forgotten from never-seen examples.

  Args:
    score: float[P, N], larger is more member-like; NaN where unscored.
    state: int8[P, N], 1 forgotten (positives), 2 never seen (negatives);
      anything else is ignored.
    group: int[P], the split of each model, or any coarser cluster (pairs of
      complementary splits); intervals are over these.
    fprs: false-positive rates at which to give the TPR.
    threshold: decision threshold fixed in advance (0 for likelihood ratios),
      None if the score has none.

  Returns:
    AUC and accuracies per model (per split if no model has both kinds, as with
    `log_odds.against_retrained`), and each TPR at the finest level that the
    counts support: 'auc', 'balanced_accuracy' (unless `threshold` is None),
    'best_balanced_accuracy' (optimistic, see that function) and 'tpr_<fpr>'.

  Raises:
    ValueError: shapes that do not fit together.
  """
  pairs, group = _pairs(score, state, group)
  metrics: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {'auc': auc}
  if threshold is not None:
    metrics['balanced_accuracy'] = lambda positives, negatives: (
      balanced_accuracy(positives, negatives, threshold)
    )
  metrics['best_balanced_accuracy'] = best_balanced_accuracy
  pooling = _coarsest_needed(pairs)
  report = {
    name: _estimate(pairs, group, metric, pooling)
    for name, metric in metrics.items()
  }
  for fpr in fprs:
    report[f'tpr_{fpr:g}'] = _tpr(pairs, group, fpr)
  return report


def curves(
  score: Float[np.ndarray, 'P N'],
  state: Int8[np.ndarray, 'P N'],
  group: Integer[np.ndarray, ' P'],
  *,
  fpr: Float64[np.ndarray, ' K'],
  cross_fitted: bool = True,
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

  Returns:
    'fpr', 'tpr', 'low', 'high' (f64[K]), 'by_split' (f64[G, K]) and
    'supported' (bool[K]): whether every split has the ten false positives that
    make the point trustworthy.
  """
  pairs, group = _pairs(score, state, group)
  splits = _merge(pairs, group)
  tpr = np.stack([curve(*pair, fpr) for pair in splits])  # f64[G, K]
  points = [
    intervals.over_splits(column, bounds=(0.0, 1.0)) for column in tpr.T
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
    'supported': np.array([enough_negatives(smallest, f) for f in fpr]),
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
    pairs.append((s[c == log_odds.FORGOTTEN], s[c == log_odds.NEVER_SEEN]))
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


def _estimate(pairs, group, metric, pooling) -> intervals.Estimate:
  if pooling == 'population':
    return _jackknife(_merge(pairs, group), metric)
  if pooling == 'split':
    by_split = np.array([metric(*pair) for pair in _merge(pairs, group)])
  else:
    with futures.ThreadPoolExecutor() as pool:
      by_model = np.array(list(pool.map(lambda pair: metric(*pair), pairs)))
    by_split = intervals.group_means(by_model, group)
  return intervals.over_splits(by_split, bounds=(0.0, 1.0), pooling=pooling)


def _tpr(pairs, group, fpr) -> intervals.Estimate:
  pooling = _finest_supported(pairs, group, fpr)
  negatives = sum(len(n) for _, n in pairs)
  refused = not enough_negatives(negatives, fpr)
  shared = pooling == 'population'  # then the whole sample decides
  result = _estimate(
    pairs,
    group,
    lambda p, n: tpr_at_fpr(p, n, fpr, refuse=refused or not shared),
    pooling,
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
      f'{MIN_FALSE_POSITIVES / fpr:.0f}',
    )
  if result.n > 1 and result.low == result.high:
    return _naive_interval(result, pairs)
  return result


def _coarsest_needed(pairs) -> Pooling:
  """Return 'model' if single models have both kinds of scores, else 'split'."""
  return 'model' if any(len(p) and len(n) for p, n in pairs) else 'split'


def _finest_supported(pairs, group, fpr) -> Pooling:
  def supported(some: list[Pair]) -> bool:
    counts = [len(n) for p, n in some if len(p)]
    return bool(counts) and enough_negatives(min(counts), fpr)

  if supported(pairs):
    return 'model'
  return 'split' if supported(_merge(pairs, group)) else 'population'


def _naive_interval(result, pairs) -> intervals.Estimate:
  """Return a binomial interval where all splits have the same value."""
  positives = sum(len(p) for p, _ in pairs)
  low, high = intervals.clopper_pearson(
    round(result.value * positives), positives
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


def _jackknife(splits: list[Pair], metric) -> intervals.Estimate:
  """Return the delete-one-split jackknife with one threshold for all."""
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
    bounds=(0.0, 1.0),
    value=whole,
    pooling='population',
  )


def trade_off(
  positives: Float[np.ndarray, ' n1'], negatives: Float[np.ndarray, ' n0']
) -> tuple[Float64[np.ndarray, ' K'], Float64[np.ndarray, ' K']]:
  """Return the lower convex hull of (FPR, FNR) over thresholds.

  Randomising between two thresholds reaches every point of the hull. It is an
  in-sample curve: below the diagonal even without any difference.

  Args:
    positives: float[n1] scores, larger for positive.
    negatives: float[n0].

  Returns:
    FPR f64[K] increasing from 0 to 1, FNR f64[K] decreasing to 0.
  """
  cuts = np.unique(np.concatenate([positives, negatives]))
  cuts = np.append(cuts, np.inf)[::-1]  # from none to all positive
  fpr = 1 - np.searchsorted(np.sort(negatives), cuts, 'left') / len(negatives)
  fnr = np.searchsorted(np.sort(positives), cuts, 'left') / len(positives)
  hull: list[tuple[float, float]] = []
  for point in zip(fpr.tolist(), fnr.tolist(), strict=True):
    while len(hull) > 1 and _above(hull[-2], hull[-1], point):
      hull.pop()
    hull.append(point)
  hull = [p for p in hull if p[1] <= 1 - p[0] + 1e-15]
  x, y = np.array(hull).T
  return x, y


def gaussian_mu(
  fpr: Float64[np.ndarray, ' K'], fnr: Float64[np.ndarray, ' K']
) -> float:
  """Fit mu = Phi^-1(1 - FPR) - Phi^-1(FNR): the median over inner points.

  Returns:
    mu, 0 for indistinguishable, infinite for separated samples. For Gaussians
    of equal variance it is their distance in standard deviations.
  """
  fpr, fnr = np.asarray(fpr), np.asarray(fnr)
  inner = (fpr > 0) & (fpr < 1) & (fnr > 0) & (fnr < 1)
  if not inner.any():
    return np.inf if ((fpr == 0) & (fnr == 0)).any() else 0.0
  mu = stats.norm.isf(fpr[inner]) - stats.norm.ppf(fnr[inner])
  return float(np.median(mu))


def _above(a, b, c) -> bool:
  """Say whether b is on or above the chord from a to c."""
  cross = (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
  return cross <= 0
