"""From predictions to rows of numbers, each with interval and reference.

Every metric is computed per model, averaged over the models of a cluster, and
its interval is a t-interval over clusters. Clusters are what is independent:
pairs of complementary splits, or initialisations where there is one split.

What happened while models were trained that a reader must know.

Which members failed and when; and, for methods that choose or disturb weights,
how many of those weights are dead, that is, only ever meet padding and have no
influence on any output (see `jaxmu.models.dead_weights`).

How far weights are from those of the original and of the retrained models.

Over the first eight members of a population, since reading every model of a
large job again would take long. Dead weights do not count.

Scores of a job as one file per method, the input of `jaxmu.attack`.
"""

import math
import pathlib
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxmu import files, method
from jaxmu.attacks import intervals, likelihood, log_odds, roc, single_model
from jaxmu.data import splits as splits_lib
from jaxmu.methods.parts import weights
from jaxmu.metrics import utility as utility_lib
from jaxmu.report import results
from jaxmu.study import job as job_lib
from jaxmu.study import stages
from jaxmu.types import Params

FPR_GRID = np.geomspace(1e-3, 1.0, 61)
# An attack that leaves one cluster out needs at least two others to fit on.
MIN_CLUSTERS = 3


class Scored(NamedTuple):
  """One population ready for evaluation; rows are members [P].

  Attributes:
    name: of the population.
    phi: log-odds f64[P, N].
    correct: bool[P, N].
    state: int8[P, N], see `jaxmu.data.splits.state`.
    cluster: i64[P], what is independent of each other.
    split: i64[P].
  """

  name: str
  phi: np.ndarray
  correct: np.ndarray
  state: np.ndarray
  cluster: np.ndarray
  split: np.ndarray


class Evaluation(NamedTuple):
  """Everything the report shows.

  Attributes:
    rows: the numbers.
    curves: per population the U-LiRA curve {fpr, tpr, low, high, by_split}.
    scores: per population the forgotten and never seen log-odds.
    failed: per population how many members failed and how many there are.
    warnings: what a reader must know about the numbers.
    per_cluster: per population and metric one value per cluster, f64[G].
  """

  rows: list[results.Row]
  curves: dict[str, dict[str, np.ndarray]]
  scores: dict[str, tuple[np.ndarray, np.ndarray]]
  failed: dict[str, tuple[int, int]]
  warnings: list[str]
  per_cluster: dict[str, dict[str, np.ndarray]]


Metrics = dict[str, intervals.Estimate]


def evaluate(job: job_lib.Job) -> Evaluation:
  """Compute all numbers of a job from its stored predictions."""
  warnings = training_warnings(job)
  metrics: dict[str, Metrics] = {}
  curves, scores, failed = {}, {}, {}
  scored = {name: read_scored(job, name, warnings) for name in job.populations}
  reference = scored['retrain']
  for name, people in scored.items():
    found = utility(job, people, reference)
    found |= membership(job, people)
    attack = run_ulira(job, people, warnings)
    if attack is not None:
      ratio, whose = attack
      report = roc.roc_report(ratio, whose.state, whose.cluster)
      found |= {
        f'ulira_{_key(k)}': intervals.cross_fitted(v) for k, v in report.items()
      }
      warnings += [
        f'{name}: U-LiRA {k} is not given: {v.note}'
        for k, v in report.items()
        if np.isnan(v.value)
      ]
      curves[name] = roc.curves(ratio, whose.state, whose.cluster, fpr=FPR_GRID)
    metrics[name] = found
    scores[name] = _observations(people, job.source.num_dev)
    bad = int(np.sum(stages.failed_epochs(job.populations[name].models) >= 0))
    failed[name] = (bad, job.populations[name].members.size)
  apart = measure_distances(job, reference.cluster)
  metrics = {name: found | apart[name] for name, found in metrics.items()}
  per_cluster = {
    name: {metric: estimate.by_split for metric, estimate in found.items()}
    for name, found in metrics.items()
  }
  return Evaluation(
    rows(job, metrics), curves, scores, failed, warnings, per_cluster
  )


def read_scored(job: job_lib.Job, name: str, warnings: list[str]) -> Scored:
  """Read predictions, one row per (seed, split, forget set).

  An original serves all forget sets of its split and is repeated for each.
  """
  people = job.populations[name]
  found = stages.read_predictions(people)
  bad = int(np.sum(~found.finite))
  if bad:
    warnings.append(
      f'{name}: {bad} of {found.finite.size} predictions are not finite; they '
      'count as wrong, with the most negative log-odds'
    )
  everyone = job_lib.members_per_forget_set(
    job.design, job.settings.splits.seeds
  )
  position = np.arange(everyone.size)
  if people.members.size != everyone.size or name == 'original':
    position = job_lib.originals_of(everyone, people.members)
  state = splits_lib.membership(job.design, len(job.source.label))
  return Scored(
    name=name,
    phi=found.log_odds[position].astype(np.float64),
    correct=found.correct[position],
    state=state[everyone.row],
    cluster=_clusters(job, everyone),
    split=everyone.split,
  )


def _clusters(job: job_lib.Job, members: job_lib.Members) -> np.ndarray:
  pair = job.design.pair[members.row]
  if len(np.unique(pair)) == 1:
    return members.seed
  return members.split if job.settings.attack.leave_out == 'split' else pair


def utility(job: job_lib.Job, people: Scored, reference: Scored) -> Metrics:
  """Accuracies on retain, forget, validation and test set, and retention."""
  own, theirs = _accuracies(job, people), _accuracies(job, reference)
  found = {name: over_clusters(own[name], people.cluster) for name in own}
  new = own['ra'], own['fa'], own['ta']
  retrained = theirs['ra'], theirs['fa'], theirs['ta']
  kept = utility_lib.retention(new, retrained)
  paired = dict(
    rr=kept.retain,
    fr=kept.forget,
    tr=kept.test,
    ret_dev=kept.deviation,
    tow=utility_lib.tug_of_war(new, retrained),
  )
  for name, value in paired.items():
    found[name] = over_clusters(value, people.cluster)
  means = utility_lib.retention_of_means(new, retrained)
  found['ret_dev_means'] = intervals.point(
    float(means.deviation), len(people.cluster)
  )
  return found


def _accuracies(job: job_lib.Job, people: Scored) -> dict[str, np.ndarray]:
  retained = people.state == splits_lib.RETAINED
  forgotten = people.state == splits_lib.FORGOTTEN
  val = np.zeros_like(retained)
  val[:, job.design.val] = True
  test = np.zeros_like(retained)
  test[:, job.source.num_dev :] = True
  sets = dict(ra=retained, fa=forgotten, va=val, ta=test)
  return {
    name: utility_lib.accuracy(people.correct, where)
    for name, where in sets.items()
  }


def membership(job: job_lib.Job, people: Scored) -> Metrics:
  """The population attack: one threshold on the loss for all examples."""
  loss = log_odds.loss_from_log_odds(people.phi)
  forget = _rows(loss, people.state == splits_lib.FORGOTTEN)
  found = {}
  outside = dict(
    val=loss[:, job.design.val], test=loss[:, job.source.num_dev :]
  )
  for name, nonmember in outside.items():
    mia = single_model.population_mia(forget, nonmember)
    found[f'mia_{name}'] = over_clusters(mia, people.cluster)
    found[f'indisc_{name}'] = over_clusters(
      utility_lib.indiscernibility(mia), people.cluster
    )
  report = single_model.population_report(
    -forget, -outside['test'], people.cluster
  )
  found['population_auc'] = report['auc']
  return found


def run_ulira(
  job: job_lib.Job, people: Scored, warnings: list[str]
) -> tuple[np.ndarray, Scored] | None:
  """Run U-LiRA on a population; None if there are too few splits.

  Returns:
    The log-likelihood ratios f64[P, N], NaN where unscored, and the population
    they belong to. The originals are attacked once per split, with the points
    of all its forget sets as members.
  """
  name = people.name
  if name == 'original':
    people = _once_per_split(job, people)
  clusters = len(np.unique(people.cluster))
  if clusters < MIN_CLUSTERS or not people.split.any():
    groups = clusters if people.split.any() else 1
    reason = (
      f'U-LiRA was not run; it needs at least {MIN_CLUSTERS} independent '
      f'groups of splits, and this design has {groups}. Choose '
      "config.splits.design='audit' with more splits"
    )
    if reason not in warnings:
      warnings.append(reason)
    return None
  options: Any = job.settings.attack  # whose strings were checked
  ratio, _ = likelihood.ulira(
    people.phi,
    people.state,
    people.cluster,
    mode=options.mode,
    variance=options.variance,
    location=options.location,
  )
  return ratio, people


def _once_per_split(job: job_lib.Job, people: Scored) -> Scored:
  members = job_lib.members_per_forget_set(
    job.design, job.settings.splits.seeds
  )
  once = job_lib.members_per_split(job.design, job.settings.splits.seeds)
  of = job_lib.originals_of(members, once)
  first = np.array([np.flatnonzero(of == k)[0] for k in range(once.size)])
  state = people.state[first].copy()
  for k in range(once.size):
    forgotten = (people.state[of == k] == splits_lib.FORGOTTEN).any(axis=0)
    state[k, forgotten] = splits_lib.FORGOTTEN
  return Scored(
    people.name,
    people.phi[first],
    people.correct[first],
    state,
    people.cluster[first],
    people.split[first],
  )


def over_clusters(
  values: np.ndarray, cluster: np.ndarray
) -> intervals.Estimate:
  """Average f64[P] per cluster and give the t-interval over clusters."""
  means = [np.mean(values[cluster == c]) for c in np.unique(cluster)]
  return intervals.over_splits(np.array(means))


def rows(job: job_lib.Job, metrics: dict[str, Metrics]) -> list[results.Row]:
  """Turn estimates into rows beside those of the retrained models."""
  reference = metrics['retrain']
  found = []
  for name, own in metrics.items():
    for metric, estimate in own.items():
      retrained = reference[metric].value
      found.append(
        results.Row(
          method=name,
          metric=metric,
          value=estimate.value,
          low=estimate.low,
          high=estimate.high,
          retrained=retrained,
          gap=estimate.value - retrained,
          n=estimate.n,
        )
      )
    if name != 'retrain' and 'ulira_auc' in own:
      excess = intervals.paired_difference(
        own['ulira_auc'], reference['ulira_auc']
      )
      found.append(
        results.Row(
          method=name,
          metric='excess_ulira_auc',
          value=excess.value,
          low=excess.low,
          high=excess.high,
          retrained=0.0,
          gap=excess.value,
          n=excess.n,
        )
      )
    found.append(_counted_work(job, name))
  return found


def _counted_work(job: job_lib.Job, name: str) -> results.Row:
  cost = counted_cost(job, name)
  reference = counted_cost(job, 'retrain')
  value = utility_lib.rte(reference, cost)
  return results.Row(
    method=name,
    metric='rte_counted',
    value=value,
    retrained=1.0,
    gap=value - 1.0,
    n=job.populations[name].members.size,
  )


def counted_cost(job: job_lib.Job, name: str) -> float:
  """Return the work of one member in forward passes of one example."""
  return job.counted_cost(name)


def _observations(
  people: Scored, num_dev: int
) -> tuple[np.ndarray, np.ndarray]:
  """Return log-odds of forgotten points and of points that were never seen.

  The latter are the same points in other splits; the test images where there is
  one split, in which every forgotten point was seen.
  """
  seen = people.state == splits_lib.FORGOTTEN
  audited = seen.any(axis=0)
  unseen = (people.state == splits_lib.NEVER_SEEN) & audited
  if not unseen.any():
    unseen[:, num_dev:] = True
  return people.phi[seen], people.phi[unseen]


def _rows(values: np.ndarray, where: np.ndarray) -> np.ndarray:
  return np.stack([v[w] for v, w in zip(values, where, strict=True)])


def _key(name: str) -> str:
  return name.replace('@', '_')


_LISTED = 5  # failed members that are named one by one


def training_warnings(job: job_lib.Job) -> list[str]:
  """Return a sentence for each population that there is something to say of."""
  one = stages.one_model_shapes(job)['params']
  total = sum(math.prod(x.shape) for x in jax.tree.leaves(one))
  dead = sum(weights.count_dead(job.task, one).values())
  found = []
  for name, people in job.populations.items():
    found += failure_warnings(
      name, stages.failed_epochs(people.models), people.members
    )
    chosen = people.method.card.chosen
    if not dead or chosen is None:
      continue
    counts = np.full((1, 1), dead)
    if chosen.info:
      counts = people.models.arrays(chosen.info)
    found.append(dead_weight_warning(name, chosen, counts, dead, total))
  return found


def failure_warnings(
  name: str, failed: np.ndarray, members: job_lib.Members
) -> list[str]:
  """Say which members failed, and when.

  Args:
    name: of the population.
    failed: epoch of the first loss that was not finite, the number of epochs if
      the result alone is not finite, -1 for members that did not fail; i64[P].
    members: who they are.
  """
  bad = np.flatnonzero(failed >= 0)
  if not bad.size:
    return []
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
    f'{"; ".join(named)}{tail}; the others went on undisturbed'
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
    chosen: what it does to which weights.
    counts: dead weights among those of each epoch, f64[P, E]; NaN where a
      member was done.
    dead: dead weights of the network.
    total: all weights of the network.
  """
  over = np.nansum if chosen.every_epoch else np.nanmax
  return (
    f'{name}: of the weights that it {_DONE_TO_WEIGHTS[chosen.action]}, '
    f'{over(counts, axis=1).mean():,.0f} (the mean over models) only ever meet '
    f'padding and have no influence, as do {dead:,} of the {total:,} weights '
    'of this network at this image size'
  )


DISTANCES = ('distance_original', 'distance_retrained')
_MOST = 8  # members; not a shard, whose size must change no number


def measure_distances(
  job: job_lib.Job, cluster: np.ndarray
) -> dict[str, dict[str, intervals.Estimate]]:
  """Return both relative L2 distances of every population.

  Retrained models stand beside those of the next member, in a circle: the scale
  on which the others are read.

  Args:
    job: the job, its models trained.
    cluster: i64[P] what is independent, of all members.
  """
  retrained = job.populations['retrain']
  positions = np.arange(min(_MOST, retrained.members.size))
  members = stages.select_members(retrained.members, positions)
  originals = job.populations['original']
  of = job_lib.originals_of(members, originals.members)
  original = _params(job, originals, of)
  reference = _params(job, retrained, positions)
  turned = jax.tree.map(lambda x: np.roll(x, -1, axis=0), reference)
  live = weights.live_weights(job.task, _one(original, 0))
  found = {}
  for name, people in job.populations.items():
    own = original
    if name != 'original':
      own = _params(job, people, positions)
    others = original, turned if name == 'retrain' else reference
    found[name] = {
      metric: _mean(own, other, live, cluster[positions])
      for metric, other in zip(DISTANCES, others, strict=True)
    }
  return found


def _params(
  job: job_lib.Job, people: job_lib.Population, positions: np.ndarray
) -> Params:
  return stages.read_models(job, people, positions)['params']


def _one(stacked: Params, member: int) -> Params:
  return jax.tree.map(lambda x: x[member], stacked)


def _mean(
  own: Params, other: Params, live: Params, cluster: np.ndarray
) -> intervals.Estimate:
  each = np.array(
    [
      utility_lib.relative_l2(_one(own, k), _one(other, k), live)
      for k in range(len(cluster))
    ]
  )
  means = [np.mean(each[cluster == c]) for c in np.unique(cluster)]
  found = intervals.over_splits(np.array(means))
  # Not of all clusters, hence not to be paired with other numbers.
  return intervals.Estimate(found.value, found.low, found.high, found.n)


def write_scores(job: job_lib.Job, name: str, path: pathlib.Path) -> None:
  """Write the log-odds of an unlearning method beside those of O and R.

  Keys: `log_odds`, `original_log_odds`, `retrained_log_odds` f32[P, N], `state`
  int8[P, N] (0 retained, 1 forgotten, 2 never seen, 3 excluded) and `split`
  i64[P]; an original is repeated for every forget set of its split.
  """
  people = {
    key: read_scored(job, key, []) for key in ('original', 'retrain', name)
  }
  arrays = dict(
    log_odds=people[name].phi.astype(np.float32),
    original_log_odds=people['original'].phi.astype(np.float32),
    retrained_log_odds=people['retrain'].phi.astype(np.float32),
    state=people[name].state,
    split=people[name].split,
  )
  files.write_arrays(path, arrays)
