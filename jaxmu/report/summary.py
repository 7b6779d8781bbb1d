"""The key results of a run, as sentences computed from its rows.

The sentences answer, in this order: which attacks find more than on retrained
models, is U-LiRA valid, does the original leak, which methods still leak, what
do they cost in accuracy and in time, and what went wrong in the run. Every
sentence gives its numbers.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats

from jaxmu.report import glossary, results

_LEAK = 'ulira_auc'
_CHANCE = 0.5
_DECIMALS = 3
_VALIDATION_LEAK = 0.02  # VA above TA by more than this is suspicious


_REFERENCE, _ORIGINAL = results.REFERENCE, results.ORIGINAL


@dataclasses.dataclass(frozen=True)
class _Table:
  """Rows by (method, metric)."""

  rows: Mapping[tuple[str, str], results.Row]

  def get(self, method: str, metric: str) -> results.Row | None:
    row = self.rows.get((method, metric))
    return None if row is None or math.isnan(row.value) else row

  @property
  def unlearners(self) -> list[str]:
    order = results.ordered(method for method, _ in self.rows)
    return [name for name in order if name not in (_REFERENCE, _ORIGINAL)]

  def of_unlearners(self, metric: str) -> list[results.Row]:
    rows = (self.get(name, metric) for name in self.unlearners)
    return [row for row in rows if row is not None]


def summarise(
  rows: Sequence[results.Row],
  *,
  failed: Mapping[str, tuple[int, int]] | None = None,
) -> list[str]:
  """Return the key results of a run as sentences.

  Args:
    rows: all results of a job, or of attacks on stored scores; numbers that
      are not available are left out.
    failed: method -> (failed members, all members).

  Returns:
    One sentence or two per result, most important first; plain text.
  """
  table = _Table({(row.method, row.metric): row for row in rows})
  parts = (
    verdict(rows),
    _trust(table),
    _original(table),
    _leaks(table),
    _population(table),
    _accuracy(table),
    _speed(table),
    _validation(table),
    _failures(failed or {}),
  )
  return [sentence for part in parts for sentence in part]


def _trust(table: _Table) -> list[str]:
  """Say whether U-LiRA is at chance on retrained models."""
  row = table.get(_REFERENCE, _LEAK)
  if row is None:
    return []
  auc = _with_interval(row)
  if math.isnan(row.low):
    return [
      'On retrained models, which never saw the forgotten examples, '
      f'U-LiRA has AUC {auc}, without an interval: more splits are needed.'
    ]
  if row.low <= _CHANCE <= row.high:
    half = _short((row.high - row.low) / 2)
    return [
      'U-LiRA is calibrated in this run: on retrained models, which never '
      f'saw the forgotten examples, it is at chance with AUC {auc}. Its '
      f'resolution is about ±{half}; smaller differences are not detectable '
      'here.'
    ]
  return [
    f'Read all attack numbers with caution: on retrained models, which never '
    f'saw the forgotten examples, U-LiRA should be at chance, but has AUC '
    f'{auc}, and that interval excludes 0.5.'
  ]


def _original(table: _Table) -> list[str]:
  row = table.get(_ORIGINAL, _LEAK)
  if row is None:
    return []
  sentence = (
    'U-LiRA tells forgotten from unseen examples of the original models '
    f'with AUC {_with_interval(row)}'
  )
  null = table.get(_REFERENCE, _LEAK)
  if null is None or math.isnan(row.low + null.high):
    return [f'{sentence}.']
  excess = table.get(_ORIGINAL, f'excess_{_LEAK}')
  leaks = row.low > null.high
  if excess is not None and not math.isnan(excess.low):
    leaks = excess.low > 0
  if leaks:
    tail = 'more than on retrained models: there is something to unlearn'
  else:
    tail = (
      'which the intervals do not separate from retrained models: this run '
      'shows no leak that unlearning could remove'
    )
  sentences = [f'{sentence}, {tail}.']
  rate = table.get(_ORIGINAL, 'ulira_tpr_0.01')
  if rate is not None:
    sentences[0] += (
      f' At a false-positive rate of 1% it detects {100 * rate.value:.1f}% of '
      'the forgotten examples.'
    )
  return sentences


def _leaks(table: _Table) -> list[str]:
  """Sort the unlearners by whether they can be told from retraining."""
  groups: dict[str, list[results.Row]] = {
    'more': [],
    'same': [],
    'less': [],
  }
  excesses = table.of_unlearners(f'excess_{_LEAK}')
  for row in excesses:
    if math.isnan(row.low):
      continue
    side = 'more' if row.low > 0 else 'less' if row.high < 0 else 'same'
    groups[side].append(row)
  tested = sum(map(len, groups.values()))
  if not tested:
    return []
  sentences = []
  if groups['more']:
    groups['more'].sort(key=lambda row: -row.value)
    sentences.append(
      f'{_of(len(groups["more"]), tested)} still leak'
      f'{"s" * (len(groups["more"]) == 1)}: by AUC above that of the retrained '
      f'models, {_list(groups["more"])}.'
    )
  if groups['same']:
    sentences.append(
      f'{_of(len(groups["same"]), tested)} cannot be told from retraining by '
      f'U-LiRA: {_list(groups["same"])}. A leak below the resolution '
      'of the attack remains possible.' + _broken(table, groups['same'])
    )
  if groups['less']:
    sentences.append(
      f'{_of(len(groups["less"]), tested)} '
      f'{"is" if len(groups["less"]) == 1 else "are"} below the retrained '
      f'models: {_list(groups["less"])}.'
    )
  if tested > 1:
    sentences[-1] += (
      ' (Each method is judged by its own 95% interval, without correction '
      'for the number of methods.)'
    )
  return sentences


def _broken(table: _Table, hidden: Sequence[results.Row]) -> str:
  """Warn that broken models do not leak."""
  untouched = table.get(_ORIGINAL, 'ret_dev')
  if untouched is None:
    return ''
  broken = []
  for row in hidden:
    deviation = table.get(row.method, 'ret_dev')
    if deviation is not None and deviation.value > untouched.value:
      broken.append(row)
  if not broken:
    return ''
  return (
    f' However, the accuracies of {_labels(broken)} are farther from '
    'retraining than those of the original models, and a broken model is hard '
    'to attack.'
  )


def _population(table: _Table) -> list[str]:
  """Compare the population attack with the per-example one on the originals.

  Both are measured by their excess over the retrained models, since forgotten
  and test examples may differ without a leak.
  """
  weak = table.get(_ORIGINAL, 'population_auc')
  strong = table.get(_ORIGINAL, f'excess_{_LEAK}')
  if weak is None or strong is None or math.isnan(weak.gap + strong.low):
    return []
  if weak.gap < strong.low:
    verdict = 'so it understates the leak'
  elif weak.gap > strong.high:
    verdict = 'so it detects more in this run'
  else:
    verdict = 'so the two agree in this run'
  return [
    'The simple population attack, with one threshold on the loss for all '
    f'examples, has AUC {_with_interval(weak)} on the original models. That is '
    f'{_signed(weak.gap)} over retrained, against {_signed(strong.value)} for '
    f'the per-example attack, {verdict}.'
  ]


def _accuracy(table: _Table) -> list[str]:
  rows = sorted(table.of_unlearners('ret_dev'), key=lambda row: row.value)
  if not rows:
    return []
  best, worst = rows[0], rows[-1]
  names = [results.label(row.method) for row in (best, worst)]
  if len(rows) == 1:
    sentence = (
      f'{names[0]} differs from retraining in its accuracies by RetDev '
      f'{_with_interval(best)}'
    )
  else:
    sentence = (
      f'{names[0]} is closest to retraining in its accuracies (RetDev '
      f'{_with_interval(best)}) and {names[1]} is farthest '
      f'({_with_interval(worst)})'
    )
  untouched = table.get(_ORIGINAL, 'ret_dev')
  if untouched is not None:
    worse = [row for row in rows if row.value > untouched.value]
    sentence += f'; the original models have {_short(untouched.value)}'
    if worse:
      sentence += f', closer to retraining than {_labels(worse)}'
  return [f'{sentence}.']


def _speed(table: _Table) -> list[str]:
  rows = sorted(table.of_unlearners('rte'), key=lambda row: -row.value)
  if not rows:
    return []
  fast, slow = rows[0], rows[-1]
  if len(rows) == 1:
    name, speed = results.label(fast.method), _short(fast.value, 'times')
    if fast.value > 1:
      return [f'{name} is faster than retraining: the speed-up is {speed}.']
    return [f'{name} is not faster than retraining: the speed-up is {speed}.']
  sentence = (
    f'Speed-up over retraining ranges from {_short(slow.value, "times")} '
    f'({results.label(slow.method)}) to {_short(fast.value, "times")} '
    f'({results.label(fast.method)})'
  )
  losers = [row for row in rows if row.value < 1]
  if losers:
    sentence += f'; slower than retraining: {_labels(losers)}'
  return [f'{sentence}.']


def _validation(table: _Table) -> list[str]:
  """Name methods whose validation accuracy is implausibly high."""
  null = (
    table.get(_REFERENCE, 'va'),
    table.get(_REFERENCE, 'ta'),
  )
  # The difference in difficulty between validation and test images.
  easier = null[0].value - null[1].value if null[0] and null[1] else 0.0
  suspicious = []
  for method in table.unlearners:
    va, ta = table.get(method, 'va'), table.get(method, 'ta')
    if va is None or ta is None or va.low - ta.high < easier:
      continue
    if va.value - ta.value - easier > _VALIDATION_LEAK:
      suspicious.append(results.label(method))
  if not suspicious:
    return []
  return [
    f'Validation accuracy exceeds test accuracy, more than it does for '
    f'retrained models and by over {_VALIDATION_LEAK}, for '
    f'{_join(suspicious)}: these methods probably trained on the validation '
    'images, which must then not be used to evaluate them.'
  ]


def _failures(failed: Mapping[str, tuple[int, int]]) -> list[str]:
  broken = [
    f'{results.label(method)} ({bad} of {total})'
    for method, (bad, total) in failed.items()
    if bad
  ]
  if not broken:
    return []
  return [
    f'Some models failed with losses or outputs that are not finite: '
    f'{_join(broken)}. This affects all numbers of these methods.'
  ]


@dataclasses.dataclass(frozen=True)
class AttackLine:
  """The main number of an attack on one population.

  Attributes:
    method: the population.
    attack: title of the attack.
    question: the question that it answers, see `glossary.attack_question`.
    row: the number itself.
    excess: paired difference to the retrained models, or NaN.
    low: lower end of the interval of the excess, else of the number.
    high: upper end.
    n: independent groups that the interval rests on.
  """

  method: str
  attack: str
  question: str
  row: results.Row
  excess: float
  low: float
  high: float
  n: int

  @property
  def cells(self) -> tuple[str, ...]:
    """Attack, number, value, retrained, excess and interval as text."""
    term = glossary.describe(self.row.metric)
    return (
      self.attack,
      term.title.split(': ')[-1],
      results.format_value(self.row.value, term.unit),
      results.format_value(self.row.retrained, term.unit),
      results.format_gap(self.excess, term.unit),
      results.format_interval(self.low, self.high, term.unit),
    )

  @property
  def p_value(self) -> float:
    """Two-sided p-value of no leak, from the t-interval; NaN without one.

    No leak means an excess of 0, or an AUC of 0.5 where retrained models are
    missing or are what the attack compares with.
    """
    compared = not math.isnan(self.excess)
    if not compared and not self.row.metric.endswith('_auc'):
      return math.nan
    half = (self.high - self.low) / 2
    if self.n < 2 or not half > 0:
      return math.nan
    value = self.excess if compared else self.row.value - _CHANCE
    error = half / stats.t.ppf(0.975, self.n - 1)
    return float(2 * stats.t.sf(abs(value) / error, self.n - 1))


def attack_lines(rows: Sequence[results.Row]) -> list[AttackLine]:
  """Return the main number of each attack on each unlearned population."""
  table = {(row.method, row.metric): row for row in rows}
  by_attack: dict[tuple[str, str], list[results.Row]] = {}
  for row in rows:
    attack = glossary.attack_of(row.metric)
    baseline = row.method in (_REFERENCE, _ORIGINAL)
    if attack and not baseline and not row.metric.startswith(glossary.EXCESS):
      by_attack.setdefault((row.method, attack), []).append(row)
  lines = []
  for (method, attack), of_attack in by_attack.items():
    named = {row.metric.removeprefix(f'{attack}_'): row for row in of_attack}
    row = next((named[key] for key in _MAIN if key in named), of_attack[0])
    excess = table.get((method, f'{glossary.EXCESS}{row.metric}'))
    shown = row if excess is None or math.isnan(excess.value) else excess
    lines.append(
      AttackLine(
        method=method,
        attack=glossary.attack_title(attack),
        question=glossary.attack_question(attack),
        row=row,
        excess=math.nan if excess is None else excess.value,
        low=shown.low,
        high=shown.high,
        n=shown.n,
      )
    )
  return lines


# The main number of an attack, the first that it has; else its first number.
_MAIN = ('auc', 'exposed', 'forget_score')
_LEVEL = 0.05
_QUESTIONS = {
  'forgotten_or_unseen': 'Forgotten against never-seen examples',
  'unlearned_or_retrained': 'Unlearned against retrained models',
}


def verdict(rows: Sequence[results.Row]) -> list[str]:
  """Say for each question how many attacks exceed retrained models.

  Numbers of different questions are not counted together, and the tests of one
  question are corrected for their number. An attack that compares with
  retrained models itself, or runs without any, is compared with chance.

  Args:
    rows: of attacks; other numbers are ignored.

  Returns:
    A sentence for each question that the attacks answer.
  """
  lines = attack_lines(rows)
  sentences = []
  for question, words in _QUESTIONS.items():
    tested = [
      line
      for line in lines
      if line.question == question and not math.isnan(line.p_value)
    ]
    if tested:
      sentences.append(f'{words}: {_detected(tested)}')
  return sentences + _exposed([x for x in lines if x.question == 'exposure'])


def _exposed(lines: Sequence[AttackLine]) -> list[str]:
  """Give the share of exposed examples beside that of retrained models."""
  sentences = []
  for line in lines:
    if math.isnan(line.row.value):
      continue
    sentence = (
      f'Single examples: {line.row.value:.1%} of the forgotten examples of '
      f'{results.label(line.method)} models are exposed, at a '
      'false-discovery rate of 5%'
    )
    if not math.isnan(line.row.retrained):
      sentence += f'; of retrained models, {line.row.retrained:.1%}'
    sentences.append(f'{sentence}.')
  return sentences


def _detected(lines: Sequence[AttackLine]) -> str:
  from jaxmu.metrics import ranking  # late: it imports jax

  adjusted = ranking.holm(np.array([line.p_value for line in lines]))
  detected = [
    line for line, p in zip(lines, adjusted, strict=True) if p <= _LEVEL
  ]
  parts = []
  for method in dict.fromkeys(line.method for line in lines):
    of_method = [line for line in lines if line.method == method]
    positive = [line for line in detected if line in of_method]
    parts.append(_of_method(method, of_method, positive))
  correction = ''
  if len(lines) > 1:
    correction = f" with Holm's correction for {len(lines)} tests"
  return f'{"; ".join(parts)}. Tested at 5%{correction}.'


# What one attack does and what several do: above, below and neither.
_AGAINST = {
  True: (
    (
      'finds more than on retrained models',
      'find more than on retrained models',
    ),
    (
      'finds less than on retrained models',
      'find less than on retrained models',
    ),
    ('does not differ from retrained models', 'differs from retrained models'),
  ),
  False: (
    ('exceeds chance', 'exceed chance'),
    ('is below chance', 'are below chance'),
    ('does not differ from chance', 'differs from chance'),
  ),
}


def _of_method(
  method: str, lines: Sequence[AttackLine], detected: Sequence[AttackLine]
) -> str:
  *sides, neither = _AGAINST[not math.isnan(lines[0].excess)]
  name = results.label(method)
  parts = []
  for verbs, sign in zip(sides, (1, -1), strict=True):
    some = [line for line in detected if sign * _effect(line) > 0]
    if not some:
      continue
    best = max(some, key=lambda line: abs(_effect(line)))
    if len(lines) == 1:
      parts.append(f'{best.attack} {verbs[0]} ({_size(best)})')
      continue
    most = ': ' if len(some) == 1 else ', most strongly '
    parts.append(
      f'{len(some)} of {len(lines)} attacks {verbs[len(some) > 1]}{most}'
      f'{best.attack} ({_size(best)})'
    )
  if not parts and len(lines) == 1:
    parts = [f'{lines[0].attack} {neither[0]}']
  elif not parts:
    parts = [f'none of {len(lines)} attacks {neither[1]}']
  return f'{name}, {" and ".join(parts)}'


def _size(line: AttackLine) -> str:
  value = f'AUC {_short(line.row.value)}'
  if not math.isnan(line.excess):
    value = f'excess {_signed(line.excess)}'
  interval = results.format_interval(line.low, line.high, '', _DECIMALS)
  return f'{value} {interval}'


def _effect(line: AttackLine) -> float:
  if math.isnan(line.excess):
    return line.row.value - _CHANCE
  return line.excess


def explain_missing(missing: results.Missing) -> list[str]:
  """Say which numbers are not available and why, one sentence per reason."""
  by_reason: dict[str, dict[str, list[str]]] = {}
  for (method, metric), reason in missing.items():
    by_reason.setdefault(reason, {}).setdefault(metric, []).append(method)
  sentences = []
  for reason, metrics in by_reason.items():
    by_methods: dict[tuple[str, ...], list[str]] = {}
    for metric, methods in metrics.items():
      by_methods.setdefault(tuple(methods), []).append(metric)
    for methods, names in by_methods.items():
      titles = [glossary.describe(name).title for name in names]
      sentences.append(
        f'Not available for {_some([results.label(m) for m in methods])}: '
        f'{_some(titles)} ({reason.rstrip(".")}).'
      )
  return sentences


def _some(words: Sequence[str]) -> str:
  if len(words) <= 6:
    return '; '.join(words)
  return f'{"; ".join(words[:5])} and {len(words) - 5} more'


def _with_interval(row: results.Row) -> str:
  unit = glossary.describe(row.metric).unit
  interval = results.format_interval(row.low, row.high, unit, _DECIMALS)
  return f'{_short(row.value, unit)} {interval}'.rstrip()


def _signed(value: float) -> str:
  return results.format_gap(value, '', _DECIMALS)


def _short(value: float, unit: str = '') -> str:
  return results.format_value(value, unit, _DECIMALS)


def _of(count: int, total: int) -> str:
  if total == 1:
    return 'The only method'
  return (
    f'All {total} methods' if count == total else f'{count} of {total} methods'
  )


def _list(rows: Sequence[results.Row]) -> str:
  return _join(
    [f'{results.label(row.method)} ({_signed(row.value)})' for row in rows]
  )


def _labels(rows: Sequence[results.Row]) -> str:
  return _join([results.label(row.method) for row in rows])


def _join(words: Sequence[str]) -> str:
  if len(words) < 2:
    return ''.join(words)
  return f'{", ".join(words[:-1])} and {words[-1]}'
