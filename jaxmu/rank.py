"""Rank unlearning methods over several finished jobs.

    python -m jaxmu.rank --jobs=workdir1,workdir2 --out=directory

A job is a cell: a data set and an architecture. Within each cell, methods are
ranked over initialisations by RetDev and Disc and sorted into groups, and
ranked by run time. Across jobs there are mean ranks with bootstrap intervals,
Nemenyi's critical difference, counts of placements, and a combined rank. The
benchmark does not publish its rule; docs/attacks.md describes the one used
here.
"""

import json
import pathlib
import shlex
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from jaxmu import cli, files, terms
from jaxmu.metrics import ranking
from jaxmu.report import html, results, tables

MIN_JOBS = 2
_PLACES = ('first', 'second', 'third')


class Cell(NamedTuple):
  """One job: ranks of its methods, f64[K], by metric; and their groups."""

  name: str
  ranks: dict[str, np.ndarray]
  groups: dict[str, np.ndarray]


def methods_of(folder: pathlib.Path) -> list[str]:
  """Return the unlearning methods of a job, in its order.

  Raises:
    ValueError: the folder holds no finished report.
  """
  path = folder / 'per_cluster.csv'
  if not path.is_file():
    raise ValueError(
      f'{folder} has no {path.name}; give the workdir of a finished job'
    )
  rows = results.read_csv(path, results.Observation)
  order = results.ordered(row.method for row in rows)
  return [n for n in order if n not in (results.REFERENCE, results.ORIGINAL)]


def read(folder: pathlib.Path, methods: Sequence[str]) -> Cell:
  """Read a job and rank some of its methods.

  Raises:
    ValueError: too few methods or initialisations to rank.
  """
  per_seed: dict[str, dict[str, list[float]]] = {name: {} for name in methods}
  for row in results.read_csv(folder / 'per_cluster.csv', results.Observation):
    if row.method in per_seed:
      per_seed[row.method].setdefault(row.metric, []).append(row.value)
  try:
    facts = json.loads((folder / 'results.json').read_text(encoding='utf-8'))
  except (OSError, ValueError) as error:
    raise ValueError(
      f'{folder}: results.json cannot be read ({error}); run the job again, '
      'which writes the report from stored results'
    ) from error
  rankings = ranking.rank_methods(
    {
      name: {metric: np.array(values) for metric, values in one.items()}
      for name, one in per_seed.items()
    },
    classes=facts['provenance']['data']['classes'],
  )
  if len(rankings) < len(ranking.TITLES):
    raise ValueError(
      f'{folder} cannot be ranked; it takes two methods that do better than '
      f'guessing and {ranking.MIN_SEEDS} initialisations or pairs of splits '
      "(config.splits.seeds for design 'main')"
    )
  timing = folder / 'timing.csv'
  clock = results.read_csv(timing) if timing.is_file() else []
  speed = {row.method: row.value for row in clock if row.metric == 'rte'}
  slowness = stats.rankdata([-speed.get(name, 0.0) for name in methods])
  return Cell(
    str(folder),
    {**{k: v.mean_rank for k, v in rankings.items()}, 'rte': slowness},
    {k: v.placement() for k, v in rankings.items()},
  )


def over_cells(cells: Sequence[Cell]) -> dict[str, ranking.OverallRanking]:
  """Return the ranks over cells by each metric."""
  return {
    metric: ranking.rank_overall(np.stack([c.ranks[metric] for c in cells]))
    for metric in cells[0].ranks
  }


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


def command(folders: Sequence[str], out: str = '') -> str:
  """Return the command line that reproduces the report."""
  words = ['python', '-m', 'jaxmu.rank', f'--jobs={",".join(folders)}']
  return shlex.join([*words, *([f'--out={out}'] if out else [])])


def rank(folders: Sequence[str], out: str = '') -> html.Report:
  """Rank the methods that all these jobs have.

  Args:
    folders: work directories of finished jobs.
    out: folder of the report, for the command that reproduces it.

  Raises:
    ValueError: fewer than two jobs, or one that cannot be ranked.
  """
  paths = [files.path(folder) for folder in folders]
  if len(set(paths)) < max(MIN_JOBS, len(paths)):
    raise ValueError(
      f'--jobs={",".join(folders)}: give at least {MIN_JOBS} jobs, each once '
      f'(the report.html of a job ranks its methods)'
    )
  every = [methods_of(path) for path in paths]
  methods = [name for name in every[0] if all(name in other for other in every)]
  left_out = sorted({n for one in every for n in one} - set(methods))
  cells = [read(path, methods) for path in paths]
  overall = over_cells(cells)
  listed = ', '.join(results.label(name) for name in left_out)
  problems: list[str] = []
  number = terms.count(len(cells), 'job')
  ranks = {
    metric: (one.mean_rank, one.critical_difference, number)
    for metric, one in overall.items()
  }
  titles = {**ranking.TITLES, 'rte': 'run time'}
  drawn = html.draw_ranks(titles, methods, ranks, problems)
  omitted = f'Left out because some job lacks them: {listed}'
  warnings = [omitted] if left_out else []
  return html.Report(
    title=f'{terms.count(len(methods), "unlearning method")} over {number}',
    lead=[f'Ranked jobs: {", ".join(cell.name for cell in cells)}.'],
    rows=rows(cells, overall, methods),
    pictures=drawn,
    command=command(folders, out),
    warnings=warnings + problems,
  )


def main(argv: Sequence[str] | None = None) -> None:
  """Run the command; see the module's docstring."""
  parser = cli.Parser('jaxmu.rank', __doc__ or '')
  add = parser.add_argument
  add('--jobs', required=True, help='work directories, separated by commas')
  add('--out', required=True, help='directory for results.csv and report.html')
  chosen = parser.parse_args(argv)
  with cli.one_line_errors():
    report = rank(chosen.jobs.split(','), chosen.out)
    directory = files.writable_folder(chosen.out, '--out')
    html.write_report(directory, report)
  tables.show_table(report.rows)
  print(f'{directory / "report.html"} written')


if __name__ == '__main__':
  main()
