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
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxmu import files, metrics, plugins
from jaxmu.attacks import intervals, registry, roc
from jaxmu.attacks import scores as scores_lib
from jaxmu.attacks.interface import Attack, Options
from jaxmu.data import splits
from jaxmu.methods.parts import weights
from jaxmu.metrics import METRICS, Evaluated, Metric, cost, distances, interface
from jaxmu.population import Predictions
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

  def keep(self, method: str, number: registry.AttackResult) -> None:
    """Record a number of an attack, unless a metric has its name.

    The metric has other negatives and takes precedence.
    """
    if number.metric in self.estimates.get(method, {}):
      return
    self.add(method, number.metric, number.estimate)
    if number.excess is not None and not math.isnan(number.excess.value):
      self.excess.setdefault(method, {})[number.metric] = number.excess

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
  warnings: list[str] = []
  collected = Collected()
  chosen = chosen_metrics(job.settings)
  scores, failed = {}, {}
  reference = None
  if results.REFERENCE in job.populations:
    reference = read_population(job, results.REFERENCE, warnings)
  else:
    warnings.append(_NO_REFERENCE)
  attacks = Attacks(
    collected,
    job.settings.attack.names,
    settings=attack_settings(job.settings),
  )
  everyone = job_lib.members_per_forget_set(
    job.design, job.settings.splits.seeds
  )
  once = job_lib.members_per_split(job.design, job.settings.splits.seeds)
  of = job_lib.originals_of(everyone, once)
  for name in job.populations:
    population = reference
    if name != results.REFERENCE or population is None:
      population = read_population(job, name, warnings)
    population = dataclasses.replace(population, retrained=reference)
    for metric in chosen:
      measure(population, metric, collected)
    attacks.run(population, of)
    scores[name] = compared_log_odds(population)
    bad = failed_models(
      job.populations[name], job.populations[name].scores.arrays('finite')
    )
    failed[name] = (int(bad.sum()), bad.size)
  _measure_distances(job, collected)
  warnings += [*attacks.warnings, *collected.partial]
  warnings += summary.explain_missing(collected.missing)
  per_cluster = {
    name: {metric: one.by_split for metric, one in estimates.items()}
    for name, estimates in collected.estimates.items()
  }
  return Evaluation(
    rows=rows(collected, _counted_work(job, failed)),
    curves=attacks.curves,
    scores=scores,
    failed=failed,
    warnings=warnings,
    missing=collected.missing,
    per_cluster=per_cluster,
  )


def attack_settings(settings: Settings) -> dict[str, dict[str, Any]]:
  """Return the settings of attacks that `config.attack` changes."""
  options = ('mode', 'variance', 'location')
  return {'ulira': {name: getattr(settings.attack, name) for name in options}}


_NO_REFERENCE = (
  'There are no retrained models. Numbers that compare with them are left out: '
  'retention, speed-up, distances from retraining, excess of attacks, and '
  'attacks that tell unlearned from retrained models. It is not known how far '
  'from chance the attacks are when there is nothing to detect.'
)


def read_population(
  job: job_lib.Job,
  name: str,
  warnings: list[str],
  predicted: Predictions | None = None,
) -> Evaluated:
  """Read predictions, one row per (seed, split, forget set).

  An original serves all forget sets of its split and is repeated for each.

  Args:
    job: the job, with its predictions.
    name: which of its populations.
    warnings: gets a sentence if predictions are not finite.
    predicted: its predictions; those in the store if None.
  """
  population = job.populations[name]
  if predicted is None:
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
  failed = failed_models(population, predicted.finite)
  silent = int(np.sum(failed & ~_diverged(population)))
  if silent:
    warnings.append(
      f'{results.label(name)}: {silent} of {failed.size} models have finite '
      'weights but no finite output; they count as failed'
    )
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


def failed_models(
  population: job_lib.Population, finite: np.ndarray
) -> np.ndarray:
  """Return which models of a population failed, bool[P].

  Their loss or weights became non-finite in training, or none of their outputs
  is finite.

  Args:
    population: the population, P models.
    finite: bool[P, N], which outputs are finite.
  """
  return _diverged(population) | ~finite.any(axis=1)


def _diverged(population: job_lib.Population) -> np.ndarray:
  return stages.failed_epochs(population.models) >= 0


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
  except Exception as error:  # a model may give any values
    log.debug('metric %s of %s', metric.name, population.name, exc_info=True)
    reason = _reason(error, metric.name in METRICS)
    clusters = len(np.unique(population.cluster))
    for name in metric.card.terms:
      collected.refuse(population.name, name, reason, clusters)
    return
  for name, value in given.items():
    absent = np.zeros(population.size, bool)
    if isinstance(value, intervals.Estimate):
      estimate = value
    else:
      share = metric.card.terms[name].unit == 'fraction'
      estimate = over_clusters(value, population.cluster, share=share)
      absent = ~np.isfinite(value)
    undefined = metric.card.undefined
    collected.add(population.name, name, estimate, undefined)
    if absent.any() and not absent.all():
      why = 'they failed' if population.failed[absent].all() else undefined
      collected.partial.append(
        f'{results.label(population.name)}: '
        f'{metric.card.terms[name].title} is not available for {absent.sum()} '
        f'of {population.size} models ({why}); the mean is over the others'
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


def _reason(error: Exception, builtin: bool) -> str:
  """Say why there is no number; built-in code raises sentences."""
  if builtin and isinstance(error, ValueError):
    return str(error).partition('\n')[0]
  return plugins.reason(error)


Curves = dict[str, dict[str, np.ndarray]]


def run_attack(
  attack: Attack,
  data: scores_lib.Scores,
  names: Mapping[str, str],
  collected: Collected,
  *,
  fprs: Sequence[float] = roc.FPRS,
  settings: Mapping[str, Mapping[str, Any]] | None = None,
  known: registry.Known | None = None,
) -> Curves:
  """Run an attack; an error affects the numbers of this attack only.

  Args:
    attack: the attack.
    data: the scores.
    names: what numbers are recorded under, by population of `data`; those of
      other populations are not recorded.
    collected: gets the numbers, or the reason why there are none.
    fprs: as for `registry.run`, like `settings` and `known`.
    settings: of attacks.
    known: cache.

  Returns:
    The curves of U-LiRA by name; empty for other attacks.
  """
  try:
    for one in registry.run(
      data, [attack], fprs=fprs, settings=settings, known=known
    ):
      if one.population in names:
        collected.keep(names[one.population], one)
    if attack.name == 'ulira':
      return _curves(attack, data, names, settings or {})
  except Exception as error:  # a model may give any values
    log.debug('attack %s', attack.name, exc_info=True)
    reason = _reason(error, attack.name in registry.ATTACKS)
    number = f'{attack.name}_{_main_number(attack)}'
    for kind, name in names.items():
      if kind in attack.card.populations and kind in data.populations:
        groups = len(np.unique(data.populations[kind].group))
        collected.refuse(name, number, reason, groups)
  return {}


def _curves(
  attack: Attack,
  data: scores_lib.Scores,
  names: Mapping[str, str],
  settings: Mapping[str, Mapping[str, Any]],
) -> Curves:
  assert attack.score is not None
  options = Options(settings=settings.get(attack.name, {}))
  curves = {}
  for kind, name in names.items():
    scores = data.populations.get(kind)
    if scores is None:
      continue
    ratio, state = attack.score(scores, data, options), scores.audited_state
    known = set(state[np.isfinite(ratio)].tolist())
    if known >= {splits.FORGOTTEN, splits.NEVER_SEEN}:
      curves[name] = roc.curves(ratio, state, scores.group, fpr=roc.FPR_GRID)
  return curves


class Attacks:
  """Runs the chosen attacks on each population.

  The originals are attacked once per split, with the examples of all their
  forget sets as members. Reports on originals and retrained models are cached
  for the next methods.

  Attributes:
    curves: of U-LiRA, by population, as in `Evaluation`.
    warnings: which attacks were not run, and why.
  """

  def __init__(
    self,
    collected: Collected,
    attacks: Sequence[registry.Spec] = (),
    *,
    fprs: Sequence[float] = roc.FPRS,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    remedy: str = "Choose config.splits.design='audit' with more splits",
  ):
    """Choose attacks.

    Args:
      collected: gets the numbers.
      attacks: those to run where they can; the cheap ones if empty.
      fprs: as for `registry.run`.
      settings: as for `registry.run`.
      remedy: what to do about a design with too few splits.
    """
    self.curves: Curves = {}
    self.warnings: list[str] = []
    self._collected = collected
    self._attacks = attacks
    self._options = {'fprs': fprs, 'settings': settings}
    self._remedy = remedy
    self._stored: dict[tuple[int, bool], scores_lib.PopulationScores] = {}
    self._kept: list[Evaluated] = []  # so that ids in `_stored` stay unique
    self._known: registry.Known = {}

  def run(self, population: Evaluated, of: np.ndarray) -> scores_lib.Scores:
    """Attack a population.

    Args:
      population: one row per (seed, split, forget set).
      of: int[P], the original of each row.

    Returns:
      The scores that most attacks read.
    """
    name, kind = population.name, _KINDS.get(population.name, 'unlearned')
    # U-LiRA fits its prior on all never-seen examples and scores those that
    # some model forgets. Other attacks read only the latter.
    both = {x: self._scores(population, of, x) for x in (False, True)}
    for attack in self._chosen(population, both[False], kind):
      self.curves |= run_attack(
        attack,
        both[attack.name == 'ulira'],
        {kind: name},
        self._collected,
        known=self._known,
        **self._options,
      )
    return both[False]

  def _scores(
    self, population: Evaluated, of: np.ndarray, whole: bool
  ) -> scores_lib.Scores:
    """Return the scores of a population and of the retrained one.

    With `whole`, never-seen examples that no model forgets are included.
    """
    reference = population.retrained
    retrained = None
    if reference is not None:
      key = id(reference), whole
      if key not in self._stored:
        self._stored[key] = _stored(reference, whole)
        self._kept.append(reference)
      retrained = self._stored[key]
    if population.name == results.REFERENCE and retrained is not None:
      return scores_lib.from_populations(retrained, retrained)
    if population.name != results.ORIGINAL:
      return scores_lib.from_populations(_stored(population, whole), retrained)
    original = _stored(once_per_split(population, of), whole)
    return scores_lib.from_populations(
      retrained or original, retrained, original
    )

  def _chosen(
    self, population: Evaluated, data: scores_lib.Scores, kind: str
  ) -> list[Attack]:
    """Return the cheap attacks that can run, or those that are named."""
    cheap = registry.possible_attacks(data, costly=False)
    chosen = [
      one
      for one in registry.resolve_all(self._attacks or cheap)
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
        f'examples were not run; they need at least {MIN_CLUSTERS} independent '
        f'groups of splits, and this design has {clusters}. {self._remedy}'
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
    whole: whether to include never-seen examples that no model forgets.
  """
  return scores_lib.population(
    population.log_odds,
    population.state,
    population.split,
    population.cluster,
    failed=population.failed,
    all_unseen=whole,
  )


def once_per_split(population: Evaluated, of: np.ndarray) -> Evaluated:
  """Return each original once, with all its forget sets merged.

  Args:
    population: originals, repeated for every forget set.
    of: int[P], the original of each row.
  """
  rows = [np.flatnonzero(of == k) for k in np.unique(of)]
  first = np.array([same[0] for same in rows])
  state = population.state[first].copy()
  for k, same in enumerate(rows):
    state[k, population.forgotten[same].any(axis=0)] = splits.FORGOTTEN
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
  """Return log-odds of forgotten and of never-seen examples.

  The latter are the same examples in other splits. With a single split, in
  which every forgotten example was seen, they are the test images.
  """
  forgotten = population.forgotten
  unseen = (population.state == splits.NEVER_SEEN) & forgotten.any(axis=0)
  if not unseen.any():
    unseen[:, population.test] = True
  return population.log_odds[forgotten], population.log_odds[unseen]


def rows(
  collected: Collected, counted: Mapping[str, results.Row] | None = None
) -> list[results.Row]:
  """Return estimates as rows, and counted work where it is known."""
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
  work = counted or {}
  return results.rows(numbers) + [work[n] for n in numbers if n in work]


def _counted_work(
  job: job_lib.Job, failed: Mapping[str, tuple[int, int]]
) -> dict[str, results.Row]:
  """Return counted speed-ups; none for methods whose models all failed."""
  if results.REFERENCE not in job.populations:
    return {}
  reference = job.counted_cost(results.REFERENCE)
  return {
    name: counted_row(name, reference, job.counted_cost(name), one.members.size)
    for name, one in job.populations.items()
    if failed[name][0] < failed[name][1]
  }


def counted_row(
  name: str, reference: float, work: float, models: int
) -> results.Row:
  """Return the speed-up of a population in counted work.

  Args:
    name: of the population.
    reference: passes of one example that retraining a model takes.
    work: passes that a model of this population takes.
    models: their number.
  """
  value = cost.rte(reference, work)
  return results.Row(
    name, 'rte_counted', value, retrained=1.0, gap=value - 1.0, n=models
  )


MOST_COMPARED = (
  8  # members; independent of the shard size, which changes no number
)


def _measure_distances(job: job_lib.Job, collected: Collected) -> None:
  everyone = job_lib.members_per_forget_set(
    job.design, job.settings.splits.seeds
  )
  positions = np.arange(min(MOST_COMPARED, everyone.size))
  members = stages.select_members(everyone, positions)
  originals = job.populations[results.ORIGINAL]
  of = job_lib.originals_of(members, originals.members)
  original = _params(job, originals, of)
  retrained = job.populations.get(results.REFERENCE)
  measure_distances(
    (
      (name, original)
      if name == results.ORIGINAL
      else (name, _params(job, one, positions))
      for name, one in job.populations.items()
    ),
    collected,
    original=original,
    retrained=retrained and _params(job, retrained, positions),
    live=weights.live_weights(job.task, one_of(original, 0)),
    cluster=_clusters(job, everyone)[positions],
  )


def measure_distances(
  populations: Iterable[tuple[str, Params]],
  collected: Collected,
  *,
  original: Params | None,
  retrained: Params | None,
  live: Params,
  cluster: np.ndarray,
) -> None:
  """Add both relative L2 distances of weights of every population.

  The mean is over the first eight members of each, since reading every model of
  a large job would take long. Each retrained model is compared with that of the
  next member, cyclically, as the scale for the others. Dead weights do not
  count.

  Args:
    populations: name and weights of each, leaves [K, ...], read one by one.
    collected: gets the numbers.
    original: weights of the originals of the K members, if they are known.
    retrained: weights of the retrained models, if there are any.
    live: which weights count, see `weights.live_weights`.
    cluster: int[K], the independent units.
  """
  turned = None
  if retrained is not None:
    turned = jax.tree.map(lambda x: np.roll(x, -1, axis=0), retrained)
  for name, stacked in populations:
    to = turned if name == results.REFERENCE else retrained
    others = {'distance_original': original, 'distance_retrained': to}
    for metric, other in others.items():
      if other is not None:
        estimate = _mean_distance(stacked, other, live, cluster)
        collected.add(name, metric, estimate, distances.WEIGHTS.undefined)


def _params(
  job: job_lib.Job, population: job_lib.Population, positions: np.ndarray
) -> Params:
  return stages.read_models(job, population, positions)['params']


def one_of(stacked: Params, member: int) -> Params:
  """Return the weights of one member."""
  return jax.tree.map(lambda x: x[member], stacked)


def _mean_distance(
  stacked: Params, other: Params, live: Params, cluster: np.ndarray
) -> intervals.Estimate:
  with np.errstate(invalid='ignore', over='ignore'):
    each = np.array(
      [
        distances.relative_l2(one_of(stacked, k), one_of(other, k), live)
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
