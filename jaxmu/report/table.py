"""Results on the terminal: every number beside that of the retrained models.

One block per metric (or per method), the retrained models on top of each as
the reference. A star marks numbers whose interval excludes the retrained value.
"""

import dataclasses
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import rich.console
import rich.table
import rich.text

from jaxmu.report import glossary, names, numbers, records

Rows = Sequence[records.Row] | Sequence[records.AttackRow]
Failed = Mapping[str, tuple[int, int]]  # method: (failed members, all members)

# What fits on a screen; the report has everything.
HEADLINE = (
  *('ra', 'fa', 'ta', 'ret_dev', 'indisc_test', 'population_auc', 'ulira_auc'),
  *('excess_ulira_auc', 'ulira_tpr_0.01', 'ulira_tpr_0.1', 'rte'),
)

_SHORT = {
  key: words.removesuffix(' is better').replace('closer to', '→')
  for key, words in glossary.DIRECTIONS.items()
}
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


def headline(rows: Sequence[records.Row]) -> list[records.Row]:
  """Return the rows of the metrics to read first; all where there are none."""
  return [row for row in rows if row.metric in HEADLINE] or list(rows)


def show(
  rows: Rows,
  *,
  console: rich.console.Console | None = None,
  by: Literal['metric', 'method'] = 'metric',
  reference: str = names.REFERENCE,
  failed: Failed | None = None,
) -> None:
  """Print results; with colours on a terminal, as plain text elsewhere.

  Args:
    rows: results of the main job, or of attacks on stored scores (these are
      grouped by attack, and `by` has no effect).
    console: where to print; by default the standard output.
    by: what the blocks are.
    reference: key of the retrained models.
    failed: members that failed, where there are any.
  """
  console = console or rich.console.Console()
  if console.options.ascii_only:
    plain = text(
      rows, width=console.width, by=by, reference=reference, failed=failed
    )
    console.print(plain.translate(ASCII), markup=False, highlight=False)
    return
  wide = console.width >= 115
  header, blocks = _blocks(rows, by, reference, failed or {}, wide)
  _print(console, header, blocks)
  for note in _notes(blocks, failed or {}):
    console.print(rich.text.Text(note, style='dim'))


def text(
  rows: Rows,
  *,
  width: int = 100,
  by: Literal['metric', 'method'] = 'metric',
  reference: str = names.REFERENCE,
  failed: Failed | None = None,
) -> str:
  """Return what `show` prints, as plain text of at most `width` columns."""
  file = io.StringIO()
  console = rich.console.Console(
    file=file, width=width, color_system=None, force_terminal=False
  )
  header, blocks = _blocks(rows, by, reference, failed or {}, width >= 115)
  _print(console, header, blocks)
  for note in _notes(blocks, failed or {}):
    console.print(rich.text.Text(note))
  lines = (line.rstrip() for line in file.getvalue().splitlines())
  return '\n'.join(lines) + '\n'


def _blocks(
  rows: Rows, by: str, reference: str, failed: Failed, wide: bool
) -> tuple[tuple[str, ...], list[_Block]]:
  """Return the column titles and the blocks of a table."""
  attack_rows = [row for row in rows if isinstance(row, records.AttackRow)]
  main_rows = [row for row in rows if isinstance(row, records.Row)]
  if attack_rows and main_rows:
    raise TypeError('rows are of two kinds; make one table of each')
  if attack_rows:
    header = ('Metric', 'Value', '95% interval', 'n', 'Better')
    return header, _by_attack(attack_rows, wide)
  if by == 'metric':
    header = ('Method', 'Value', 'Retrained', 'Gap', '95% interval', 'n')
    return header, _by_metric(main_rows, reference, failed)
  header = ('Metric', 'Value', 'Retrained', 'Gap', '95% interval')
  header += ('n', 'Better') if wide else (' ',)  # narrow: symbols alone
  return header, _by_method(main_rows, reference, failed, wide)


def _by_metric(
  rows: Sequence[records.Row], reference: str, failed: Failed
) -> list[_Block]:
  blocks = []
  order = names.ordered([reference, *(row.method for row in rows)], reference)
  for metric in dict.fromkeys(row.metric for row in rows):
    entry = glossary.describe(metric)
    chosen = records.with_reference(
      [row for row in rows if row.metric == metric], reference
    )
    chosen.sort(key=lambda row: order.index(row.method))
    lines = [
      _line(row, _name(row.method, reference, failed), reference, failed)
      for row in chosen
    ]
    aside = f'{metric} · {entry.direction}'
    blocks.append(_Block(entry.title, aside, tuple(lines)))
  return blocks


def _by_method(
  rows: Sequence[records.Row], reference: str, failed: Failed, wide: bool
) -> list[_Block]:
  blocks = []
  for method in names.ordered((row.method for row in rows), reference):
    lines = []
    for row in (row for row in rows if row.method == method):
      entry = glossary.describe(row.metric)
      line = _line(row, entry.title if wide else row.metric, reference, failed)
      cells = line.cells if wide else line.cells[:-1]
      cells += (
        _SHORT[entry.better] if wide else glossary.SYMBOLS[entry.better],
      )
      lines.append(dataclasses.replace(line, cells=cells))
    heading = _name(method, reference, failed)
    blocks.append(_Block(heading, '', tuple(lines)))
  return blocks


def _by_attack(rows: Sequence[records.AttackRow], wide: bool) -> list[_Block]:
  blocks = []
  for attack in dict.fromkeys(row.attack for row in rows):
    lines = []
    for row in (row for row in rows if row.attack == attack):
      entry = glossary.describe(row.metric, attack)
      cells = (
        entry.title.split(': ')[-1] if wide else row.metric,
        numbers.value(row.value, entry.unit),
        numbers.interval(row.low, row.high, entry.unit),
        str(row.n or ''),
        _SHORT[entry.better],
      )
      lines.append(_Line(cells))
    blocks.append(_Block(glossary.attack_title(attack), attack, tuple(lines)))
  return blocks


def _line(
  row: records.Row, label: str, reference: str, failed: Failed
) -> _Line:
  unit = glossary.describe(row.metric).unit
  is_reference = row.method == reference
  differs = not is_reference and (
    row.low > row.retrained or row.high < row.retrained
  )
  cells = (
    label,
    numbers.value(row.value, unit),
    '' if is_reference else numbers.value(row.retrained, unit),
    '' if is_reference else numbers.gap(row.gap, unit) + ' *'[differs],
    numbers.interval(row.low, row.high, unit),
    str(row.n or ''),
  )
  broken = row.method in failed and failed[row.method][0] > 0
  return _Line(cells, is_reference, differs, broken or math.isnan(row.value))


def _name(method: str, reference: str, failed: Failed) -> str:
  label = names.label(method)
  if method == reference:
    label = f'{label} (reference)'
  bad, total = failed.get(method, (0, 0))
  return f'{label} !{bad}/{total}' if bad else label


def _notes(blocks: Iterable[_Block], failed: Failed) -> list[str]:
  notes = []
  if any(line.differs for block in blocks for line in block.lines):
    notes.append('* the interval excludes the value of the retrained models')
  for method, (bad, total) in failed.items():
    if bad:
      notes.append(
        f'! {names.label(method)}: {bad} of {total} models failed '
        '(losses or outputs that are not finite)'
      )
  return notes


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
    left = title in ('Method', 'Metric', 'Better')
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
