"""Compare published numbers with those of another run.

    python -m jaxmu.reproduce ROW [ROW ...]
    python -m jaxmu.reproduce --list [PATTERN]

ROW is the name of a published number, as default_job/retrained/ulira_auc; or
the beginning of several names up to a '/', or a pattern with * and ?, in
quotes. The job of each number runs with the methods that the numbers need. It
is stored in the work directory, so that a second run trains nothing again.

Prints the published number, how far another run may be from it, what this run
gives, and whether it passes; the exit code is 1 if one fails. In the same
environment the tolerance is rounding; elsewhere it is half the width of the
95% interval. Run times are shown and not judged. The numbers of claims are
computed again from the published tables, and compared with their intervals and
verdicts. docs/results/reproduce.md has the rules.
"""

import argparse
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

from jaxmu import cli, terms

WORKDIR = 'workdir/reproduce'


def _parser() -> cli.Parser:
  parser = cli.Parser('jaxmu.reproduce', __doc__ or '')
  add = parser.add_argument
  add('rows', nargs='*', metavar='ROW', help='published numbers')
  add(
    '--list',
    action='store_true',
    help='print the published results, or the numbers that ROW names; run '
    'nothing',
  )
  add(
    '--workdir',
    default=WORKDIR,
    help='folder of the jobs (default %(default)s)',
  )
  add(
    '--read',
    default='',
    metavar='WORKDIR',
    help='run nothing: read the finished work directory of the job or sweep',
  )
  add(
    '--from',
    dest='source',
    default='',
    metavar='scores',
    help='train nothing: attack the published scores of the models',
  )
  add(
    '--published',
    default='',
    metavar='DIR',
    help='folder of published results (default: those of the package)',
  )
  return parser


def main(argv: Sequence[str] | None = None) -> None:
  """Run the command; see the module's docstring.

  Raises:
    SystemExit: with a line that says what is wrong and what to do; or with 1,
      if a number is not reproduced.
  """
  given = sys.argv[1:] if argv is None else list(argv)
  with cli.one_line_errors():
    chosen, known, wanted = read(given)
    if chosen.list:
      print('\n'.join(_listed(wanted) if wanted else _folders(known)))
      return
    failed = _compare(chosen, wanted)
  if failed:
    sys.exit(1)


def read(
  argv: Sequence[str],
) -> tuple[argparse.Namespace, list[Any], list[Any]]:
  """Parse the arguments, and find the numbers that they name.

  Returns:
    The arguments, all published results, and the numbers; none for a list of
    the results.

  Raises:
    ValueError: arguments do not fit together, or there is no such number.
    SystemExit: an argument is unknown.
  """
  chosen = _parser().parse_args(argv)
  _check(chosen)
  # Imported late: help needs no NumPy.
  from jaxmu import files
  from jaxmu.published import ROOT, record, rows

  root = files.path(chosen.published) if chosen.published else ROOT
  known = list(record.find(root).values())
  if not known:
    raise ValueError(f'{root} has no published results')
  for one in known:
    record.check(one)
  if chosen.list and not chosen.rows:
    return chosen, known, []
  return chosen, known, rows.choose(rows.every(known), chosen.rows)


def _check(chosen: argparse.Namespace) -> None:
  """Check that the arguments fit together.

  Raises:
    ValueError: they do not.
  """
  if chosen.source not in ('', 'scores'):
    raise ValueError(f'--from={chosen.source}: give --from=scores')
  if chosen.source and chosen.read:
    raise ValueError('--read and --from=scores: give one of them')
  if not chosen.rows and not chosen.list:
    raise ValueError(
      'no number; give python -m jaxmu.reproduce ROW, or --list to see all'
    )


def _compare(chosen: argparse.Namespace, wanted: Sequence[Any]) -> bool:
  """Compare numbers folder by folder; return whether one fails."""
  print('starting JAX', flush=True)
  from absl import logging

  from jaxmu import files
  from jaxmu import main as job_command

  logging.set_verbosity(logging.WARNING)
  job_command.set_up_jax({})
  # Imported late: the number of devices must be set before JAX starts.
  from jaxmu.published import rows, running

  verdicts: list[rows.Verdict] = []
  for several in running.of_one_folder(wanted).values():
    one = several[0].of
    print('\n'.join([*_facts(one), *_meanings(several)]), flush=True)
    if chosen.source:
      found = running.from_scores(several)
    elif chosen.read:
      found = running.read(several, files.workdir(chosen.read))
    else:
      folder = pathlib.Path(files.workdir(chosen.workdir))
      found = running.rerun(several, folder, _tell)
    own = running.judge(several, found, from_scores=bool(chosen.source))
    print(_environment(one, found.differences, bool(chosen.source)))
    print('\n'.join(_table(own)), flush=True)
    verdicts += own
  print(_summary(verdicts))
  return any(one.outcome is rows.Outcome.FAIL for one in verdicts)


def _tell(line: str) -> None:
  print(line, flush=True)


def _environment(one: Any, differences: Sequence[str], scores: bool) -> str:
  """Say which tolerance applies; see `jaxmu.published.rows.tolerance`."""
  if scores:
    return 'from the published scores, which are rounded'
  if one.kind == 'computed' and not differences:
    return 'from the tables and with the versions of the published numbers'
  if one.kind == 'computed':
    return 'not as published: ' + '; '.join(differences)
  if differences:
    return 'not the published environment: ' + '; '.join(differences)
  return 'the published versions and kind of hardware'


def _facts(one: Any) -> list[str]:
  """Describe where published numbers come from."""
  from jaxmu.report import results

  record = one.record
  lines = [f'{one.name}: {record["command"]}']
  if one.kind == 'computed':
    tables = terms.count(len(record['sources']), 'table')
    lines.append(f'  {record["function"]}, from {tables} of {record["study"]}')
  else:
    data, seeds = record['data'], record['seeds']
    lines += [
      f'  data {data["name"]}, SHA-256 {data["fingerprint"][:16]}; splits '
      f'{data["splits"]}',
      '  ' + ', '.join(f'{name} {value}' for name, value in seeds.items()),
      f'  {record["hardware"]["device"]}, {record["hardware"]["processor"]}',
    ]
  versions = ', '.join(f'{n} {v}' for n, v in record['versions'].items())
  commit = record.get('commit', '')[:12]
  lines.append(f'  {versions}' + (f', commit {commit}' if commit else ''))
  made = f'  published {record["date"]}'
  for name, text in (('seconds', 'took'), ('planned_seconds', 'planned')):
    if record.get(name):
      made += f', {text} {results.format_duration(record[name])}'
  what = 'sources' if one.kind == 'computed' else 'configuration'
  return [*lines, made, f'  {what} in {one.folder / "record.json"}']


def _meanings(several: Sequence[Any]) -> list[str]:
  """Say what numbers of one folder stand for, where its record does."""
  known = several[0].of.record.get('meanings', {})
  # 'claim_2/place_ga' is a number of 'claim_2'.
  named = dict.fromkeys(row.metric.partition('/')[0] for row in several)
  return [f'  {name}: {known[name]}' for name in named if name in known]


def _folders(known: Any) -> list[str]:
  """Return a line for each folder of published results."""
  from jaxmu.published import rows

  head = ('results', 'kind', 'numbers', 'methods', 'size', 'published')
  body = [
    (
      one.name,
      one.kind,
      f'{len(rows.rows(one)):,}',
      str(len(one.methods)),
      terms.readable_bytes(one.bytes),
      one.record['date'],
    )
    for one in known
  ]
  return [
    *terms.columns([head, *body]),
    '',
    'python -m jaxmu.reproduce --list NAME prints the numbers of one.',
  ]


def _listed(wanted: Sequence[Any]) -> list[str]:
  """Return facts and numbers of each folder."""
  lines: list[str] = []
  for one in {row.of.name: row.of for row in wanted}.values():
    own = [row for row in wanted if row.of is one]
    lines += [*([''] if lines else []), *_facts(one), *_meanings(own)]
    table = [('number', 'published', '95% interval', *_verdicts(own)[0])]
    table += [
      (row.name, _number(row.value), _interval(row), *verdict)
      for row, verdict in zip(own, _verdicts(own)[1:], strict=True)
    ]
    lines += terms.columns(table)
  return lines


def _verdicts(several: Sequence[Any]) -> list[tuple[str, ...]]:
  """Return a column of verdicts with its head; empty where no row has one."""
  if not any(row.verdict for row in several):
    return [()] * (len(several) + 1)
  return [('verdict',), *((row.verdict,) for row in several)]


def _table(verdicts: Sequence[Any]) -> list[str]:
  """Return published and found numbers, one per line."""
  first, *others = _verdicts([one.row for one in verdicts])
  head = ('number', 'published', '95% interval', *first)
  body = [
    (
      one.row.name,
      _number(one.row.value),
      _interval(one.row),
      *verdict,
      f'{one.tolerance:.1e}' if one.tolerance == one.tolerance else '',
      _number(one.found),
      f'{one.outcome.value} ({one.note})',
    )
    for one, verdict in zip(verdicts, others, strict=True)
  ]
  return terms.columns([(*head, 'tolerance', 'found', 'result'), *body])


def _number(value: float) -> str:
  return 'n/a' if value != value else f'{value:.6g}'


def _interval(row: Any) -> str:
  from jaxmu.report import results

  return results.format_interval(row.low, row.high)


def _summary(verdicts: Sequence[Any]) -> str:
  from jaxmu.published import rows

  counts = {
    one: sum(verdict.outcome is one for verdict in verdicts)
    for one in rows.Outcome
  }
  return ', '.join(f'{n} {one.value}' for one, n in counts.items() if n)


if __name__ == '__main__':
  main()
