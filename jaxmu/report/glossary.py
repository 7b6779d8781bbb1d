"""What every metric means, in a sentence for a reader who is new to it.

Names compose: `<attack>_<statistic>` is a statistic of an attack ('ulira_auc',
'rmia_tpr_0.01') and `excess_<name>` is that number minus the retrained models'.
So the short tables in `terms` and `attack_terms` describe hundreds of names.
"""

import dataclasses
import re
from collections.abc import Iterable

from jaxmu.report import attack_terms, terms

DIRECTIONS = {
  'higher': 'higher is better',
  'lower': 'lower is better',
  'retrained': 'closer to retrained is better',
  'half': 'closer to 0.5 is better',
  'one': 'closer to 1 is better',
  'zero': 'closer to 0 is better',
  'none': 'for information',
}

SYMBOLS = {
  'higher': '↑',
  'lower': '↓',
  'retrained': '→R',
  'half': '→½',
  'one': '→1',
  'zero': '→0',
  'none': '',
}

_TPR = re.compile(r'tpr[_@](0?\.\d+|\d+(?:\.\d+)?e-\d+)')
_QUANTILE = re.compile(r'quantile[_@](0?\.\d+)')


@dataclasses.dataclass(frozen=True)
class Metric:
  """An entry of the glossary.

  Attributes:
    name: the key, as in results.csv.
    title: a few words, for headings.
    sentence: one sentence for a layman, with a full stop.
    unit: 'fraction', 'ratio', 'times', 'seconds', 'count', 'nats' or ''.
    better: a key of `DIRECTIONS`.
    source: where the definition comes from.
  """

  name: str
  title: str
  sentence: str
  unit: str
  better: str
  source: str

  @property
  def direction(self) -> str:
    """Which direction is better, in words."""
    return DIRECTIONS[self.better]


def describe(name: str, attack: str | None = None) -> Metric:
  """Return the entry of a metric.

  A name without an entry gets a bare one instead of an error: a report at the
  end of hours of training must not fail for want of a sentence. Tests use
  `missing` to see that no such name is in use.

  Args:
    name: the metric, e.g. 'fa', 'ulira_auc', 'excess_ulira_auc'.
    attack: the attack, where the metric is a bare statistic such as 'auc'.

  Returns:
    The entry, composed where the name is.
  """
  full = f'{attack}_{name}' if attack else name
  return _lookup(full) or Metric(
    name=full,
    title=full.replace('_', ' '),
    sentence='This metric has no entry in the glossary.',
    unit='',
    better='none',
    source='',
  )


def missing(names: Iterable[str]) -> list[str]:
  """Return the names that have no entry, sorted; empty when all have one."""
  return sorted({name for name in names if _lookup(name) is None})


def _lookup(name: str) -> Metric | None:
  for table in (terms.METRICS, attack_terms.SPECIAL):
    if name in table:
      return Metric(name, *table[name])
  if name.startswith('excess_'):
    return _excess(name)
  for kind in _RANKED:
    if name.startswith(f'{kind}_'):
      return _ranked(name, kind)
  # The longest attack that fits: 'ulira_reference' before 'ulira'.
  for attack in sorted(attack_terms.ATTACKS, key=len, reverse=True):
    if name.startswith(f'{attack}_'):
      return _of_attack(name, attack, name.removeprefix(f'{attack}_'))
  return None


# Kinds of ranks by a number: (what it is, sentence, unit, direction).
_RANKED = {
  'rank': (
    'mean rank',
    'Place among the unlearning methods by this number, 1 the best, as a mean '
    'over initialisations or, where several jobs are ranked, over jobs.',
    '',
    'lower',
  ),
  'group': (
    'group',
    'Group 1 cannot be told from the best method by this number, group 2 not '
    'from the best of the others, group 3 are the rest.',
    '',
    'lower',
  ),
  'first': ('jobs in group 1', 'Jobs with the method in group 1.', 'count'),
  'second': ('jobs in group 2', 'Jobs with the method in group 2.', 'count'),
  'third': ('jobs in group 3', 'Jobs with the method in group 3.', 'count'),
}


def _ranked(name: str, kind: str) -> Metric | None:
  base = _lookup(name.removeprefix(f'{kind}_'))
  if base is None:
    return None
  title, sentence, unit, *better = _RANKED[kind]
  return Metric(
    name=name,
    title=f'{base.title}: {title}',
    sentence=f'{sentence} The number: {base.sentence}',
    unit=unit,
    better=better[0] if better else 'none',
    source=terms.PROJECT,
  )


def _of_attack(name: str, attack: str, statistic: str) -> Metric | None:
  for other in _BESIDE:
    if statistic.startswith(f'{other}_'):
      return _beside(name, attack, other, statistic.removeprefix(f'{other}_'))
  if statistic.startswith('excess_'):
    entry = _excess(f'excess_{attack}_{statistic.removeprefix("excess_")}')
    return entry and dataclasses.replace(entry, name=name)
  return _statistic(name, attack, statistic)


# The same attack on other populations: (title, sentence before the number's).
_BESIDE = {
  'retrained': (
    'retrained models',
    'What chance alone gives: the same number for retrained models, where '
    'there is nothing to find.',
  ),
  'original': (
    'original models',
    'The same number for the models before unlearning.',
  ),
}


def _beside(name: str, attack: str, other: str, base: str) -> Metric | None:
  entry = _lookup(f'{attack}_{base}')
  if entry is None:
    return None
  title, sentence = _BESIDE[other]
  return dataclasses.replace(
    entry,
    name=name,
    title=f'{entry.title}, {title}',
    sentence=f'{sentence} The number: {entry.sentence}',
    better='none',
  )


def _excess(name: str) -> Metric | None:
  base = _lookup(name.removeprefix('excess_'))
  if base is None:
    return None
  return Metric(
    name=name,
    title=f'{base.title}, excess over retrained',
    sentence=(
      'How much the number exceeds that of the retrained models, compared '
      f'split by split. The number: {base.sentence}'
    ),
    unit=base.unit,
    better='zero',
    source=base.source,
  )


def _statistic(name: str, attack: str, statistic: str) -> Metric | None:
  attack_title, what, source = attack_terms.ATTACKS[attack]
  rate = _TPR.fullmatch(statistic)
  if rate:
    percent = f'{100 * float(rate[1]):g}%'
    return Metric(
      name=name,
      title=f'{attack_title}: TPR at {percent} FPR',
      sentence=(
        f'Share of the forgotten points that {what} finds while wrongly '
        f'accusing at most {percent} of the unseen points; guessing finds '
        f'{percent}.'
      ),
      unit='fraction',
      better='lower',
      source=source,
    )
  quantile = _QUANTILE.fullmatch(statistic)
  if quantile:
    return _quantile(name, attack, 100 * float(quantile[1]))
  if statistic not in attack_terms.STATISTICS:
    return None
  title, sentence, unit, better = attack_terms.STATISTICS[statistic]
  return Metric(
    name=name,
    title=f'{attack_title}: {title}',
    sentence=sentence.format(what=what),
    unit=unit,
    better=better,
    source=source,
  )


def _quantile(name: str, attack: str, percent: float) -> Metric:
  title, what, source = attack_terms.ATTACKS[attack]
  return Metric(
    name=name,
    title=f'{title}: {percent:g}% quantile',
    sentence=(
      f'The value that {percent:g}% of the points stay below, by {what}.'
    ),
    unit='',
    better='retrained',
    source=source,
  )


def attack_title(attack: str) -> str:
  """Return the name of an attack for headings; unknown keys as they are."""
  return (
    attack_terms.ATTACKS[attack][0]
    if attack in attack_terms.ATTACKS
    else attack
  )
