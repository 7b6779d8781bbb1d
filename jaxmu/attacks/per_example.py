"""Exposure of single examples: one AUC per example over the models.

An average over examples hides examples for which unlearning fails. AUC_n is
how well a score tells the models that forgot example n from those that never
saw it. Above one half, the example is still remembered; below one half, its
scores are lower than those of an unseen example, which exposes it as well.

Models of one split are not independent observations. The test counts distinct
splits instead of models, which makes it conservative. Many examples are tested
at once, so shares are controlled at a false-discovery rate.
"""

import dataclasses
from concurrent import futures

import numpy as np
from jaxtyping import Bool, Float, Float64, Int8, Integer
from scipy import stats

from jaxmu.attacks import intervals, leave_out, log_odds, roc
from jaxmu.attacks.interface import (
  Attack,
  Card,
  Options,
  Report,
  quantile_term,
)
from jaxmu.attacks.scores import PopulationScores, Scores
from jaxmu.terms import PROJECT, Term

QUANTILES = (0.01, 0.25, 0.5, 0.75, 0.99)


@dataclasses.dataclass(frozen=True)
class PerExample:
  """Exposure of each example, f64[N] each, NaN where an example has no test.

  Attributes:
    auc: of forgotten against never-seen models.
    p_value: two-sided, of AUC = 1/2.
    discovered: bool[N], significant at a false-discovery rate of 0.05.
  """

  auc: np.ndarray
  p_value: np.ndarray
  discovered: np.ndarray

  @property
  def exposed(self) -> np.ndarray:
    """Which examples are significantly above one half, bool[N]."""
    return self.discovered & (self.auc > 0.5)


@dataclasses.dataclass(frozen=True)
class Summary:
  """Exposure of a population.

  Attributes:
    examples: tested examples.
    mean: of the AUCs.
    quantiles: f64[5] of the AUCs at `QUANTILES`.
    above: share with AUC > 0.6; large by chance alone with few models, compare
      with the retrained models.
    below: share with AUC < 0.4.
    exposed: share significantly above one half (Benjamini-Hochberg).
    over_unlearned: share significantly below.
  """

  examples: int
  mean: float
  quantiles: np.ndarray
  above: float
  below: float
  exposed: float
  over_unlearned: float


def per_example(
  score: Float[np.ndarray, 'P N'],
  state: Int8[np.ndarray, 'P N'],
  group: Integer[np.ndarray, ' P'],
) -> PerExample:
  """Compute the exposure of each example.

  Args:
    score: float[P, N] a single score, larger for more member-like (log-odds,
      not a likelihood ratio: nothing is fitted here).
    state: int8[P, N], 1 forgotten, 2 never seen, others ignored. Use
      `log_odds.retained` for leakage of the retain set.
    group: int[P] splits.
  """
  score, state, group = map(np.asarray, (score, state, group))
  forgotten, unseen = state == log_odds.FORGOTTEN, state == log_odds.NEVER_SEEN

  def one(n: int) -> float:
    return roc.auc(score[forgotten[:, n], n], score[unseen[:, n], n])

  auc = np.empty(state.shape[1])
  slices = leave_out.column_slices(len(score), len(auc), 1 << 18)

  def work(part: slice) -> None:
    auc[part] = [one(n) for n in range(part.start, part.stop)]

  with futures.ThreadPoolExecutor() as pool:
    list(pool.map(work, slices))
  k1, k0 = (_distinct(kind, group) for kind in (forgotten, unseen))
  with np.errstate(divide='ignore', invalid='ignore'):
    spread = np.sqrt((k1 + k0 + 1) / (12 * k1 * k0))  # Mann-Whitney, null
    p_value = 2 * stats.norm.sf(abs(auc - 0.5) / spread)
  p_value = np.where((k1 > 0) & (k0 > 0), p_value, np.nan)
  return PerExample(auc, p_value, benjamini_hochberg(p_value, 0.05))


def summarise(result: PerExample) -> Summary:
  """Return the distribution of exposure over the tested examples."""
  known = np.isfinite(result.auc)
  auc, discovered = result.auc[known], result.discovered[known]
  if not len(auc):
    return Summary(0, np.nan, np.full(5, np.nan), *[np.nan] * 4)
  return Summary(
    examples=len(auc),
    mean=float(auc.mean()),
    quantiles=np.quantile(auc, QUANTILES),
    above=float((auc > 0.6).mean()),
    below=float((auc < 0.4).mean()),
    exposed=float(result.exposed[known].mean()),
    over_unlearned=float((discovered & (auc < 0.5)).mean()),
  )


def benjamini_hochberg(
  p_value: Float64[np.ndarray, ' N'], rate: float
) -> Bool[np.ndarray, ' N']:
  """Return bool[N]: discoveries at a false-discovery rate (NaN never)."""
  known = np.flatnonzero(np.isfinite(p_value))
  out = np.zeros(len(p_value), bool)
  ordered = known[np.argsort(p_value[known])]
  bound = rate * np.arange(1, len(ordered) + 1) / max(len(ordered), 1)
  passed = np.flatnonzero(p_value[ordered] <= bound)
  if len(passed):
    out[ordered[: passed[-1] + 1]] = True
  return out


def _distinct(kind: np.ndarray, group: np.ndarray) -> np.ndarray:
  """Return the number of groups with an observation of a kind, f64[N]."""
  seen = np.stack([kind[group == g].any(axis=0) for g in np.unique(group)])
  return np.count_nonzero(seen, axis=0).astype(np.float64)


def exposure(population: PopulationScores) -> PerExample:
  """Return the exposure of each example in a population."""
  return per_example(population.mean, population.state, population.split)


def _report(
  population: PopulationScores, data: Scores, options: Options
) -> Report:
  del data, options
  values = dataclasses.asdict(summarise(exposure(population)))
  n, quantiles = values.pop('examples'), values.pop('quantiles')
  for level, value in zip(QUANTILES, quantiles, strict=True):
    values[f'quantile_{level:g}'] = value
  return {name: intervals.point(v, n) for name, v in values.items()}


_CORRECTED = 'Benjamini & Hochberg 1995'
PER_EXAMPLE = Attack(
  'per_example',
  _report,
  Card(
    title='Per-example AUC',
    subject='the AUC of each example over the models',
    source=PROJECT,
    question='exposure',
    terms={
      'mean': Term(
        'mean',
        'Mean over the examples of the AUC with which the scores of an example '
        'distinguish models that forgot it from models that never saw it.',
        'fraction',
        'half',
      ),
      'above': Term(
        'share above 0.6',
        'Share of the examples with an AUC above 0.6; with few models it is '
        'large by chance alone, so compare with the retrained models.',
        'fraction',
        'retrained',
      ),
      'below': Term(
        'share below 0.4',
        'Share of the examples with an AUC below 0.4, whose scores are lower '
        'than those of unseen examples; compare with the retrained models.',
        'fraction',
        'retrained',
      ),
      'exposed': Term(
        'share exposed',
        'Share of the examples whose scores are significantly higher than '
        'those of unseen examples, after correction for the number of examples '
        'tested: the models still remember them.',
        'fraction',
        'lower',
        _CORRECTED,
      ),
      'over_unlearned': Term(
        'share over-unlearned',
        'Share of the examples whose scores are significantly lower than '
        'those of unseen examples, after correction for the number of examples '
        'tested: this exposes them as well.',
        'fraction',
        'lower',
        _CORRECTED,
      ),
      'quantile_{}': quantile_term('fraction'),
    },
  ),
)
