"""Published numbers by name, and when another run has reproduced one.

The name of a number is that of its folder followed by

  table        METHOD/NUMBER   default_job/retrained/ulira_auc
  search       METHOD/NUMBER   norm_chosen, norm_default or norm_original
  replicates   NUMBER          the mean over the seeds
               NUMBER/coverage share of the seeds whose interval has chance
               NUMBER/SEED     one seed
  computed     METHOD/NUMBER   as in its results.csv; of claims the cell and
                               claim_N, claim_N/p_if_false, claim_N/p_if_true
                               or another number of the claim
"""

import dataclasses
import difflib
import enum
import fnmatch
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxmu import terms
from jaxmu.attacks import intervals
from jaxmu.published.record import Published
from jaxmu.report import html, results

# Names of populations in the names of numbers, where they differ.
_SHOWN = {results.REFERENCE: 'retrained'}
COVERAGE = 'coverage'
CHANCE = 0.5
ROUNDING = 1e-6  # relative to numbers beyond 1
OF_SCORES = 1e-3  # what rounding log-odds changes in a number
RUN_TIME = 2.0  # factor between run times on one kind of hardware
_NEAREST = 3

# Numbers that follow from the configuration alone.
EXACT = ('rte_counted',)
# Packages that change no bit of a number.
_IDLE = ('python', 'orbax-checkpoint')
# Numbers that need all methods of the job.
_OF_ALL = ('rank_', 'group_')


@dataclasses.dataclass(frozen=True, eq=False)
class Row:
  """A published number.

  Attributes:
    name: its name.
    of: the folder.
    method: the population, as in results.csv; of replicates the seed, '' for
      all of them.
    metric: the number.
    value: the number; NaN where it was not available.
    low: lower end of its 95% interval, or NaN.
    high: upper end of it, or NaN.
  """

  name: str
  of: Published
  method: str
  metric: str
  value: float
  low: float = math.nan
  high: float = math.nan

  @property
  def verdict(self) -> str:
    """What follows from a computed number, as 'holds'; '' if nothing does."""
    verdicts = self.of.record.get('verdicts', {})
    return verdicts.get(f'{self.method}/{self.metric}', '')

  @property
  def is_run_time(self) -> bool:
    """Whether it depends on the speed of the machine."""
    return self.of.kind == 'table' and self.metric in html.CLOCKED

  @property
  def needs_all(self) -> bool:
    """Whether it depends on all methods of the job."""
    return self.of.kind == 'table' and self.metric.startswith(_OF_ALL)


def rows(one: Published) -> list[Row]:
  """Return the numbers of a folder.

  Raises:
    ValueError: a file is damaged.
  """
  make = {
    'table': _of_table,
    'search': _of_search,
    'replicates': _of_replicates,
    'computed': _of_table,
  }
  return make[one.kind](one)


def _of_table(one: Published) -> list[Row]:
  return [
    Row(
      f'{one.name}/{_SHOWN.get(r.method, r.method)}/{r.metric}',
      *(one, r.method, r.metric, r.value, r.low, r.high),
    )
    for r in one.numbers
  ]


def _of_search(one: Published) -> list[Row]:
  return [
    Row(f'{one.name}/{method}/{name}', one, method, name, value)
    for method, content in one.chosen.items()
    for name, value in search_numbers(content['norms']).items()
  ]


def search_numbers(norms: Mapping[str, float]) -> dict[str, float]:
  """Return the norms of a search under the names of published numbers.

  Example:
    >>> search_numbers({'chosen': 0.1, 'default': 0.2})
    {'norm_chosen': 0.1, 'norm_default': 0.2}
  """
  return {f'norm_{name}': float(value) for name, value in norms.items()}


def _of_replicates(one: Published) -> list[Row]:
  found = []
  by_metric: dict[str, list[results.Row]] = {}
  for row in one.numbers:
    by_metric.setdefault(row.metric, []).append(row)
  for metric, several in by_metric.items():
    place = f'{one.name}/{metric}'
    found += [
      Row(name, one, '', metric + ending, *numbers)
      for name, ending, numbers in (
        (place, '', mean(several)),
        (f'{place}/{COVERAGE}', f'/{COVERAGE}', coverage(several)),
      )
    ]
    found += [
      Row(f'{place}/{r.method}', one, r.method, metric, r.value, r.low, r.high)
      for r in several
    ]
  return found


def mean(several: Sequence[results.Row]) -> tuple[float, float, float]:
  """Return the mean of one number over seeds, and its 95% t-interval."""
  one = intervals.over_splits(np.array([row.value for row in several]))
  return one.value, one.low, one.high


def coverage(several: Sequence[results.Row]) -> tuple[float, float, float]:
  """Return the share of seeds whose interval has chance, with its interval.

  The interval is the exact one of Clopper and Pearson; NaN without intervals.
  """
  given = [row for row in several if math.isfinite(row.low + row.high)]
  if not given:
    return math.nan, math.nan, math.nan
  inside = sum(row.low <= CHANCE <= row.high for row in given)
  low, high = intervals.clopper_pearson(inside, len(given))
  return inside / len(given), low, high


def every(found: Iterable[Published]) -> dict[str, Row]:
  """Return the numbers of folders by name.

  Raises:
    ValueError: two have the same name.
  """
  by_name: dict[str, Row] = {}
  for one in found:
    for row in rows(one):
      if row.name in by_name:
        raise ValueError(f'{one.folder} has the number {row.name!r} twice')
      by_name[row.name] = row
  return by_name


def matches(name: str, pattern: str) -> bool:
  """Return whether a name is, begins with, or matches a pattern.

  Example:
    >>> matches('a/ft/fa', 'a'), matches('a/ft/fa', 'a/*/fa')
    (True, True)
    >>> matches('ab/ft/fa', 'a')
    False
  """
  pattern = pattern.rstrip('/')
  return name.startswith(f'{pattern}/') or fnmatch.fnmatchcase(name, pattern)


def choose(known: Mapping[str, Row], patterns: Sequence[str]) -> list[Row]:
  """Return the numbers that patterns name, each once, in their own order.

  Args:
    known: all numbers by name.
    patterns: names, beginnings of names up to a '/', or patterns with `*`, `?`
      and `[...]`.

  Raises:
    ValueError: a pattern names none; the message has the nearest names.
  """
  for pattern in patterns:
    if not any(matches(name, pattern) for name in known):
      raise ValueError(
        f'no published number {pattern!r}; {nearest(pattern, known)}'
        'python -m jaxmu.reproduce --list has all'
      )
  return [
    row
    for name, row in known.items()
    if any(matches(name, pattern) for pattern in patterns)
  ]


def nearest(pattern: str, names: Iterable[str]) -> str:
  """Return 'did you mean A, B or C? ' for the names nearest to a wrong one.

  The beginnings of names up to a '/' count as names.
  """
  known = {
    '/'.join(parts[:n])
    for parts in (name.split('/') for name in names)
    for n in range(1, len(parts) + 1)
  }
  close = difflib.get_close_matches(pattern, sorted(known), n=_NEAREST)
  if not close:
    return terms.nearest(pattern, known)
  *first, last = map(repr, close)
  listed = f'{", ".join(first)} or {last}' if first else last
  return f'did you mean {listed}? '


def environment_differences(
  one: Published, now: Mapping[str, Any]
) -> list[str]:
  """Say in what the software and hardware of two runs differ.

  Args:
    one: the published results.
    now: `versions`, `hardware` and `compiler` of the other run, as in the
      record.

  Returns:
    What differs, as 'jax 0.10.2 (published: 0.10.1)'. If it is empty, the same
    configuration gives the same bits.
  """
  kept = {
    'versions': lambda name: name not in _IDLE,
    'hardware': lambda name: name in ('backend', 'device', 'processor'),
    'compiler': lambda name: True,
  }
  found = []
  for section, counts in kept.items():
    theirs, ours = one.record.get(section, {}), now.get(section, {})
    for name in filter(counts, dict.fromkeys([*theirs, *ours])):
      if theirs.get(name) != ours.get(name):
        found.append(f'{name} {ours.get(name)} (published: {theirs.get(name)})')
  return found


class Outcome(enum.Enum):
  """What a comparison gives."""

  PASS = 'pass'
  FAIL = 'FAIL'
  OPEN = 'not judged'


@dataclasses.dataclass(frozen=True, eq=False)
class Verdict:
  """A published number beside that of another run.

  Attributes:
    row: the published number.
    found: that of the other run.
    tolerance: how far they may be apart; NaN where they are not judged.
    outcome: the result.
    note: why it is not judged, or has this tolerance.
  """

  row: Row
  found: float
  tolerance: float
  outcome: Outcome
  note: str


def tolerance(
  row: Row, *, same: bool, scores: bool = False
) -> tuple[float, str]:
  """Return how far another run may be from a published number, and why.

  - Where versions, kind of hardware and settings of the compiler are the
    published ones, the same configuration gives the same bits. The tolerance
    is the rounding of the number in its file: 1e-6, relative to numbers beyond
    1. The same holds for numbers that are counted, not measured.
  - Otherwise products round differently. A difference in the last bit grows
    during training until the models differ as those of another seed do, while
    the data, splits and initial weights stay the same. The tolerance is half
    the width of the published 95% interval. If the two runs were independent,
    one number in six would be outside; they share most of what makes numbers
    vary, so that far fewer are.
  - Numbers from published scores differ by the rounding of the scores: at most
    1e-3, or what it was when they were published.
  - Run times are never judged, and neither are numbers of another environment
    that have no interval (ranks, norms of a search): there is no measure of
    how far apart they may be.

  Args:
    row: the number.
    same: whether the environment is the published one.
    scores: whether it is computed from published scores.

  Returns:
    The tolerance, NaN for none, and its reason.
  """
  rounding = ROUNDING * max(1.0, abs(row.value))
  if row.is_run_time:
    return math.nan, 'a run time'
  if scores:
    known = row.of.record.get('scores', {}).get('rounding', {})
    return max(OF_SCORES, known.get(row.metric, 0.0)), 'rounded scores'
  if same or row.metric in EXACT or row.of.kind == 'computed':
    return rounding, 'rounding'
  half = (row.high - row.low) / 2
  if math.isnan(half):
    return math.nan, 'no interval'
  return max(half, rounding), 'half its interval'


def judge(
  row: Row, found: float, *, same: bool, scores: bool = False
) -> Verdict:
  """Compare a published number with that of another run; see `tolerance`."""
  allowed, why = tolerance(row, same=same, scores=scores)
  if row.is_run_time:
    return Verdict(row, found, allowed, Outcome.OPEN, _times(row, found))
  if math.isnan(row.value) or math.isnan(found):
    both = math.isnan(row.value) and math.isnan(found)
    why = 'not available in both' if both else 'not available in one'
    outcome = Outcome.PASS if both else Outcome.FAIL
    return Verdict(row, found, math.nan, outcome, why)
  if math.isnan(allowed):
    return Verdict(row, found, allowed, Outcome.OPEN, why)
  finite = math.isfinite(row.value) and math.isfinite(found)
  near = row.value == found or finite and abs(row.value - found) <= allowed
  outcome = Outcome.PASS if near else Outcome.FAIL
  return Verdict(row, found, allowed, outcome, why)


def _times(row: Row, found: float) -> str:
  ratio = found / row.value if row.value else math.nan
  if not ratio > 0:
    return 'a run time'
  usual = 1 / RUN_TIME <= ratio <= RUN_TIME
  more = '' if usual else f', beyond the usual factor of {RUN_TIME:g}'
  return f'a run time, x{ratio:.2f}{more}'
