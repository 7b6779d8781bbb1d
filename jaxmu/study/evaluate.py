"""From predictions to rows of numbers with intervals and references.

Metrics and attacks are computed per population, with the retrained models as
the reference where there are any. A metric gives one number per model; it is
averaged over the models of a cluster, and its interval is a t-interval over
clusters. Clusters are the independent units: pairs of complementary splits, or
initialisations where there is one split. A number that cannot be computed is
left out with a reason and does not stop the report.
"""

import dataclasses
import logging
import math
import pathlib
from typing import NamedTuple

import jax
import numpy as np

from jaxmu import files, method, metrics
from jaxmu.attacks import intervals, registry, roc
from jaxmu.attacks import scores as scores_lib
from jaxmu.attacks.interface import Attack, Options
from jaxmu.data import splits
from jaxmu.methods.parts import weights
from jaxmu.metrics import METRICS, Evaluated, Metric, cost, distances, interface
from jaxmu.report import glossary, results, summary
from jaxmu.study import job as job_lib
from jaxmu.study import stages
from jaxmu.study.settings import Settings
from jaxmu.types import Params

log = logging.getLogger(__name__)

# An attack that leaves one cluster out needs at least two others to fit on.
MIN_CLUSTERS = 3
ALL_FAILED = 'all models failed'

Estimates = dict[str, intervals.Estimate]


class Evaluation(NamedTuple):
  """Everything the report shows.

  Attributes:
    rows: the numbers.
    curves: per population the U-LiRA curve {fpr, tpr, low, high, by_split}.
    scores: per population the forgotten and never seen log-odds.
    failed: per population how many members failed and how many there are.
    warnings: limitations of the numbers, as sentences.
    missing: why numbers are not available.
    per_cluster: per population and metric one value per cluster, f64[G].
  """

  rows: list[results.Row]
  curves: dict[str, dict[str, np.ndarray]]
  scores: dict[str, tuple[np.ndarray, np.ndarray]]
  failed: dict[str, tuple[int, int]]
  warnings: list[str]
  missing: results.Missing
  per_cluster: dict[str, dict[str, np.ndarray]]


@dataclasses.dataclass
class Collected:
  """Numbers of all populations, and why others are not available.

  Attributes:
    estimates: per population and name.
    excess: per population the paired differences to the retrained models, by
      the name of the number.
    missing: the reason, by population and name.
    partial: sentences on numbers that some models lack.
  """

  estimates: dict[str, Estimates] = dataclasses.field(default_factory=dict)
  excess: dict[str, Estimates] = dataclasses.field(default_factory=dict)
  missing: dict[tuple[str, str], str] = dataclasses.field(default_factory=dict)
  partial: list[str] = dataclasses.field(default_factory=list)

  def add(
    self, method: str, name: str, estimate: intervals.Estimate, reason: str = ''
  ) -> None:
    """Record a number; `reason` says why it is NaN, if it is."""
    self.estimates.setdefault(method, {})[name] = estimate
    if math.isnan(estimate.value):
      self.missing[method, name] = reason or estimate.note or 'not a number'

  def refuse(self, method: str, name: str, reason: str, clusters: int) -> None:
    """Record that a number is not available."""
    absent = np.full(clusters, np.nan)
    self.add(
      method,
      name,
      intervals.Estimate(np.nan, np.nan, np.nan, 0, absent, note=reason),
    )


def evaluate(job: job_lib.Job) -> Evaluation:
  """Compute all numbers of a job from its stored predictions."""
  warnings = training_warnings(job)
  collected = Collected()
  chosen = chosen_metrics(job.settings)
  scores, failed = {}, {}
  reference = None
  if results.REFERENCE in job.populations:
    reference = read_population(job, results.REFERENCE, warnings)
  else:
    warnings.append(_NO_REFERENCE)
  attacks = Attacks(job, collected)
  for name in job.populations:
    population = reference
    if name != results.REFERENCE or population is None:
      population = read_population(job, name, warnings)
    population = dataclasses.replace(population, retrained=reference)
    for metric in chosen:
      measure(population, metric, collected)
    attacks.run(population)
    scores[name] = compared_log_odds(population)
    bad = int(np.sum(stages.failed_epochs(job.populations[name].models) >= 0))
    failed[name] = (bad, job.populations[name].members.size)
  measure_distances(job, collected)
  warnings += [*attacks.warnings, *collected.partial]
  warnings += summary.explain_missing(collected.missing)
  per_cluster = {
    name: {metric: one.by_split for metric, one in estimates.items()}
    for name, estimates in collected.estimates.items()
  }
  return Evaluation(
    rows=rows(job, collected),
    curves=attacks.curves,
    scores=scores,
    failed=failed,
    warnings=warnings,
    missing=collected.missing,
    per_cluster=per_cluster,
  )


_NO_REFERENCE = (
  'There are no retrained models. Numbers that compare with them are left out: '
  'retention, speed-up, distances from retraining, excess of attacks, and '
  'attacks that tell unlearned from retrained models. It is not known how far '
  'from chance the attacks are when there is nothing to detect.'
)


def read_population(
  job: job_lib.Job, name: str, warnings: list[str]
) -> Evaluated:
  """Read predictions, one row per (seed, split, forget set).

  An original serves all forget sets of its split and is repeated for each.

  Args:
    job: the job, with its predictions.
    name: which of its populations.
    warnings: gets a sentence if predictions are not finite.
  """
  population = job.populations[name]
  predicted = stages.read_predictions(population)
  bad = int(np.sum(~predicted.finite))
  if bad:
    warnings.append(
      f'{results.label(name)}: {bad} of {predicted.finite.size} predictions '
      'are not finite; they count as wrong, with the most negative log-odds'
    )
  everyone = job_lib.members_per_forget_set(
    job.design, job.settings.splits.seeds
  )
  position = np.arange(everyone.size)
  if population.members.size != everyone.size or name == results.ORIGINAL:
    position = job_lib.originals_of(everyone, population.members)
  examples = len(job.source.label)
  state = splits.membership(job.design, examples)
  failed = stages.failed_epochs(population.models) >= 0
  return Evaluated(
    name=name,
    log_odds=predicted.log_odds[position].astype(np.float64),
    correct=predicted.correct[position],
    state=state[everyone.row],
    validation=np.asarray(job.design.val),
    test=np.arange(job.source.num_dev, examples),
    cluster=_clusters(job, everyone),
    split=everyone.split,
    classes=job.source.num_classes,
    failed=failed[position],
  )


def _clusters(job: job_lib.Job, members: job_lib.Members) -> np.ndarray:
  pair = job.design.pair[members.row]
  if len(np.unique(pair)) == 1:
    return members.seed
  return members.split if job.settings.attack.leave_out == 'split' else pair


def chosen_metrics(settings: Settings) -> list[Metric]:
  """Return the built-in metrics and those of `config.metrics`.

  The terms of the latter are added to the glossary.

  Raises:
    ValueError: a plug-in cannot be loaded, or its numbers have the names of
      other numbers.
  """
  chosen = metrics.choose(settings.metrics)
  for metric in chosen[len(METRICS) :]:
    glossary.add(metric.card.terms)
  return chosen


def measure(
  population: Evaluated, metric: Metric, collected: Collected
) -> None:
  """Compute a metric of a population; an error affects this metric only.

  If all models failed, only accuracies are computed: other numbers, computed
  from the placeholders of non-finite scores, would look like perfect
  unlearning.
  """
  try:
    if population.failed.all() and metric is not METRICS['accuracy']:
      raise ValueError(ALL_FAILED)
    given = interface.run(metric, population)
  except Exception as error:  # whatever values a model gave
    log.debug('metric %s of %s', metric.name, population.name, exc_info=True)
    reason = str(error).partition('\n')[0] or type(error).__name__
    clusters = len(np.unique(population.cluster))
    for name in metric.card.terms:
      collected.refuse(population.name, name, reason, clusters)
    return
  for name, value in given.items():
    absent = 0
    if isinstance(value, intervals.Estimate):
      estimate = value
    else:
      share = metric.card.terms[name].unit == 'fraction'
      estimate = over_clusters(value, population.cluster, share=share)
      absent = int(np.sum(~np.isfinite(value)))
    collected.add(population.name, name, estimate, metric.card.undefined)
    if 0 < absent < population.size:
      collected.partial.append(
        f'{results.label(population.name)}: '
        f'{metric.card.terms[name].title} is not available for {absent} of '
        f'{population.size} models ({metric.card.undefined}); the mean is over '
        'the others'
      )


def over_clusters(
  values: np.ndarray, cluster: np.ndarray, *, share: bool = False
) -> intervals.Estimate:
  """Average f64[P] per cluster and give the t-interval over clusters.

  Models without a value are left out. The interval of a share stays within
  [0, 1].
  """
  known = values[np.isfinite(values)]
  inside = share and bool(np.all((known >= 0) & (known <= 1)))
  return intervals.over_splits(
    intervals.group_means(values, cluster),
    bounds=(0.0, 1.0) if inside else None,
  )


class Attacks:
  """Runs the chosen attacks on each population.

  The originals are attacked once per split, with the points of all their forget
  sets as members. Reports on originals and retrained models are cached for the
  next methods.

  Attributes:
    curves: of U-LiRA, by population, as in `Evaluation`.
    warnings: which attacks were not run, and why.
  """

  def __init__(self, job: job_lib.Job, collected: Collected):
    self.curves: dict[str, dict[str, np.ndarray]] = {}
    self.warnings: list[str] = []
    self._job = job
    self._collected = collected
    self._retrained: dict[bool, scores_lib.PopulationScores] = {}
    self._known: registry.Known = {}
    self._settings = {
      'ulira': {
        name: getattr(job.settings.attack, name)
        for name in ('mode', 'variance', 'location')
      }
    }

  def run(self, population: Evaluated) -> None:
    """Attack a population; an error affects the numbers of one attack only."""
    name, kind = population.name, _KINDS.get(population.name, 'unlearned')
    # U-LiRA fits its prior on all never-seen points and scores those that some
    # model forgets. Other attacks read only the latter.
    both = {whole: self._scores(population, whole) for whole in (False, True)}
    for attack in self._chosen(population, both[False], kind):
      data = both[attack.name == 'ulira']
      try:
        numbers = registry.run(
          data, [attack], settings=self._settings, known=self._known
        )
        self._keep(name, [one for one in numbers if one.population == kind])
        scores = data.populations[kind]
        if attack.name == 'ulira' and not scores.failed.all():
          self.curves[name] = self._curve(attack, scores, data)
      except Exception as error:  # whatever values a model gave
        log.debug('attack %s of %s', attack.name, name, exc_info=True)
        self._collected.refuse(
          name,
          f'{attack.name}_{_main_number(attack)}',
          str(error) or type(error).__name__,
          len(np.unique(population.cluster)),
        )

  def _scores(self, population: Evaluated, whole: bool) -> scores_lib.Scores:
    """Return the scores of a population and of the retrained one."""
    reference = population.retrained
    if reference is not None and whole not in self._retrained:
      self._retrained[whole] = _stored(reference, whole)
    retrained = self._retrained.get(whole)
    if population.name == results.REFERENCE and retrained is not None:
      return scores_lib.from_populations(retrained, retrained)
    if population.name != results.ORIGINAL:
      return scores_lib.from_populations(_stored(population, whole), retrained)
    original = _stored(once_per_split(self._job, population), whole)
    return scores_lib.from_populations(
      retrained or original, retrained, original
    )

  def _chosen(
    self, population: Evaluated, data: scores_lib.Scores, kind: str
  ) -> list[Attack]:
    """Return the cheap attacks that can run, or those that are named."""
    named = self._job.settings.attack.names
    cheap = registry.possible_attacks(data, costly=False)
    chosen = [
      one
      for one in registry.resolve_all(named or cheap)
      if kind in one.card.populations and not one.lacks(data)
    ]
    clusters = _independent_splits(population)
    if clusters < MIN_CLUSTERS:
      self._warn_of_design(clusters)
      chosen = [one for one in chosen if one.card.question == _VERSUS_RETRAINED]
    return chosen

  def _warn_of_design(self, clusters: int) -> None:
    if not self.warnings:
      self.warnings.append(
        'U-LiRA and other attacks that compare forgotten with never-seen '
        f'points were not run; they need at least {MIN_CLUSTERS} independent '
        f'groups of splits, and this design has {clusters}. Choose '
        "config.splits.design='audit' with more splits"
      )

  def _keep(self, name: str, numbers: list[registry.AttackResult]) -> None:
    for one in numbers:
      # A metric of the same name has other negatives and takes precedence.
      if one.metric in self._collected.estimates.get(name, {}):
        continue
      self._collected.add(name, one.metric, one.estimate)
      if one.excess is not None and not math.isnan(one.excess.value):
        excess = self._collected.excess.setdefault(name, {})
        excess[one.metric] = one.excess

  def _curve(
    self,
    attack: Attack,
    scores: scores_lib.PopulationScores,
    data: scores_lib.Scores,
  ) -> dict[str, np.ndarray]:
    assert attack.score is not None
    ratio = attack.score(
      scores, data, Options(settings=self._settings[attack.name])
    )
    return roc.curves(
      ratio, scores.audited_state, scores.group, fpr=roc.FPR_GRID
    )


_KINDS = {results.ORIGINAL: 'original', results.REFERENCE: 'retrained'}
_VERSUS_RETRAINED = 'unlearned_or_retrained'


def _main_number(attack: Attack) -> str:
  """Return the statistic under which a failed attack is reported."""
  terms = attack.card.terms
  return 'auc' if 'auc' in terms else next(iter(terms))


def _independent_splits(population: Evaluated) -> int:
  """Return the number of clusters of splits, 1 where all share one split."""
  if len(np.unique(population.split)) == 1:
    return 1
  return len(np.unique(population.cluster))


def _stored(population: Evaluated, whole: bool) -> scores_lib.PopulationScores:
  """Return the scores of a population.

  Args:
    population: the population.
    whole: whether to include never-seen points that no model forgets.
  """
  return scores_lib.population(
    population.log_odds,
    population.state,
    population.split,
    population.cluster,
    failed=population.failed,
    all_unseen=whole,
  )


def once_per_split(job: job_lib.Job, population: Evaluated) -> Evaluated:
  """Return each original once, with all its forget sets merged."""
  members = job_lib.members_per_forget_set(
    job.design, job.settings.splits.seeds
  )
  once = job_lib.members_per_split(job.design, job.settings.splits.seeds)
  of = job_lib.originals_of(members, once)
  first = np.array([np.flatnonzero(of == k)[0] for k in range(once.size)])
  state = population.state[first].copy()
  for k in range(once.size):
    state[k, population.forgotten[of == k].any(axis=0)] = splits.FORGOTTEN
  return dataclasses.replace(
    population,
    log_odds=population.log_odds[first],
    correct=population.correct[first],
    state=state,
    cluster=population.cluster[first],
    split=population.split[first],
    failed=population.failed[first],
    retrained=None,
  )


def compared_log_odds(population: Evaluated) -> tuple[np.ndarray, np.ndarray]:
  """Return log-odds of forgotten points and of points that were never seen.

  The latter are the same points in other splits. With a single split, in which
  every forgotten point was seen, they are the test images.
  """
  forgotten = population.forgotten
  unseen = (population.state == splits.NEVER_SEEN) & forgotten.any(axis=0)
  if not unseen.any():
    unseen[:, population.test] = True
  return population.log_odds[forgotten], population.log_odds[unseen]


def rows(job: job_lib.Job, collected: Collected) -> list[results.Row]:
  """Return estimates as rows, with the values of the retrained models."""
  numbers = {
    name: {
      **estimates,
      **{
        f'{glossary.EXCESS}{metric}': excess
        for metric, excess in collected.excess.get(name, {}).items()
      },
    }
    for name, estimates in collected.estimates.items()
  }
  table = results.rows(numbers)
  if results.REFERENCE in job.populations:
    table += [_counted_work(job, name) for name in numbers]
  return table


def _counted_work(job: job_lib.Job, name: str) -> results.Row:
  value = cost.rte(job.counted_cost(results.REFERENCE), job.counted_cost(name))
  return results.Row(
    method=name,
    metric='rte_counted',
    value=value,
    retrained=1.0,
    gap=value - 1.0,
    n=job.populations[name].members.size,
  )


_LISTED = 5  # failed members that are named


def training_warnings(job: job_lib.Job) -> list[str]:
  """Return which members failed, and which chosen weights have no effect."""
  one = stages.one_model_shapes(job)['params']
  total = sum(math.prod(x.shape) for x in jax.tree.leaves(one))
  dead = sum(weights.count_dead(job.task, one).values())
  sentences = []
  for name, population in job.populations.items():
    sentences += failure_warnings(
      name, stages.failed_epochs(population.models), population.members
    )
    chosen = population.method.card.chosen
    if not dead or chosen is None:
      continue
    counts = np.full((1, 1), dead)
    if chosen.info:
      counts = population.models.arrays(chosen.info)
    if np.isfinite(counts).any():
      sentences.append(dead_weight_warning(name, chosen, counts, dead, total))
  return sentences


def failure_warnings(
  name: str, failed: np.ndarray, members: job_lib.Members
) -> list[str]:
  """Say which members failed, and when.

  Args:
    name: of the population.
    failed: epoch of the first loss that was not finite, the number of epochs if
      the result alone is not finite, -1 for members that did not fail; i64[P].
    members: their names.
  """
  bad = np.flatnonzero(failed >= 0)
  if not bad.size:
    return []
  if bad.size == len(failed):
    first, last = int(failed.min()), int(failed.max())
    when = f'epoch {first}' if first == last else f'epochs {first} to {last}'
    return [
      f'{name}: all {bad.size} models failed, at {when}: losses or weights '
      'were no longer finite. Nothing can be concluded from their numbers'
    ]
  named = [
    f'epoch {failed[p]} (initialisation {members.seed[p]}, split '
    f'{members.split[p]}'
    + (f', forget set {members.forget_set[p]}' if name != 'original' else '')
    + ')'
    for p in bad[:_LISTED]
  ]
  more = bad.size - len(named)
  tail = f' and {more} more' if more else ''
  return [
    f'{name}: {bad.size} of {len(failed)} models were no longer finite, from '
    f'{"; ".join(named)}{tail}; the others were not affected'
  ]


_DONE_TO_WEIGHTS = {
  'replaced': 'replaced',
  'selected': 'selected for training',
  'pruned': 'pruned',
  'noised': 'added noise to',
}


def dead_weight_warning(
  name: str,
  chosen: method.Chosen,
  counts: np.ndarray,
  dead: int,
  total: int,
) -> str:
  """Say how many of the weights that a method chose are dead.

  Args:
    name: of the method.
    chosen: the weights, and what it does to them.
    counts: dead weights among those of each epoch, f64[P, E]; NaN where a
      member was done.
    dead: dead weights of the network.
    total: all weights of the network.
  """
  over = np.nansum if chosen.every_epoch else np.nanmax
  return (
    f'{name}: of the weights that it {_DONE_TO_WEIGHTS[chosen.action]}, '
    f'{over(counts, axis=1).mean():,.0f} (the mean over models) only multiply '
    f'padding and have no effect, as do {dead:,} of the {total:,} weights '
    'of this network at this image size'
  )


_MOST = 8  # members; independent of the shard size, which changes no number


def measure_distances(job: job_lib.Job, collected: Collected) -> None:
  """Add both relative L2 distances of weights of every population.

  The mean is over the first eight members of each, since reading every model of
  a large job would take long. Each retrained model is compared with that of the
  next member, cyclically, as the scale for the others. Dead weights do not
  count.
  """
  everyone = job_lib.members_per_forget_set(
    job.design, job.settings.splits.seeds
  )
  positions = np.arange(min(_MOST, everyone.size))
  cluster = _clusters(job, everyone)[positions]
  members = stages.select_members(everyone, positions)
  originals = job.populations[results.ORIGINAL]
  of = job_lib.originals_of(members, originals.members)
  original = _params(job, originals, of)
  live = weights.live_weights(job.task, _one(original, 0))
  retrained = job.populations.get(results.REFERENCE)
  reference = turned = None
  if retrained is not None:
    reference = _params(job, retrained, positions)
    turned = jax.tree.map(lambda x: np.roll(x, -1, axis=0), reference)
  for name, population in job.populations.items():
    stacked = original
    if name != results.ORIGINAL:
      stacked = _params(job, population, positions)
    others = {'distance_original': original}
    if reference is not None:
      to = turned if name == results.REFERENCE else reference
      others['distance_retrained'] = to
    for metric, other in others.items():
      estimate = _mean_distance(stacked, other, live, cluster)
      collected.add(name, metric, estimate, distances.WEIGHTS.undefined)


def _params(
  job: job_lib.Job, population: job_lib.Population, positions: np.ndarray
) -> Params:
  return stages.read_models(job, population, positions)['params']


def _one(stacked: Params, member: int) -> Params:
  return jax.tree.map(lambda x: x[member], stacked)


def _mean_distance(
  stacked: Params, other: Params, live: Params, cluster: np.ndarray
) -> intervals.Estimate:
  with np.errstate(invalid='ignore', over='ignore'):
    each = np.array(
      [
        distances.relative_l2(_one(stacked, k), _one(other, k), live)
        for k in range(len(cluster))
      ]
    )
  estimate = over_clusters(each, cluster)
  # It lacks some clusters, so it must not be paired with other numbers.
  return dataclasses.replace(estimate, by_split=np.zeros(0), note='')


def write_scores(job: job_lib.Job, name: str, path: pathlib.Path) -> None:
  """Write the scores of a method and its references for `jaxmu.attack`.

  Keys: `log_odds`, `original_log_odds`, `retrained_log_odds` f32[P, N];
  `failed`, `original_failed`, `retrained_failed` bool[P], models whose scores
  are placeholders; `state` int8[P, N] (0 retained, 1 forgotten, 2 never
  seen, 3 excluded) and `split` i64[P]. An original is repeated for every forget
  set of its split. Without retrained models their keys are left out.
  """
  prefixes = {name: '', results.ORIGINAL: 'original_'}
  if results.REFERENCE in job.populations:
    prefixes[results.REFERENCE] = 'retrained_'
  arrays: dict[str, np.ndarray] = {}
  for key, prefix in prefixes.items():
    population = read_population(job, key, [])
    arrays[f'{prefix}log_odds'] = population.log_odds.astype(np.float32)
    arrays[f'{prefix}failed'] = population.failed
    if key == name:
      arrays |= {'state': population.state, 'split': population.split}
  files.write_arrays(path, arrays)
