"""What every number of a report means, in a sentence for a newcomer.

The words stand on the cards of metrics and attacks. Names compose:
`<attack>_<statistic>` is a statistic of an attack ('ulira_auc',
'rmia_tpr_0.01'), `excess_<name>` that number minus the retrained models', and
`rank_<name>` the place of a method by it.
"""

import dataclasses
import functools
import re
from collections.abc import Iterable, Mapping

from jaxmu.terms import PROJECT, Term

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
_TPR = re.compile(r'tpr[_@](0?\.\d+|\d+(?:\.\d+)?e-\d+)')
_QUANTILE = re.compile(r'quantile[_@](0?\.\d+)')

# Terms of the metrics of plug-ins that this process has loaded.
_plug_ins: dict[str, Term] = {}


@dataclasses.dataclass(frozen=True)
class AttackWords:
  """What the glossary needs of an attack.

  Attributes:
    title: for headings.
    subject: the attack as the subject of a sentence.
    source: where it comes from.
    question: 'forgotten_or_unseen', 'unlearned_or_retrained' or 'exposure'.
    terms: its statistics by name; '{attack}' stands for the subject. Others
      are composed, as 'tpr_0.01' and 'quantile_0.5'.
  """

  title: str
  subject: str
  source: str
  question: str
  terms: Mapping[str, Term]


def describe(name: str) -> Term:
  """Return the meaning of a number.

  A name without an entry gets a bare one instead of an error: a report at the
  end of hours of training must not fail because a sentence is missing. Tests
  use `missing` to see that no such name is in use.

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
  """Return the names that have no entry, sorted; empty when all have one."""
  return sorted({name for name in names if _lookup(name) is None})


def add(terms: Mapping[str, Term]) -> None:
  """Add the terms of a plug-in, for the reports of this process."""
  _plug_ins.update(terms)


def direction(name: str) -> str:
  """Return which values of a number are better, in words."""
  return DIRECTIONS[describe(name).better]


def symbol(name: str) -> str:
  """Return which values of a number are better, as an arrow."""
  return SYMBOLS[describe(name).better]


def attacks() -> tuple[str, ...]:
  """Return the names of all attacks."""
  return tuple(_attacks())


def attack_of(name: str) -> str:
  """Return the attack whose statistic a number is, '' where it is none.

  'loss' for 'loss_auc' and 'excess_loss_auc'. Names of metrics, such as
  'population_auc', are no attack's.
  """
  name = name.removeprefix(EXCESS)
  if name in _metric_terms():
    return ''
  # The longest attack that fits: 'ulira_reference' before 'ulira'.
  fitting = [one for one in _attacks() if name.startswith(f'{one}_')]
  return max(fitting, key=len, default='')


def attack_title(attack: str) -> str:
  """Return the name of an attack for headings; unknown names as they are."""
  return _attacks()[attack].title if attack in _attacks() else attack


def attack_question(attack: str) -> str:
  """Return the question that an attack answers, '' for unknown names."""
  return _attacks()[attack].question if attack in _attacks() else ''


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
  return _statistic(attack, name.removeprefix(f'{attack}_')) if attack else None


@functools.cache
def _metric_terms() -> dict[str, Term]:
  """Return the terms of all built-in metrics and of measured numbers."""
  from jaxmu import metrics  # here: it takes a second, and not all need it

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


def _statistic(attack: str, statistic: str) -> Term | None:
  words = _attacks()[attack]
  term = words.terms.get(statistic) or _rate(statistic) or _quantile(statistic)
  return term and dataclasses.replace(
    term,
    title=f'{words.title}: {term.title}',
    sentence=term.sentence.replace('{attack}', words.subject),
    source=words.source if term.source == PROJECT else term.source,
  )


def _rate(statistic: str) -> Term | None:
  rate = _TPR.fullmatch(statistic)
  if not rate:
    return None
  percent = f'{100 * float(rate[1]):g}%'
  return Term(
    f'TPR at {percent} FPR',
    'Share of the forgotten points that {attack} finds while wrongly accusing '
    f'at most {percent} of the unseen points; guessing finds {percent}.',
    'fraction',
    'lower',
  )


def _quantile(statistic: str) -> Term | None:
  quantile = _QUANTILE.fullmatch(statistic)
  if not quantile:
    return None
  percent = f'{100 * float(quantile[1]):g}%'
  return Term(
    f'{percent} quantile',
    f'The value that {percent} of the points stay below, by {{attack}}.',
    better='retrained',
  )


@functools.cache
def _attacks() -> Mapping[str, AttackWords]:
  """Return the words of every attack.

  The one place that knows where they stand.
  """
  common = {name: Term(*entry) for name, entry in _STATISTICS.items()}
  found = {}
  for name, (title, subject, source) in _ATTACKS.items():
    special = {
      key.removeprefix(f'{name}_'): Term(special_title.split(': ')[-1], *entry)
      for key, (special_title, *entry) in _SPECIAL.items()
      if key.startswith(f'{name}_')
    }
    question = _QUESTIONS.get(name, 'forgotten_or_unseen')
    terms = {**common, **special}
    found[name] = AttackWords(title, subject, source, question, terms)
  return found


_QUESTIONS = {
  'lira_forget': 'unlearned_or_retrained',
  'klom': 'unlearned_or_retrained',
  'competition': 'unlearned_or_retrained',
  'per_example': 'exposure',
}

BENCHMARK = 'Cadet et al. 2024, arXiv 2410.01276'

# key: (title, the attack as the subject of a sentence, source)
_ATTACKS: dict[str, tuple[str, str, str]] = {
  'ulira': (
    'U-LiRA',
    'the per-example attack U-LiRA',
    'Hayes et al. 2024, with log-odds and leave-one-split-out',
  ),
  'ulira_reference': (
    'U-LiRA as released with the benchmark',
    'the released variant of U-LiRA on correctness, fitted in sample,',
    BENCHMARK + ', released code',
  ),
  'lira_online': (
    'LiRA, online',
    'the likelihood-ratio attack LiRA with both hypotheses fitted',
    'Carlini et al. 2022',
  ),
  'lira_offline': (
    'LiRA, offline',
    'the likelihood-ratio attack LiRA with only unseen points fitted',
    'Carlini et al. 2022',
  ),
  'lira_forget': (
    'LiRA-Forget',
    'the attack LiRA-Forget against retrained models',
    'Pawelczyk et al. 2023',
  ),
  'kde': (
    'Kernel density attack',
    'the attack with kernel densities',
    'RULI 2025',
  ),
  'histogram': (
    'Histogram attack',
    'the attack with histograms',
    PROJECT,
  ),
  'klom': (
    'KLoM',
    'the divergence of margins between unlearned and retrained models',
    'Georgiev et al. 2024',
  ),
  'competition': (
    'Competition metric',
    'the metric of the NeurIPS 2023 unlearning competition',
    'Triantafillou et al. 2024',
  ),
  'per_example': (
    'Per-point AUC',
    'the AUC of each point over the models',
    PROJECT,
  ),
  'rmia': (
    'RMIA',
    'the attack RMIA, one-sided,',
    'Zarifzadeh et al. 2024',
  ),
  'population': (
    'Population attack',
    'one threshold on the loss for all points',
    'Yeom et al. 2018',
  ),
  'loss': (
    'Loss attack',
    'one threshold on the loss for all points',
    'Yeom et al. 2018',
  ),
  'confidence': (
    'Confidence attack',
    'one threshold on the confidence in the label',
    'Song & Mittal 2021',
  ),
  'entropy': (
    'Entropy attack',
    'one threshold on the entropy of the prediction',
    'Song & Mittal 2021',
  ),
  'modified_entropy': (
    'Modified entropy attack',
    'one threshold on the modified entropy of the prediction',
    'Song & Mittal 2021',
  ),
  'combined': (
    'Classifier on all signals',
    'a classifier on the loss, entropy and correctness of one model together',
    PROJECT,
  ),
  'correctness': (
    'Correctness attack',
    'calling every correctly classified point forgotten',
    'Yeom et al. 2018',
  ),
}

# key: (title, sentence with {attack} for the attack, unit, direction)
_STATISTICS: dict[str, tuple[str, str, str, str]] = {
  'auc': (
    'AUC',
    'How often {attack} ranks a forgotten point above an unseen one; a coin '
    'gives 0.5, a perfect attack 1.',
    'fraction',
    'half',
  ),
  'accuracy': (
    'accuracy',
    'How often {attack} tells forgotten from unseen points, as many of each; '
    'guessing gives 0.5.',
    'fraction',
    'half',
  ),
  'balanced_accuracy': (
    'balanced accuracy',
    'How often {attack} tells forgotten from unseen points, both counting the '
    'same, with a threshold fixed beforehand; guessing gives 0.5.',
    'fraction',
    'half',
  ),
  'mia': (
    'accuracy of the fitted attack',
    'How often an attacker who fits a threshold to the score tells forgotten '
    'from unseen points; guessing gives 0.5.',
    'fraction',
    'half',
  ),
  'best_balanced_accuracy': (
    'best balanced accuracy',
    'Balanced accuracy of {attack} with the threshold chosen afterwards, which '
    'is too optimistic for the attacker.',
    'fraction',
    'half',
  ),
  'member_rate': (
    'share called members',
    'Share of the forgotten observations that {attack} calls members: a '
    'true-positive rate to which no false-positive rate is known.',
    'fraction',
    'retrained',
  ),
  'share_exposed': (
    'share of exposed points',
    'Share of the points that {attack} tells from unseen ones beyond chance, '
    'corrected for the number of points tried.',
    'fraction',
    'lower',
  ),
  'retain_auc': (
    'AUC on retained points',
    'How often {attack} ranks a retained point above an unseen one; a coin '
    'gives 0.5.',
    'fraction',
    'half',
  ),
  'unscored': (
    'points not scored',
    'Points that {attack} could not score, for want of observations.',
    'count',
    'none',
  ),
  'non_finite': (
    'non-finite outputs',
    'Outputs that were infinite or not a number when {attack} read them.',
    'count',
    'lower',
  ),
}

# Numbers that only one attack has:
# name: (title, sentence, unit, direction that is better, source)
_SPECIAL: dict[str, tuple[str, str, str, str, str]] = {
  'per_example_mean': (
    'Per-point AUC: mean',
    'Mean over the points of the AUC of each, which says how well its own '
    'scores tell models that forgot it from models that never saw it.',
    'fraction',
    'half',
    PROJECT,
  ),
  'per_example_above': (
    'Per-point AUC: share above 0.6',
    'Share of the points with an AUC above 0.6; with few models many are, by '
    'chance alone, so compare with the retrained models.',
    'fraction',
    'retrained',
    PROJECT,
  ),
  'per_example_below': (
    'Per-point AUC: share below 0.4',
    'Share of the points with an AUC below 0.4, pushed further away than an '
    'unseen point; compare with the retrained models.',
    'fraction',
    'retrained',
    PROJECT,
  ),
  'per_example_exposed': (
    'Per-point AUC: share exposed',
    'Share of the points that are still remembered, beyond chance even after '
    'correction for the number of points tested.',
    'fraction',
    'lower',
    'Benjamini & Hochberg 1995',
  ),
  'per_example_over_unlearned': (
    'Per-point AUC: share over-unlearned',
    'Share of the points pushed further away than unseen ones, which exposes '
    'them as well, corrected for the number of points tested.',
    'fraction',
    'lower',
    'Benjamini & Hochberg 1995',
  ),
  'per_example_examples': (
    'Per-point AUC: points tested',
    'Points with enough models of both kinds to be tested.',
    'count',
    'none',
    PROJECT,
  ),
  'klom_mean': (
    'KLoM: mean',
    'How far the margins of unlearned models are from those of retrained '
    'ones, as a Kullback-Leibler divergence per point, mean over points.',
    'nats',
    'lower',
    'Georgiev et al. 2024',
  ),
  'competition_forget_score': (
    'Competition: forgetting score F',
    'Near 1 when no test tells unlearned from retrained models on any point; '
    'taking the best of many thresholds keeps it well below 1 even then, so '
    'compare with retrained against retrained.',
    'fraction',
    'higher',
    'Triantafillou et al. 2024',
  ),
  'competition_relative_score': (
    'Competition: F relative to retrained against retrained',
    'The forgetting score divided by what retrained models get against other '
    'retrained models; 1 is as good as can be measured.',
    'ratio',
    'higher',
    PROJECT,
  ),
  'competition_final_score': (
    'Competition: final score',
    'The forgetting score times the accuracies on retained and on never-seen '
    'points, each relative to retrained models: what ranked the competition.',
    'fraction',
    'higher',
    'Triantafillou et al. 2024',
  ),
  'competition_epsilon': (
    'Competition: median epsilon',
    'Median over the points of epsilon, the largest log-ratio of error rates '
    'that a test reaches; positive even without any difference.',
    'nats',
    'lower',
    'Triantafillou et al. 2024',
  ),
  'competition_lower_bound': (
    'Competition: share of points with a proven epsilon',
    'Share of the points for which thresholds chosen on other models prove an '
    'epsilon above zero.',
    'fraction',
    'lower',
    PROJECT,
  ),
}
