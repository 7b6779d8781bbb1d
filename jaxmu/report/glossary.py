"""The meaning of every number of a report, and the captions of its pictures.

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


# Captions of tables.
OVERVIEW_CAPTION = (
  'Second line: the direction that is better (↑ higher, ↓ lower, →R closer to '
  'the retrained models, →0 or →½ closer to that number). Coloured: the 95% '
  'interval of the paired difference from the retrained models excludes 0.'
)
ATTACKS_CAPTION = (
  'The main number of each attack. Excess: the number minus that of the '
  'retrained models, paired by split. The interval is that of the excess where '
  'there is one, coloured if it excludes 0.'
)
NUMBERS_CAPTION = (
  'One section per number; click on an attack to open its sections. The '
  'retrained models, which are the result of perfect unlearning, come first; '
  'the dashed line in the small pictures is their value. The gap is the value '
  'minus theirs, and n is the number of models, splits or seeds that were '
  'averaged.'
)

# Captions of pictures, by name.
PICTURES = {
  'roc': (
    'True-positive rate of U-LiRA on forgotten examples (vertical) at each '
    'false-positive rate on unseen examples (horizontal), both on logarithmic '
    'axes. The diagonal is guessing; the bands are 95% intervals over '
    'independent groups of models.'
  ),
  'log_odds': (
    'Confidence in the true class, as log-odds, on examples that the models '
    'forgot and on examples that they never saw. The smaller the difference, '
    'the harder the attack.'
  ),
  'accuracy': (
    'Share of images classified correctly: retained (RA), forgotten (FA), '
    'validation (VA) and test (TA), with 95% intervals. Each panel has its own '
    'scale.'
  ),
  'curves': (
    'Accuracy while the models are trained from scratch, on test images and on '
    'training images. The gap between the two measures memorisation.'
  ),
  'front': (
    'Distance from retraining in accuracies (horizontal) and success of an '
    'attack (vertical): both should be small. Filled: no other method is '
    'better in both. The original and the retrained models are shown for '
    'comparison.'
  ),
  'rank': (
    'Mean rank of each method by {metric} over {number}; 1 is best. Methods '
    'under a bar differ by less than the critical difference of the Nemenyi '
    'test.'
  ),
  'search_history': (
    'The {what} of each trial, and the smallest so far, by initialisation. The '
    'lines show {lines}. Failed trials are not drawn.'
  ),
  'search_front': (
    'The objectives of all trials; 0 is best in each. No other trial is as '
    'good as a blue one in all four. The chosen setting has the smallest mean '
    'norm over the judging initialisations; its mark is its trial in the '
    'search.'
  ),
  'search_parallel': (
    'Each line is a trial, across its hyper-parameters from the smallest '
    'searched value (below) to the largest. Where blue lines meet, good trials '
    'agree.'
  ),
  'search_importances': (
    'How much of the variance of the norm each hyper-parameter explains by '
    'itself and together with others, by functional analysis of variance '
    '(Hutter et al. 2014) on the trials that did not fail.'
  ),
  'trade_off': (
    'The error rates that an attacker can reach: false positives and false '
    'negatives; the diagonal is guessing. μ is the distance of two normal '
    'distributions of unit width that are equally hard to distinguish; the '
    'value of the retrained models is due to chance.'
  ),
  'vulnerability': (
    'Each dot is an example. Its coordinates are the AUC with which its score '
    'distinguishes models that were trained on it from models that never saw '
    'it, before unlearning (horizontal) and after (vertical). Exposed, after '
    'unlearning in colour: above one half at a false-discovery rate of 5%, as '
    'in the tables. Where nothing leaks, examples are spread as those of the '
    'retrained models are, and as many are exposed.'
  ),
}


def caption(name: str, **words: object) -> str:
  """Return the caption of a picture.

  Args:
    name: of the picture; 'rank_ret_dev' has the caption 'rank'.
    **words: values of its placeholders.
  """
  text = PICTURES.get(name) or PICTURES[name.partition('_')[0]]
  return text.format(**words)
