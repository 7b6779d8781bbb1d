"""Reports of the attacks that are not one ROC: against retrained models, or
released as they are.

Where a number is positive by chance alone, its null comes from two halves of
the retrained models, and the audited number is then computed on as many models.

The NeurIPS-2023 unlearning competition's score, and how to read it.

U is (epsilon, delta)-unlearning if no test tells it from retraining better than
epsilon allows. Per forgotten example, attacks on the log-odds of M unlearned
and M retrained models give (FPR, FNR) and

    epsilon = max(log(1 - delta - FPR) - log FNR,
                  log(1 - delta - FNR) - log FPR)

the example's epsilon is the largest over attacks, and F the mean over examples
of 2^-(bin of epsilon), bins half a unit wide.

A maximum over many thresholds is positive without any difference: identical
Gaussians give F of about 0.17 (grid rule), not 1. Always read F(U, R) against
F(R', R) at the same M (`relative_score`), or use `lower_bound`, whose
thresholds are chosen on other models than those that judge them.

Unlike the released scorer, more than one threshold does not raise, and the
logits are left unmodified.

KLoM: KL divergence of margins between retrained and unlearned models.

For each example, histograms of its margin over retrained models and over
unlearned models, on common bins, and the divergence KL(R || U) between them
(Georgiev et al. 2024). All models of both kinds must have (not) seen the
example in the same way: a mask says which count.

The binning of the paper is not published in full: here 20 equal bins over the
pooled range after clipping, with one half added to every count.
"""

import math
from collections.abc import Sequence
from concurrent import futures
from typing import Literal, NamedTuple

import numpy as np

from jaxmu.attacks import intervals, likelihood, log_odds, roc, scores

MIN_MODELS = 8  # four in each half
MAX_EXAMPLES = 1000  # of the competition's grid, milliseconds each

Report = dict[str, intervals.Estimate]


def report(name: str, data: scores.Scores, fprs: Sequence[float]) -> Report:
  """Return the numbers of 'lira_forget', 'competition' or 'klom'.

  Raises:
    ValueError: there are no retrained models.
  """
  if data.retrained is None:
    raise ValueError(
      f'{name} needs scores of retrained models; give them or leave it out'
    )
  if name == 'lira_forget':
    return _lira_forget(data.unlearned, data.retrained, data, fprs)
  unlearned, retrained = observations(data.unlearned, data.retrained, data)
  if not unlearned.size:
    note = f'no example is forgotten by {MIN_MODELS} models'
    keys = _COMPETITION if name == 'competition' else _KLOM
    return {key: intervals.point(np.nan, 0, note) for key in keys}
  if name == 'klom':
    return _klom(unlearned, retrained)
  found = _competition(unlearned, retrained)
  return found | _final_score(found['forget_score'], data)


def observations(
  unlearned: scores.PopulationScores,
  retrained: scores.PopulationScores,
  data: scores.Scores,
) -> tuple[np.ndarray, np.ndarray]:
  """Collect scores of forgotten examples, equally many of each example.

  Returns:
    f64[M, S] of unlearned and of retrained models, row by row of the same split
    and forget set; empty if no example is forgotten by eight models.
  """
  forgotten = data.state == log_odds.FORGOTTEN
  counts = forgotten.sum(axis=0)
  counts = counts[counts >= MIN_MODELS]
  if not len(counts):
    return np.zeros((0, 0)), np.zeros((0, 0))
  common = int(np.quantile(counts, 0.1))
  first, _ = log_odds.gather(unlearned.mean, forgotten, common)
  second, _ = log_odds.gather(retrained.mean, forgotten, common)
  return first, second


def reference_report(
  side: scores.PopulationScores, data: scores.Scores
) -> Report:
  """Report the membership score of the released code, such as it is.

  'member_rate' is the share of scored forgotten observations with P > 1/2: a
  true-positive rate without a false-positive rate.
  """
  score = likelihood.reference_ulira(
    side.signals['correctness'] > 0.5, data.state
  )
  forgotten = score[data.state == log_odds.FORGOTTEN]
  known = forgotten[~np.isnan(forgotten)]
  rate = float((known > 0.5).mean()) if len(known) else np.nan
  return {
    'member_rate': intervals.point(rate, len(known)),
    'unscored': intervals.point(len(forgotten) - len(known), len(forgotten)),
  }


def _lira_forget(unlearned, retrained, data, fprs) -> Report:
  ratio, states, groups = likelihood.lira_forget(
    log_odds.log_confidence(unlearned.log_odds),
    log_odds.log_confidence(retrained.log_odds),
    data.state,
    data.group,
  )
  report = roc.roc_report(ratio, states, groups, fprs=fprs)
  return {k: intervals.cross_fitted(v) for k, v in report.items()}


_COMPETITION = (
  'forget_score',
  'relative_score',
  'epsilon',
  'lower_bound',
)


def _competition(unlearned, retrained) -> Report:
  models, examples = unlearned.shape
  if examples > MAX_EXAMPLES:
    some = np.linspace(0, examples - 1, MAX_EXAMPLES).round().astype(int)
    unlearned, retrained = unlearned[:, some], retrained[:, some]
  n = unlearned.shape[1]
  epsilon = epsilon_per_example(unlearned, retrained)
  half = (models // 2) * 2
  first, second = retrained[:half:2], retrained[1:half:2]
  sides = unlearned[:half:2], first
  audited, null = (
    forget_score(epsilon_per_example(side, second), half // 2) for side in sides
  )
  bound = lower_bound(unlearned, retrained)
  values = (
    forget_score(epsilon, models),
    relative_score(audited, null),
    float(np.median(epsilon)),
    float((bound > 0).mean()),
  )
  return {
    key: intervals.point(value, n)
    for key, value in zip(_COMPETITION, values, strict=True)
  }


def _final_score(score: intervals.Estimate, data: scores.Scores) -> Report:
  """Weigh the forgetting score by accuracies, which need logits."""
  assert data.retrained is not None
  sides = data.unlearned, data.retrained
  if not all('correctness' in side.signals for side in sides):
    return {}
  ratios = []
  for seen in (True, False):
    where = data.state == log_odds.RETAINED
    if not seen:
      where = data.state >= log_odds.NEVER_SEEN
    new, reference = (
      float((side.signals['correctness'] > 0.5)[where].mean())
      if where.any()
      else np.nan
      for side in sides
    )
    ratios.append(new / reference if reference else np.nan)
  value = final_score(score.value, *ratios)
  return {'final_score': intervals.point(value, score.n)}


_KLOM = (
  'mean',
  'quantile_0.5',
  'quantile_0.95',
  'quantile_0.99',
  'retrained_mean',
  'retrained_quantile_0.5',
  'retrained_quantile_0.95',
  'retrained_quantile_0.99',
)


def _klom(unlearned, retrained) -> Report:
  half = (len(unlearned) // 2) * 2
  values: list[float] = []
  for side in (unlearned, retrained):
    divergence = klom(side[:half:2], retrained[1:half:2])
    summary = summarise_klom(divergence)
    values += [summary.mean, *summary.quantiles]
  return {
    key: intervals.point(value, unlearned.shape[1])
    for key, value in zip(_KLOM, values, strict=True)
  }


Rule = Literal['competition_grid', 'exact_single', 'exact_interval']
RULES: tuple[Rule, ...] = (
  'competition_grid',
  'exact_single',
  'exact_interval',
)
DELTA = 1e-5
MAX_EPSILON = 50.0
BIN_WIDTH = 0.5

_PEAKY = 0.01  # ratio of ranges below which one sample is a spike
_GRID = 100  # thresholds per unit of log-odds
_MARGIN = 2.0  # the interval attack searches this far around the narrow sample


def epsilon_per_example(
  unlearned: np.ndarray,
  retrained: np.ndarray,
  *,
  rule: Rule = 'competition_grid',
  delta: float = DELTA,
  threads: int | None = None,
) -> np.ndarray:
  """Compute the epsilon of each forgotten example.

  Args:
    unlearned: float[M, S] log-odds of M unlearned models on S examples, finite.
    retrained: float[Q, S] of retrained models (Q = M in the competition).
    rule: 'competition_grid', the released scorer's thresholds and intervals on
      a grid of 0.01; 'exact_single', every threshold of the pooled sample;
      'exact_interval', every interval as well (about 2 M^2 of them, one example
      at a time).
    delta: the delta of (epsilon, delta)-unlearning.
    threads: worker threads; the number of processors if None.

  Returns:
    f64[S] in [0, 50].

  Raises:
    ValueError: unknown rule, shapes that do not fit, non-finite scores.
  """
  attacks = {
    'competition_grid': _grid_rates,
    'exact_single': _single_rates,
    'exact_interval': _interval_rates,
  }
  if rule not in attacks:
    raise ValueError(f'rule is {rule!r}; choose one of {RULES}')
  unlearned, retrained = check_scores(unlearned, retrained)

  def one(s: int) -> float:
    u, r = unlearned[:, s], retrained[:, s]
    if rule == 'competition_grid' and _is_peaky(u, r):
      return MAX_EPSILON
    best = 0.0
    for fpr, fnr in attacks[rule](u, r):
      best = max(best, float(epsilon(fpr, fnr, delta).max(initial=0.0)))
    return min(best, MAX_EPSILON)

  with futures.ThreadPoolExecutor(threads) as pool:
    return np.array(list(pool.map(one, range(unlearned.shape[1]))))


def epsilon(fpr: np.ndarray, fnr: np.ndarray, delta: float) -> np.ndarray:
  """Return the epsilon of attacks: infinite if both rates are 0.

  Attacks with exactly one rate of 0 are discarded (0): a finite sample says
  nothing about the logarithm of that rate.
  """
  with np.errstate(divide='ignore', invalid='ignore'):
    value = np.maximum(
      np.log(1 - delta - fpr) - np.log(fnr),
      np.log(1 - delta - fnr) - np.log(fpr),
    )
  value = np.where((fpr == 0) != (fnr == 0), 0.0, value)
  value = np.where((fpr == 0) & (fnr == 0), np.inf, value)
  return np.maximum(np.nan_to_num(value, nan=0.0, posinf=np.inf), 0.0)


def forget_score(
  epsilons: np.ndarray, models: int, *, bins: int | None = None
) -> float:
  """Return F, the mean of 2^-floor(2 epsilon), 0 beyond the last bin.

  Args:
    epsilons: f64[S].
    models: M, which sets the number of bins to 2 ceil(log(M - 1)).
    bins: number of bins instead: 13 in the competition's document, while its
      code has 14 at M = 512.
  """
  if bins is None:
    bins = 2 * math.ceil(math.log(models - 1))
  index = np.floor(np.asarray(epsilons) / BIN_WIDTH)
  return float(np.where(index < bins, 2.0**-index, 0.0).mean())


def relative_score(score: float, null_score: float) -> float:
  """Return F(U, R) / F(R', R): 1 is as good as retraining can measure."""
  return score / null_score if null_score > 0 else math.nan


def final_score(score: float, retain_ratio: float, test_ratio: float) -> float:
  """Return F * RA_U / RA_R * TA_U / TA_R, the competition's ranking number."""
  return score * retain_ratio * test_ratio


def lower_bound(
  unlearned: np.ndarray,
  retrained: np.ndarray,
  *,
  delta: float = DELTA,
  level: float = 0.95,
) -> np.ndarray:
  """Compute a lower bound on epsilon that is valid at the given level.

  The threshold (and side) is chosen on the even models and judged on the odd
  ones with Clopper-Pearson upper limits for FPR and FNR, each at half the
  allowed error.

  Args:
    unlearned: float[M, S], finite; models in random order.
    retrained: float[Q, S].
    delta: of (epsilon, delta)-unlearning.
    level: of each example's bound, for independent models.

  Returns:
    f64[S], 0 where nothing can be claimed.
  """
  unlearned, retrained = check_scores(unlearned, retrained)
  out = np.zeros(unlearned.shape[1])
  for s in range(len(out)):
    u, r = np.sort(unlearned[::2, s]), np.sort(retrained[::2, s])
    cuts = np.unique(np.concatenate([u, r]))
    chosen = _certified(u, r, cuts, delta, level)  # f64[2, cuts]
    side, place = np.unravel_index(np.argmax(chosen), chosen.shape)
    u, r = np.sort(unlearned[1::2, s]), np.sort(retrained[1::2, s])
    out[s] = _certified(u, r, cuts[[place]], delta, level)[side, 0]
  return out


def check_scores(
  unlearned: np.ndarray, retrained: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Return both as float64 after checking shapes and finiteness."""
  u, r = (np.asarray(z, np.float64) for z in (unlearned, retrained))
  if u.ndim != 2 or r.ndim != 2 or u.shape[1] != r.shape[1]:
    raise ValueError(
      f'log-odds have shapes {u.shape} and {r.shape}; expected [models, '
      'examples] of the same forgotten examples'
    )
  if min(len(u), len(r)) < 4:
    raise ValueError(
      f'{len(u)} unlearned and {len(r)} retrained models; at least 4 of each '
      'are needed'
    )
  if not (np.isfinite(u).all() and np.isfinite(r).all()):
    raise ValueError(
      'some log-odds are not finite; pass them through '
      'log_odds.replace_non_finite and report its count'
    )
  return u, r


def _certified(u, r, cuts, delta, level) -> np.ndarray:
  """Lower bounds of single thresholds, positive = U above, then U below."""
  above_u = len(u) - np.searchsorted(u, cuts, 'left')
  above_r = len(r) - np.searchsorted(r, cuts, 'left')
  tail = 1 - (1 - level) / 2

  def limit(count, total):
    return intervals.clopper_pearson_upper(count, total, level=tail)

  rates = [
    (limit(above_r, len(r)), limit(len(u) - above_u, len(u))),
    (limit(len(r) - above_r, len(r)), limit(above_u, len(u))),
  ]
  return np.stack([epsilon(fpr, fnr, delta) for fpr, fnr in rates])


def _is_peaky(u, r) -> bool:
  spans = sorted((np.ptp(u), np.ptp(r)))
  return spans[1] > 0 and spans[0] / spans[1] < _PEAKY


def _higher_first(u, r):
  """Return (positive, negative): positive has the larger median."""
  return (u, r) if np.median(u) > np.median(r) else (r, u)


def _threshold_rates(positive, negative, cuts):
  """FPR and FNR of "positive if phi >= cut"."""
  fpr = 1 - np.searchsorted(np.sort(negative), cuts, 'left') / len(negative)
  fnr = np.searchsorted(np.sort(positive), cuts, 'left') / len(positive)
  return fpr, fnr


def _grid_rates(u, r):
  positive, negative = _higher_first(u, r)
  low = min(u.min(), r.min())
  high = max(u.max(), r.max())
  cuts = np.linspace(low, high, max(int((high - low) * _GRID), 1))
  yield _threshold_rates(positive, negative, cuts)
  narrow, wide = (u, r) if np.ptp(u) < np.ptp(r) else (r, u)
  width = np.ptp(narrow)
  steps = np.arange(-_MARGIN, _MARGIN, 1 / _GRID)
  right = narrow.max() + steps
  left = right[:, None] - width + steps
  yield _inside_rates(narrow, wide, left, right[:, None])


def _inside_rates(positive, negative, left, right):
  """FPR and FNR of "positive if left <= phi <= right"."""
  shares = []
  for x in (positive, negative):
    x = np.sort(x)
    inside = np.searchsorted(x, right, 'right') - np.searchsorted(x, left)
    shares.append(np.maximum(inside, 0) / len(x))
  return shares[1], 1 - shares[0]


def _cumulative(positive, negative):
  """Shares below each distinct cut of the pooled sample, ends included."""
  cuts = np.append(np.unique(np.concatenate([positive, negative])), np.inf)
  return tuple(
    np.searchsorted(np.sort(x), cuts, 'left') / len(x)
    for x in (positive, negative)
  )


def _single_rates(u, r):
  positive, negative = _higher_first(u, r)
  below_p, below_n = _cumulative(positive, negative)
  yield 1 - below_n, below_p


def _interval_rates(u, r):
  yield from _single_rates(u, r)
  narrow, wide = (u, r) if np.ptp(u) < np.ptp(r) else (r, u)
  p, q = _cumulative(narrow, wide)
  for i in range(len(p) - 1):  # one left end at a time bounds memory
    yield q[i + 1 :] - q[i], 1 - (p[i + 1 :] - p[i])


KLOM_QUANTILES = (0.5, 0.95, 0.99)


class KlomSummary(NamedTuple):
  """Mean and quantiles of a per-example divergence over examples.

  Attributes:
    mean: in nats.
    quantiles: f64[3] at `QUANTILES`.
    unscored: examples with fewer than two models of a kind.
  """

  mean: float
  quantiles: np.ndarray
  unscored: int


def klom(
  unlearned: np.ndarray,
  retrained: np.ndarray,
  *,
  where: np.ndarray | None = None,
  where_retrained: np.ndarray | None = None,
  bins: int = 20,
  clip: float = 100.0,
) -> np.ndarray:
  """Compute KL(R || U) of the margins of each example.

  Never 0 by chance alone: read it next to `klom(R', R)`, two retrained
  populations of the same sizes.

  Args:
    unlearned: float[P, N] margins (`log_odds.statistic`), finite.
    retrained: float[Q, N].
    where: bool[P, N], the models that forgot the example; all if None.
    where_retrained: bool[Q, N]; `where` if None.
    bins: number of bins.
    clip: margins beyond +-clip are cut.

  Returns:
    f64[N] in nats, NaN for examples with fewer than two models of a kind.
  """
  u, r = (
    np.clip(np.asarray(z, np.float64), -clip, clip)
    for z in (unlearned, retrained)
  )
  in_u = np.ones(u.shape, bool) if where is None else where
  if where_retrained is not None:
    in_r = where_retrained
  else:
    in_r = np.ones(r.shape, bool) if where is None else where
  if in_u.shape != u.shape or in_r.shape != r.shape:
    raise ValueError(
      f'masks of shapes {in_u.shape} and {in_r.shape} do not fit margins of '
      f'shapes {u.shape} and {r.shape}'
    )
  both, inside = np.concatenate([u, r]), np.concatenate([in_u, in_r])
  low = np.where(inside, both, np.inf).min(axis=0)
  high = np.where(inside, both, -np.inf).max(axis=0)
  with np.errstate(invalid='ignore', divide='ignore'):
    p = _frequencies(r, in_r, low, high, bins)
    q = _frequencies(u, in_u, low, high, bins)
    divergence = (p * np.log(p / q)).sum(axis=0)
  enough = (in_u.sum(axis=0) >= 2) & (in_r.sum(axis=0) >= 2)
  return np.where(enough, divergence, np.nan)


def summarise_klom(divergence: np.ndarray) -> KlomSummary:
  """Return mean and quantiles over the scored examples."""
  known = divergence[np.isfinite(divergence)]
  unscored = len(divergence) - len(known)
  if not len(known):
    return KlomSummary(np.nan, np.full(len(KLOM_QUANTILES), np.nan), unscored)
  return KlomSummary(
    float(known.mean()), np.quantile(known, KLOM_QUANTILES), unscored
  )


def _frequencies(x, inside, low, high, bins) -> np.ndarray:
  """Smoothed bin frequencies f64[bins, N]."""
  width = np.maximum((high - low) / bins, 1e-300)
  index = np.clip(np.nan_to_num((x - low) / width), 0, bins - 1).astype(int)
  counts = np.full((bins, x.shape[1]), 0.5)
  model, example = np.nonzero(inside)
  np.add.at(counts, (index[model, example], example), 1.0)
  return counts / counts.sum(axis=0)
