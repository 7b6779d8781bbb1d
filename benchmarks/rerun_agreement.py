"""Agreement of a study with an independent re-run of the benchmark.

`docs/results/independent_rerun.csv` has mean and deviation over ten
initialisations of the numbers that a third party measured with the benchmark's
own code: CIFAR-10, ResNet-18 of full width, 182 epochs, 17 methods, searched
settings (github.com/santimebi/deepunlearn, commit 380123a,
reports/raw_metrics.csv). A study of another scale can agree in signs (do
methods move a number up or down from retraining?), orders and ratios:

  sign     a method's number minus that of retrained models: above, below, or
           not distinguishable from 0 (95%)
  order    Kendall's tau between the rankings of methods, with the p-value for
           methods in random order
  ratio    run-time efficiency divided by that of the re-run
  failure  methods whose models fail or guess

Where both sides are distinguishable from 0 and have different signs, they
disagree. docs/results/reasons.csv has the reasons that were found.
"""

import csv
import math
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from jaxmu.claims import evidence
from jaxmu.claims.cells import REFERENCE, Cell, Job
from jaxmu.metrics import ranking
from jaxmu.report import results

FOLDER = pathlib.Path(__file__).parents[1] / 'docs' / 'results'
SEEDS = 10  # of the re-run
SIGNS = {
  'ra': 'RA',
  'fa': 'FA',
  'ta': 'TA',
  'mia_test': 'MIA',
}
FACTOR = 2.0  # ratios within it agree
AGREE, DISAGREE, UNDECIDED = 'agrees', 'disagrees', 'undecided'
UNEXPLAINED = 'not explained yet'


class Theirs(NamedTuple):
  """A number of the re-run: mean and deviation over initialisations."""

  mean: float
  deviation: float

  @property
  def error(self) -> float:
    """Standard error of the mean."""
    return self.deviation / math.sqrt(SEEDS)


Rerun = Mapping[str, Mapping[str, Theirs]]


def read_rerun(path: pathlib.Path = FOLDER / 'independent_rerun.csv') -> Rerun:
  """Read the numbers of the re-run, by method and metric."""
  found: dict[str, dict[str, Theirs]] = {}
  with path.open(newline='') as file:
    for row in csv.DictReader(file):
      number = Theirs(float(row['mean']), float(row['deviation']))
      found.setdefault(row['method'], {})[row['metric']] = number
  return found


def read_reasons(
  path: pathlib.Path = FOLDER / 'reasons.csv',
) -> dict[tuple[str, str, str], str]:
  """Read why numbers disagree, by (cell, method, number)."""
  if not path.is_file():
    return {}
  with path.open(newline='') as file:
    return {
      (row['cell'], row['method'], row['number']): row['reason']
      for row in csv.DictReader(file)
    }


def compare(cell: Cell, rerun: Rerun) -> list[dict[str, Any]]:
  """Compare the main study of a cell with the re-run; rows of a table."""
  job = cell.job('main')
  reasons = read_reasons()
  rows = [
    *_signs(job, rerun),
    *_orders(job, rerun),
    *_ratios(job, rerun),
    *_failures(job, rerun),
  ]
  for row in rows:
    if row['agreement'] == DISAGREE and not row['reason']:
      key = cell.name, row['method'], row['number']
      row['reason'] = reasons.get(key, UNEXPLAINED)
  return [{'cell': cell.name, **row} for row in rows]


def _row(kind: str, method: str, number: str, **cells: Any) -> dict[str, Any]:
  return {'kind': kind, 'method': method, 'number': number, **cells}


def _signs(job: Job, rerun: Rerun) -> Iterable[dict[str, Any]]:
  for method in job.unlearners:
    for metric, title in SIGNS.items():
      theirs = rerun.get(method, {}).get(metric)
      own = job.values[method].get(metric)
      if theirs is None or own is None:
        continue
      null = rerun[REFERENCE][metric]
      gap = theirs.mean - null.mean
      error = math.hypot(theirs.error, null.error)
      their_sign = _sign(gap, gap - _t() * error, gap + _t() * error)
      number = evidence.mean(own - job.clusters(REFERENCE, metric))
      our_sign = _sign(*number)
      if '' in (their_sign, our_sign):
        continue
      yield _row(
        'sign',
        method,
        title,
        theirs=f'{gap:+.4f} ({their_sign})',
        ours=f'{number.value:+.4f} ({our_sign})',
        agreement=_agreement(their_sign, our_sign),
        reason=_noise(their_sign, our_sign),
      )


def _t() -> float:
  return float(stats.t.ppf(0.975, SEEDS - 1))


def _sign(value: float, low: float, high: float) -> str:
  """Return '+', '-' or '0', '' where the number is not available."""
  if not math.isfinite(value):
    return ''
  return '+' if low > 0 else '-' if high < 0 else '0'


def _agreement(theirs: str, ours: str) -> str:
  if theirs == ours:
    return AGREE
  return UNDECIDED if '0' in (theirs, ours) else DISAGREE


def _noise(theirs: str, ours: str) -> str:
  names = [n for n, s in (('theirs', theirs), ('ours', ours)) if s == '0']
  return f'{" and ".join(names)} within noise' if names else ''


def _orders(job: Job, rerun: Rerun) -> Iterable[dict[str, Any]]:
  names = [
    name
    for name in job.working
    if math.isfinite(
      rerun.get(name, {}).get('indisc_test', Theirs(math.nan, 0)).mean
    )
  ]
  if len(names) < 3:
    return
  rng = np.random.default_rng(0)
  for metric, title, lower in (
    ('ret_dev', 'RetDev', True),
    ('indisc_test', 'Indisc', False),
  ):
    own = np.stack([job.clusters(name, metric) for name in names])
    # As in the ranks, failed models have the worst number.
    own = np.where(np.isfinite(own), own, np.inf if lower else 0.0)
    given = [rerun[name][metric] for name in names]
    mean = np.array([one.mean for one in given])
    error = np.array([one.error for one in given])
    seeds = own.shape[1]
    drawn = rng.integers(0, seeds, (evidence.RESAMPLES, seeds))
    others = mean + error * rng.normal(size=(len(drawn), len(names)))
    taus = ranking.kendall_tau(own[:, drawn].mean(axis=-1).T, others)
    tau = evidence.bootstrap(ranking.kendall_tau(own.mean(axis=1), mean), taus)
    span = f' [{tau.low:.2f}, {tau.high:.2f}]'
    yield _order(title, own.mean(axis=1), mean, span)
  speed = np.array([job.speed(name) for name in names])
  yield _order('RTE', speed, np.array([rerun[n]['rte'].mean for n in names]))


def _order(
  title: str, ours: np.ndarray, theirs: np.ndarray, span: str = ''
) -> dict[str, Any]:
  """Return the tau of two rankings, tested against methods in random order."""
  found = stats.kendalltau(ours, theirs)
  agreement = UNDECIDED
  if found.pvalue < 0.05:
    agreement = AGREE if found.statistic > 0 else DISAGREE
  return _row(
    'order',
    '',
    title,
    theirs=f'{len(ours)} methods',
    ours=f'tau {found.statistic:.2f}{span}',
    agreement=agreement,
    reason=f'p = {found.pvalue:.3f} for methods in random order',
  )


def _ratios(job: Job, rerun: Rerun) -> Iterable[dict[str, Any]]:
  for method in job.working:
    theirs = rerun.get(method, {}).get('rte')
    if theirs is None or not math.isfinite(theirs.mean):
      continue
    own = job.speed(method)
    ratio = own / theirs.mean
    near = 1 / FACTOR <= ratio <= FACTOR
    yield _row(
      'ratio',
      method,
      'RTE',
      theirs=f'{theirs.mean:.4g}',
      ours=f'{own:.4g} ({ratio:.2f} times)',
      agreement=AGREE if near else DISAGREE,
      reason='' if near else _epochs(job, method),
    )


def _epochs(job: Job, method: str) -> str:
  """Say how many epochs a method takes, of those of training."""
  given = {
    name: float(value)
    for name, value in job.hparams(method).items()
    if name.endswith('num_epochs')
  }
  shown = ', '.join(
    f'{name.removesuffix("num_epochs").replace("_", " ")}{value:g}'
    for name, value in sorted(given.items(), key=lambda one: len(one[0]))
  )
  return (
    f'epochs of this search: {shown} of {job.train_epochs}; those of the '
    're-run are not published'
  )


def _failures(job: Job, rerun: Rerun) -> Iterable[dict[str, Any]]:
  """Compare which methods have no attack, since their models fail or guess."""
  for method in job.unlearners:
    theirs = rerun.get(method, {}).get('indisc_test')
    if theirs is None:
      continue
    both = not math.isfinite(theirs.mean), job.collapsed(method)
    if any(both):
      words = ['fails' if one else 'works' for one in both]
      yield _row(
        'failure',
        method,
        'models',
        theirs=words[0],
        ours=words[1],
        agreement=AGREE if all(both) else DISAGREE,
        reason='',
      )


def share_below(rows: Iterable[Mapping[str, Any]], number: str) -> str:
  """Say in how many signs of a number the re-run is below retraining."""
  own = [r for r in rows if (r['kind'], r['number']) == ('sign', number)]
  below = sum(row['theirs'].endswith('(-)') for row in own)
  return f'{below} of {len(own)}'


def counts(rows: Iterable[Mapping[str, Any]]) -> list[list[str]]:
  """Return how many rows of each kind and number agree, for a table."""
  found: dict[tuple[str, str], dict[str, int]] = {}
  for row in rows:
    key = row['kind'], row['number']
    count = found.setdefault(
      key, dict.fromkeys((AGREE, UNDECIDED, DISAGREE), 0)
    )
    count[row['agreement']] += 1
  return [
    [f'{kind} of {number}', *map(str, count.values())]
    for (kind, number), count in found.items()
  ]


def label(row: Mapping[str, Any]) -> str:
  """Return the label of the method of a row."""
  return results.label(row['method']) if row['method'] else 'all'
