"""Rank unlearning methods over finished jobs, or over the cells of a sweep.

    python -m jaxmu.rank WORKDIR WORKDIR ... [--out=DIR]

WORKDIR is the work directory of a job, or that of a sweep, which stands for all
its cells with a report; they are ranked by study, and with --out, each study
has a folder DIR/STUDY. Jobs with the same retrained models (data, splits,
architecture and recipe) form one cell, also where each of them has a single
method. Within each cell, methods are ranked over initialisations by RetDev and
Disc and sorted into groups, and ranked by run time. Across cells there are mean
ranks with bootstrap intervals, Nemenyi's critical difference, counts of
placements, and a combined rank, as in the leaderboard of a sweep. Jobs that
cannot be ranked are left out and named. The benchmark does not publish its
rule; docs/attacks.md describes the one used here.
"""

import dataclasses
import os
import pathlib
import shlex
from collections.abc import Sequence
from typing import NamedTuple

from jaxmu import cli, files, terms
from jaxmu.report import html, ranks, tables

MIN_JOBS = 2


class Ranked(NamedTuple):
  """Ranks of jobs: the table of a leaderboard, and the report."""

  table: tables.Table
  report: html.Report


def command(folders: Sequence[str], out: str = '') -> str:
  """Return the command line that reproduces the report."""
  words = ['python', '-m', 'jaxmu.rank', *folders]
  return shlex.join([*words, *([f'--out={out}'] if out else [])])


def rank(folders: Sequence[str], out: str = '') -> dict[str, Ranked]:
  """Rank the methods that all these jobs, or groups of jobs, have.

  Args:
    folders: work directories of finished jobs, or of sweeps.
    out: folder of the report, for the command that reproduces it.

  Returns:
    The ranks by study of the sweeps, or those of the jobs under ''.

  Raises:
    ValueError: fewer than two jobs, one without a report, or nothing that can
      be ranked.
  """
  line = command(folders, out)
  ranked, unranked = {}, []
  for study, places in _find(folders).items():
    try:
      jobs = [ranks.read(path)._replace(name=n) for n, path in places.items()]
      ranked[study] = _rank(study, jobs, line)
    except ValueError as error:
      unranked.append(f'{study}: {error}' if study else str(error))
  if not ranked:
    raise ValueError('; '.join(unranked))
  for study, (table, report) in ranked.items():
    warnings = [*report.warnings, *unranked]
    report = dataclasses.replace(report, warnings=warnings)
    ranked[study] = Ranked(table, report)
  return ranked


def _find(folders: Sequence[str]) -> dict[str, dict[str, pathlib.Path]]:
  """Return the work directories of jobs by name, those of sweeps by study."""
  paths = [files.workdir(folder) for folder in folders]
  for path in paths:
    files.refresh(path)
  found = [(path, ranks.find(path)) for path in paths]
  studies = {study for _, own in found for study in own}
  places = {path.resolve() for path in paths}
  several = len(places) >= (MIN_JOBS if '' in studies else 1)
  if not several or len(places) < len(paths):
    raise ValueError(
      f'{" ".join(folders) or "no work directory"}: give at least {MIN_JOBS} '
      'jobs, each once (the report.html of a job ranks its methods), or a sweep'
    )
  if '' in studies and len(studies) > 1:
    raise ValueError(f'{" ".join(folders)}: give jobs or sweeps, not both')
  jobs: dict[str, dict[str, pathlib.Path]] = {}
  for path, own in found:
    for study, places in own.items():
      for place in places:
        short = study and len(paths) == 1
        name = place.relative_to(path).as_posix() if short else str(place)
        jobs.setdefault(study, {})[name] = place
  return jobs


def _rank(study: str, jobs: Sequence[ranks.Job], line: str) -> Ranked:
  ranked = ranks.rank(jobs)
  cells = ranked.cells
  problems: list[str] = []
  number = terms.count(len(cells), 'cell' if study else 'job')
  if len(cells) == 1:
    number = ranks.over_seeds(cells[0].seeds)
  elif ranked.joined:
    number = f'{len(cells)} groups of jobs with the same retrained models'
  drawn = ranks.pictures(ranked, number, problems)
  methods = terms.count(len(ranked.methods), 'unlearning method')
  report = html.Report(
    title=f'{methods} over {number}',
    lead=[f'Ranked jobs: {", ".join(cell.name for cell in cells)}.'],
    rows=ranks.rows(ranked),
    pictures=drawn,
    command=line,
    warnings=ranked.warnings + problems,
  )
  return Ranked(ranks.table(ranked, study), report)


def _parser() -> cli.Parser:
  parser = cli.Parser('jaxmu.rank', __doc__ or '')
  add = parser.add_argument
  add('folders', nargs='*', metavar='WORKDIR', help='of a job or a sweep')
  add('--out', default='', help='directory for results.csv and report.html')
  return parser


def main(argv: Sequence[str] | None = None) -> None:
  """Run the command; see the module's docstring."""
  chosen = _parser().parse_args(argv)
  with cli.one_line_errors():
    ranked = rank(chosen.folders, chosen.out)
    places = {}
    if chosen.out:
      for study, one in ranked.items():
        directory = html.report_folder(
          os.path.join(*filter(None, (chosen.out, study)))
        )
        html.write_report(directory, one.report)
        places[study] = directory / 'report.html'
  for one in ranked.values():
    one.table.show()
  lines = [line for one in ranked.values() for line in one.report.warnings]
  for line in dict.fromkeys(lines):
    cli.warn(line)
  for place in places.values():
    print(f'{place} written')


if __name__ == '__main__':
  main()
