"""Claims about rankings of methods and their agreement, and about speed."""

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats

from jaxmu.claims import cells as cells_lib
from jaxmu.claims import evidence
from jaxmu.claims.accuracy import CLOCK_MARGIN
from jaxmu.claims.cells import CannotAnswer, Cell, Job
from jaxmu.claims.evidence import Number
from jaxmu.claims.interface import (
  ALL,
  Answers,
  Claim,
  Finding,
  NotRun,
  per_cell,
)
from jaxmu.metrics import ranking
from jaxmu.report import results

_BEST = ('msg', 'ct')
_CELLS = 4
_RESAMPLES = 2000  # of cells, and of the initialisations of each

# Run-time efficiency, from the largest to the smallest.
ORDER = (
  ('ga',),
  ('ff', 'iu', 'salun', 'bt'),
  ('ct',),
  ('ft',),
  ('cfw',),
  ('fcs',),
  ('msg',),
  ('cfk',),
  ('srl',),
  ('rni', 'kde', 'prmq'),
  ('scrub', 'neggrad_plus'),
)


def losses(job: Job, names: Sequence[str]) -> dict[str, np.ndarray]:
  """Return RetDev and Disc of methods, f64[K, S]; smaller is better.

  Methods that guess, or whose numbers are not finite, are the worst: their
  values are infinite.
  """
  bad = np.array([job.collapsed(name) for name in names])[:, None]

  def table(metric: str) -> np.ndarray:
    return np.stack([job.clusters_or_nan(name, metric) for name in names])

  found = {'ret_dev': table('ret_dev'), 'disc': 1 - table('indisc_test')}
  return {
    metric: np.where(bad | ~np.isfinite(values), np.inf, values)
    for metric, values in found.items()
  }


def combined_ranks(job: Job, seeds: np.ndarray) -> np.ndarray:
  """Return the mean of the ranks by RetDev, Disc and run time, f64[..., K].

  Args:
    job: the main study.
    seeds: positions of the initialisations to average over, i64[..., S].
  """
  names = job.unlearners
  ranks = [
    stats.rankdata(_means(values, seeds), axis=-1)
    for values in losses(job, names).values()
  ]
  speed = np.array([_speed_or_nothing(job, name) for name in names])
  total = np.sum(ranks, axis=0) + stats.rankdata(-speed)
  return total / (len(ranks) + 1)


def _means(values: np.ndarray, seeds: np.ndarray) -> np.ndarray:
  """Average f64[K, S] over chosen seeds i64[..., S]; return f64[..., K]."""
  return np.moveaxis(values[:, seeds].mean(axis=-1), 0, -1)


def _speed_or_nothing(job: Job, name: str) -> float:
  try:
    return 0.0 if job.collapsed(name) else job.speed(name)
  except CannotAnswer:
    return 0.0


def _consistently_best(cells: Sequence[Cell]) -> Answers:
  found: Answers = []
  jobs: dict[str, Job] = {}
  for cell in cells:
    job = cell.jobs.get('main')
    if job is None or any(name not in job.unlearners for name in _BEST):
      found.append(NotRun(cell.name, 'the main study with MSG and CT'))
      continue
    try:
      found.append(_in_cells({cell.name: job}, cell.name))
    except CannotAnswer as error:
      found.append(NotRun(cell.name, str(error)))
    else:
      jobs[cell.name] = job
  if len(jobs) >= _CELLS:
    found.append(_in_cells(jobs, ALL))
  else:
    found.append(
      NotRun(ALL, f'{_CELLS} cells with the main study; there are {len(jobs)}')
    )
  return found


def _in_cells(jobs: Mapping[str, Job], name: str) -> Finding:
  """Test the claim over cells; that of a single one has no verdict."""
  names = [
    one
    for one in next(iter(jobs.values())).unlearners
    if all(one in job.unlearners for job in jobs.values())
  ]
  chosen = list(jobs.values())
  every = [np.arange(_seeds(job))[None] for job in chosen]
  ranks = [_ranks(*one, names) for one in zip(chosen, every, strict=True)]
  value = _places(np.mean(ranks, axis=0), names)[0]
  drawn = _places(_resampled_ranks(chosen, names), names)
  third = len(names) / 3
  parts = [
    evidence.about_resamples(drawn[:, k], third, below=True, closed=True)
    for k in range(len(_BEST))
  ]
  first = [_first_groups(chosen, one) for one in _BEST]
  parts += [evidence.certain(count >= 0.75 * len(chosen)) for count in first]
  places = [
    evidence.bootstrap(value[k], drawn[:, k]) for k in range(len(_BEST))
  ]
  words = ', '.join(
    f'{results.label(one)} is number {rank.value:.0f} '
    f'[{rank.low:.0f}, {rank.high:.0f}] of {len(names)}'
    for one, rank in zip(_BEST, places, strict=True)
  )
  groups = ' and '.join(
    f'{results.label(one)} in {count}'
    for one, count in zip(_BEST, first, strict=True)
  )
  return Finding(
    name,
    'worse place of MSG and CT by the mean of three ranks',
    max(places),
    evidence.every(parts) if name == ALL else None,
    f'By the mean of the ranks by RetDev, Disc and run time, {words}. By Disc '
    f'they are in group 1: {groups} of {len(chosen)} cells.',
    {f'place_{one}': float(v) for one, v in zip(_BEST, value, strict=True)},
  )


def _ranks(job: Job, seeds: np.ndarray, names: Sequence[str]) -> np.ndarray:
  """Return combined ranks of some methods, f64[..., K]."""
  columns = [job.unlearners.index(name) for name in names]
  return combined_ranks(job, seeds)[..., columns]


def _places(ranks: np.ndarray, names: Sequence[str]) -> np.ndarray:
  """Return the places of MSG and CT by mean ranks f64[R, K], f64[R, 2]."""
  order = stats.rankdata(ranks, method='min', axis=-1)
  return order[:, [names.index(one) for one in _BEST]]


def _resampled_ranks(jobs: Sequence[Job], names: Sequence[str]) -> np.ndarray:
  """Resample cells, and the initialisations of each; f64[R, K] mean ranks."""
  rng = np.random.default_rng(0)
  total = np.zeros((_RESAMPLES, len(names)))
  for which in rng.integers(0, len(jobs), (len(jobs), _RESAMPLES)):
    for k, job in enumerate(jobs):
      taken = np.flatnonzero(which == k)
      size = _seeds(job)
      seeds = rng.integers(0, size, (len(taken), size))
      total[taken] += _ranks(job, seeds, names)
  return total / len(jobs)


def _seeds(job: Job) -> int:
  return len(job.clusters(job.unlearners[0], 'ta'))


def _first_groups(jobs: Sequence[Job], method: str) -> int:
  """Count the cells in which a method is in group 1 by Disc."""
  count = 0
  for job in jobs:
    names = job.unlearners
    ranked = ranking.rank_methods(
      {
        name: {
          metric: job.clusters_or_nan(name, metric)
          for metric in ('ta', 'ret_dev', 'indisc_test')
        }
        for name in names
      },
      classes=job.classes,
    )
    if 'disc_test' not in ranked:
      raise CannotAnswer(f'{ranking.MIN_SEEDS} initialisations in main')
    count += int(ranked['disc_test'].placement()[names.index(method)] == 1)
  return count


def _settings_decide(cell: Cell) -> Finding:
  tuned, default = cell.job('main'), cell.job('default')
  names = [n for n in tuned.unlearners if n in default.unlearners]
  if len(names) < 3:
    raise CannotAnswer('three methods at both settings')
  pair = [
    np.sum([*losses(job, names).values()], axis=0) for job in (default, tuned)
  ]
  seeds = min(one.shape[1] for one in pair)
  before, after = (np.asarray(one)[:, :seeds] for one in pair)

  def share(chosen: np.ndarray) -> np.ndarray:
    return (_means(after, chosen) < _means(before, chosen)).mean(axis=-1)

  def tau(chosen: np.ndarray) -> np.ndarray:
    return ranking.kendall_tau(_means(before, chosen), _means(after, chosen))

  everyone = np.arange(seeds)
  shares, taus = (evidence.resample(one, seeds) for one in (share, tau))
  improved = evidence.bootstrap(share(everyone), shares)
  agreement = evidence.bootstrap(tau(everyone), taus)
  return Finding(
    cell.name,
    "Kendall's tau of default and searched rankings",
    agreement,
    evidence.every(
      [
        evidence.about_resamples(shares, 0.8, below=False, closed=True),
        evidence.about_resamples(taus, 0.6, below=True),
      ]
    ),
    f'The sum of RetDev and Disc is smaller at searched settings for '
    f'{improved.value:.0%} [{improved.low:.0%}, {improved.high:.0%}] of '
    f'{len(names)} methods; tau between the rankings by it at default and at '
    f'searched settings is {cells_lib.text(agreement, 2)}.',
    {'improved': improved.value},
  )


def _order_of_speed(cell: Cell) -> Finding:
  job = cell.job('main')
  level = {name: number for number, names in enumerate(ORDER) for name in names}
  names = [name for name in level if name in job.working]
  if len({level[name] for name in names}) < 3:
    raise CannotAnswer('three methods of the order in main')
  speed = {name: job.speed(name) for name in names}
  ordered, reversed_, close = 0, [], 0
  for a, b in itertools.combinations(names, 2):
    if level[a] == level[b]:
      continue
    ratio = speed[a] / speed[b]  # a comes first in the order
    ordered += ratio > 1
    if ratio < 1 / CLOCK_MARGIN:
      reversed_.append((ratio, a, b))
    elif ratio < CLOCK_MARGIN:
      close += 1
  pairs = ordered + sum(
    level[a] != level[b] and speed[a] <= speed[b]
    for a, b in itertools.combinations(names, 2)
  )
  tau = float(
    ranking.kendall_tau(
      np.array([level[n] for n in names]),
      np.array([-speed[n] for n in names]),
    )
  )
  found = evidence.NONE
  if reversed_ or not close:
    found = evidence.certain(not reversed_)
  sentence = (
    f'{ordered} of {pairs} pairs of methods are in the order of the claim '
    f'(tau {tau:.2f}), by '
    + ('measured run time' if job.clock == 'rte' else 'counted work')
  )
  lost = [name for name in level if name not in names]
  if lost:
    sentence += f', without {cells_lib.labels(lost)}'
  if reversed_:
    _, a, b = min(reversed_)
    sentence += (
      f'; the farthest from it are {results.label(b)} ({speed[b]:.1f}) and '
      f'{results.label(a)} ({speed[a]:.1f})'
    )
  return Finding(
    cell.name,
    "Kendall's tau with the order of the claim",
    Number(tau),
    found,
    f'{sentence}.',
    {'ordered': ordered, 'pairs': pairs, 'close': close},
  )


def _cap_on_epochs(cell: Cell) -> Finding:
  job = cell.job('main')
  slow, capped, speeds = [], 0, []
  cap = math.ceil(0.2 * job.train_epochs)
  for name in job.working:
    epochs = [
      float(value)
      for key, value in job.hparams(name).items()
      if key.endswith('num_epochs')
    ]
    if max(epochs, default=0.0) > cap:
      continue
    capped += 1
    speed = job.speed(name)
    speeds.append(speed)
    if speed < 5:
      slow.append(name)
  if not speeds:
    raise CannotAnswer('a method with at most 20% of the epochs')
  slowest = min(speeds)
  found = evidence.NONE
  if not 5 / CLOCK_MARGIN <= slowest < 5 * CLOCK_MARGIN:
    found = evidence.certain(slowest < 5)
  return Finding(
    cell.name,
    'smallest run-time efficiency at 20% of the epochs',
    Number(slowest),
    found,
    f'{len(slow)} of {capped} methods with at most 20% of the epochs are less '
    f'than 5 times as fast as retraining ({cells_lib.labels(slow)}).',
    {'slow': len(slow), 'methods': capped},
  )


def _metrics_disagree(cell: Cell) -> Finding:
  job = cell.job('main')
  names = job.working
  if len(names) < 3:
    raise CannotAnswer('three methods in main')
  table = losses(job, names)
  number, drawn = _tau(table, table, 'ret_dev', 'disc')
  own = {metric: halves(values) for metric, values in table.items()}
  found = evidence.about_resamples(drawn, 0.5, below=True)
  if min(own.values()) <= 0.5:  # noise alone makes rankings disagree
    found = evidence.NONE
  return Finding(
    cell.name,
    "Kendall's tau between the rankings by RetDev and by Indisc",
    number,
    found,
    f'Tau between the rankings of {len(names)} methods by RetDev and by Indisc '
    f'is {cells_lib.text(number, 2)}. Between the rankings of one metric by '
    f'two halves of the initialisations it is {own["ret_dev"]:.2f} (RetDev) '
    f'and {own["disc"]:.2f} (Indisc).',
    {f'halves_{metric}': value for metric, value in own.items()},
  )


def halves(values: np.ndarray) -> float:
  """Return the tau of the rankings by two halves of the initialisations.

  Args:
    values: f64[K, S] of methods, smaller is better.

  Returns:
    The mean over random halves; near 0 if the ranking is noise.
  """
  rng = np.random.default_rng(0)
  size = values.shape[1]
  drawn = rng.permuted(
    np.tile(np.arange(size), (evidence.RESAMPLES, 1)), axis=1
  )
  first, second = drawn[:, : size // 2], drawn[:, size // 2 :]
  taus = ranking.kendall_tau(_means(values, first), _means(values, second))
  return float(np.mean(taus))


Losses = Mapping[str, np.ndarray]


def _tau(
  first: Losses, second: Losses, one: str, other: str
) -> tuple[Number, np.ndarray]:
  """Return the tau of two rankings of one job, and its resamples."""
  x, y = first[one], second[other]

  def tau(seeds: np.ndarray) -> np.ndarray:
    return ranking.kendall_tau(_means(x, seeds), _means(y, seeds))

  seeds = x.shape[1]
  drawn = evidence.resample(tau, seeds)
  return evidence.bootstrap(tau(np.arange(seeds)), drawn), drawn


def _transfers(cells: Sequence[Cell]) -> Answers:
  """Compare the rankings of cells with the same data or the same model."""
  found: Answers = []
  with_main = [cell for cell in cells if 'main' in cell.jobs]
  for first, second in itertools.combinations(with_main, 2):
    if (first.data == second.data) != (first.model == second.model):
      found.append(_transfer(first, second))
  if not found:
    found.append(
      NotRun(ALL, 'the main study of two cells with the same data or model')
    )
  return found


def _transfer(first: Cell, second: Cell) -> Finding:
  jobs = first.job('main'), second.job('main')
  names = [n for n in jobs[0].unlearners if n in jobs[1].unlearners]
  rng = np.random.default_rng(0)
  numbers = {}
  for metric in ('ret_dev', 'disc'):
    x, y = (losses(job, names)[metric] for job in jobs)
    pairs = [
      rng.integers(0, v.shape[1], (evidence.RESAMPLES, v.shape[1]))
      for v in (x, y)
    ]
    drawn = ranking.kendall_tau(_means(x, pairs[0]), _means(y, pairs[1]))
    value = ranking.kendall_tau(x.mean(axis=1), y.mean(axis=1))
    numbers[metric] = evidence.bootstrap(value, drawn)
  return Finding(
    f'{first.name}, {second.name}',
    "Kendall's tau between the rankings of two cells by RetDev",
    numbers['ret_dev'],
    None,
    f'Tau between the rankings of {len(names)} methods in {first.name} and '
    f'{second.name} is '
    f'{cells_lib.text(numbers["ret_dev"], 2)} by RetDev and '
    f'{cells_lib.text(numbers["disc"], 2)} by Indisc.',
    {'tau_disc': numbers['disc'].value},
  )


CLAIMS = (
  Claim(
    1,
    'MSG and CT are consistently among the best in accuracy and run time.',
    'Over at least four cells, the means of the ranks of MSG and CT by RetDev, '
    'Disc and run time are both in the top third, and each is in group 1 by '
    'Disc in at least 75% of the cells.',
    'the main study of four cells with MSG and CT',
    _consistently_best,
  ),
  Claim(
    5,
    'The search of hyper-parameters is decisive.',
    'At searched settings the sum of RetDev and Disc is smaller than at '
    'default ones for at least 80% of the methods, and tau between the two '
    'rankings is below .6.',
    'the main study and the job default',
    per_cell(_settings_decide),
  ),
  Claim(
    13,
    'Methods have an order of run time.',
    'GA > FF, IU, SalUN, BT > CT > FT > CFW > FCS > MSG > CF-k > SRL > RNI, '
    'KDE, PRMQ > SCRUB, NG+ by run-time efficiency; ratios below '
    f'{CLOCK_MARGIN} may be noise.',
    'the main study',
    per_cell(_order_of_speed),
  ),
  Claim(
    14,
    'The budget limits epochs, not time.',
    'At least one method has a run-time efficiency below 5 although its epochs '
    'are at most 20% of those of training.',
    'the main study',
    per_cell(_cap_on_epochs),
  ),
  Claim(
    17,
    'The metrics disagree.',
    "Kendall's tau between the rankings by RetDev and by Indisc is below .5.",
    'the main study',
    per_cell(_metrics_disagree),
  ),
  Claim(
    19,
    'Rankings transfer between architectures and data sets.',
    "Kendall's tau between the rankings of ResNet-18 and TinyViT is reported, "
    'and that between data sets, without a threshold.',
    'the main study of two cells with the same data set or model',
    _transfers,
  ),
)
