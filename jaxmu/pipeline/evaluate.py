"""From predictions to rows of numbers, each with interval and reference.

Every metric is computed per model, averaged over the models of a cluster, and
its interval is a t-interval over clusters. Clusters are what is independent:
pairs of complementary splits, or initialisations where there is one split.
"""

from typing import Any, NamedTuple

import numpy as np

from jaxmu.attacks import intervals, log_odds, population, roc_report, ulira
from jaxmu.data import splits as splits_lib
from jaxmu.metrics import accuracy, indiscernibility, retention, runtime
from jaxmu.pipeline import distance, predict, remarks, roster, train
from jaxmu.pipeline import job as job_lib
from jaxmu.report import records

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

  rows: list[records.Row]
  curves: dict[str, dict[str, np.ndarray]]
  scores: dict[str, tuple[np.ndarray, np.ndarray]]
  failed: dict[str, tuple[int, int]]
  warnings: list[str]
  per_cluster: dict[str, dict[str, np.ndarray]]


Metrics = dict[str, intervals.Estimate]


def evaluate(job: job_lib.Job) -> Evaluation:
  """Compute all numbers of a job from its stored predictions."""
  warnings = remarks.remarks(job)
  metrics: dict[str, Metrics] = {}
  curves, scores, failed = {}, {}, {}
  scored = {name: read(job, name, warnings) for name in job.populations}
  reference = scored['retrain']
  for name, people in scored.items():
    found = utility(job, people, reference)
    found |= membership(job, people)
    attack = attacked(job, people, warnings)
    if attack is not None:
      ratio, whose = attack
      report = roc_report.roc_report(ratio, whose.state, whose.cluster)
      found |= {
        f'ulira_{_key(k)}': intervals.cross_fitted(v) for k, v in report.items()
      }
      warnings += [
        f'{name}: U-LiRA {k} is not given: {v.note}'
        for k, v in report.items()
        if np.isnan(v.value)
      ]
      curves[name] = roc_report.curves(
        ratio, whose.state, whose.cluster, fpr=FPR_GRID
      )
    metrics[name] = found
    scores[name] = _observations(people, job.source.num_dev)
    bad = int(np.sum(train.failed(job.populations[name].models) >= 0))
    failed[name] = (bad, job.populations[name].members.size)
  apart = distance.measure(job, reference.cluster)
  metrics = {name: found | apart[name] for name, found in metrics.items()}
  per_cluster = {
    name: {metric: estimate.by_split for metric, estimate in found.items()}
    for name, found in metrics.items()
  }
  return Evaluation(
    rows(job, metrics), curves, scores, failed, warnings, per_cluster
  )


def read(job: job_lib.Job, name: str, warnings: list[str]) -> Scored:
  """Read predictions, one row per (seed, split, forget set).

  An original serves all forget sets of its split and is repeated for each.
  """
  people = job.populations[name]
  found = predict.read(people)
  bad = int(np.sum(~found.finite))
  if bad:
    warnings.append(
      f'{name}: {bad} of {found.finite.size} predictions are not finite; they '
      'count as wrong, with the most negative log-odds'
    )
  everyone = roster.everyone(job.design, job.settings.splits.seeds)
  position = np.arange(everyone.size)
  if people.members.size != everyone.size or name == 'original':
    position = roster.originals_of(everyone, people.members)
  state = splits_lib.state(job.design, len(job.source.label))
  return Scored(
    name=name,
    phi=found.log_odds[position].astype(np.float64),
    correct=found.correct[position],
    state=state[everyone.row],
    cluster=_clusters(job, everyone),
    split=everyone.split,
  )


def _clusters(job: job_lib.Job, members: roster.Roster) -> np.ndarray:
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
  kept = retention.retention(new, retrained)
  paired = dict(
    rr=kept.retain,
    fr=kept.forget,
    tr=kept.test,
    ret_dev=kept.deviation,
    tow=retention.tug_of_war(new, retrained),
  )
  for name, value in paired.items():
    found[name] = over_clusters(value, people.cluster)
  means = retention.retention_of_means(new, retrained)
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
    name: accuracy.accuracy(people.correct, where)
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
    mia = population.population_mia(forget, nonmember)
    found[f'mia_{name}'] = over_clusters(mia, people.cluster)
    found[f'indisc_{name}'] = over_clusters(
      indiscernibility.indiscernibility(mia), people.cluster
    )
  report = population.population_report(
    -forget, -outside['test'], people.cluster
  )
  found['population_auc'] = report['auc']
  return found


def attacked(
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
  ratio, _ = ulira.ulira(
    people.phi,
    people.state,
    people.cluster,
    mode=options.mode,
    variance=options.variance,
    location=options.location,
  )
  return ratio, people


def _once_per_split(job: job_lib.Job, people: Scored) -> Scored:
  members = roster.everyone(job.design, job.settings.splits.seeds)
  once = roster.per_split(job.design, job.settings.splits.seeds)
  of = roster.originals_of(members, once)
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


def rows(job: job_lib.Job, metrics: dict[str, Metrics]) -> list[records.Row]:
  """Turn estimates into rows beside those of the retrained models."""
  reference = metrics['retrain']
  found = []
  for name, own in metrics.items():
    for metric, estimate in own.items():
      retrained = reference[metric].value
      found.append(
        records.Row(
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
        records.Row(
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


def _counted_work(job: job_lib.Job, name: str) -> records.Row:
  cost = counted_cost(job, name)
  reference = counted_cost(job, 'retrain')
  value = runtime.rte(reference, cost)
  return records.Row(
    method=name,
    metric='rte_counted',
    value=value,
    retrained=1.0,
    gap=value - 1.0,
    n=job.populations[name].members.size,
  )


def counted_cost(job: job_lib.Job, name: str) -> float:
  """Return the work of one member in forward passes of one example."""
  people = job.populations[name]
  return float(people.method.card.cost(people.hparams, job.sizes))


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
