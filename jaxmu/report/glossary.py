"""The meaning of every number of a report.

The terms are on the cards of metrics and attacks. Names are composed:
`<attack>_<statistic>` is a statistic of an attack ('ulira_auc',
'rmia_tpr_0.01'), `excess_<name>` that number minus the retrained models', and
`rank_<name>` the rank of a method by it.
"""

import dataclasses
import functools
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from jaxmu.terms import Term

if TYPE_CHECKING:
  from jaxmu.attacks.interface import Attack

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

EXCESS = 'excess_'
# Terms of the metrics of plug-ins that this process has loaded.
_plug_ins: dict[str, Term] = {}


def describe(name: str) -> Term:
  """Return the meaning of a number.

  A name without an entry gets a placeholder: a report at the end of hours of
  training must not fail because a sentence is missing. Tests check with
  `missing` that no such name is in use.

  Args:
    name: as in results.csv, for instance 'fa', 'ulira_auc', 'excess_ulira_auc'.

  Example:
    >>> describe('ulira_tpr_0.01').title
    'U-LiRA: TPR at 1% FPR'
  """
  return _lookup(name) or Term(
    title=name.replace('_', ' '),
    sentence='This number has no entry in the glossary.',
    source='',
  )


def missing(names: Iterable[str]) -> list[str]:
  """Return the names without an entry, sorted."""
  return sorted({name for name in names if _lookup(name) is None})


def add(terms: Mapping[str, Term]) -> None:
  """Add the terms of a plug-in, for the reports of this process."""
  _plug_ins.update(terms)


def direction(name: str) -> str:
  """Return which values of a number are better, as text."""
  return DIRECTIONS[describe(name).better]


def symbol(name: str) -> str:
  """Return which values of a number are better, as an arrow."""
  return SYMBOLS[describe(name).better]


def attack_of(name: str) -> str:
  """Return the attack that a number belongs to, '' for other numbers.

  For example 'loss' for 'loss_auc' and 'excess_loss_auc', but '' for the metric
  'population_auc'.
  """
  name = name.removeprefix(EXCESS)
  if name in _metric_terms() or name in _plug_ins:
    return ''
  # The longest match wins: 'ulira_reference' before 'ulira'.
  fitting = [one for one in _attacks() if name.startswith(f'{one}_')]
  return max(fitting, key=len, default='')


def attack_title(attack: str) -> str:
  """Return the title of an attack; unknown names are returned unchanged."""
  return _attacks()[attack].card.title if attack in _attacks() else attack


def attack_question(attack: str) -> str:
  """Return the question that an attack answers, '' for unknown names.

  'forgotten_or_unseen', 'unlearned_or_retrained' or 'exposure'.
  """
  return _attacks()[attack].card.question if attack in _attacks() else ''


def _lookup(name: str) -> Term | None:
  if name in _metric_terms():
    return _metric_terms()[name]
  if name in _plug_ins:
    return _plug_ins[name]
  if name.startswith(EXCESS):
    return _excess(name.removeprefix(EXCESS))
  kind, _, base = name.partition('_')
  if kind in _ranks():
    return _ranked(kind, base)
  attack = attack_of(name)
  if not attack:
    return None
  return _attacks()[attack].term(name.removeprefix(f'{attack}_'))


@functools.cache
def _metric_terms() -> dict[str, Term]:
  """Return the terms of all built-in metrics and of measured numbers."""
  from jaxmu import metrics  # slow to import, not always needed

  cards = [metric.card for metric in metrics.METRICS.values()]
  return {
    name: term
    for card in (*cards, *metrics.MEASURED)
    for name, term in card.terms.items()
  }


@functools.cache
def _ranks() -> Mapping[str, Term]:
  from jaxmu.metrics import ranking

  return ranking.RANKS


def _ranked(kind: str, name: str) -> Term | None:
  base = _lookup(name)
  return base and dataclasses.replace(
    _ranks()[kind],
    title=f'{base.title}: {_ranks()[kind].title}',
    sentence=f'{_ranks()[kind].sentence} The number: {base.sentence}',
  )


def _excess(name: str) -> Term | None:
  base = _lookup(name)
  return base and dataclasses.replace(
    base,
    title=f'{base.title}, excess over retrained',
    sentence=(
      'How much the number exceeds that of the retrained models, compared '
      f'split by split. The number: {base.sentence}'
    ),
    better='zero',
  )


def _attacks() -> 'Mapping[str, Attack]':
  """Return every attack, plug-ins of this process included."""
  from jaxmu.attacks import registry

  return registry.known_attacks()
