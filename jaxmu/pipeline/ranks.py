"""Methods of a job ranked against each other, and what a ranking is made from.

The numbers per cluster are kept in `per_cluster.csv`, from which `jaxmu.rank`
ranks methods across several jobs.
"""

import numpy as np

from jaxmu.metrics import ranking
from jaxmu.pipeline import evaluate
from jaxmu.pipeline import job as job_lib
from jaxmu.report import names, page, plots, records

FILE = 'per_cluster.csv'


def observations(found: evaluate.Evaluation) -> list[records.Observation]:
  """Return every number of every cluster."""
  return [
    records.Observation(method, metric, cluster, float(value))
    for method, metrics in found.per_cluster.items()
    for metric, values in metrics.items()
    for cluster, value in enumerate(values)
  ]


def rank(
  job: job_lib.Job, found: evaluate.Evaluation
) -> dict[str, ranking.CellRanking]:
  """Rank the unlearning methods by RetDev and Disc; empty if too few."""
  return ranking.rank_methods(
    {p.name: found.per_cluster[p.name] for p in job.unlearned},
    classes=job.source.num_classes,
  )


def rows(
  job: job_lib.Job, found: dict[str, ranking.CellRanking]
) -> list[records.Row]:
  """Return mean rank and group of each method."""
  return [
    records.Row(people.name, f'{kind}_{metric}', float(values[i]), n=cell.seeds)
    for metric, cell in found.items()
    for kind, values in (('rank', cell.mean_rank), ('group', cell.placement()))
    for i, people in enumerate(job.unlearned)
  ]


def pictures(
  job: job_lib.Job,
  found: dict[str, ranking.CellRanking],
  results: list[records.Row],
) -> list[page.Picture]:
  """Draw the front of accuracy and privacy, and the ranks where there are."""
  if len(job.unlearned) < 2:
    return []
  drawn = [_front(results)]
  for metric, cell in found.items():
    title = ranking.TITLES[metric]
    drawn.append(
      page.Picture(
        f'rank_{metric}',
        f'Mean rank of each method by {title} over {cell.seeds} '
        'initialisations (or pairs of splits); 1 is best. Methods under a bar '
        'differ by less than the critical difference of the Nemenyi test.',
        plots.critical_difference(
          [people.name for people in job.unlearned],
          cell.mean_rank,
          ranking.critical_difference(len(cell.mean_rank), cell.seeds),
          title=f'Mean rank by {title} (1 is best)',
        ),
      )
    )
  return drawn


def _front(results: list[records.Row]) -> page.Picture:
  value = {(row.method, row.metric): row.value for row in results}
  methods = names.ordered(row.method for row in results)
  # An attack on single points where there is one, else one for all points.
  strong = any(metric == 'excess_ulira_auc' for _, metric in value)
  if strong:
    metric = 'excess_ulira_auc'
    value[names.REFERENCE, metric] = 0.0
    privacy = [value.get((m, metric), np.nan) for m in methods]
  else:
    metric = 'disc_test'
    privacy = [1 - value[m, 'indisc_test'] for m in methods]
  both = np.array([[value[m, 'ret_dev'] for m in methods], privacy]).T
  rivals = [m not in (names.REFERENCE, names.ORIGINAL) for m in methods]
  competing = np.where(np.array(rivals)[:, None], both, np.nan)
  return page.Picture(
    'front',
    'Distance from retraining in accuracies (horizontal) and what an attack '
    'finds (vertical): both should be small. No other method beats a filled '
    'one in both; the original and the retrained models do not compete.',
    plots.pareto(
      methods,
      both[:, 0],
      both[:, 1],
      ranking.pareto_front(competing),
      y_metric=metric,
    ),
  )
