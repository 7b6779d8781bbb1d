"""Ranks of methods over initialisations and over cells, from files of reports.

A cell is a job, or several with the same retrained models. Within a cell,
methods are ranked over initialisations by RetDev and Disc and sorted into
groups, and ranked by run time; ranks are then averaged over cells. See
`jaxmu.metrics.ranking`. A job's report, `jaxmu.rank` and the leaderboard of a
sweep use these functions.
"""

import functools
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from jaxmu import files, terms
from jaxmu.metrics import ranking
from jaxmu.report import checksums, html, plots, results, tables

# Titles of the studies of a sweep that write reports.
STUDY_TITLES = {'main': 'Main table', 'ulira': 'U-LiRA'}

_PLACES = ('first', 'second', 'third')
_TITLES = {**ranking.TITLES, 'rte': 'run time'}
# Columns of the table of ranks.
_COLUMNS = {
  'rank_ret_dev': 'rank (RetDev)',
  'first_ret_dev': 'in group 1',
  'rank_disc_test': 'rank (Disc)',
  'first_disc_test': 'in group 1',
  'rank_rte': 'rank (RTE)',
  'rank_combined': 'combined',
}


class Job(NamedTuple):
  """The numbers to rank, of one or more jobs with the same retrained models.

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


class Ranking(NamedTuple):
  """Ranks of methods over cells.

  Attributes:
    methods: the ranked methods, K: those that all cells have.
    cells: the ranked cells.
    overall: ranks over cells by metric. Those of a single cell are means over
      initialisations, without intervals.
    warnings: sentences about what is left out.
    joined: whether a cell is several jobs.
  """

  methods: list[str]
  cells: list[Cell]
  overall: dict[str, ranking.OverallRanking]
  warnings: list[str]
  joined: bool


def find(folder: pathlib.Path) -> dict[str, list[pathlib.Path]]:
  """Return the work directories with a report, by study.

  Args:
    folder: of a job, whose study is '', or of a sweep: CELL/STUDY.

  Raises:
    ValueError: there is no report.
  """
  if (folder / results.PER_CLUSTER_FILE).is_file():
    return {'': [folder]}
  found: dict[str, list[pathlib.Path]] = {}
  for path in sorted(folder.glob(f'*/*/{results.PER_CLUSTER_FILE}')):
    found.setdefault(path.parent.name, []).append(path.parent)
  if not found:
    raise ValueError(
      f'{files.shown(folder)} has no {results.PER_CLUSTER_FILE}, and no folder '
      'CELL/STUDY in it has one; give the workdir of a finished job or of a '
      'sweep'
    )
  return found


def read(folder: pathlib.Path) -> Job:
  """Read the numbers to rank from the report of a job.

  Raises:
    ValueError: the folder holds no finished report.
  """
  path = folder / results.PER_CLUSTER_FILE
  if not path.is_file():
    raise ValueError(
      f'{folder} has no {path.name}; give the workdir of a finished job'
    )
  rows = results.read_csv(path, results.Observation)
  try:
    facts = results.read_json(folder / 'results.json')['provenance']
    classes, digests = facts['data']['classes'], facts.get('results', {})
  except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
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
  timed = timing.is_file() or checksums.expected(timing)
  clock = results.read_csv(timing) if timed else []
  return Job(
    str(folder),
    digests.get(results.REFERENCE, ''),
    classes,
    {name: digests.get(name, '') for name in methods},
    per_seed,
    {row.method: row.value for row in clock if row.metric == 'rte'},
  )


def _join(jobs: Sequence[Job]) -> list[Job]:
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


def _rank_job(job: Job, methods: Sequence[str]) -> Cell | None:
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


def _over_cells(cells: Sequence[Cell]) -> dict[str, ranking.OverallRanking]:
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


def rank(jobs: Sequence[Job]) -> Ranking:
  """Rank the methods that all cells with several methods have.

  Args:
    jobs: those with the same retrained models form one cell.

  Raises:
    ValueError: nothing can be ranked; the message says why.
  """
  given, jobs = jobs, _join(jobs)
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
  ranked = [(job, _rank_job(job, methods)) for job in several]
  cells = [cell for _, cell in ranked if cell]
  unranked = [job.name for job, cell in ranked if not cell]
  if unranked:
    warnings.append(
      f'Left out: {", ".join(unranked)} cannot be ranked; it takes two methods '
      f'that do better than guessing and {ranking.MIN_SEEDS} initialisations '
      "or pairs of splits (config.splits.seeds for design 'main')"
    )
  if not cells:
    raise ValueError(f'nothing can be ranked. {". ".join(warnings)}')
  joined = len(jobs) < len(given)
  return Ranking(methods, cells, _over_cells(cells), warnings, joined)


def rows(ranked: Ranking) -> list[results.Row]:
  """Return ranks over cells, counts of groups and the combined rank."""
  methods, cells, overall = ranked.methods, ranked.cells, ranked.overall
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


def table(ranked: Ranking, study: str = '') -> tables.Table:
  """Return the table of ranks over cells, the best combined rank first.

  Args:
    ranked: the ranks.
    study: that of the cells in a sweep; one of `STUDY_TITLES`, or '' for jobs.
  """
  value = {(row.method, row.metric): row for row in rows(ranked)}
  methods = sorted(
    ranked.methods, key=lambda name: value[name, 'rank_combined'].value
  )
  body = []
  for name in methods:
    line = [results.label(name)]
    for metric in _COLUMNS:
      row = value[name, metric]
      number = f'{row.value:.0f}' if 'first' in metric else f'{row.value:.2f}'
      span = results.format_interval(row.low, row.high, decimals=2)
      line.append(f'{number} {span}'.strip())
    body.append(line)
  several = len(ranked.cells) > 1
  # The 2.5% quantile of resamples of up to three cells is the smallest one.
  span = '95% intervals' if len(ranked.cells) > 3 else 'the range'
  note = (
    f'Mean ranks, 1 is best, with {span} over cells.'
    if several
    else 'Mean ranks over initialisations (or pairs of splits), 1 is best.'
  )
  critical = ', '.join(
    f'{one.critical_difference:.2f} ({ranking.TITLES.get(metric, "RTE")})'
    for metric, one in ranked.overall.items()
    if math.isfinite(one.critical_difference)
  )
  if critical:
    note += f' Critical difference of mean ranks: {critical}.'
    least = min(
      one.critical_difference
      for one in ranked.overall.values()
      if math.isfinite(one.critical_difference)
    )
    if several and least > len(methods) - 1:
      note += ' With so few cells no two methods can differ by that much.'
  title = f'Ranks over {terms.count(len(ranked.cells), "cell")}'
  if study not in ('', 'main'):
    title = f'{STUDY_TITLES.get(study, study)}: {title[0].lower()}{title[1:]}'
  return tables.Table(
    title,
    ['Method', *_COLUMNS.values()],
    body,
    note,
  )


def pictures(
  ranked: Ranking, number: str, problems: list[str]
) -> list[html.Picture]:
  """Draw the mean ranks over cells by each metric; see `diagrams`."""
  shown = {
    metric: (one.mean_rank, one.critical_difference)
    for metric, one in ranked.overall.items()
  }
  return diagrams(ranked.methods, shown, number, problems)


def diagrams(
  methods: Sequence[str],
  ranks: Mapping[str, tuple[np.ndarray, float]],
  number: str,
  problems: list[str],
) -> list[html.Picture]:
  """Draw one diagram of ranks per metric.

  Args:
    methods: the ranked methods, K.
    ranks: by metric the mean ranks f64[K] and the critical difference.
    number: what was averaged over, such as '3 jobs'.
    problems: gets a sentence for each picture that cannot be drawn.
  """
  return [
    picture
    for metric, (mean, critical) in ranks.items()
    for picture in html.draw(
      f'rank_{metric}',
      functools.partial(
        plots.critical_difference,
        methods,
        mean,
        critical,
        title=f'Mean rank by {_TITLES[metric]} (1 is best)',
      ),
      problems,
      metric=_TITLES[metric],
      number=number,
    )
  ]


def job_rows(
  methods: Sequence[str], rankings: Mapping[str, ranking.CellRanking]
) -> list[results.Row]:
  """Return mean rank and group of each method of one job."""
  return [
    results.Row(name, f'{kind}_{metric}', float(values[i]), n=cell.seeds)
    for metric, cell in rankings.items()
    for kind, values in (('rank', cell.mean_rank), ('group', cell.placement()))
    for i, name in enumerate(methods)
  ]


def job_pictures(
  methods: Sequence[str],
  rankings: Mapping[str, ranking.CellRanking],
  problems: list[str],
) -> list[html.Picture]:
  """Draw the mean ranks of one job over initialisations."""
  shown = {
    metric: (
      cell.mean_rank,
      ranking.critical_difference(len(cell.mean_rank), cell.seeds),
    )
    for metric, cell in rankings.items()
  }
  seeds = max((cell.seeds for cell in rankings.values()), default=0)
  return diagrams(methods, shown, over_seeds(seeds), problems)


def over_seeds(seeds: int) -> str:
  """Return what the ranks of a single cell are averaged over, in words."""
  return f'{seeds} initialisations (or pairs of splits)'
