"""KLoM: KL divergence of margins between retrained and unlearned models.

KLoM is computed per example: KL(R || U) between the histograms of its margin
over retrained and over unlearned models, on common bins (Georgiev et al. 2024).
The example must have the same role in all models that count; a mask selects
them.

The paper does not fully specify its bins. This module uses 20 equal bins over
the pooled range after clipping, and adds one half to every count.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float64

from jaxmu.attacks import intervals
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

QUANTILES = (0.5, 0.95, 0.99)


class Summary(NamedTuple):
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
  unlearned: Float[np.ndarray, 'P N'],
  retrained: Float[np.ndarray, 'Q N'],
  *,
  where: Bool[np.ndarray, 'P N'] | None = None,
  where_retrained: Bool[np.ndarray, 'Q N'] | None = None,
  bins: int = 20,
  clip: float = 100.0,
) -> Float64[np.ndarray, ' N']:
  """Compute KL(R || U) of the margins of each example.

  It is positive even without any difference: compare it with `klom(R', R)` of
  two retrained populations of the same sizes.

  Args:
    unlearned: float[P, N] margins (`log_odds.statistic`), finite.
    retrained: float[Q, N].
    where: bool[P, N], the models that forgot the example; all if None.
    where_retrained: bool[Q, N]; `where` if None.
    bins: number of bins.
    clip: margins are clipped to +-clip.

  Returns:
    f64[N] in nats, NaN for examples with fewer than two models of a kind.
  """
  u, r = (
    np.clip(np.asarray(margins, np.float64), -clip, clip)
    for margins in (unlearned, retrained)
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


def summarise(divergence: Float64[np.ndarray, ' N']) -> Summary:
  """Return mean and quantiles over the scored examples."""
  known = divergence[np.isfinite(divergence)]
  unscored = len(divergence) - len(known)
  if not len(known):
    return Summary(np.nan, np.full(len(QUANTILES), np.nan), unscored)
  return Summary(float(known.mean()), np.quantile(known, QUANTILES), unscored)


def _frequencies(x, inside, low, high, bins) -> np.ndarray:
  """Smoothed bin frequencies f64[bins, N]."""
  width = np.maximum((high - low) / bins, 1e-300)
  index = np.clip(np.nan_to_num((x - low) / width), 0, bins - 1).astype(int)
  counts = np.full((bins, x.shape[1]), 0.5)
  model, example = np.nonzero(inside)
  np.add.at(counts, (index[model, example], example), 1.0)
  return counts / counts.sum(axis=0)


def _report(
  population: PopulationScores, data: Scores, options: Options
) -> Report:
  """Compare half of a population with the other half of the retrained models.

  The null compares the two halves of the retrained models, so unlearned models
  are compared on the same number of models.
  """
  del options
  assert data.retrained is not None, 'the card says that it is needed'
  keys = ('mean', *(f'quantile_{q:g}' for q in QUANTILES))
  margins, retrained = observations(population, data.retrained)
  if not margins.size:
    note = f'no example is forgotten by {MIN_MODELS} models'
    return {key: intervals.point(np.nan, 0, note) for key in keys}
  half = (len(margins) // 2) * 2
  summary = summarise(klom(margins[:half:2], retrained[1:half:2]))
  values = (summary.mean, *summary.quantiles)
  return {
    key: intervals.point(value, margins.shape[1])
    for key, value in zip(keys, values, strict=True)
  }


KLOM = Attack(
  'klom',
  _report,
  Card(
    title='KLoM',
    subject='the divergence of margins between unlearned and retrained models',
    source='Georgiev et al. 2024',
    question='unlearned_or_retrained',
    terms={
      'mean': Term(
        'mean',
        'How far the margins of unlearned models are from those of retrained '
        'ones, as a Kullback-Leibler divergence per example, mean over '
        'examples.',
        'nats',
        'lower',
        source='',
      ),
      'quantile_{}': quantile_term('nats'),
    },
    needs=('retrained',),
    populations=('retrained', 'unlearned'),
    exempt={
      'model_order': 'models are halved by their position in the population',
    },
  ),
)
