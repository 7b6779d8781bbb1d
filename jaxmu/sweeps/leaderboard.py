"""The result of a sweep: all cells in one table, and ranks over cells.

  leaderboard.csv    every number of every cell, with its deviation
  leaderboard.md     the tables of the cells, and the ranks over cells
  leaderboard.tex    the same as LaTeX tables
  leaderboard.html   one table to sort and filter, with links to the reports

The files are made from those that the reports of the cells wrote. Cells without
a report are left out and named.
"""

import csv
import io
import math
import pathlib
from collections.abc import Mapping
from typing import NamedTuple

from jaxmu import files, terms
from jaxmu.report import glossary, html, ranks, results
from jaxmu.report import tables as tables_lib
from jaxmu.sweeps.design import Study, Sweep

NAME = 'leaderboard'

# Columns of the tables of the two studies, with their titles.
COLUMNS = {
  'main': {
    'ra': 'RA',
    'fa': 'FA',
    'ta': 'TA',
    'ret_dev': 'RetDev',
    'rank_ret_dev': 'rank',
    'group_ret_dev': 'group',
    'indisc_test': 'Indisc',
    'rank_disc_test': 'rank (Disc)',
    'group_disc_test': 'group (Disc)',
    'rte': 'RTE',
    'seconds': 'seconds',
  },
  'ulira': {
    'ulira_auc': 'U-LiRA AUC',
    'excess_ulira_auc': 'excess AUC',
    'ulira_tpr_0.01': 'TPR at FPR .01',
    'rte': 'RTE',
  },
}


class Line(NamedTuple):
  """One number of one method in one cell.

  Attributes:
    data, model, study: of the cell.
    row: the number.
    deviation: standard deviation over initialisations, or pairs of splits; NaN
      where there are not two of them.
  """

  data: str
  model: str
  study: str
  row: results.Row
  deviation: float


class Board(NamedTuple):
  """The content of the files.

  Attributes:
    lines: all numbers.
    reports: studies with a report.
    ranked: ranks over the cells of each study whose cells can be ranked, as in
      `jaxmu.rank`.
    warnings: what is left out, and why.
    pictures: diagrams of the ranks.
  """

  lines: list[Line]
  reports: list[Study]
  ranked: dict[str, ranks.Ranking]
  warnings: list[str]
  pictures: list[html.Picture]


def _folder(study: Study) -> pathlib.Path:
  return files.workdir(study.settings.workdir)


def lines(study: Study) -> list[Line]:
  """Read all numbers of the report of a study.

  Raises:
    OSError: it has no report.
    ValueError: a file is not that of a report.
  """
  folder = _folder(study)
  rows = results.read_csv(folder / 'results.csv')
  if (folder / 'timing.csv').is_file():
    rows += results.read_csv(folder / 'timing.csv')
  values: dict[tuple[str, str], list[float]] = {}
  path = folder / results.PER_CLUSTER_FILE
  for one in results.read_csv(path, results.Observation):
    values.setdefault((one.method, one.metric), []).append(one.value)
  return [
    Line(
      study.cell.data,
      study.cell.model,
      study.kind,
      row,
      results.deviation(values.get((row.method, row.metric), [])),
    )
    for row in rows
  ]


def collect(sweep: Sweep) -> Board:
  """Read the reports of all cells and rank the methods.

  Raises:
    ValueError: no cell has a report.
  """
  files.refresh(sweep.workdir)
  every: list[Line] = []
  reports, warnings = [], []
  for study in sweep.studies:
    if study.searches:
      continue
    try:
      every += lines(study)
      reports.append(study)
    except (OSError, ValueError) as error:
      why = getattr(error, 'strerror', None) or str(error)
      warnings.append(f'Left out: {study.name} has no report ({why}).')
  if not reports:
    raise ValueError(
      f'no cell in {files.shown(sweep.workdir)} has a report yet, so there is '
      'no leaderboard'
    )
  ranked = {}
  pictures: list[html.Picture] = []
  for kind in ranks.STUDY_TITLES:
    own = [study for study in reports if study.kind == kind]
    try:
      jobs = [
        ranks.read(_folder(study))._replace(name=study.name) for study in own
      ]
      ranked[kind] = found = ranks.rank(jobs)
    except ValueError as error:
      if own:
        warnings.append(f'No ranks over cells, {kind}: {error}')
      continue
    warnings += found.warnings
    if kind == 'main':
      number = terms.count(len(found.cells), 'cell')
      pictures = ranks.pictures(found, number, warnings)
  return Board(every, reports, ranked, warnings, pictures)


def write(sweep: Sweep, command: str = '') -> list[pathlib.Path]:
  """Write all files of the leaderboard and return their paths.

  Args:
    sweep: the sweep.
    command: the command line of the user, for the page.

  Raises:
    ValueError: no cell has a report.
  """
  board = collect(sweep)
  texts = {
    'csv': _csv(board),
    'md': _markdown(board),
    'tex': _latex(board),
    'html': _html(sweep, board, command),
  }
  return [
    files.write_text(sweep.workdir / f'{NAME}.{ending}', text)
    for ending, text in texts.items()
  ]


def _csv(board: Board) -> str:
  text = io.StringIO(newline='')
  writer = csv.writer(text, lineterminator='\n')
  fields = ('low', 'high', 'retrained', 'gap', 'gap_low', 'gap_high', 'n')
  head = ('data', 'model', 'study', 'method', 'metric', 'mean', 'deviation')
  writer.writerow((*head, *fields))
  for line in board.lines:
    row = line.row
    numbers = row.value, line.deviation, *(getattr(row, f) for f in fields)
    writer.writerow((*line[:3], row.method, row.metric, *map(repr, numbers)))
  for study, ranked in board.ranked.items():
    place = 'cells' if study == 'main' else f'{study} cells'
    for row in ranks.rows(ranked):
      numbers = row.value, math.nan, *(getattr(row, f) for f in fields)
      head = '', '', place, row.method, row.metric
      writer.writerow((*head, *map(repr, numbers)))
  return text.getvalue()


def _cell_text(line: Line | None) -> str:
  if line is None:
    return ''
  if line.row.metric.startswith('group_'):
    return f'{line.row.value:.0f}'
  text = results.format_spread(line.row.value, line.deviation)
  if math.isnan(line.deviation):
    span = results.format_interval(line.row.low, line.row.high, decimals=3)
    return f'{text} {span}'.strip()
  return text


def _tables(board: Board) -> list[tables_lib.Table]:
  """Return the table of each cell and study, and that of the ranks."""
  tables = [ranks.table(one, study) for study, one in board.ranked.items()]
  for study in board.reports:
    own = {
      (line.row.method, line.row.metric): line
      for line in board.lines
      if (line.data, line.model, line.study) == (*study.cell, study.kind)
    }
    columns = {
      metric: title
      for metric, title in COLUMNS[study.kind].items()
      if any(key == metric for _, key in own)
    }
    methods = results.ordered(method for method, _ in own)
    title = ranks.STUDY_TITLES[study.kind]
    body = [
      [results.label(m), *(_cell_text(own.get((m, key))) for key in columns)]
      for m in methods
    ]
    tables.append(
      tables_lib.Table(
        f'{study.cell.data}, {study.cell.model}: {title}',
        ['Method', *columns.values()],
        body,
        'Mean ± standard deviation over initialisations, or 95% interval.'
        if study.kind == 'main'
        else 'Mean ± standard deviation over splits, or 95% interval; excess: '
        'value minus that of the retrained models.',
      )
    )
  return tables


def _markdown(board: Board) -> str:
  parts = ['# Leaderboard\n', *(['\n'] if board.warnings else [])]
  parts += [f'- {warning}\n' for warning in board.warnings]
  for table in _tables(board):
    text = tables_lib.markdown(table.head, table.body)
    parts.append(f'\n## {table.title}\n\n{text}\n{table.note}\n')
  return ''.join(parts)


_TEX = str.maketrans(
  {
    **{c: f'\\{c}' for c in '_&%#$'},
    '±': r'$\pm$',
    '∞': r'$\infty$',
    '\\': r'\textbackslash{}',
  }
)


def _latex(board: Board) -> str:
  parts = ['% Tables of a sweep; \\input this file.\n']
  for table in _tables(board):
    rows = ''.join(
      f'{" & ".join(cell.translate(_TEX) for cell in row)} \\\\\n'
      for row in table.body
    )
    head = ' & '.join(title.translate(_TEX) for title in table.head)
    caption = f'{table.title}. {table.note}'.translate(_TEX)
    parts.append(
      '\\begin{table}\n\\centering\n'
      f'\\caption{{{caption}}}\n'
      f'\\begin{{tabular}}{{l{"r" * (len(table.head) - 1)}}}\n\\hline\n'
      f'{head} \\\\\n\\hline\n{rows}\\hline\n\\end{{tabular}}\n\\end{{table}}\n'
    )
  return '\n'.join(parts)


def _html(sweep: Sweep, board: Board, command: str) -> str:
  sections = [
    (
      'warnings',
      'Left out',
      f'<ul>{html.bullets(board.warnings)}</ul>' if board.warnings else '',
    ),
    ('ranks', 'Ranks over cells', _ranks_section(board)),
    *(
      (kind, ranks.STUDY_TITLES[kind], _big_table(board, kind))
      for kind in COLUMNS
    ),
    (
      'command',
      'Command',
      f'<pre>{html.escape(command)}</pre>' if command else '',
    ),
  ]
  cells = {study.cell for study in board.reports}
  lead = [
    f'{terms.count(len(cells), "cell")}, a data set and a model each, of '
    f'{terms.count(len(sweep.cells), "cell")} of the sweep. Click on a title '
    'to sort; the name of a data set leads to the report of its cell.'
  ]
  return html.page('Leaderboard', lead, sections, SCRIPT)


def _ranks_section(board: Board) -> str:
  return '\n'.join(
    [
      *(_ranks_table(study, one) for study, one in board.ranked.items()),
      html.figures(board.pictures),
    ]
  ).strip()


def _ranks_table(study: str, ranked: ranks.Ranking) -> str:
  table = ranks.table(ranked, study)
  escape = html.escape
  head = ''.join(f'<th>{escape(title)}</th>' for title in table.head)
  body = ''.join(
    f'<tr>{"".join(f"<td>{escape(cell)}</td>" for cell in row)}</tr>\n'
    for row in table.body
  )
  return (
    f'<h3>{escape(table.title)}</h3>\n'
    f'<div class="scroll"><table class="sortable"><thead><tr>{head}</tr>'
    f'</thead>\n<tbody>\n{body}</tbody></table></div>\n'
    f'<p class="soft">{escape(table.note)}</p>'
  )


def _big_table(board: Board, kind: str) -> str:
  """Return the numbers of a study in all cells as one table with filters."""
  studies = [study for study in board.reports if study.kind == kind]
  own = [line for line in board.lines if line.study == kind]
  columns = {
    metric: title
    for metric, title in COLUMNS[kind].items()
    if any(line.row.metric == metric for line in own)
  }
  if not columns:
    return ''
  escape = html.escape
  titles = [
    ('data', 'Data'),
    ('model', 'Model'),
    ('method', 'Method'),
    *(
      (metric, f'{title} {glossary.symbol(metric)}')
      for metric, title in columns.items()
    ),
  ]
  head = ''.join(f'<th data-key="{key}">{escape(t)}</th>' for key, t in titles)
  body = []
  for study in studies:
    values = {
      (line.row.method, line.row.metric): line
      for line in own
      if (line.data, line.model) == study.cell
    }
    for method in results.ordered(method for method, _ in values):
      cells = ''.join(_td(values.get((method, key))) for key in columns)
      mark = ' class="reference"' if method == results.REFERENCE else ''
      link = f'{study.name}/report.html'
      body.append(
        f'<tr{mark} data-data="{escape(study.cell.data)}" '
        f'data-model="{escape(study.cell.model)}" '
        f'data-method="{escape(method)}">'
        f'<td><a href="{escape(link)}">{escape(study.cell.data)}</a></td>'
        f'<td class="words">{escape(study.cell.model)}</td>'
        f'<td class="words">{escape(results.label(method))}</td>{cells}</tr>'
      )
  filters = ' '.join(
    _filter(kind, field, choices)
    for field, choices in (
      ('data', {s.cell.data: s.cell.data for s in studies}),
      ('model', {s.cell.model: s.cell.model for s in studies}),
      ('method', {ln.row.method: results.label(ln.row.method) for ln in own}),
    )
  )
  return (
    f'<p class="filters">{filters}</p>\n'
    f'<div class="scroll"><table class="sortable" id="table-{kind}"><thead>'
    f'<tr>{head}</tr></thead>\n<tbody>\n'
    + '\n'.join(body)
    + '\n</tbody></table></div>'
  )


def _td(line: Line | None) -> str:
  if line is None:
    return '<td></td>'
  mark = ' class="differs"' if results.differs(line.row) else ''
  span = results.format_interval(line.row.low, line.row.high)
  title = f' title="95% interval {span}"' if span else ''
  return (
    f'<td{mark}{title} data-value="{line.row.value!r}">'
    f'{html.escape(_cell_text(line))}</td>'
  )


def _filter(kind: str, field: str, choices: Mapping[str, str]) -> str:
  options = ''.join(
    f'<option value="{html.escape(value)}">{html.escape(label)}</option>'
    for value, label in choices.items()
  )
  title = {'data': 'Data', 'model': 'Model', 'method': 'Method'}[field]
  return (
    f'<label>{title} <select data-table="table-{kind}" data-field="{field}">'
    f'<option value="">all</option>{options}</select></label>'
  )


# Sorts a table by the column of a title, and hides rows that are filtered out.
SCRIPT = """
const number = (cell) => {
  const text = cell.dataset.value ?? cell.textContent;
  return text.trim() === '' ? NaN : parseFloat(text);
};
for (const table of document.querySelectorAll('table.sortable')) {
  const titles = [...table.tHead.rows[0].cells];
  titles.forEach((title, column) => {
    title.style.cursor = 'pointer';
    title.addEventListener('click', () => {
      const down = title.dataset.order === 'up';
      titles.forEach((one) => { delete one.dataset.order; });
      title.dataset.order = down ? 'down' : 'up';
      const rows = [...table.tBodies[0].rows];
      rows.sort((a, b) => {
        const [x, y] = [a.cells[column], b.cells[column]];
        const [m, n] = [number(x), number(y)];
        if (Number.isNaN(m) && Number.isNaN(n)) {
          const order = x.textContent.localeCompare(y.textContent);
          return down ? -order : order;
        }
        if (Number.isNaN(m) || Number.isNaN(n)) {
          return Number.isNaN(m) ? 1 : -1;
        }
        return down ? n - m : m - n;
      });
      table.tBodies[0].append(...rows);
    });
  });
}
const filters = [...document.querySelectorAll('select[data-table]')];
for (const filter of filters) {
  filter.addEventListener('change', () => {
    const own = filters.filter((f) => f.dataset.table === filter.dataset.table);
    const rows = document.getElementById(filter.dataset.table).tBodies[0].rows;
    for (const row of rows) {
      row.hidden = own.some(
        (f) => f.value !== '' && row.dataset[f.dataset.field] !== f.value);
    }
  });
}
"""
