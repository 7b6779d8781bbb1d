"""What every metric means, in a sentence for a reader who is new to it.

Names compose: `<attack>_<statistic>` is a statistic of an attack ('ulira_auc',
'rmia_tpr_0.01') and `excess_<name>` is that number minus the retrained models'.
So the short tables in `terms` and `attack_terms` describe hundreds of names.

The words of the glossary for metrics of models; see `attack_terms` too.

The words of the glossary for attacks and their numbers.
"""

import dataclasses
import re
from collections.abc import Iterable

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
  for table in (METRICS, SPECIAL):
    if name in table:
      return Metric(name, *table[name])
  if name.startswith('excess_'):
    return _excess(name)
  for kind in _RANKED:
    if name.startswith(f'{kind}_'):
      return _ranked(name, kind)
  # The longest attack that fits: 'ulira_reference' before 'ulira'.
  for attack in sorted(ATTACKS, key=len, reverse=True):
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
    source=PROJECT,
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
  attack_title, what, source = ATTACKS[attack]
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
  if statistic not in STATISTICS:
    return None
  title, sentence, unit, better = STATISTICS[statistic]
  return Metric(
    name=name,
    title=f'{attack_title}: {title}',
    sentence=sentence.format(what=what),
    unit=unit,
    better=better,
    source=source,
  )


def _quantile(name: str, attack: str, percent: float) -> Metric:
  title, what, source = ATTACKS[attack]
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
  return ATTACKS[attack][0] if attack in ATTACKS else attack


BENCHMARK = 'Cadet et al. 2024, arXiv 2410.01276'
PROJECT = 'this project'

# name: (title, sentence, unit, direction that is better, source)
METRICS: dict[str, tuple[str, str, str, str, str]] = {
  'ra': (
    'Retain accuracy (RA)',
    'Share of the training images to be kept that the model gets right.',
    'fraction',
    'retrained',
    BENCHMARK,
  ),
  'fa': (
    'Forget accuracy (FA)',
    'Share of the images to be forgotten that the model gets right; a model '
    'that never saw them gets them right about as often as test images.',
    'fraction',
    'retrained',
    BENCHMARK,
  ),
  'va': (
    'Validation accuracy (VA)',
    'Share of the validation images, on which no model was trained, that the '
    'model gets right.',
    'fraction',
    'retrained',
    BENCHMARK,
  ),
  'ta': (
    'Test accuracy (TA)',
    'Share of the test images, which nothing but this number ever used, that '
    'the model gets right.',
    'fraction',
    'retrained',
    BENCHMARK,
  ),
  'rr': (
    'Retain retention (RR)',
    'Retain accuracy divided by that of the retrained model.',
    'ratio',
    'one',
    BENCHMARK,
  ),
  'fr': (
    'Forget retention (FR)',
    'Forget accuracy divided by that of the retrained model.',
    'ratio',
    'one',
    BENCHMARK,
  ),
  'tr': (
    'Test retention (TR)',
    'Test accuracy divided by that of the retrained model.',
    'ratio',
    'one',
    BENCHMARK,
  ),
  'ret_dev': (
    'Retention deviation (RetDev)',
    'Sum of the relative distances of retain, forget and test accuracy from '
    'those of the retrained model of the same seed; 0 means equal accuracies.',
    '',
    'lower',
    BENCHMARK + ' (|RR-1| + |FR-1| + |TR-1|, paired by seed)',
  ),
  'ret_dev_means': (
    'Retention deviation of the means',
    'Retention deviation computed from accuracies averaged over seeds first, '
    'as some tables report it; never larger than the paired one by much.',
    '',
    'lower',
    BENCHMARK,
  ),
  'tow': (
    'Tug-of-war (ToW)',
    'Product of one minus the accuracy differences from the retrained model '
    'on retain, forget and test images; 1 means equal accuracies.',
    'fraction',
    'higher',
    'Zhao et al. 2024 (RUM)',
  ),
  'sape': (
    'Symmetric absolute percentage error (SAPE)',
    'Difference between two accuracies in percent of their sum.',
    'percent',
    'lower',
    'Zhang et al. 2023',
  ),
  'mia_val': (
    'Population attack vs validation (MIA)',
    'How often a simple attacker, who sees only the loss, tells forgotten '
    'from validation images; guessing is right half of the time.',
    'fraction',
    'retrained',
    BENCHMARK + ' (logistic regression on the loss)',
  ),
  'mia_test': (
    'Population attack vs test (T-MIA)',
    'How often a simple attacker, who sees only the loss, tells forgotten '
    'from test images; guessing is right half of the time.',
    'fraction',
    'retrained',
    BENCHMARK + ' (logistic regression on the loss)',
  ),
  'population_auc': (
    'Population attack: AUC',
    'How often one threshold on the loss for all points ranks a forgotten '
    'point above a test point; 0.5 is guessing, but where the two sets differ '
    'by themselves retrained models show what no leak looks like.',
    'fraction',
    'retrained',
    'Yeom et al. 2018',
  ),
  'indisc_val': (
    'Indiscernibility vs validation',
    'How helpless the population attack is: 1 when it only guesses, 0 when it '
    'always tells forgotten from validation images.',
    'fraction',
    'higher',
    BENCHMARK + ' (1 - |2 MIA - 1|)',
  ),
  'indisc_test': (
    'Indiscernibility vs test (Indisc)',
    'How helpless the population attack is: 1 when it only guesses, 0 when it '
    'always tells forgotten from test images.',
    'fraction',
    'higher',
    BENCHMARK + ' (1 - |2 MIA - 1|)',
  ),
  'disc_val': (
    'Discernibility vs validation',
    'One minus the indiscernibility: 0 when the population attack guesses.',
    'fraction',
    'lower',
    BENCHMARK + ' (|2 MIA - 1|)',
  ),
  'disc_test': (
    'Discernibility vs test',
    'One minus the indiscernibility: 0 when the population attack guesses.',
    'fraction',
    'lower',
    BENCHMARK + ' (|2 MIA - 1|)',
  ),
  'rte': (
    'Speed-up over retraining (RTE)',
    'How many times faster than retraining one model, compilation apart.',
    'times',
    'higher',
    BENCHMARK + ' (time to retrain / time to unlearn, one model, warm)',
  ),
  'rte_cold': (
    'Speed-up with compilation',
    'How many times faster than retraining one model when both also have to '
    'compile their program first.',
    'times',
    'higher',
    PROJECT,
  ),
  'rte_counted': (
    'Speed-up in counted work',
    'How many times fewer passes of an image through the network than '
    'retraining needs; the same on any machine.',
    'times',
    'higher',
    PROJECT,
  ),
  'cost': (
    'Counted work',
    'Passes of one image through the network that the method needs for one '
    'model, a backward pass counting as two; the same on any machine.',
    'count',
    'lower',
    PROJECT,
  ),
  'seconds': (
    'Time for one model',
    'Wall-clock time for one model alone on the device, compilation apart.',
    'seconds',
    'lower',
    PROJECT,
  ),
  'seconds_cold': (
    'Time for one model, with compilation',
    'Wall-clock time for one model alone on the device, from a cold start.',
    'seconds',
    'lower',
    PROJECT,
  ),
  'rank_combined': (
    'Combined rank',
    'Mean of the ranks by accuracies, by the population attack and by run '
    'time: a convenience, with no test behind it.',
    '',
    'lower',
    PROJECT,
  ),
  'distance_original': (
    'Distance from the original weights',
    'Euclidean distance of the weights from the original model, relative to '
    'the length of the weights; over the first eight models, without '
    'weights that never meet data.',
    'ratio',
    'none',
    BENCHMARK + ', released code',
  ),
  'distance_retrained': (
    'Distance from the retrained weights',
    'Euclidean distance of the weights from the retrained model, relative to '
    'the length of the weights. Two retrained models are far apart as well: '
    "theirs is given for the next member's.",
    'ratio',
    'none',
    BENCHMARK + ', released code',
  ),
}


# key: (title, the attack as the subject of a sentence, source)
ATTACKS: dict[str, tuple[str, str, str]] = {
  'outputs': (
    'Outputs',
    'the comparison of outputs',
    PROJECT,
  ),
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

# key: (title, sentence with {what} for the attack, unit, direction)
STATISTICS: dict[str, tuple[str, str, str, str]] = {
  'auc': (
    'AUC',
    'How often {what} ranks a forgotten point above an unseen one; a coin '
    'gives 0.5, a perfect attack 1.',
    'fraction',
    'half',
  ),
  'accuracy': (
    'accuracy',
    'How often {what} tells forgotten from unseen points, as many of each; '
    'guessing gives 0.5.',
    'fraction',
    'half',
  ),
  'balanced_accuracy': (
    'balanced accuracy',
    'How often {what} tells forgotten from unseen points, both counting the '
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
    'Balanced accuracy of {what} with the threshold chosen afterwards, which '
    'is too optimistic for the attacker.',
    'fraction',
    'half',
  ),
  'member_rate': (
    'share called members',
    'Share of the forgotten observations that {what} calls members: a '
    'true-positive rate to which no false-positive rate is known.',
    'fraction',
    'retrained',
  ),
  'share_exposed': (
    'share of exposed points',
    'Share of the points that {what} tells from unseen ones beyond chance, '
    'corrected for the number of points tried.',
    'fraction',
    'lower',
  ),
  'retain_auc': (
    'AUC on retained points',
    'How often {what} ranks a retained point above an unseen one; a coin '
    'gives 0.5.',
    'fraction',
    'half',
  ),
  'unscored': (
    'points not scored',
    'Points that {what} could not score, for want of observations.',
    'count',
    'none',
  ),
  'non_finite': (
    'non-finite outputs',
    'Outputs that were infinite or not a number when {what} read them.',
    'count',
    'lower',
  ),
}


# Numbers that only one attack has: as `terms.METRICS`.
SPECIAL: dict[str, tuple[str, str, str, str, str]] = {
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
  'outputs_kl': (
    'Outputs: divergence from retrained',
    'How far the predicted probabilities for forgotten images are from those '
    'of the retrained model, as a Kullback-Leibler divergence.',
    'nats',
    'retrained',
    PROJECT,
  ),
  'outputs_total_variation': (
    'Outputs: total variation from retrained',
    'How far the predicted probabilities for forgotten images are from those '
    'of the retrained model: the probability to be moved, 0 to 1.',
    'fraction',
    'retrained',
    PROJECT,
  ),
  'outputs_disagreement': (
    'Outputs: disagreement with retrained',
    'Share of the forgotten images to which the model and the retrained model '
    'give different classes.',
    'fraction',
    'retrained',
    PROJECT,
  ),
}
