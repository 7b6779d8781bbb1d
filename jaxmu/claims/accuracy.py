"""Claims about accuracies, the population attack and run time of methods."""

import math

import numpy as np

from jaxmu.claims import cells as cells_lib
from jaxmu.claims import evidence
from jaxmu.claims.cells import ORIGINAL, REFERENCE, CannotAnswer, Cell, Job
from jaxmu.claims.evidence import Evidence, Number
from jaxmu.claims.interface import Claim, Finding, per_cell
from jaxmu.data import catalog
from jaxmu.metrics import ranking
from jaxmu.report import results

_MANY_DEVIATIONS = 3  # of the retrained models: what 'much larger' means
_NEAR_DEVIATIONS = 2  # of the retrained models: what 'about' means
# Run times of one model in a few repeats: smaller ratios may be noise.
CLOCK_MARGIN = 1.1


def _deviation(job: Job, metric: str) -> float:
  """Return the deviation of the retrained models over clusters."""
  return results.deviation(job.clusters(REFERENCE, metric))


def _gradient_ascent(cell: Cell) -> Finding:
  job = cell.job('main')
  speeds = {name: job.speed(name) for name in job.working}
  ga = _require(job, 'ga', speeds)
  fastest = max(speeds, key=lambda name: speeds[name])
  other = max((v for n, v in speeds.items() if n != 'ga'), default=0.0)
  first = evidence.certain(ga > other)
  if other < ga * CLOCK_MARGIN and ga < other * CLOCK_MARGIN:
    first = evidence.NONE  # the clock cannot tell
  values = {name: job.clusters(name, 'ret_dev') for name in job.working}
  attack = job.clusters('ga', 'mia_test') - job.clusters(REFERENCE, 'mia_test')
  bound = _MANY_DEVIATIONS * _deviation(job, 'mia_test')
  excess = evidence.mean(attack)
  groups = ranking.greedy_groups(np.stack(list(values.values())))
  place = _group_of(list(values), groups, 'ga')
  found = evidence.every(
    [
      first,
      _in_worst_group(values, 'ga'),
      evidence.about_mean(attack, bound, below=False),
    ]
  )
  return Finding(
    cell.name,
    'MIA of GA minus that of retrained models',
    excess,
    found,
    f'The run-time efficiency of GA is {ga:.1f} (the largest is '
    f'{speeds[fastest]:.1f}, of {results.label(fastest)}), GA is in group '
    f'{place} of {len(groups)} by RetDev, and its MIA exceeds that of '
    f'retrained models by {cells_lib.text(excess)}, where three deviations '
    f'are {bound:.3f}.',
    {'rte': ga, 'group': place, 'groups': len(groups), 'bound': bound},
  )


def _require(job: Job, method: str, values: dict[str, float]) -> float:
  if method not in values:
    job.clusters(method, 'ret_dev')  # the job does not have the method
    raise CannotAnswer(f'{results.label(method)}, whose models guess,')
  return values[method]


def _group_of(names: list[str], groups: list[list[int]], method: str) -> int:
  place = names.index(method)
  return next(n for n, group in enumerate(groups, 1) if place in group)


def _in_worst_group(values: dict[str, np.ndarray], method: str) -> Evidence:
  """Test whether no method is worse, and some are better."""
  others = [name for name in values if name != method]
  worse = [evidence.smaller(values[method], values[name]) for name in others]
  groups = ranking.greedy_groups(np.stack(list(values.values())))
  last = _group_of(list(values), groups, method) == len(groups)
  some_worse = evidence.at_least(1, worse)
  return Evidence(0.0 if last and len(groups) > 1 else 1.0, some_worse.false)


def _random_labels(cell: Cell) -> Finding:
  job = cell.job('main')
  own = job.clusters('srl', 'ret_dev')
  others = [name for name in job.working if name != 'srl']
  tests = [
    evidence.smaller(job.clusters(name, 'ret_dev'), own) for name in others
  ]
  # Two-sided p-values, as in the groups of the ranking.
  adjusted = ranking.holm(np.array([min(1, 2 * one.false) for one in tests]))
  better = [n for n, p in zip(others, adjusted, strict=True) if p < 0.05]
  gap = job.clusters('srl', 'fa') - job.clusters(REFERENCE, 'fa')
  bound = _MANY_DEVIATIONS * _deviation(job, 'fa')
  attack = evidence.mean(job.clusters('srl', 'mia_test'))
  room = _NEAR_DEVIATIONS * _deviation(job, 'mia_test')
  seeds = len(own)
  found = evidence.every(
    [
      evidence.at_least(5, tests),
      evidence.about_mean(gap, bound, below=False),
      evidence.within(attack, 0.5 - room, 0.5 + room, n=seeds),
    ]
  )
  return Finding(
    cell.name,
    'methods that beat SRL on RetDev',
    Number(len(better)),
    found,
    f'{len(better)} of {len(others)} methods beat SRL on RetDev '
    f'({cells_lib.labels(better)}). FA of SRL exceeds that of retrained models '
    f'by {cells_lib.text(evidence.mean(gap))} (three deviations are '
    f'{bound:.3f}), and its MIA is {cells_lib.text(attack)}, to be within '
    f'{room:.3f} of one half.',
    {'fa_gap': float(gap.mean()), 'fa_bound': bound, 'mia': attack.value},
  )


def _negative_gradient(cell: Cell) -> Finding:
  job = cell.job('main')
  values = {
    name: job.clusters_or_nan(name, 'ret_dev') for name in job.unlearners
  }
  own = values.get('neggrad_plus')
  if own is None:
    raise CannotAnswer('NG+')
  tests = []
  for name in ('ga', 'srl'):
    if name not in values:
      raise CannotAnswer(results.label(name))
    tests.append(evidence.smaller(own, values[name]))
  stacked = np.stack(
    [np.where(np.isfinite(v), v, np.inf) for v in values.values()]
  )
  place = list(values).index('neggrad_plus')

  def rank(seeds: np.ndarray) -> np.ndarray:
    means = stacked[:, seeds].mean(axis=-1)
    return 1.0 + np.sum(means < means[place], axis=0)

  half = len(values) / 2
  drawn = evidence.resample(rank, stacked.shape[1])
  position = evidence.bootstrap(rank(np.arange(stacked.shape[1])), drawn)
  adjusted = ranking.holm(np.array([min(1, 2 * one.false) for one in tests]))
  found = evidence.every(
    [
      *tests,
      evidence.about_resamples(drawn, half, below=True, closed=True),
    ]
  )
  speed = job.speed('neggrad_plus')
  means = {n: float(values[n].mean()) for n in ('neggrad_plus', 'ga', 'srl')}
  return Finding(
    cell.name,
    'rank of NG+ by RetDev',
    position,
    found,
    f'RetDev of NG+ is {means["neggrad_plus"]:.3f}, against '
    f'{means["ga"]:.3f} for GA (Holm p = {adjusted[0]:.3f}) and '
    f'{means["srl"]:.3f} for SRL (p = {adjusted[1]:.3f}); its rank is '
    f'{position.value:.0f} [{position.low:.0f}, {position.high:.0f}] of '
    f'{len(values)}, and it is {speed:.1f} times as fast as retraining.',
    {'rte': speed, 'p_ga': adjusted[0], 'p_srl': adjusted[1]},
  )


def _fisher_and_influence(cell: Cell) -> Finding:
  job = cell.job('main')
  if 'ff' not in job.values or 'iu' not in job.values:
    raise CannotAnswer('FF and IU')
  fisher, words = _fisher(job)
  attacks = {
    name: job.clusters(name, 'mia_test')
    for name in job.working
    if np.isfinite(job.values[name]['mia_test']).all()
  }
  if 'iu' not in attacks:
    raise CannotAnswer('IU, whose models guess,')
  own = attacks.pop('iu')
  largest = max(attacks, key=lambda name: attacks[name].mean())
  above = [evidence.smaller(one, own) for one in attacks.values()]
  mia = evidence.mean(own)
  return Finding(
    cell.name,
    'MIA of IU',
    mia,
    evidence.every([fisher, evidence.every(above)]),
    f'{words} MIA of IU is {cells_lib.text(mia)}; the largest of the others '
    f'is {attacks[largest].mean():.3f}, of {results.label(largest)}.',
    {'largest_other_mia': float(attacks[largest].mean())},
  )


def _fisher(job: Job) -> tuple[Evidence, str]:
  """Test whether FF guesses, or is far from retraining in its accuracies."""
  if 'ff' in job.without_setting:
    return evidence.certain(True), 'Every trial of the search of FF failed.'
  chance = 2 / job.classes
  accuracy = job.clusters('ff', 'ta')
  guesses = evidence.about_mean(accuracy, chance, below=True)
  ta = evidence.mean(accuracy)
  deviation = job.values['ff'].get('ret_dev', np.array([math.nan]))
  if not np.isfinite(deviation).all():
    return guesses, f'FF has no finite RetDev and TA {ta.value:.3f}.'
  far = evidence.about_mean(deviation, 1.0, below=False)
  return (
    evidence.either(guesses, far),
    f'FF has TA {cells_lib.text(ta)} and RetDev '
    f'{cells_lib.text(evidence.mean(deviation))}.',
  )


def _test_accuracy(cell: Cell) -> Finding:
  job = cell.job('main')
  own = job.clusters(REFERENCE, 'ta')
  gaps = {name: job.clusters(name, 'ta') - own for name in job.unlearners}
  parts = {
    name: evidence.about_mean(gap, 0.0, below=True)
    for name, gap in gaps.items()
  }
  lower = [n for n, part in parts.items() if part.verdict == evidence.HOLDS]
  highest = max(gaps, key=lambda name: gaps[name].mean())
  number = evidence.mean(gaps[highest])
  sentence = (
    f'{len(lower)} of {len(gaps)} methods have a lower test accuracy than '
    f'retrained models; the highest is {results.label(highest)}, at '
    f'{cells_lib.text(number)} from them. The original models are at '
    f'{cells_lib.text(evidence.mean(job.clusters(ORIGINAL, "ta") - own))}.'
  )
  found, numbers = evidence.every(list(parts.values())), {}
  if 'ft_augmented' in cell.jobs:
    closes, words, closed = _augmented(cell.job('ft_augmented'))
    found = evidence.every([found, closes])
    sentence += words
    numbers['closed'] = closed
  elif is_augmented(cell.data):
    sentence += ' Fine-tuning with augmentation has not been run.'
    found = evidence.every([found, evidence.NONE])
  else:
    sentence += ' Its images are not augmented.'
  return Finding(
    cell.name,
    'largest TA minus that of retrained models',
    number,
    found,
    sentence,
    {'lower': len(lower), 'methods': len(gaps), **numbers},
  )


def is_augmented(data: str) -> bool:
  """Whether the benchmark augments the images of a data set.

  Example:
    >>> is_augmented('cifar10'), is_augmented('digits')
    (True, False)
  """
  entry = catalog.CATALOG.get(data)
  return bool(entry and (entry.transform.flip or entry.transform.crop_padding))


def _augmented(job: Job) -> tuple[Evidence, str, float]:
  """Test whether fine-tuning with augmentation closes half of the gap.

  The job has FT, FT with augmentation and the same retrained models.
  """
  own, plain = job.clusters(REFERENCE, 'ta'), job.clusters('ft', 'ta')
  gained = job.clusters('ft_augmented', 'ta') - plain
  contrast = gained - 0.5 * (own - plain)
  gap = (own - plain).mean()
  if gap <= 0:
    words = (
      f' FT is {-gap:.3f} above them, so there is no gap to close; '
      f'augmentation changes its TA by {gained.mean():+.3f}.'
    )
    return evidence.NONE, words, math.nan
  share = float(gained.mean() / gap)
  words = (
    f' Fine-tuning with augmentation closes {share:.0%} of the gap of '
    'fine-tuning without.'
  )
  return evidence.about_mean(contrast, 0.0, below=False), words, share


def _fine_tuning(cell: Cell) -> Finding:
  job = cell.job('main')
  retained = job.clusters('ft', 'ra')
  gap = job.clusters(REFERENCE, 'fa') - job.clusters('ft', 'fa')
  fitted, lost = evidence.mean(retained), evidence.mean(gap)
  return Finding(
    cell.name,
    'FA of retrained models minus that of FT',
    lost,
    evidence.every(
      [
        evidence.about_mean(retained, 0.999, below=False),
        evidence.about_mean(gap, 0.0, below=False),
      ]
    ),
    f'FT has RA {cells_lib.text(fitted, 4)}, and FA of retrained models minus '
    f'that of FT is {cells_lib.text(lost)}.',
    {'ra': fitted.value},
  )


_UNSTABLE = ('kde', 'ga')


def _initialisations(cell: Cell) -> Finding:
  job = cell.job('main')
  bound = 0.02
  values = {
    name: job.clusters(name, 'ret_dev')
    for name in job.working
    if name not in _UNSTABLE
  }
  if not values:
    raise CannotAnswer('a method other than KDE and GA')
  spread = {name: evidence.deviation(v) for name, v in values.items()}
  tests = [evidence.deviation_below(v, bound) for v in values.values()]
  largest = max(spread, key=lambda name: spread[name].value)
  small = sum(one.value < bound for one in spread.values())
  unstable = {
    name: results.deviation(job.values[name]['ret_dev'])
    for name in _UNSTABLE
    if name in job.working
  }
  beside = ', '.join(
    f'{results.label(name)} {value:.3f}' for name, value in unstable.items()
  )
  return Finding(
    cell.name,
    'largest deviation of RetDev over initialisations',
    spread[largest],
    evidence.every(tests),
    f'The deviation of RetDev over initialisations is below .02 for {small} of '
    f'{len(values)} methods; the largest is '
    f'{cells_lib.text(spread[largest])}, of {results.label(largest)}'
    + (f' (left aside: {beside}).' if beside else '.'),
    {'below': small, 'methods': len(values)},
  )


def _validation(cell: Cell) -> Finding:
  job = cell.job('main')
  gap = job.clusters('kde', 'va') - job.clusters('kde', 'ta')
  null = job.clusters(REFERENCE, 'va') - job.clusters(REFERENCE, 'ta')
  bound = 0.02
  number = evidence.mean(gap)
  parts = [evidence.about_mean(gap, bound, below=False)]
  sentence = (
    f'VA of KDE exceeds its TA by {cells_lib.text(number)}, that of retrained '
    f'models by {cells_lib.text(evidence.mean(null))}.'
  )
  if 'kde_disjoint' in cell.jobs:
    other = cell.job('kde_disjoint')
    apart = other.clusters('kde_disjoint', 'va_held') - other.clusters(
      'kde_disjoint', 'ta'
    )
    without = evidence.mean(apart)
    parts.append(evidence.within(without, -bound, bound, n=len(apart)))
    # Half of the validation images can be easier or harder than test images.
    same_images = other.clusters(REFERENCE, 'va_held') - other.clusters(
      REFERENCE, 'ta'
    )
    sentence += (
      ' With a disjoint set for its warm-up the difference is '
      f'{cells_lib.text(without)} on the other validation images, that of '
      f'retrained models there {cells_lib.text(evidence.mean(same_images))}.'
    )
  else:
    sentence += ' KDE with a disjoint set has not been run.'
    parts.append(evidence.NONE)
  return Finding(
    cell.name,
    'VA minus TA of KDE',
    number,
    evidence.every(parts),
    sentence,
    {'retrained': float(null.mean())},
  )


CLAIMS = (
  Claim(
    2,
    'GA alone is an inadequate baseline.',
    'GA has the largest run-time efficiency, is in the worst group by RetDev '
    'of the methods that do not guess, and its MIA exceeds that of retrained '
    'models by more than three deviations of theirs.',
    'the main study with GA',
    per_cell(_gradient_ascent),
  ),
  Claim(
    3,
    'SRL alone is an inadequate baseline.',
    'At least five methods beat SRL on RetDev (paired, Holm p < .05); its FA '
    'is above that of retrained models by more than three deviations of '
    'theirs, although its MIA is within two of one half.',
    'the main study with SRL',
    per_cell(_random_labels),
  ),
  Claim(
    4,
    'NG+ with searched settings is a strong baseline.',
    'NG+ is better than GA and SRL on RetDev (paired p < .05) and in the upper '
    'half.',
    'the main study with NG+, GA and SRL',
    per_cell(_negative_gradient),
  ),
  Claim(
    12,
    'Fisher forgetting and influence unlearning fail.',
    'FF has TA of at most 2 / classes or RetDev above 1, and IU has the '
    'largest MIA.',
    'the main study with FF and IU',
    per_cell(_fisher_and_influence),
  ),
  Claim(
    15,
    'Unlearned models lose test accuracy against retrained ones.',
    'TA is below that of retrained models for every method, and fine-tuning '
    'with augmentation closes more than half of the gap of fine-tuning.',
    'the main study, and the job ft_augmented for the second half',
    per_cell(_test_accuracy),
  ),
  Claim(
    16,
    'FT reaches RA = 1 and an FA below that of retrained models.',
    'RA of FT is at least .999, and its FA is below that of retrained models.',
    'the main study with FT',
    per_cell(_fine_tuning),
  ),
  Claim(
    18,
    'Initialisations matter little beside methods.',
    'The deviation of RetDev over initialisations is below .02 for every '
    'method but KDE and GA.',
    'the main study',
    per_cell(_initialisations),
  ),
  Claim(
    20,
    'Methods that train on validation images are flattered there.',
    'VA of KDE exceeds its TA by more than .02, and does not (within .02) if '
    'its warm-up has a disjoint set.',
    'the main study with KDE, and the job kde_disjoint for the second half',
    per_cell(_validation),
  ),
)
