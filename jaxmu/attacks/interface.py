"""What an attack is: a function from scores to numbers, with a card.

An attack is one `Attack` in the file of its algorithm and one line in
`jaxmu.attacks.registry`. Its `report` turns the scores of one population into
estimates; its `Card` says what the attack needs, which question it answers and
what each of its numbers means. Tables, reports and the contract test read the
card, so no other file has to change.

Most attacks give a score to every (model, example) and report its ROC.
`from_score` makes those from the score alone:

    ATTACK = interface.from_score(
      'bounded',
      lambda population, data, options: np.tanh(population.mean / 4),
      interface.Card(
        title='Bounded log-odds',
        subject='one threshold on bounded log-odds',
        source='this example',
      ),
    )

Wherever a name is accepted, a custom attack can be named by its file
(`my_attack.py`), by import path (`my_package.my_attack`) or by an entry point
of the group `jaxmu.attacks`; `jaxmu.testing.check_attack` checks it.
"""

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64

from jaxmu.attacks import intervals, leave_out, roc
from jaxmu.attacks.scores import PopulationScores, Scores
from jaxmu.terms import Term

QUESTIONS = ('forgotten_or_unseen', 'unlearned_or_retrained', 'exposure')
COSTS = ('cheap', 'costly')
POPULATIONS = ('original', 'retrained', 'unlearned')

# What an attack may need: a test whether the scores have it, and its name in
# messages.
NEEDS: Mapping[str, tuple[Callable[[Scores], bool], str]] = {
  'logits': (lambda data: 'entropy' in data.unlearned.signals, "'logits'"),
  'correctness': (
    lambda data: 'correctness' in data.unlearned.signals,
    "'logits'",
  ),
  'retrained': (
    lambda data: data.retrained is not None,
    'scores of retrained models',
  ),
  'population_examples': (
    lambda data: bool(data.unlearned.population_examples.any()),
    'examples of state 3 in every model',
  ),
}

# The rules of the contract test, from which a card may be exempt.
RULES = (
  'null',
  'model_order',
  'example_order',
  'two_classes',
  'constant',
  'non_finite',
  'excluded',
  'failed',
  'repeat',
)

Report = dict[str, intervals.Estimate]


@dataclasses.dataclass(frozen=True)
class Options:
  """Options of the caller.

  Attributes:
    fprs: false-positive rates at which to give the TPR.
    settings: settings of this attack; keys are `Card.settings`.
  """

  fprs: Sequence[float] = roc.FPRS
  settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)


ReportFunction = Callable[[PopulationScores, Scores, Options], Report]
ScoreFunction = Callable[
  [PopulationScores, Scores, Options], Float64[np.ndarray, 'P N']
]
MoreFunction = Callable[
  [Float64[np.ndarray, 'P N'], PopulationScores, Options], Report
]
Terms = Mapping[str, Term | Callable[[float], Term]]


@dataclasses.dataclass(frozen=True)
class Card:
  """Description of an attack.

  Attributes:
    title: short name, for headings.
    subject: the attack as the subject of a sentence; it takes the place of
      '{attack}' in the sentences of `terms`.
    source: where the attack comes from.
    question: what its numbers answer, one of `QUESTIONS`. Numbers of different
      questions are never counted together.
    terms: the meaning of each statistic that `report` may give; by default
      `ROC_TERMS`, for those of a ROC. A statistic with a number in its name has
      a key with empty braces, whose value is a function from the number to the
      term: 'tpr_{}' describes 'tpr_0.01'.
    needs: what the scores must contain, keys of `NEEDS`.
    cost: 'cheap', or 'costly' where the largest populations take minutes.
    populations: the populations that the attack runs on, from `POPULATIONS`.
    settings: names of its settings.
    by_default: whether it runs where no attacks are named.
    exempt: rules of the contract test (`RULES`) that do not apply, each with
      the reason.

  Raises:
    ValueError: a value that is not allowed; the message names those that are.
  """

  title: str
  subject: str
  source: str
  question: str = 'forgotten_or_unseen'
  terms: Terms = dataclasses.field(default_factory=lambda: ROC_TERMS)
  needs: tuple[str, ...] = ()
  cost: str = 'cheap'
  populations: tuple[str, ...] = POPULATIONS
  settings: tuple[str, ...] = ()
  by_default: bool = True
  exempt: Mapping[str, str] = dataclasses.field(default_factory=dict)

  def __post_init__(self) -> None:
    for name, values, allowed in (
      ('question', (self.question,), QUESTIONS),
      ('needs', self.needs, tuple(NEEDS)),
      ('cost', (self.cost,), COSTS),
      ('populations', self.populations, POPULATIONS),
      ('exempt', tuple(self.exempt), RULES),
    ):
      for value in values:
        if value not in allowed:
          raise ValueError(
            f'{name} of the card {self.title!r} has {value!r}; choose from '
            f'{", ".join(map(repr, allowed))}'
          )


@dataclasses.dataclass(frozen=True)
class Attack:
  """One attack.

  Attributes:
    name: lower-case letters, digits and underscores; metrics are named
      `<name>_<statistic>`.
    report: returns the estimates of one population by statistic.
    card: its description.
    score: returns f64[P, N], larger for more member-like and NaN where
      unscored; None for attacks that do not score single entries.
  """

  name: str
  report: ReportFunction
  card: Card
  score: ScoreFunction | None = None

  def lacks(self, data: Scores) -> list[str]:
    """Return the names of the needs that the scores do not meet."""
    needs = (NEEDS[need] for need in self.card.needs)
    return [words for present, words in needs if not present(data)]

  def term(self, statistic: str) -> Term | None:
    """Return the meaning of a statistic, with the attack's name filled in.

    Args:
      statistic: as in `report`, for example 'auc' or 'tpr_0.01'.
    """
    entry = _entry(self.card.terms, statistic)
    if entry is None:
      return None
    return dataclasses.replace(
      entry,
      title=f'{self.card.title}: {entry.title}',
      sentence=entry.sentence.replace('{attack}', self.card.subject),
      source=entry.source or self.card.source,
    )


def _entry(terms: Terms, statistic: str) -> Term | None:
  for key, entry in terms.items():
    if isinstance(entry, Term):
      if key == statistic:
        return entry
      continue
    before, _, after = key.partition('{}')
    number = re.fullmatch(
      rf'{re.escape(before)}(\d+(?:\.\d+)?(?:e-?\d+)?){re.escape(after)}',
      statistic,
    )
    if number:
      return entry(float(number[1]))
  return None


def checked(entry: Any) -> Attack:
  """Check that a plug-in is an attack, and return it.

  Raises:
    ValueError: it is not an `Attack`, or its name cannot be part of the name
      of a metric.
  """
  if not isinstance(entry, Attack):
    raise ValueError(
      f'expected a jaxmu.attacks.interface.Attack, got {type(entry).__name__}'
    )
  if not re.fullmatch(r'[a-z][a-z0-9_]*', entry.name):
    raise ValueError(
      f'its name is {entry.name!r}; use lower-case letters, digits and '
      'underscores'
    )
  return entry


def from_score(
  name: str,
  score: ScoreFunction,
  card: Card,
  *,
  threshold: float | None = None,
  cross_fitted: bool = False,
  more: MoreFunction | None = None,
) -> Attack:
  """Make an attack that reports the ROC of its score.

  Args:
    name: see `Attack`.
    score: see `Attack`.
    card: its terms should be or include `ROC_TERMS`, the default.
    threshold: decision threshold fixed in advance, 0 for likelihood ratios;
      None if the score has none.
    cross_fitted: whether scores of a group are fitted on both kinds of
      observations of the other groups. Intervals are then widened, see
      `intervals.cross_fitted`.
    more: returns further statistics from score, population and options.
  """

  def report(
    population: PopulationScores, data: Scores, options: Options
  ) -> Report:
    value = score(population, data, options)
    numbers = roc.roc_report(
      value,
      population.audited_state,
      population.group,
      fprs=options.fprs,
      threshold=threshold,
    )
    if cross_fitted:
      numbers = {k: intervals.cross_fitted(v) for k, v in numbers.items()}
    return numbers | (more(value, population, options) if more else {})

  return Attack(name, report, card, score)


def _roc_terms(
  confuses: str, positives: str, negatives: str, guess: str
) -> Terms:
  """Describe the numbers of `roc.roc_report` for one pair of hypotheses."""

  def tpr(fpr: float) -> Term:
    percent = f'{100 * fpr:g}%'
    return Term(
      f'TPR at {percent} FPR',
      f'Share of {positives} that {{attack}} detects while it misclassifies at '
      f'most {percent} of {negatives}; guessing detects {percent}.',
      'fraction',
      'lower',
      source='',
    )

  return {
    'auc': Term(
      'AUC',
      f'How often {{attack}} ranks {guess}; guessing gives 0.5, a perfect '
      'attack 1.',
      'fraction',
      'half',
      source='',
    ),
    'balanced_accuracy': Term(
      'balanced accuracy',
      f'How often {{attack}} tells {confuses}, with equal weight for both and '
      'a threshold fixed in advance; guessing gives 0.5.',
      'fraction',
      'half',
      source='',
    ),
    'best_balanced_accuracy': Term(
      'best balanced accuracy',
      'Balanced accuracy of {attack} with the threshold that maximises it, '
      'which exceeds 0.5 even without a leak; compare with the retrained '
      'models.',
      'fraction',
      'retrained',
      source='',
    ),
    'tpr_{}': tpr,
  }


# The numbers of `roc.roc_report`. A source of '' stands for the attack's.
ROC_TERMS: Terms = _roc_terms(
  'forgotten from unseen examples',
  'the forgotten examples',
  'the unseen examples',
  'a forgotten example above an unseen one',
)
AGAINST_RETRAINED_TERMS: Terms = _roc_terms(
  'unlearned from retrained models by forgotten examples',
  'the outputs of unlearned models on forgotten examples',
  'those of retrained models',
  'the output of an unlearned model on a forgotten example above that of a '
  'retrained one',
)


def quantile_term(unit: str) -> Callable[[float], Term]:
  """Return the term under 'quantile_{}' of an attack with this unit."""

  def describe(level: float) -> Term:
    percent = f'{100 * level:g}%'
    return Term(
      f'{percent} quantile',
      f'The value below which {percent} of the examples are, for {{attack}}.',
      unit,
      'retrained',
      source='',
    )

  return describe


def unscored(
  score: Float64[np.ndarray, 'P N'], population: PopulationScores
) -> intervals.Estimate:
  """Count forgotten and never-seen entries without a score, see `UNSCORED`."""
  missing = np.isnan(score) & leave_out.scored(population.audited_state)
  return intervals.point(int(missing.sum()), score.size)


UNSCORED = Term(
  'entries not scored',
  'Pairs of a model and an example that {attack} could not score, because too '
  'few other models forgot or never saw the example.',
  'count',
  'none',
  source='',
)
