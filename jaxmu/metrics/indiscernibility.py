"""How close a population attack is to guessing: MIA, Indisc and one AUC.

The attack has one threshold on the loss for all examples (see
`jaxmu.attacks.single_model`). It tells forgotten from validation or test
examples, so it also works with a single split, in which every forgotten example
was seen by all models. The numbers of the same attack on forgotten and
never-seen examples, 'population_mia' and 'loss_auc', come from the attack
suite.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float64

from jaxmu.attacks import log_odds, roc, single_model
from jaxmu.metrics.interface import Card, Evaluated, Metric, Number
from jaxmu.terms import BENCHMARK, Term

# MIA without any signal, for the mean of ten stratified random 90/10 splits of
# n + n examples, simulated for losses of well-trained models (exp(2 N(0, 1))):
# variance .346^2 / n + 2.3 / n^2; the mean is .57 / n below one half where the
# tenth is odd. For features without a tail the first factor is up to .57.
HEAVY_TAILED = 0.346
_SMALL, _ODD = 2.3, 0.57


class NoiseFloor(NamedTuple):
  """The population attack where there is nothing to detect.

  Attributes:
    mean: E[MIA].
    sd: sd(MIA).
    indisc: E[Indisc].
  """

  mean: float
  sd: float
  indisc: float


def indiscernibility(
  mia: Float[np.ndarray, '*M'],
) -> Float64[np.ndarray, '*M']:
  """Return 1 - |2 MIA - 1|: 1 where the attack guesses.

  Args:
    mia: accuracies of a balanced attack, float[...]; NaN gives NaN.

  Raises:
    ValueError: an accuracy outside [0, 1].
  """
  mia = np.asarray(mia, np.float64)
  if ((mia < 0) | (mia > 1)).any():
    raise ValueError(f'MIA {mia} is not an accuracy in [0, 1]')
  return 1 - abs(2 * mia - 1)


def noise_floor(n: int) -> NoiseFloor:
  """Return what the population attack gives when there is nothing to detect.

  Differences in Indisc below one minus its value mean nothing. For features
  that are not heavy-tailed the floor is worse; see `single_model.null_mia` for
  the floor of given losses.

  Where the tenth that is held out is an odd number, one kind has one example
  more in it and one less to train on, so the classifier leans to the other
  kind: MIA is below one half, by .57 / n, as in the reference. The retrained
  models have the same floor.

  Args:
    n: examples on each side of the balanced attack; fitted for 25 and more.

  Example:
    >>> [round(x, 3) for x in noise_floor(64)]  # 13 of 128 are held out
    [0.491, 0.049, 0.92]
  """
  odd = math.ceil(single_model.TEST_FRACTION * 2 * n) % 2
  below, sd = _ODD * odd / n, math.sqrt(HEAVY_TAILED**2 / n + _SMALL / n**2)
  # 2 MIA - 1 is normal with this mean and deviation; E of its absolute value:
  mean, spread = 2 * below, 2 * sd
  gap = spread * math.sqrt(2 / math.pi) * math.exp(-((mean / spread) ** 2) / 2)
  gap += mean * math.erf(mean / spread / math.sqrt(2))
  return NoiseFloor(0.5 - below, sd, 1 - gap)


def attack(population: Evaluated) -> dict[str, Number]:
  """Run the attack against validation and against test examples."""
  loss = log_odds.loss_from_log_odds(population.log_odds)
  forget = _select(loss, population.forgotten)
  outside = {
    'val': loss[:, population.validation],
    'test': loss[:, population.test],
  }
  works = ~population.failed  # the others have placeholders for scores
  given: dict[str, Number] = {}
  for name, nonmember in outside.items():
    mia = np.full(population.size, np.nan)
    if min(forget.shape[1], nonmember.shape[1]) >= single_model.FOLDS:
      mia[works] = single_model.population_mia(forget[works], nonmember[works])
    given[f'mia_{name}'] = mia
    given[f'indisc_{name}'] = indiscernibility(mia)
  given['population_auc'] = np.full(population.size, np.nan)
  if min(forget.shape[1], outside['test'].shape[1]) >= single_model.FOLDS:
    score = -np.concatenate([forget, outside['test']], axis=1)
    score[~works] = np.nan
    kind = np.where(np.arange(score.shape[1]) < forget.shape[1], 1, 2)
    state = np.broadcast_to(kind.astype(np.int8), score.shape)
    report = roc.roc_report(
      score, state, population.cluster, fprs=(), threshold=None
    )
    given['population_auc'] = report['auc']
  return given


def _select(
  values: Float64[np.ndarray, 'P N'], where: Bool[np.ndarray, 'P N']
) -> Float64[np.ndarray, 'P F']:
  """Return f64[P, F] from as many chosen columns of each row."""
  return np.stack([v[w] for v, w in zip(values, where, strict=True)])


def _mia(title: str, outside: str) -> Term:
  return Term(
    title,
    'How often a simple attack on the loss alone tells forgotten from '
    f'{outside} images. Guessing gives 0.5, or a little less if a tenth of the '
    'images is an odd number; only the difference from the retrained models is '
    'a finding.',
    'fraction',
    'retrained',
    f'{BENCHMARK} (logistic regression on the loss)',
  )


def _indisc(title: str, outside: str) -> Term:
  return Term(
    title,
    'Equals 1 if the population attack only guesses, 0 if it always separates '
    f'forgotten from {outside} images.',
    'fraction',
    'higher',
    f'{BENCHMARK} (1 - |2 MIA - 1|)',
  )


METRIC = Metric(
  'indiscernibility',
  attack,
  Card(
    title='Population attack on validation and test images',
    undefined=(
      f'the attack needs {single_model.FOLDS} forgotten and as many other '
      'examples'
    ),
    exempt={'example_order': 'a seeded shuffle draws the examples of the fits'},
    terms={
      'mia_val': _mia('Population attack vs validation (MIA)', 'validation'),
      'indisc_val': _indisc('Indiscernibility vs validation', 'validation'),
      'mia_test': _mia('Population attack vs test (T-MIA)', 'test'),
      'indisc_test': _indisc('Indiscernibility vs test (Indisc)', 'test'),
      'population_auc': Term(
        'Population attack: AUC',
        'How often one threshold on the loss, the same for all images, ranks a '
        'forgotten image above a test image; 0.5 is guessing. The two sets may '
        'differ without a leak, so compare with the retrained models.',
        'fraction',
        'retrained',
        'Yeom et al. 2018',
      ),
    },
  ),
)
