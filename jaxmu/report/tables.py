"""Tables of results on the terminal.

There is one block per number; its first line is the reference, the retrained
models. A star marks numbers whose paired difference from the reference has an
interval that excludes 0. Attacks on stored scores have a table with one row per
attack. The benchmark's table is in `paper_table`, the tables of the HTML report
are in `html_tables`.
"""

import dataclasses
import io
import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import rich.console
import rich.table
import rich.text

from jaxmu.report import glossary, results, summary

Failed = Mapping[str, tuple[int, int]]  # method: (failed members, all members)

# Numbers for the terminal; the report has all of them.
HEADLINE = (
  *('ra', 'fa', 'ta', 'ret_dev', 'indisc_test', 'population_auc', 'ulira_auc'),
  *('excess_ulira_auc', 'ulira_tpr_0.01', 'ulira_tpr_0.1', 'rte'),
)

_HEADER = ('Method', 'Value', 'Retrained', 'Gap', '95% interval', 'n')
ASCII = str.maketrans(
  {
    **{'→': '>', '↑': '^', '↓': 'v', '½': '0.5', '×': 'x', '·': '-'},
    **{'∞': 'inf', '±': '+-'},
  }
)


@dataclasses.dataclass(frozen=True)
class _Line:
  """One line of a block as text."""

  cells: tuple[str, ...]
  reference: bool = False
  differs: bool = False
  failed: bool = False


@dataclasses.dataclass(frozen=True)
class _Block:
  heading: str
  aside: str
  lines: tuple[_Line, ...]


def headline(
  rows: Sequence[results.Row], also: Iterable[str] = ()
) -> list[results.Row]:
  """Return the main rows; all rows if there are none of them.

  Args:
    rows: of a job.
    also: further numbers to show, such as those of plug-ins.
  """
  shown = {*HEADLINE, *also}
  return [row for row in rows if row.metric in shown] or list(rows)


def show_table(
  rows: Sequence[results.Row],
  *,
  console: rich.console.Console | None = None,
  failed: Failed | None = None,
  missing: results.Missing | None = None,
) -> None:
  """Print results; with colours on a terminal, as plain text elsewhere.

  Args:
    rows: what to show.
    console: where to print; by default the standard output.
    failed: members that failed, where there are any.
    missing: why numbers are not available.
  """
  console = console or rich.console.Console()
  if console.options.ascii_only:
    plain = table_text(
      rows, width=console.width, failed=failed, missing=missing
    )
    console.print(plain.translate(ASCII), markup=False, highlight=False)
    return
  blocks = _blocks(rows, failed or {})
  _print(console, _HEADER, blocks)
  for note in _notes(rows, blocks, failed or {}, missing or {}):
    console.print(rich.text.Text(note, style='dim'))


def table_text(
  rows: Sequence[results.Row],
  *,
  width: int = 100,
  failed: Failed | None = None,
  missing: results.Missing | None = None,
) -> str:
  """Return what `show_table` prints, as plain text of at most `width` columns.

  Example:
    >>> numbers = 0.9, 0.88, 0.92, 0.87, 0.03, 16, 0.01, 0.05
    >>> row = results.Row('ft', 'fa', *numbers)
    >>> print(table_text([row]).splitlines()[4])
    FT                    0.9000    0.8700 +0.0300* [0.8800, 0.9200] 16
  """
  blocks = _blocks(rows, failed or {})
  notes = _notes(rows, blocks, failed or {}, missing or {})
  return _as_text(_HEADER, blocks, notes, width)


def show_attacks(
  rows: Sequence[results.Row],
  *,
  console: rich.console.Console | None = None,
) -> None:
  """Print one row per attack; arguments as for `show_table`."""
  console = console or rich.console.Console()
  text = attacks_text(rows, width=console.width if console.is_terminal else 100)
  if console.options.ascii_only:
    text = text.translate(ASCII)
  console.print(text, markup=False, highlight=False, soft_wrap=True)


def attacks_text(rows: Sequence[results.Row], *, width: int = 100) -> str:
  """Return one row per attack as plain text.

  The columns are the main number of the attack (AUC where it has one) for
  unlearned and for retrained models, and the paired difference with its
  interval. Without a difference the interval is that of the number.
  """
  header = ('Attack', 'Number', 'Value', 'Retrained', 'Excess', '95% interval')
  blocks = []
  lines = summary.attack_lines(rows)
  for method in dict.fromkeys(line.method for line in lines):
    cells = tuple(_Line(line.cells) for line in lines if line.method == method)
    blocks.append(_Block(results.label(method), '', cells))
  excess = any(not math.isnan(line.excess) for line in lines)
  note = 'Excess: value minus that of retrained models, paired by split; '
  note += 'the interval is that of the excess where there is one.'
  return _as_text(header, blocks, [note] if excess else [], width)


def _blocks(rows: Sequence[results.Row], failed: Failed) -> list[_Block]:
  blocks = []
  for metric, chosen in results.by_metric(rows).items():
    lines = tuple(_line(row, failed) for row in chosen)
    aside = f'{metric} · {glossary.direction(metric)}'
    blocks.append(_Block(glossary.describe(metric).title, aside, lines))
  return blocks


def _line(row: results.Row, failed: Failed) -> _Line:
  unit = glossary.describe(row.metric).unit
  is_reference = row.method == results.REFERENCE
  differs = not is_reference and results.differs(row)
  gap = results.format_gap(row.gap, unit) + ' *'[differs]
  cells = (
    _name(row.method, failed),
    results.format_value(row.value, unit),
    '' if is_reference else results.format_value(row.retrained, unit),
    '' if is_reference else gap,
    results.format_interval(row.low, row.high, unit),
    str(row.n or ''),
  )
  broken = row.method in failed and failed[row.method][0] > 0
  return _Line(cells, is_reference, differs, broken or math.isnan(row.value))


def _name(method: str, failed: Failed) -> str:
  label = results.label(method)
  if method == results.REFERENCE:
    label = f'{label} (reference)'
  bad, total = failed.get(method, (0, 0))
  return f'{label} !{bad}/{total}' if bad else label


def _notes(
  rows: Sequence[results.Row],
  blocks: Iterable[_Block],
  failed: Failed,
  missing: results.Missing,
) -> list[str]:
  notes = []
  if any(line.differs for block in blocks for line in block.lines):
    notes.append(
      '* the 95% interval of the paired difference from the retrained models '
      'excludes 0'
    )
  for method, (bad, total) in failed.items():
    if bad:
      notes.append(
        f'! {results.label(method)}: {bad} of {total} models failed '
        '(losses or outputs that are not finite)'
      )
  shown = {(row.method, row.metric) for row in rows}
  notes += summary.explain_missing(
    {key: reason for key, reason in missing.items() if key in shown}
  )
  return notes


def _as_text(
  header: tuple[str, ...],
  blocks: Sequence[_Block],
  notes: Iterable[str],
  width: int,
) -> str:
  def draw(console: rich.console.Console) -> None:
    _print(console, header, blocks)
    for note in notes:
      console.print(rich.text.Text(note))

  return plain_text(draw, width)


def plain_text(draw: Callable[[rich.console.Console], None], width: int) -> str:
  """Return what a function prints on a console, without colours."""
  file = io.StringIO()
  draw(
    rich.console.Console(
      file=file, width=width, color_system=None, force_terminal=False
    )
  )
  lines = (line.rstrip() for line in file.getvalue().splitlines())
  return '\n'.join(lines) + '\n'


def _print(
  console: rich.console.Console,
  header: tuple[str, ...],
  blocks: Sequence[_Block],
) -> None:
  """Print blocks one under the other with columns of the same widths."""
  lines = [line.cells for block in blocks for line in block.lines]
  widths = [
    max(map(len, column)) for column in zip(header, *lines, strict=True)
  ]
  console.print(_grid(header, widths, [_Line(header)], 'bold underline'))
  for block in blocks:
    heading = rich.text.Text(f'\n{block.heading}', style='bold')
    if block.aside:
      heading.append(f'  {block.aside}', style='not bold dim')
    console.print(heading)
    console.print(_grid(header, widths, block.lines, ''))
  console.print()


def _grid(
  header: tuple[str, ...],
  widths: Sequence[int],
  lines: Iterable[_Line],
  style: str,
) -> rich.table.Table:
  grid = rich.table.Table(
    box=None, show_header=False, padding=(0, 1, 0, 0), style=style
  )
  for title, width in zip(header, widths, strict=True):
    left = title in ('Method', 'Attack', 'Number')
    grid.add_column(
      width=width, justify='left' if left else 'right', overflow='fold'
    )
  for line in lines:
    row_style = 'cyan' if line.reference else 'red' if line.failed else style
    grid.add_row(
      *(
        rich.text.Text(
          cell, style='yellow' if line.differs and title == 'Gap' else ''
        )
        for title, cell in zip(header, line.cells, strict=True)
      ),
      style=row_style,
    )
  return grid
