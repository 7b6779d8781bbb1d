"""What a run found, in sentences computed from its rows.

The order is that in which an auditor asks: can the attack be trusted, does the
original leak, which methods still leak, what do they cost in accuracy and in
time, and what is wrong with the run. Every sentence carries its numbers.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence

from jaxmu.report import glossary
from jaxmu.report import results as results_lib

_LEAK = 'ulira_auc'
_CHANCE = 0.5
_DECIMALS = 3
_VALIDATION_LEAK = 0.02  # VA above TA by more than this is suspicious


@dataclasses.dataclass(frozen=True)
class _Results:
  """Rows by (method, metric), and who is who."""

  rows: Mapping[tuple[str, str], results_lib.Row]
  reference: str
  original: str

  def get(self, method: str, metric: str) -> results_lib.Row | None:
    row = self.rows.get((method, metric))
    return None if row is None or math.isnan(row.value) else row

  @property
  def unlearners(self) -> list[str]:
    order = results_lib.ordered(method for method, _ in self.rows)
    return [
      name for name in order if name not in (self.reference, self.original)
    ]

  def of_unlearners(self, metric: str) -> list[results_lib.Row]:
    found = (self.get(name, metric) for name in self.unlearners)
    return [row for row in found if row is not None]


def summarise(
  rows: Sequence[results_lib.Row],
  *,
  reference: str = results_lib.REFERENCE,
  original: str = results_lib.ORIGINAL,
  failed: Mapping[str, tuple[int, int]] | None = None,
) -> list[str]:
  """Return the key findings of a run as sentences.

  Args:
    rows: all results; what is missing is passed over in silence.
    reference: key of the retrained models.
    original: key of the original models.
    failed: method -> (failed members, all members).

  Returns:
    One sentence or two per finding, most important first; plain text.
  """
  table = {(row.method, row.metric): row for row in rows}
  results = _Results(table, reference, original)
  parts = (
    _trust(results),
    _original(results),
    _leaks(results),
    _population(results),
    _accuracy(results),
    _speed(results),
    _validation(results),
    _failures(failed or {}),
  )
  return [sentence for part in parts for sentence in part]


def _trust(results: _Results) -> list[str]:
  """Is the attack at chance where there is nothing to find?"""
  row = results.get(results.reference, _LEAK)
  if row is None:
    return []
  auc = _with_interval(row)
  if math.isnan(row.low):
    return [
      f'On retrained models, which never saw the forgotten points, the attack '
      f'has AUC {auc}, without an interval: more splits are needed to judge it.'
    ]
  if row.low <= _CHANCE <= row.high:
    half = _short((row.high - row.low) / 2)
    return [
      f'The attack passes its own check: on retrained models, which never saw '
      f'the forgotten points, it is at chance with AUC {auc}. Its resolution '
      f'is about ±{half}; smaller differences cannot be seen in this run.'
    ]
  return [
    f'Read all attack numbers with caution: on retrained models, which never '
    f'saw the forgotten points, the attack should be at chance, but has AUC '
    f'{auc}, and that interval excludes 0.5.'
  ]


def _original(results: _Results) -> list[str]:
  row = results.get(results.original, _LEAK)
  if row is None:
    return []
  sentence = (
    'The attack tells forgotten from unseen points of the original models '
    f'with AUC {_with_interval(row)}'
  )
  null = results.get(results.reference, _LEAK)
  if null is None or math.isnan(row.low + null.high):
    return [f'{sentence}.']
  excess = results.get(results.original, f'excess_{_LEAK}')
  if row.low > null.high or (excess is not None and excess.low > 0):
    tail = 'more than on retrained models: there is something to unlearn'
  else:
    tail = (
      'which the intervals do not separate from retrained models: this run '
      'shows no leak that unlearning could remove'
    )
  sentences = [f'{sentence}, {tail}.']
  rate = results.get(results.original, 'ulira_tpr_0.01')
  if rate is not None:
    sentences[0] += (
      f' Wrongly accusing 1% of the unseen points, it finds '
      f'{100 * rate.value:.1f}% of the forgotten ones.'
    )
  return sentences


def _leaks(results: _Results) -> list[str]:
  """Sort the unlearners by whether they can be told from retraining."""
  groups: dict[str, list[results_lib.Row]] = {
    'more': [],
    'same': [],
    'less': [],
  }
  excesses = results.of_unlearners(f'excess_{_LEAK}')
  for row in excesses:
    if math.isnan(row.low):
      continue
    side = 'more' if row.low > 0 else 'less' if row.high < 0 else 'same'
    groups[side].append(row)
  judged = sum(map(len, groups.values()))
  if not judged:
    return []
  sentences = []
  if groups['more']:
    groups['more'].sort(key=lambda row: -row.value)
    sentences.append(
      f'{_of(len(groups["more"]), judged)} still leak'
      f'{"s" * (len(groups["more"]) == 1)}: by AUC above that of the retrained '
      f'models, {_list(groups["more"])}.'
    )
  if groups['same']:
    sentences.append(
      f'{_of(len(groups["same"]), judged)} cannot be told from retraining by '
      f'this attack: {_list(groups["same"])}. That is the absence '
      'of evidence at this resolution, not a proof.'
      + _broken(results, groups['same'])
    )
  if groups['less']:
    sentences.append(
      f'{_of(len(groups["less"]), judged)} lie'
      f'{"s" * (len(groups["less"]) == 1)} below the retrained models: '
      f'{_list(groups["less"])}.'
    )
  if judged > 1:
    sentences[-1] += (
      ' (Each by its own 95% interval, without correction for their number.)'
    )
  return sentences


def _broken(results: _Results, hidden: Sequence[results_lib.Row]) -> str:
  """Warn that a model that knows nothing has nothing to leak."""
  untouched = results.get(results.original, 'ret_dev')
  if untouched is None:
    return ''
  broken = []
  for row in hidden:
    deviation = results.get(row.method, 'ret_dev')
    if deviation is not None and deviation.value > untouched.value:
      broken.append(row)
  if not broken:
    return ''
  return (
    f' But the accuracies of {_labels(broken)} are farther from retraining '
    'than if nothing had been done, and a broken model is hard to attack.'
  )


def _population(results: _Results) -> list[str]:
  """Compare the weak attack with the strong one, on the original.

  Both by their excess over the retrained models: forgotten and test points may
  differ without any leak.
  """
  weak = results.get(results.original, 'population_auc')
  strong = results.get(results.original, f'excess_{_LEAK}')
  if weak is None or strong is None or math.isnan(weak.gap + strong.low):
    return []
  if weak.gap < strong.low:
    verdict = 'so it understates the leak'
  elif weak.gap > strong.high:
    verdict = 'so here it finds more'
  else:
    verdict = 'so the two agree in this run'
  return [
    'The simple population attack, with one threshold on the loss for all '
    f'points, has AUC {_with_interval(weak)} on the original models. That is '
    f'{_signed(weak.gap)} over retrained, against {_signed(strong.value)} for '
    f'the per-example attack, {verdict}.'
  ]


def _accuracy(results: _Results) -> list[str]:
  rows = sorted(results.of_unlearners('ret_dev'), key=lambda row: row.value)
  if not rows:
    return []
  best, worst = rows[0], rows[-1]
  sentence = (
    f'In accuracies {results_lib.label(best.method)} is closest to retraining '
    f'(RetDev {_with_interval(best)})'
  )
  if len(rows) == 1:
    sentence = (
      f'{results_lib.label(best.method)} differs from retraining in its accuracies '
      f'by RetDev {_with_interval(best)}'
    )
  else:
    sentence += f' and {results_lib.label(worst.method)} farthest ({_with_interval(worst)})'
  untouched = results.get(results.original, 'ret_dev')
  if untouched is not None:
    worse = [row for row in rows if row.value > untouched.value]
    sentence += f'; doing nothing has {_short(untouched.value)}'
    if worse:
      sentence += f', which is better than {_labels(worse)}'
  return [f'{sentence}.']


def _speed(results: _Results) -> list[str]:
  rows = sorted(results.of_unlearners('rte'), key=lambda row: -row.value)
  if not rows:
    return []
  fast, slow = rows[0], rows[-1]
  if len(rows) == 1:
    speed = _short(fast.value, 'times')
    return [
      f'{results_lib.label(fast.method)} needs less time than retraining by a factor '
      f'of {speed}.'
      if fast.value > 1
      else f'{results_lib.label(fast.method)} is no faster than retraining: {speed}.'
    ]
  sentence = (
    f'Speed-up over retraining goes from {_short(slow.value, "times")} '
    f'({results_lib.label(slow.method)}) to {_short(fast.value, "times")} '
    f'({results_lib.label(fast.method)})'
  )
  losers = [row for row in rows if row.value < 1]
  if losers:
    sentence += f'; slower than retraining: {_labels(losers)}'
  return [f'{sentence}.']


def _validation(results: _Results) -> list[str]:
  """Flag methods whose validation accuracy is too good to be true."""
  null = (
    results.get(results.reference, 'va'),
    results.get(results.reference, 'ta'),
  )
  # How much easier the validation images are, which no method is to blame for.
  easier = null[0].value - null[1].value if null[0] and null[1] else 0.0
  suspicious = []
  for method in results.unlearners:
    va, ta = results.get(method, 'va'), results.get(method, 'ta')
    if va is None or ta is None or va.low - ta.high < easier:
      continue
    if va.value - ta.value - easier > _VALIDATION_LEAK:
      suspicious.append(results_lib.label(method))
  if not suspicious:
    return []
  return [
    f'Validation accuracy exceeds test accuracy, more than it does for '
    f'retrained models and by over {_VALIDATION_LEAK}, for '
    f'{_join(suspicious)}: probably the validation images were trained on and '
    'must not be used to judge them.'
  ]


def _failures(failed: Mapping[str, tuple[int, int]]) -> list[str]:
  broken = [
    f'{results_lib.label(method)} ({bad} of {total})'
    for method, (bad, total) in failed.items()
    if bad
  ]
  if not broken:
    return []
  return [
    f'Some models failed with losses or outputs that are not finite: '
    f'{_join(broken)}. Read the rows of these methods with that in mind.'
  ]


def summarise_attacks(rows: Sequence[results_lib.AttackRow]) -> list[str]:
  """Return the key findings of attacks on stored scores, as sentences.

  Args:
    rows: results of `jaxmu.attack`.

  Returns:
    The strongest attack, those at chance, and what was refused.
  """
  aucs = [row for row in rows if row.metric == 'auc']
  known = [row for row in aucs if not math.isnan(row.value + row.low)]
  above = sorted(
    (row for row in known if row.low > _CHANCE), key=lambda row: -row.value
  )
  sentences = []
  if above:
    best = above[0]
    sentences.append(
      f'{_of(len(above), len(known), "attack")} tell'
      f'{"s" * (len(above) == 1)} forgotten from unseen points. The strongest '
      f'is {glossary.attack_title(best.attack)} with AUC '
      f'{_with_interval(best)}.'
    )
  elif known:
    sentences.append(
      f'No attack of {len(known)} tells forgotten from unseen points: no AUC '
      'has an interval above 0.5.'
    )
  below = [row for row in known if row.high < _CHANCE]
  if below:
    listed = _join([glossary.attack_title(row.attack) for row in below])
    sentences.append(
      f'Below chance: {listed}. Forgotten points then look less like members '
      'than unseen ones, which reveals them as well.'
    )
  refused = [row for row in rows if math.isnan(row.value)]
  if refused:
    sentences.append(
      f'{len(refused)} of {len(rows)} numbers could not be computed and are '
      'shown as n/a.'
    )
  return sentences


def _with_interval(row: results_lib.Row | results_lib.AttackRow) -> str:
  unit = glossary.describe(row.metric).unit
  interval = results_lib.format_interval(row.low, row.high, unit, _DECIMALS)
  return f'{_short(row.value, unit)} {interval}'.rstrip()


def _signed(value: float) -> str:
  return results_lib.format_gap(value, '', _DECIMALS)


def _short(value: float, unit: str = '') -> str:
  return results_lib.format_value(value, unit, _DECIMALS)


def _of(count: int, total: int, noun: str = 'method') -> str:
  if total == 1:
    return f'The one {noun}'
  return f'{"All" if count == total else count} of {total} {noun}s'.replace(
    'All of', 'All'
  )


def _list(rows: Sequence[results_lib.Row]) -> str:
  return _join(
    [f'{results_lib.label(row.method)} ({_signed(row.value)})' for row in rows]
  )


def _labels(rows: Sequence[results_lib.Row]) -> str:
  return _join([results_lib.label(row.method) for row in rows])


def _join(words: Sequence[str]) -> str:
  if len(words) < 2:
    return ''.join(words)
  return f'{", ".join(words[:-1])} and {words[-1]}'
