"""Tables of results on the terminal.

There is one block per number; its first line is the reference, the retrained
models. A star marks numbers whose paired difference from the reference has an
interval that excludes 0. Attacks on stored scores have a table with one row per
attack, and the benchmark's table one row per method, also as Markdown. The
tables of the HTML report are in `html`.
"""

import dataclasses
import io
import math
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import rich.console
import rich.table
import rich.text
from numpy.typing import ArrayLike

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


# Columns of the benchmark's table.
PAPER_COLUMNS = {
  'ra': 'RA',
  'fa': 'FA',
  'ta': 'TA',
  'rr': 'RR',
  'fr': 'FR',
  'tr': 'TR',
  'ret_dev': 'RetDev',
  'indisc_test': 'Indisc',
  'mia_test': 'T-MIA',
  'rte': 'RTE',
}

PerSeed = Mapping[str, Mapping[str, ArrayLike]]

_PAPER_NOTE = (
  'Mean ± standard deviation over {units}, each paired with the retrained '
  'models of the same one (RTE: median ± standard deviation over repeated runs '
  'of one model). '
  'Better is: →R closer to the retrained models, →1 closer to 1, ↑ higher, '
  '↓ lower. RR, FR, TR: RA, FA, TA divided by those of the retrained model; '
  'RetDev: the sum of their distances from 1. T-MIA: how often an attack on '
  'the loss tells forgotten from test images; Indisc: 1 minus twice its '
  'distance from 0.5. RTE: time of retraining over that of the method, without '
  'loading and compilation.'
)
_FLOOR = 'Retrained, next seed'
_FLOOR_NOTE = (
  f"'{_FLOOR}' compares each retrained model with that of the next "
  'initialisation: its RetDev is the distance between equivalent models, and '
  "the 'Retrained' Indisc is the value of the attack where there is nothing to "
  'detect. Smaller differences are noise.'
)


@dataclasses.dataclass(frozen=True)
class PaperTable:
  """The benchmark's table: methods × ten columns, mean ± sd over seeds.

  The values are already paired with the retrained model of the same seed, so
  'mean ± sd' is over paired values. Values that are not finite are left out of
  the mean and counted: '[8/10]' means that eight of ten seeds are included.
  Below the retrained models is the noise floor: each retrained model compared
  with that of the next seed.

  Attributes:
    per_seed: method -> metric -> one value per seed; metrics not given show as
      n/a, further metrics are ignored.
    floor: metric -> values of retrained models against that of another seed;
      empty where there is one seed.
    failed: method -> (failed members, all members), where there are any.
    units: what the values are of, as a plural: initialisations, or splits of a
      job that has several.
  """

  per_seed: PerSeed
  floor: Mapping[str, ArrayLike] = dataclasses.field(default_factory=dict)
  failed: Mapping[str, Sequence[int]] = dataclasses.field(default_factory=dict)
  units: str = 'initialisations'


def show_paper_table(
  table: PaperTable, *, console: rich.console.Console | None = None
) -> None:
  """Print the table in the width of the terminal, in one part elsewhere."""
  _show(lambda width: paper_text(table, width=width), console)


def paper_text(table: PaperTable, *, width: int = 120) -> str:
  """Return the table as plain text, in several parts where it is too wide.

  Args:
    table: what to show.
    width: columns of the terminal.

  Returns:
    Text that ends with a newline.
  """
  methods, cells = _paper_cells(table)
  body = [[name, *line] for name, line in zip(methods, cells, strict=True)]
  return _wide_text(
    ['Method', *_paper_titles()], body, _paper_notes(table), width
  )


class Table(NamedTuple):
  """A table of texts, one line per method.

  Attributes:
    title: its headline.
    head: titles of the columns, the first one that of the methods.
    body: the cells.
    note: a sentence below it.
  """

  title: str
  head: list[str]
  body: list[list[str]]
  note: str

  def text(self, width: int = 200) -> str:
    """Return it as plain text, in several parts where it is too wide."""
    body = _wide_text(self.head, self.body, [self.note], width)
    return f'{self.title}\n\n{body}'

  def show(self) -> None:
    """Print it in the width of the terminal, in one part elsewhere."""
    _show(self.text, None)


def _show(
  text: Callable[[int], str], console: rich.console.Console | None
) -> None:
  console = console or rich.console.Console()
  whole = text(console.width if console.is_terminal else 200)
  if console.options.ascii_only:
    whole = whole.translate(ASCII)
  print(whole, file=console.file)


def _wide_text(
  head: Sequence[str],
  body: Sequence[Sequence[str]],
  notes: Sequence[str],
  width: int,
) -> str:
  """Return a table as plain text, in several parts where it is too wide."""
  label = max(len(line[0]) for line in [head, *body]) + 2
  widths = [
    max(len(line[i]) for line in [head, *body]) + 2 for i in range(1, len(head))
  ]
  parts = []
  for part in _parts(widths, width - label):
    grid = rich.table.Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    grid.add_column(head[0], no_wrap=True)
    for i in part:
      grid.add_column(head[i + 1], justify='right', no_wrap=True)
    for line in body:
      grid.add_row(line[0], *(line[i + 1] for i in part))
    parts.append(plain_text(lambda c, g=grid: c.print(g), width))
  notes = [textwrap.fill(note, min(width, 100)) + '\n' for note in notes]
  return '\n'.join([*parts, *notes])


def markdown(head: Sequence[str], body: Sequence[Sequence[object]]) -> str:
  """Return a table in Markdown whose first column is text, others numbers.

  Example:
    >>> print(markdown(['Method', 'RA'], [['FT', 0.9]]), end='')
    | Method | RA |
    | --- | ---: |
    | FT | 0.9 |
  """
  rule = ['---', *('---:' for _ in head[1:])]
  return ''.join(
    f'| {" | ".join(str(cell).replace("|", chr(92) + "|") for cell in row)} |\n'
    for row in (head, rule, *body)
  )


def paper_markdown(table: PaperTable) -> str:
  """Return the table as Markdown."""
  methods, cells = _paper_cells(table)
  body = [[name, *line] for name, line in zip(methods, cells, strict=True)]
  rows = markdown(['Method', *_paper_titles()], body)
  notes = (textwrap.fill(note, 80) + '\n' for note in _paper_notes(table))
  return '\n'.join([rows, *notes])


def _paper_titles() -> list[str]:
  return [
    f'{title} {glossary.symbol(metric)}'
    for metric, title in PAPER_COLUMNS.items()
  ]


def _paper_notes(table: PaperTable) -> list[str]:
  notes = [_PAPER_NOTE.format(units=table.units)]
  if table.floor:
    notes.append(_FLOOR_NOTE)
  if any(bad for bad, _ in table.failed.values()):
    notes.append(
      "'failed' counts models that are not finite in a loss, a weight or all "
      'outputs; their predictions count as wrong.'
    )
  return notes


def _paper_cells(table: PaperTable) -> tuple[list[str], list[list[str]]]:
  methods = results.ordered(table.per_seed)
  labels = [_paper_label(method, table.failed) for method in methods]
  cells = [
    [
      _paper_cell(table.per_seed[method].get(metric, ()), metric)
      for metric in PAPER_COLUMNS
    ]
    for method in methods
  ]
  if table.floor:
    floor = [
      _paper_cell(table.floor[metric]) if metric in table.floor else ''
      for metric in PAPER_COLUMNS
    ]
    at = int(results.REFERENCE in methods)
    labels.insert(at, _FLOOR)
    cells.insert(at, floor)
  return labels, cells


def _paper_label(method: str, failed: Mapping[str, Sequence[int]]) -> str:
  bad, total = failed.get(method, (0, 0))
  count = f' ({bad} of {total} failed)' if bad else ''
  return results.label(method) + count


def _paper_cell(values: ArrayLike, metric: str = '') -> str:
  """Return 'mean ± sd', with '[finite/all]' where some are not finite.

  That of run times is the ratio of their medians, as in the report.
  """
  values = np.ravel(np.asarray(values, np.float64))
  finite = values[np.isfinite(values)]
  if not finite.size:
    return results.MISSING
  middle = 1 / np.median(1 / finite) if metric == 'rte' else finite.mean()
  cell = results.format_spread(middle, results.deviation(finite))
  if finite.size < values.size:
    cell += f' [{finite.size}/{values.size}]'
  return cell


def _parts(widths: Sequence[int], room: int) -> list[list[int]]:
  """Return runs of columns that fit, at least one column in each."""
  parts: list[list[int]] = [[]]
  for i, width in enumerate(widths):
    if parts[-1] and sum(widths[j] for j in parts[-1]) + width > room:
      parts.append([])
    parts[-1].append(i)
  return parts
