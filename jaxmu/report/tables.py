"""Results on the terminal: every number beside that of the retrained models.

One block per metric (or per method), the retrained models on top of each as
the reference. A star marks numbers whose interval excludes the retrained value.

The tables of the HTML report, each number explained where it stands.

The benchmark's table: methods × ten columns, mean ± sd over seeds.

Numbers are paired with the retrained model of the same seed before they get
here, hence 'mean ± sd' is over paired values. Values that are not finite are
left out of the mean and counted in the open: '[8/10]' says that eight of ten
seeds entered. Below the retrained models stands the noise floor: retrained
models as if each were a method, paired with the retrained model of the next
seed.
"""

import dataclasses
import html
import io
import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import numpy as np
import rich.console
import rich.table
import rich.text
from numpy.typing import ArrayLike

from jaxmu.report import glossary
from jaxmu.report import results as results_lib

Rows = Sequence[results_lib.Row] | Sequence[results_lib.AttackRow]
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


def headline(rows: Sequence[results_lib.Row]) -> list[results_lib.Row]:
  """Return the rows of the metrics to read first; all where there are none."""
  return [row for row in rows if row.metric in HEADLINE] or list(rows)


def show_table(
  rows: Rows,
  *,
  console: rich.console.Console | None = None,
  by: Literal['metric', 'method'] = 'metric',
  reference: str = results_lib.REFERENCE,
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
    plain = table_text(
      rows, width=console.width, by=by, reference=reference, failed=failed
    )
    console.print(plain.translate(ASCII), markup=False, highlight=False)
    return
  wide = console.width >= 115
  header, blocks = _blocks(rows, by, reference, failed or {}, wide)
  _print(console, header, blocks)
  for note in _notes(blocks, failed or {}):
    console.print(rich.text.Text(note, style='dim'))


def table_text(
  rows: Rows,
  *,
  width: int = 100,
  by: Literal['metric', 'method'] = 'metric',
  reference: str = results_lib.REFERENCE,
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
  attack_rows = [row for row in rows if isinstance(row, results_lib.AttackRow)]
  main_rows = [row for row in rows if isinstance(row, results_lib.Row)]
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
  rows: Sequence[results_lib.Row], reference: str, failed: Failed
) -> list[_Block]:
  blocks = []
  order = results_lib.ordered(
    [reference, *(row.method for row in rows)], reference
  )
  for metric in dict.fromkeys(row.metric for row in rows):
    entry = glossary.describe(metric)
    chosen = results_lib.with_reference(
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
  rows: Sequence[results_lib.Row], reference: str, failed: Failed, wide: bool
) -> list[_Block]:
  blocks = []
  for method in results_lib.ordered((row.method for row in rows), reference):
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


def _by_attack(
  rows: Sequence[results_lib.AttackRow], wide: bool
) -> list[_Block]:
  blocks = []
  for attack in dict.fromkeys(row.attack for row in rows):
    lines = []
    for row in (row for row in rows if row.attack == attack):
      entry = glossary.describe(row.metric, attack)
      cells = (
        entry.title.split(': ')[-1] if wide else row.metric,
        results_lib.format_value(row.value, entry.unit),
        results_lib.format_interval(row.low, row.high, entry.unit),
        str(row.n or ''),
        _SHORT[entry.better],
      )
      lines.append(_Line(cells))
    blocks.append(_Block(glossary.attack_title(attack), attack, tuple(lines)))
  return blocks


def _line(
  row: results_lib.Row, label: str, reference: str, failed: Failed
) -> _Line:
  unit = glossary.describe(row.metric).unit
  is_reference = row.method == reference
  differs = not is_reference and (
    row.low > row.retrained or row.high < row.retrained
  )
  cells = (
    label,
    results_lib.format_value(row.value, unit),
    '' if is_reference else results_lib.format_value(row.retrained, unit),
    ''
    if is_reference
    else results_lib.format_gap(row.gap, unit) + ' *'[differs],
    results_lib.format_interval(row.low, row.high, unit),
    str(row.n or ''),
  )
  broken = row.method in failed and failed[row.method][0] > 0
  return _Line(cells, is_reference, differs, broken or math.isnan(row.value))


def _name(method: str, reference: str, failed: Failed) -> str:
  label = results_lib.label(method)
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
        f'! {results_lib.label(method)}: {bad} of {total} models failed '
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


# What the overview shows, where the run has it; the rest follows below it.
OVERVIEW = (
  ('ra', 'RA'),
  ('fa', 'FA'),
  ('ta', 'TA'),
  ('ret_dev', 'RetDev'),
  ('indisc_test', 'Indisc'),
  ('ulira_auc', 'U-LiRA AUC'),
  ('excess_ulira_auc', 'excess AUC'),
  ('rte', 'Speed-up'),
)

FailedCounts = Mapping[str, tuple[int, int]]


def overview(
  rows: Sequence[results_lib.Row],
  reference: str,
  original: str,
  failed: FailedCounts,
) -> str:
  """Return one table of methods × headline metrics."""
  present = dict.fromkeys(row.metric for row in rows)
  table = {
    (row.method, row.metric): row
    for metric in present
    for row in results_lib.with_reference(
      (row for row in rows if row.metric == metric), reference
    )
  }
  columns = [(key, title) for key, title in OVERVIEW if key in present]
  if not columns:
    return ''
  head = ''.join(
    f'<th>{escape(title)}<br><span class="soft">{_symbol(key)}</span></th>'
    for key, title in columns
  )
  body = []
  order = results_lib.ordered(
    (method for method, _ in table), reference, original
  )
  for method in order:
    cells = ''.join(
      _overview_cell(table.get((method, key))) for key, _ in columns
    )
    body.append(_row(method, reference, failed, cells))
  return _table(f'<th>Method</th>{head}', body)


def _overview_cell(row: results_lib.Row | None) -> str:
  if row is None:
    return '<td></td>'
  unit = glossary.describe(row.metric).unit
  mark = ' class="differs"' if differs(row) else ''
  title = results_lib.format_interval(row.low, row.high, unit)
  return f'<td{mark} title="{title}">{results_lib.format_value(row.value, unit)}</td>'


def metric_sections(
  rows: Sequence[results_lib.Row],
  reference: str,
  original: str,
  failed: FailedCounts,
) -> str:
  """Return a section per metric: what it means, then one row per method."""
  everyone = [reference, *(row.method for row in rows)]
  order = results_lib.ordered(everyone, reference, original)
  parts = []
  for metric in dict.fromkeys(row.metric for row in rows):
    chosen = results_lib.with_reference(
      (row for row in rows if row.metric == metric), reference
    )
    chosen.sort(key=lambda row: order.index(row.method))
    parts.append(_explanation(glossary.describe(metric)))
    parts.append(_metric_table(chosen, reference, failed))
  return '\n'.join(parts)


def _explanation(entry: glossary.Metric) -> str:
  source = f' Source: {escape(entry.source)}.' if entry.source else ''
  return (
    f'<h3>{escape(entry.title)} <span class="key">{escape(entry.name)}</span>'
    f'</h3>\n<p>{escape(entry.sentence)} '
    f'<em>{escape(entry.direction.capitalize())}.</em>'
    f'<span class="source">{source}</span></p>'
  )


def _metric_table(
  rows: Sequence[results_lib.Row], reference: str, failed: FailedCounts
) -> str:
  unit = glossary.describe(rows[0].metric).unit
  spans = _span(rows)
  body = []
  for row in rows:
    own = row.method == reference
    mark = ' class="differs"' if differs(row) and not own else ''
    cells = (
      f'<td>{results_lib.format_value(row.value, unit)}</td>'
      f'<td>{"" if own else results_lib.format_value(row.retrained, unit)}</td>'
      f'<td{mark}>{"" if own else results_lib.format_gap(row.gap, unit)}</td>'
      f'<td>{results_lib.format_interval(row.low, row.high, unit)}</td>'
      f'<td>{_range(row, spans)}</td>'
      f'<td>{row.n or ""}</td>'
    )
    body.append(_row(row.method, reference, failed, cells))
  head = '<th>Method</th>' + ''.join(
    f'<th>{title}</th>'
    for title in ('Value', 'Retrained', 'Gap', '95% interval', '', 'n')
  )
  return _table(head, body)


def attack_sections(rows: Sequence[results_lib.AttackRow]) -> str:
  """Return a section per attack: one row per metric with its meaning."""
  parts = []
  for attack in dict.fromkeys(row.attack for row in rows):
    parts.append(
      f'<h3>{escape(glossary.attack_title(attack))} '
      f'<span class="key">{escape(attack)}</span></h3>'
    )
    body = []
    for row in (row for row in rows if row.attack == attack):
      entry = glossary.describe(row.metric, attack)
      body.append(
        f'<tr><td>{escape(entry.title.split(": ")[-1])}</td>'
        f'<td>{results_lib.format_value(row.value, entry.unit)}</td>'
        f'<td>{results_lib.format_interval(row.low, row.high, entry.unit)}</td>'
        f'<td>{row.n or ""}</td>'
        f'<td class="words">{escape(entry.sentence)} '
        f'<em>{escape(entry.direction.capitalize())}.</em></td></tr>'
      )
    head = (
      '<th>Metric</th><th>Value</th><th>95% interval</th><th>n</th>'
      '<th class="words">Meaning</th>'
    )
    parts.append(_table(head, body))
  return '\n'.join(parts)


def facts(values: Mapping[str, object]) -> str:
  """Return a mapping as tables; nested mappings fold into details."""
  scalars = {k: v for k, v in values.items() if not isinstance(v, Mapping)}
  nested = {k: v for k, v in values.items() if isinstance(v, Mapping)}
  parts = [_facts_table(scalars)] if scalars else []
  for key, value in nested.items():
    flat = dict(_flat(value, ''))
    parts.append(
      f'<details><summary>{escape(key)}</summary>{_facts_table(flat)}</details>'
    )
  return '\n'.join(parts)


def _flat(values: Mapping[str, object], prefix: str):
  for key, value in values.items():
    if isinstance(value, Mapping):
      yield from _flat(value, f'{prefix}{key}.')
    else:
      yield f'{prefix}{key}', value


def _facts_table(values: Mapping[str, object]) -> str:
  body = ''.join(
    f'<tr><td>{escape(key)}</td><td>{escape(_fact(value))}</td></tr>'
    for key, value in values.items()
  )
  return (
    '<div class="scroll"><table class="facts"><tbody>'
    f'{body}</tbody></table></div>'
  )


def _fact(value: object) -> str:
  if isinstance(value, list | tuple):
    return ', '.join(map(str, value))
  return str(value)


def differs(row: results_lib.Row) -> bool:
  """Say whether the interval excludes the value of the retrained models."""
  return row.low > row.retrained or row.high < row.retrained


def escape(text: object) -> str:
  """Return text that HTML shows as it is."""
  return html.escape(str(text), quote=True)


def _symbol(metric: str) -> str:
  return glossary.SYMBOLS[glossary.describe(metric).better]


def _row(method: str, reference: str, failed: FailedCounts, cells: str) -> str:
  name = escape(results_lib.label(method))
  kind = ''
  if method == reference:
    name, kind = f'{name} (reference)', ' class="reference"'
  bad, total = failed.get(method, (0, 0))
  if bad:
    name += f' <span class="failed">{bad} of {total} failed</span>'
  return f'<tr{kind}><td>{name}</td>{cells}</tr>'


def _table(head: str, body: Sequence[str]) -> str:
  rows = '\n'.join(body)
  return (
    f'<div class="scroll"><table><thead><tr>{head}</tr></thead>\n'
    f'<tbody>\n{rows}\n</tbody></table></div>'
  )


def _span(rows: Sequence[results_lib.Row]) -> tuple[float, float]:
  """Return the range that holds all values and intervals of a metric."""
  ends = [end for row in rows for end in (row.value, row.low, row.high)]
  finite = [end for end in ends if math.isfinite(end)]
  low, high = min(finite, default=0.0), max(finite, default=1.0)
  pad = 0.04 * (high - low) or 0.5
  return low - pad, high + pad


def _range(row: results_lib.Row, span: tuple[float, float]) -> str:
  """Return value and interval as a small picture beside the retrained line."""
  if not math.isfinite(row.value):
    return ''

  def x(value: float) -> str:
    return f'{160 * (value - span[0]) / (span[1] - span[0]):.1f}'

  parts = ['<line class="whole" x1="0" x2="160" y1="8" y2="8"/>']
  if span[0] <= row.retrained <= span[1]:
    at = x(row.retrained)
    parts.append(f'<line class="null" x1="{at}" x2="{at}" y1="0" y2="16"/>')
  if math.isfinite(row.low) and math.isfinite(row.high):
    parts.append(
      f'<line class="interval" x1="{x(row.low)}" x2="{x(row.high)}" y1="8" '
      'y2="8"/>'
    )
  parts.append(f'<circle class="value" cx="{x(row.value)}" cy="8" r="3.5"/>')
  return (
    '<svg class="range" viewBox="0 0 160 16" aria-hidden="true">'
    f'{"".join(parts)}</svg>'
  )


COLUMNS = {
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

NOTE = (
  'Mean ± standard deviation over initialisations, each paired with the '
  'retrained model of the same one (RTE: over repeated runs of one model). '
  'Better is: →R closer to the retrained models, →1 closer to 1, ↑ higher, '
  '↓ lower. RR, FR, TR: RA, FA, TA divided by those of the retrained model; '
  'RetDev: the sum of their distances from 1. T-MIA: how often an attacker who '
  'sees the loss tells forgotten from test images; Indisc: 1 minus twice its '
  'distance from 0.5. RTE: time of retraining over that of the method, data '
  'and programs loaded.'
)
_FLOOR = 'Retrained, next seed'
_FLOOR_NOTE = (
  f"'{_FLOOR}' compares each retrained model with that of the next "
  'initialisation: a RetDev of this size is as close as retraining comes to '
  "itself, and the 'Retrained' Indisc is what the attack gives where there is "
  'nothing to find. Smaller differences mean nothing.'
)


@dataclasses.dataclass(frozen=True)
class PaperTable:
  """What the table shows.

  Attributes:
    per_seed: method -> metric -> one value per seed; metrics not given show as
      n/a, further metrics are ignored.
    floor: metric -> values of retrained models against that of another seed;
      empty where there is one seed.
    failed: method -> (failed members, all members), where there are any.
    reference: key of the retrained models, shown first.
  """

  per_seed: PerSeed
  floor: Mapping[str, ArrayLike] = dataclasses.field(default_factory=dict)
  failed: Mapping[str, Sequence[int]] = dataclasses.field(default_factory=dict)
  reference: str = results_lib.REFERENCE


def show_paper_table(
  results: PaperTable, *, console: rich.console.Console | None = None
) -> None:
  """Print the table, as wide as the terminal; in one part elsewhere."""
  console = console or rich.console.Console()
  whole = paper_table_text(
    results, width=console.width if console.is_terminal else 200
  )
  if console.options.ascii_only:
    whole = whole.translate(ASCII)
  print(whole, file=console.file)


def paper_table_text(
  results: PaperTable, *, width: int = 120, decimals: int = 3
) -> str:
  """Return the table as plain text, in several parts where it is too wide.

  Args:
    results: what to show.
    width: columns of the terminal.
    decimals: digits after the point.

  Returns:
    Text that ends with a newline.
  """
  methods, cells = _cells(results, decimals)
  titles = _titles()
  label = max(map(len, ['Method', *methods])) + 2
  widths = [
    max(len(title), *(len(line[i]) for line in cells)) + 2
    for i, title in enumerate(titles)
  ]
  parts = []
  for part in _parts(widths, width - label):
    grid = rich.table.Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    grid.add_column('Method', no_wrap=True)
    for i in part:
      grid.add_column(titles[i], justify='right', no_wrap=True)
    for method, line in zip(methods, cells, strict=True):
      grid.add_row(method, *(line[i] for i in part))
    parts.append(_render(grid, width))
  notes = (
    textwrap.fill(note, min(width, 100)) + '\n'
    for note in _paper_table_notes(results)
  )
  return '\n'.join([*parts, *notes])


def paper_table_markdown(results: PaperTable, *, decimals: int = 3) -> str:
  """Return the table as Markdown; arguments as for `text`."""
  methods, cells = _cells(results, decimals)
  lines = [
    ['Method', *_titles()],
    ['---', *('---:' for _ in COLUMNS)],
    *(
      [name.replace('|', r'\|'), *line]
      for name, line in zip(methods, cells, strict=True)
    ),
  ]
  rows = ''.join(f'| {" | ".join(line)} |\n' for line in lines)
  notes = (
    textwrap.fill(note, 80) + '\n' for note in _paper_table_notes(results)
  )
  return '\n'.join([rows, *notes])


def _titles() -> list[str]:
  return [
    f'{title} {glossary.SYMBOLS[glossary.describe(metric).better]}'
    for metric, title in COLUMNS.items()
  ]


def _paper_table_notes(results: PaperTable) -> list[str]:
  notes = [NOTE]
  if results.floor:
    notes.append(_FLOOR_NOTE)
  if any(bad for bad, _ in results.failed.values()):
    notes.append(
      "'failed' counts models whose loss or weights are not finite; their "
      'predictions count as wrong.'
    )
  return notes


def _cells(
  results: PaperTable, decimals: int
) -> tuple[list[str], list[list[str]]]:
  methods = results_lib.ordered(results.per_seed, results.reference)
  labels = [_label(method, results.failed) for method in methods]
  cells = [
    [
      _cell(results.per_seed[method].get(metric, ()), decimals)
      for metric in COLUMNS
    ]
    for method in methods
  ]
  if results.floor:
    floor = [
      _cell(results.floor[metric], decimals) if metric in results.floor else ''
      for metric in COLUMNS
    ]
    at = int(results.reference in methods)
    labels.insert(at, _FLOOR)
    cells.insert(at, floor)
  return labels, cells


def _label(method: str, failed: Mapping[str, Sequence[int]]) -> str:
  bad, total = failed.get(method, (0, 0))
  count = f' ({bad} of {total} failed)' if bad else ''
  return results_lib.label(method) + count


def _cell(values: ArrayLike, decimals: int) -> str:
  """Return 'mean ± sd', with '[finite/all]' where some are not finite."""
  values = np.ravel(np.asarray(values, np.float64))
  finite = values[np.isfinite(values)]
  if not finite.size:
    return results_lib.MISSING
  deviation = finite.std(ddof=1) if finite.size > 1 else np.nan
  cell = results_lib.format_spread(finite.mean(), float(deviation), decimals)
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


def _render(grid: rich.table.Table, width: int) -> str:
  file = io.StringIO()
  rich.console.Console(file=file, width=width, color_system=None).print(grid)
  lines = (line.rstrip() for line in file.getvalue().splitlines())
  return ''.join(f'{line}\n' for line in lines)
