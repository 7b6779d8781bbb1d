"""Ranks of methods over initialisations and over jobs, from their files.

A job is read from what its report wrote. Within a job, methods are ranked over
initialisations by RetDev and Disc and sorted into groups, and ranked by run
time; ranks are then averaged over jobs. See `jaxmu.metrics.ranking`.
"""

import json
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from jaxmu.metrics import ranking
from jaxmu.report import html, results

_PLACES = ('first', 'second', 'third')


class Job(NamedTuple):
  """What is ranked of one or more jobs with the same retrained models.

  Attributes:
    name: of the work directories.
    retrained: digest of the retrained models, '' where it is not known.
    classes: of the data set.
    digests: the settings of each unlearning method, in the job's order.
    per_seed: method -> metric -> values over initialisations.
    speed: RTE of each method.
  """

  name: str
  retrained: str
  classes: int
  digests: dict[str, str]
  per_seed: dict[str, dict[str, list[float]]]
  speed: dict[str, float]


class Cell(NamedTuple):
  """Ranks of the methods of a cell, f64[K], by metric; and their groups."""

  name: str
  ranks: dict[str, np.ndarray]
  groups: dict[str, np.ndarray]
  seeds: int


def read(folder: pathlib.Path) -> Job:
  """Read what a job wrote.

  Raises:
    ValueError: the folder holds no finished report.
  """
  path = folder / 'per_cluster.csv'
  if not path.is_file():
    raise ValueError(
      f'{folder} has no {path.name}; give the workdir of a finished job'
    )
  rows = results.read_csv(path, results.Observation)
  try:
    text = (folder / 'results.json').read_text(encoding='utf-8')
    facts = json.loads(text)['provenance']
    classes, digests = facts['data']['classes'], facts.get('results', {})
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise ValueError(
      f'{folder}: results.json cannot be read ({error}); run the job again, '
      'which writes the report from stored results'
    ) from error
  baselines = (results.REFERENCE, results.ORIGINAL)
  order = results.ordered(row.method for row in rows)
  methods = [name for name in order if name not in baselines]
  per_seed: dict[str, dict[str, list[float]]] = {name: {} for name in methods}
  for row in rows:
    if row.method in per_seed:
      per_seed[row.method].setdefault(row.metric, []).append(row.value)
  timing = folder / 'timing.csv'
  clock = results.read_csv(timing) if timing.is_file() else []
  return Job(
    str(folder),
    digests.get(results.REFERENCE, ''),
    classes,
    {name: digests.get(name, '') for name in methods},
    per_seed,
    {row.method: row.value for row in clock if row.metric == 'rte'},
  )


def join(jobs: Sequence[Job]) -> list[Job]:
  """Join jobs with the same retrained models.

  Jobs that have a method with different settings are not joined.
  """
  joined: list[Job] = []
  for job in jobs:
    for i, other in enumerate(joined):
      same = other.retrained and other.retrained == job.retrained
      both = job.digests.keys() & other.digests.keys()
      if same and all(job.digests[m] == other.digests[m] for m in both):
        joined[i] = other._replace(
          name=f'{other.name} + {job.name}',
          digests={**job.digests, **other.digests},
          per_seed={**job.per_seed, **other.per_seed},
          speed={**job.speed, **other.speed},
        )
        break
    else:
      joined.append(job)
  return joined


def rank_job(job: Job, methods: Sequence[str]) -> Cell | None:
  """Rank some methods of a job; None with too few of them or of seeds."""
  rankings = ranking.rank_methods(
    {
      name: {k: np.array(values) for k, values in job.per_seed[name].items()}
      for name in methods
    },
    classes=job.classes,
  )
  if len(rankings) < len(ranking.TITLES):
    return None
  slowness = stats.rankdata([-job.speed.get(name, 0.0) for name in methods])
  return Cell(
    job.name,
    {**{k: v.mean_rank for k, v in rankings.items()}, 'rte': slowness},
    {k: v.placement() for k, v in rankings.items()},
    min(one.seeds for one in rankings.values()),
  )


def over_cells(cells: Sequence[Cell]) -> dict[str, ranking.OverallRanking]:
  """Return the ranks over cells by each metric.

  Those of a single cell are means over initialisations, without intervals.
  """
  if len(cells) > 1:
    return {
      metric: ranking.rank_overall(np.stack([c.ranks[metric] for c in cells]))
      for metric in cells[0].ranks
    }
  (cell,) = cells
  overall = {}
  for metric, ranks in cell.ranks.items():
    critical = math.nan
    if metric in ranking.TITLES:
      critical = ranking.critical_difference(len(ranks), cell.seeds)
    unknown = np.full(len(ranks), np.nan)
    overall[metric] = ranking.OverallRanking(ranks, unknown, unknown, critical)
  return overall


def pictures(
  methods: Sequence[str],
  overall: Mapping[str, ranking.OverallRanking],
  number: str,
  problems: list[str],
) -> list[html.Picture]:
  """Draw the mean ranks by each metric.

  Args:
    methods: the ranked methods.
    overall: as `over_cells` returns it.
    number: what was averaged over, such as '3 jobs'.
    problems: gets a sentence for each picture that cannot be drawn.
  """
  shown = {
    metric: (one.mean_rank, one.critical_difference, number)
    for metric, one in overall.items()
  }
  titles = {**ranking.TITLES, 'rte': 'run time'}
  return html.draw_ranks(titles, methods, shown, problems)


def rows(
  cells: Sequence[Cell],
  overall: Mapping[str, ranking.OverallRanking],
  methods: Sequence[str],
) -> list[results.Row]:
  """Return ranks over cells, counts of groups and the combined rank."""
  table = [
    results.Row(
      name,
      f'rank_{metric}',
      float(ranks.mean_rank[i]),
      float(ranks.low[i]),
      float(ranks.high[i]),
      n=len(cells),
    )
    for metric, ranks in overall.items()
    for i, name in enumerate(methods)
  ]
  for metric in cells[0].groups:
    groups = np.stack([c.groups[metric] for c in cells])
    table += [
      results.Row(
        name,
        f'{place}_{metric}',
        int(np.sum(groups[:, i] == number)),
        n=len(cells),
      )
      for number, place in enumerate(_PLACES, 1)
      for i, name in enumerate(methods)
    ]
  combined = ranking.combined_rank([r.mean_rank for r in overall.values()])
  table += [
    results.Row(name, 'rank_combined', float(combined[i]), n=len(cells))
    for i, name in enumerate(methods)
  ]
  return table


def rank_all(
  jobs: Sequence[Job],
) -> tuple[list[str], list[Cell], list[str]]:
  """Rank the methods that all jobs with several methods have.

  Args:
    jobs: as `read` and `join` return them.

  Returns:
    The ranked methods, the cells, and sentences about what is left out.

  Raises:
    ValueError: nothing can be ranked; the message says why.
  """
  several = [job for job in jobs if len(job.per_seed) > 1]
  warnings = [
    f'Left out: {job.name} has a single method, '
    f'{", ".join(map(results.label, job.per_seed))}, and no other job has the '
    'same retrained models'
    for job in jobs
    if job not in several
  ]
  every = {name: None for job in several for name in job.per_seed}
  methods = [n for n in every if all(n in job.per_seed for job in several)]
  omitted = [n for n in sorted(every) if n not in methods]
  if omitted:
    listed = ', '.join(map(results.label, omitted))
    warnings.append(f'Left out because some job lacks them: {listed}')
  ranked = [(job, rank_job(job, methods)) for job in several]
  cells = [cell for _, cell in ranked if cell]
  warnings += [
    f'Left out: {job.name} cannot be ranked; it takes two methods that do '
    f'better than guessing and {ranking.MIN_SEEDS} initialisations or pairs of '
    "splits (config.splits.seeds for design 'main')"
    for job, cell in ranked
    if not cell
  ]
  if not cells:
    raise ValueError(f'nothing can be ranked. {". ".join(warnings)}')
  return methods, cells, warnings
