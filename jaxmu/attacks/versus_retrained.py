"""Attacks that compare unlearned with retrained models, example by example.

`COMPETITION` is the score of the NeurIPS 2023 unlearning competition. A method
is (epsilon, delta)-unlearning if no test distinguishes its models from
retrained ones better than epsilon allows. Per forgotten example, attacks on the
log-odds of M unlearned and M retrained models give (FPR, FNR) and

    epsilon = max(log(1 - delta - FPR) - log FNR,
                  log(1 - delta - FNR) - log FPR)

The example's epsilon is the largest over attacks, and F the mean over examples
of 2^-(bin of epsilon), bins half a unit wide (Triantafillou et al. 2024).

A maximum over many thresholds is positive without any difference: identical
Gaussians give F of about 0.17 (grid rule), not 1. Always read F(U, R) against
F(R', R) at the same M (`relative_score`), or use `lower_bound`, whose
thresholds are chosen on one half of the models and evaluated on the other.

Unlike the released scorer, this code accepts more than one threshold and does
not modify the logits.

`KLOM` is the KL divergence of margins per example: KL(R || U) between the
histograms of its margin over retrained and over unlearned models, on common
bins (Georgiev et al. 2024). The example must have the same role in all models
that count; a mask selects them.

The paper of KLoM does not fully specify its bins, and its numbers depend on
them. `KLOM` uses 20 equal bins over the pooled range after clipping, and adds
one half to every count. `KLOM_AUDIT` and `KLOM_BENCH` compute what public codes
do, see `klom`.
"""

import functools
import math
from collections.abc import Sequence
from concurrent import futures
from typing import Literal, NamedTuple, get_args

import numpy as np
from jaxtyping import Bool, Float, Float64

from jaxmu.attacks import intervals, log_odds
from jaxmu.attacks.interface import (
  Attack,
  Card,
  Options,
  Report,
  quantile_term,
)
from jaxmu.attacks.scores import (
  MIN_MODELS,
  PopulationScores,
  Scores,
  observations,
)
from jaxmu.terms import Term

MAX_EXAMPLES = 1000  # evenly spaced; the grid takes milliseconds for each

Rule = Literal['competition_grid', 'exact_single', 'exact_interval']
RULES: tuple[Rule, ...] = get_args(Rule)
DELTA = 1e-5
MAX_EPSILON = 50.0
BIN_WIDTH = 0.5

_PEAKY = 0.01  # ratio of ranges below which one sample is a spike
_GRID = 100  # thresholds per unit of log-odds
_MARGIN = 2.0  # the interval attack searches this far around the narrow sample


def _unscored(keys: Sequence[str]) -> Report:
  note = f'no example is forgotten by {MIN_MODELS} models'
  return {key: intervals.point(np.nan, 0, note) for key in keys}


def epsilon_per_example(
  unlearned: Float[np.ndarray, 'M S'],
  retrained: Float[np.ndarray, 'Q S'],
  *,
  rule: Rule = 'competition_grid',
) -> Float64[np.ndarray, ' S']:
  """Compute the epsilon of each forgotten example.

  Args:
    unlearned: float[M, S] log-odds of M unlearned models on S examples, finite.
    retrained: float[Q, S] of retrained models (Q = M in the competition).
    rule: 'competition_grid', the released scorer's thresholds and intervals,
      about 0.01 apart; 'exact_single', every threshold of the pooled sample;
      'exact_interval', every interval as well (about 2 M^2 of them, one example
      at a time).

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
      best = max(best, float(epsilon(fpr, fnr).max(initial=0.0)))
    return min(best, MAX_EPSILON)

  with futures.ThreadPoolExecutor() as pool:
    return np.array(list(pool.map(one, range(unlearned.shape[1]))))


def epsilon(
  fpr: Float64[np.ndarray, '*S'], fnr: Float64[np.ndarray, '*S']
) -> Float64[np.ndarray, '*S']:
  """Return the epsilon of attacks: infinite if both rates are 0.

  Attacks with exactly one rate of 0 are discarded (0): a finite sample says
  nothing about the logarithm of that rate.
  """
  with np.errstate(divide='ignore', invalid='ignore'):
    value = np.maximum(
      np.log(1 - DELTA - fpr) - np.log(fnr),
      np.log(1 - DELTA - fnr) - np.log(fpr),
    )
  value = np.where((fpr == 0) != (fnr == 0), 0.0, value)
  value = np.where((fpr == 0) & (fnr == 0), np.inf, value)
  return np.maximum(np.nan_to_num(value, nan=0.0, posinf=np.inf), 0.0)


def forget_score(
  epsilons: Float64[np.ndarray, ' S'], models: int, *, bins: int | None = None
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
  unlearned: Float[np.ndarray, 'M S'],
  retrained: Float[np.ndarray, 'Q S'],
) -> Float64[np.ndarray, ' S']:
  """Compute a lower bound on epsilon that holds with probability 0.95.

  The threshold and its direction are chosen on the even models and evaluated
  on the odd ones, with Clopper-Pearson upper limits for FPR and FNR, each at
  half the allowed error.

  Args:
    unlearned: float[M, S], finite; models in random order.
    retrained: float[Q, S].

  Returns:
    f64[S], 0 where nothing can be claimed.
  """
  unlearned, retrained = check_scores(unlearned, retrained)
  out = np.zeros(unlearned.shape[1])
  for s in range(len(out)):
    u, r = np.sort(unlearned[::2, s]), np.sort(retrained[::2, s])
    cuts = np.unique(np.concatenate([u, r]))
    chosen = _certified(u, r, cuts)  # f64[2, cuts]
    direction, place = np.unravel_index(np.argmax(chosen), chosen.shape)
    u, r = np.sort(unlearned[1::2, s]), np.sort(retrained[1::2, s])
    out[s] = _certified(u, r, cuts[[place]])[direction, 0]
  return out


def check_scores(
  unlearned: Float[np.ndarray, 'M S'], retrained: Float[np.ndarray, 'Q S']
) -> tuple[Float64[np.ndarray, 'M S'], Float64[np.ndarray, 'Q S']]:
  """Return both as float64 after checking shapes and finiteness."""
  u, r = (np.asarray(x, np.float64) for x in (unlearned, retrained))
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


def _certified(u, r, cuts) -> np.ndarray:
  """Lower bounds of single thresholds, positive = U above, then U below."""
  above_u = len(u) - np.searchsorted(u, cuts, 'left')
  above_r = len(r) - np.searchsorted(r, cuts, 'left')
  limit = functools.partial(
    intervals.clopper_pearson_upper, level=1 - (1 - 0.95) / 2
  )
  rates = [
    (limit(above_r, len(r)), limit(len(u) - above_u, len(u))),
    (limit(len(r) - above_r, len(r)), limit(above_u, len(u))),
  ]
  return np.stack([epsilon(fpr, fnr) for fpr, fnr in rates])


def _is_peaky(u, r) -> bool:
  spans = sorted((np.ptp(u), np.ptp(r)))
  return spans[1] > 0 and spans[0] / spans[1] < _PEAKY


def _higher_first(u, r):
  """Return (positive, negative): positive has the larger median, or is u."""
  return (r, u) if np.median(r) > np.median(u) else (u, r)


def _threshold_rates(positive, negative, cuts):
  """FPR and FNR of "positive if the log-odds are >= cut"."""
  fpr = 1 - np.searchsorted(np.sort(negative), cuts, 'left') / len(negative)
  fnr = np.searchsorted(np.sort(positive), cuts, 'left') / len(positive)
  return fpr, fnr


def _grid_rates(u, r):
  """Rates on the thresholds of the released scorer."""
  positive, negative = _higher_first(u, r)
  low, high = min(u.min(), r.min()), max(u.max(), r.max())
  cuts = np.linspace(low, high, math.ceil((high - low) * _GRID))
  yield _threshold_rates(positive, negative, cuts)
  narrow, wide = positive, negative
  if np.ptp(positive) >= np.ptp(negative):
    narrow, wide = negative, positive
  width = np.ptp(narrow)
  low = narrow.min() + width - _MARGIN
  high = narrow.max() + _MARGIN
  right = np.linspace(low, high, math.ceil((high - low) * _GRID))[:, None]
  left = np.linspace(
    right - width - _MARGIN,
    right - width + _MARGIN,
    math.ceil(2 * _MARGIN * _GRID),
    axis=-1,
  )[:, 0]
  yield _inside_rates(narrow, wide, left, right)


def _inside_rates(positive, negative, left, right):
  """FPR and FNR of "positive if left <= log-odds <= right"."""
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
  for i in range(len(p) - 1):  # one left end at a time, to bound memory
    yield q[i + 1 :] - q[i], 1 - (p[i + 1 :] - p[i])


def _competition_report(
  population: PopulationScores, data: Scores, options: Options
) -> Report:
  """Score a population against the retrained models.

  The null of `relative_score` compares two halves of the retrained models; for
  this ratio the unlearned models are scored on the same number of models.
  """
  del options
  assert data.retrained is not None, 'the card says that it is needed'
  unlearned, retrained = observations(population, data.retrained)
  if not unlearned.size:
    report = _unscored(
      ('forget_score', 'relative_score', 'epsilon', 'lower_bound')
    )
  else:
    report = _scores(unlearned, retrained)
  return report | _final_score(
    report['forget_score'], population, data.retrained
  )


def _scores(
  unlearned: Float[np.ndarray, 'M S'], retrained: Float[np.ndarray, 'M S']
) -> Report:
  models, examples = unlearned.shape
  if examples > MAX_EXAMPLES:
    some = np.linspace(0, examples - 1, MAX_EXAMPLES).round().astype(int)
    unlearned, retrained = unlearned[:, some], retrained[:, some]
  n = unlearned.shape[1]
  every = epsilon_per_example(unlearned, retrained)
  half = (models // 2) * 2
  first, second = retrained[:half:2], retrained[1:half:2]
  audited, null = (
    forget_score(epsilon_per_example(one, second), half // 2)
    for one in (unlearned[:half:2], first)
  )
  bound = lower_bound(unlearned, retrained)
  values = {
    'forget_score': forget_score(every, models),
    'relative_score': relative_score(audited, null),
    'epsilon': float(np.median(every)),
    'lower_bound': float((bound > 0).mean()),
  }
  return {key: intervals.point(value, n) for key, value in values.items()}


def _final_score(
  score: intervals.Estimate,
  unlearned: PopulationScores,
  retrained: PopulationScores,
) -> Report:
  """Weigh the forgetting score by accuracies, which need logits."""
  both = unlearned, retrained
  if not all('correctness' in one.signals for one in both):
    return {}
  ratios = []
  for seen in (True, False):
    new, reference = (_accuracy(one, seen) for one in both)
    ratios.append(new / reference if reference else np.nan)
  value = final_score(score.value, *ratios)
  return {'final_score': intervals.point(value, score.n, score.note)}


def _accuracy(one: PopulationScores, seen: bool) -> float:
  """Accuracy on retained examples, or on those that a model never saw."""
  where = one.state == log_odds.RETAINED
  if not seen:
    where = (one.state == log_odds.NEVER_SEEN) | one.population_examples
    where &= ~one.failed[:, None]
  if not where.any():
    return math.nan
  return float((one.signals['correctness'] > 0.5)[where].mean())


_SOURCE = 'Triantafillou et al. 2024'
COMPETITION = Attack(
  'competition',
  _competition_report,
  Card(
    title='Competition',
    subject='the metric of the NeurIPS 2023 unlearning competition',
    source=_SOURCE,
    question='unlearned_or_retrained',
    terms={
      'forget_score': Term(
        'forgetting score F',
        'Large if no test distinguishes unlearned from retrained models on any '
        'example; the best of many thresholds keeps it well below 1 even then, '
        'so compare with retrained against retrained.',
        'fraction',
        'higher',
        _SOURCE,
      ),
      'relative_score': Term(
        'F relative to retrained against retrained',
        'The forgetting score divided by that of retrained models against '
        'other retrained models; 1 is as good as can be measured.',
        'ratio',
        'higher',
      ),
      'final_score': Term(
        'final score',
        'The forgetting score times the accuracies on retained and on '
        'never-seen examples, each divided by that of retrained models; the '
        'competition ranked by this number.',
        'fraction',
        'higher',
        _SOURCE,
      ),
      'epsilon': Term(
        'median epsilon',
        'Median over the examples of epsilon, the largest log-ratio of error '
        'rates that a test reaches; positive even without any difference.',
        'nats',
        'lower',
        _SOURCE,
      ),
      'lower_bound': Term(
        'share of examples with a proven epsilon',
        'Share of the examples for which thresholds chosen on other models '
        'prove an epsilon above zero.',
        'fraction',
        'lower',
      ),
    },
    needs=('retrained',),
    cost='costly',
    populations=('unlearned',),
    exempt={
      'model_order': 'models are halved by their position in the population',
    },
  ),
)


QUANTILES = (0.5, 0.95, 0.99)


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


Variant = Literal['smoothed', 'audit', 'bench']
VARIANTS: tuple[Variant, ...] = get_args(Variant)
_FLOOR = 1e-5  # smallest share of a bin in the public codes


def klom(
  unlearned: Float[np.ndarray, 'P N'],
  retrained: Float[np.ndarray, 'Q N'],
  *,
  where: Bool[np.ndarray, 'P N'] | None = None,
  where_retrained: Bool[np.ndarray, 'Q N'] | None = None,
  variant: Variant = 'smoothed',
  bins: int = 20,
  clip: float = 100.0,
) -> Float64[np.ndarray, ' N']:
  """Compute the divergence of the margins of each example.

  It is positive even without any difference: compare it with `klom(R', R)` of
  two retrained populations of the same sizes.

  The variants 'audit' and 'bench' equal public codes. They do not smooth but
  replace shares of the second distribution below 1e-5 by 1e-5, so that each bin
  that it misses adds up to log(1e5) times the share of the first one. The
  largest margin of both is in no bin.

  Args:
    unlearned: float[P, N] margins (`log_odds.statistic`), finite.
    retrained: float[Q, N].
    where: bool[P, N], the models that forgot the example; all if None.
    where_retrained: bool[Q, N]; `where` if None.
    variant: 'smoothed', KL(R || U) with one half added to every count; 'audit',
      KL(U || R) of the code of Georgiev et al., which has `bins` edges, hence
      one bin less, and does not clip the margins of retrained models; 'bench',
      KL(R || U) of Data Unlearning Bench, whose function for KL(U || R) is
      called with its arguments swapped.
    bins: number of bins.
    clip: margins are clipped to +-clip.

  Returns:
    f64[N] in nats, NaN for examples with fewer than two models of a kind, and
    for those without a margin in any bin.

  Raises:
    ValueError: masks that do not fit the margins, or an unknown variant.
  """
  if variant not in VARIANTS:
    raise ValueError(f'variant is {variant!r}; choose one of {VARIANTS}')
  u, r = (np.asarray(x, np.float64) for x in (unlearned, retrained))
  u = np.clip(u, -clip, clip)
  if variant != 'audit':
    r = np.clip(r, -clip, clip)
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
  first, second = (r, in_r), (u, in_u)
  if variant == 'audit':
    first, second = second, first
  with np.errstate(invalid='ignore', divide='ignore'):
    if variant == 'smoothed':
      p = _frequencies(*first, low, high, bins)
      q = _frequencies(*second, low, high, bins)
      divergence = (p * np.log(p / q)).sum(axis=0)
    else:
      divergence = _published(first, second, low, high, bins, variant)
  enough = (in_u.sum(axis=0) >= 2) & (in_r.sum(axis=0) >= 2)
  return np.where(enough, divergence, np.nan)


def _published(first, second, low, high, bins, variant) -> np.ndarray:
  """Divergence of two (margins, masks) as public codes compute it, f64[N]."""
  if variant == 'bench':
    high, bins = np.where(low < high, high, low + 1), bins + 1
  edges = np.linspace(low, high, bins)  # f64[E, N]
  p, q = (_shares(x, mask, edges) for x, mask in (first, second))
  floored = np.maximum(q, _FLOOR)
  if variant == 'bench':
    floored = np.where(p > 0, floored, q)
  # The bin below the first edge is empty and has the floor in 'audit'.
  total = floored.sum(axis=0) + (_FLOOR if variant == 'audit' else 0.0)
  terms = p * np.log(p * total / floored)
  return np.where(p == 0, 0.0, terms).sum(axis=0)


def _shares(x, inside, edges) -> np.ndarray:
  """Shares of the bins between edges, without x equal to the last edge."""
  above = [((x >= edge) & inside).sum(axis=0) for edge in edges]
  counts = -np.diff(above, axis=0)
  return counts / counts.sum(axis=0)


def klom_summary(divergence: Float64[np.ndarray, ' N']) -> KlomSummary:
  """Return mean and quantiles over the scored examples."""
  known = divergence[np.isfinite(divergence)]
  unscored = len(divergence) - len(known)
  if not len(known):
    return KlomSummary(np.nan, np.full(len(QUANTILES), np.nan), unscored)
  return KlomSummary(
    float(known.mean()), np.quantile(known, QUANTILES), unscored
  )


def _frequencies(x, inside, low, high, bins) -> np.ndarray:
  """Smoothed bin frequencies f64[bins, N]."""
  width = np.maximum((high - low) / bins, 1e-300)
  index = np.clip(np.nan_to_num((x - low) / width), 0, bins - 1).astype(int)
  counts = np.full((bins, x.shape[1]), 0.5)
  model, example = np.nonzero(inside)
  np.add.at(counts, (index[model, example], example), 1.0)
  return counts / counts.sum(axis=0)


def _klom(
  name: str, title: str, variant: Variant, how: str, source: str
) -> Attack:
  """Make the attack of a variant; `how` says what its numbers are."""

  def report(
    population: PopulationScores, data: Scores, options: Options
  ) -> Report:
    """Compare half of a population with the other half of the retrained models.

    The null compares the two halves of the retrained models, so unlearned
    models are compared on the same number of models.
    """
    del options
    assert data.retrained is not None, 'the card says that it is needed'
    keys = ('mean', *(f'quantile_{q:g}' for q in QUANTILES))
    margins, retrained = observations(population, data.retrained)
    if not margins.size:
      return _unscored(keys)
    half = (len(margins) // 2) * 2
    divergence = klom(margins[:half:2], retrained[1:half:2], variant=variant)
    summary = klom_summary(divergence)
    note = f'{summary.unscored} examples have no margin in any bin'
    return {
      key: intervals.point(
        value, margins.shape[1], note if summary.unscored else ''
      )
      for key, value in zip(
        keys, (summary.mean, *summary.quantiles), strict=True
      )
    }

  card = Card(
    title=title,
    subject='the divergence of margins between unlearned and retrained models',
    source=source,
    question='unlearned_or_retrained',
    terms={
      'mean': Term(
        'mean',
        'How far the margins of unlearned models are from those of retrained '
        f'ones: {how}, mean over examples. Numbers of other variants are not '
        'comparable.',
        'nats',
        'lower',
        source='',
      ),
      'quantile_{}': quantile_term('nats'),
    },
    needs=('retrained',),
    populations=('retrained', 'unlearned'),
    by_default=variant == 'smoothed',
    exempt={
      'model_order': 'models are halved by their position in the population',
    },
  )
  return Attack(name, report, card)


_GEORGIEV = 'Georgiev et al. 2024'
KLOM = _klom(
  'klom',
  'KLoM',
  'smoothed',
  'the Kullback-Leibler divergence of unlearned from retrained models per '
  'example, on 20 bins with one half added to every count',
  _GEORGIEV,
)
KLOM_AUDIT = _klom(
  'klom_audit',
  'KLoM, code of its authors',
  'audit',
  'the Kullback-Leibler divergence of retrained from unlearned models per '
  'example, on 19 bins without smoothing, shares below 1e-5 replaced by 1e-5, '
  'as in the code of its authors',
  _GEORGIEV,
)
KLOM_BENCH = _klom(
  'klom_bench',
  'KLoM, Data Unlearning Bench',
  'bench',
  'the Kullback-Leibler divergence of unlearned from retrained models per '
  'example, on 20 bins without smoothing, shares below 1e-5 replaced by 1e-5, '
  'as in the code of Data Unlearning Bench',
  'Rinberg et al. 2026',
)
