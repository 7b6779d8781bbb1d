"""Rank unlearning methods over several finished jobs.

    python -m jaxmu.rank --jobs=workdir1,workdir2 --out=directory

Jobs with the same retrained models (data, splits, architecture and recipe) form
one cell, also where each of them has a single method. Within each cell, methods
are ranked over initialisations by RetDev and Disc and sorted into groups, and
ranked by run time. Across cells there are mean ranks with bootstrap intervals,
Nemenyi's critical difference, counts of placements, and a combined rank. Jobs
that cannot be ranked are left out and named. The benchmark does not publish its
rule; docs/attacks.md describes the one used here.
"""

import shlex
from collections.abc import Sequence

from jaxmu import cli, files, terms
from jaxmu.report import html, ranks, tables

MIN_JOBS = 2


def command(folders: Sequence[str], out: str = '') -> str:
  """Return the command line that reproduces the report."""
  words = ['python', '-m', 'jaxmu.rank', f'--jobs={",".join(folders)}']
  return shlex.join([*words, *([f'--out={out}'] if out else [])])


def rank(folders: Sequence[str], out: str = '') -> html.Report:
  """Rank the methods that all these jobs, or groups of jobs, have.

  Args:
    folders: work directories of finished jobs.
    out: folder of the report, for the command that reproduces it.

  Raises:
    ValueError: fewer than two jobs, one without a report, or nothing that can
      be ranked.
  """
  paths = [files.workdir(folder) for folder in folders]
  if len(set(paths)) < max(MIN_JOBS, len(paths)):
    raise ValueError(
      f'--jobs={",".join(folders)}: give at least {MIN_JOBS} jobs, each once '
      f'(the report.html of a job ranks its methods)'
    )
  for path in paths:
    files.refresh(path)
  jobs = ranks.join([ranks.read(path) for path in paths])
  methods, cells, warnings = ranks.rank_all(jobs)
  overall = ranks.over_cells(cells)
  problems: list[str] = []
  number = terms.count(len(cells), 'job')
  if len(cells) == 1:
    number = f'{cells[0].seeds} initialisations (or pairs of splits)'
  elif len(jobs) < len(paths):
    number = f'{len(cells)} groups of jobs with the same retrained models'
  drawn = ranks.pictures(methods, overall, number, problems)
  return html.Report(
    title=f'{terms.count(len(methods), "unlearning method")} over {number}',
    lead=[f'Ranked jobs: {", ".join(cell.name for cell in cells)}.'],
    rows=ranks.rows(cells, overall, methods),
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
  for line in report.warnings:
    cli.warn(line)
  print(f'{directory / "report.html"} written')


if __name__ == '__main__':
  main()
