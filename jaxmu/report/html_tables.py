"""The tables of the HTML report, with an explanation of each number."""

import html
import math
from collections.abc import Mapping, Sequence

from jaxmu.report import glossary, results, summary

# Columns of the overview, where the run has them.
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


def overview(rows: Sequence[results.Row], failed: FailedCounts) -> str:
  """Return one table of methods × headline metrics, '' without any of them."""
  present = results.by_metric(rows)
  columns = [(key, title) for key, title in OVERVIEW if key in present]
  if not columns:
    return ''
  table = {
    (row.method, row.metric): row for some in present.values() for row in some
  }
  head = ''.join(
    f'<th>{escape(title)}<br><span class="soft">{glossary.symbol(key)}</span>'
    '</th>'
    for key, title in columns
  )
  body = [
    _row(
      method,
      failed,
      ''.join(_overview_cell(table.get((method, key))) for key, _ in columns),
    )
    for method in results.ordered(method for method, _ in table)
  ]
  return _table(f'<th>Method</th>{head}', body)


def _overview_cell(row: results.Row | None) -> str:
  if row is None:
    return '<td></td>'
  unit = glossary.describe(row.metric).unit
  mark = ' class="differs"' if results.differs(row) else ''
  title = results.format_interval(row.low, row.high, unit)
  value = results.format_value(row.value, unit)
  return f'<td{mark} title="{title}">{value}</td>'


def attack_overview(rows: Sequence[results.Row]) -> str:
  """Return one row per attack and population, '' where no attack ran."""
  body = []
  for line in summary.attack_lines(rows):
    attack, number, value, retrained, excess, interval = map(escape, line.cells)
    excludes = not math.isnan(line.excess) and (line.low > 0 or line.high < 0)
    mark = ' class="differs"' if excludes else ''
    body.append(
      f'<tr><td>{attack}</td><td>{escape(results.label(line.method))}</td>'
      f'<td>{number}</td><td>{value}</td><td>{retrained}</td>'
      f'<td{mark}>{excess}</td><td>{interval}</td></tr>'
    )
  titles = ('Attack', 'Method', 'Number', 'Value', 'Retrained', 'Excess')
  head = ''.join(f'<th>{t}</th>' for t in (*titles, '95% interval'))
  return _table(head, body) if body else ''


def metric_sections(
  rows: Sequence[results.Row],
  failed: FailedCounts,
  missing: results.Missing,
) -> str:
  """Return one section per number: its meaning, then one row per method.

  The numbers of one attack are folded into one element.
  """
  by_attack: dict[str, list[results.Row]] = {}
  for row in rows:
    by_attack.setdefault(glossary.attack_of(row.metric), []).append(row)
  parts = [_sections(by_attack.pop('', []), failed, missing)]
  for attack, of_attack in by_attack.items():
    parts.append(
      f'<details><summary>{escape(glossary.attack_title(attack))} '
      f'<span class="key">{escape(attack)}</span></summary>\n'
      f'{_sections(of_attack, failed, missing)}\n</details>'
    )
  return '\n'.join(part for part in parts if part)


def _sections(
  rows: Sequence[results.Row],
  failed: FailedCounts,
  missing: results.Missing,
) -> str:
  parts = []
  for metric, chosen in results.by_metric(rows).items():
    reasons = {
      row.method: missing[row.method, metric]
      for row in chosen
      if (row.method, metric) in missing
    }
    parts.append(_explanation(metric))
    parts.append(_metric_table(chosen, failed))
    parts += [
      f'<p class="soft">{escape(sentence)}</p>'
      for sentence in _reasons(reasons)
    ]
  return '\n'.join(parts)


def _reasons(by_method: Mapping[str, str]) -> list[str]:
  """Say why methods have no value, one sentence per reason."""
  methods: dict[str, list[str]] = {}
  for method, reason in by_method.items():
    methods.setdefault(reason, []).append(results.label(method))
  return [
    f'Not available for {", ".join(names)}: {reason.rstrip(".")}.'
    for reason, names in methods.items()
  ]


def _explanation(metric: str) -> str:
  term = glossary.describe(metric)
  source = f' Source: {escape(term.source)}.' if term.source else ''
  return (
    f'<h3>{escape(term.title)} <span class="key">{escape(metric)}</span>'
    f'</h3>\n<p>{escape(term.sentence)} '
    f'<em>{escape(glossary.direction(metric).capitalize())}.</em>'
    f'<span class="source">{source}</span></p>'
  )


def _metric_table(rows: Sequence[results.Row], failed: FailedCounts) -> str:
  unit = glossary.describe(rows[0].metric).unit
  spans = _span(rows)
  body = []
  for row in rows:
    is_reference = row.method == results.REFERENCE
    marked = results.differs(row) and not is_reference
    mark = ' class="differs"' if marked else ''
    retrained = results.format_value(row.retrained, unit)
    gap = results.format_gap(row.gap, unit)
    cells = (
      f'<td>{results.format_value(row.value, unit)}</td>'
      f'<td>{"" if is_reference else retrained}</td>'
      f'<td{mark}>{"" if is_reference else gap}</td>'
      f'<td>{results.format_interval(row.low, row.high, unit)}</td>'
      f'<td>{_range(row, spans)}</td>'
      f'<td>{row.n or ""}</td>'
    )
    body.append(_row(row.method, failed, cells))
  head = '<th>Method</th>' + ''.join(
    f'<th>{title}</th>'
    for title in ('Value', 'Retrained', 'Gap', '95% interval', '', 'n')
  )
  return _table(head, body)


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


def plain(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
  """Return a table of texts and numbers, four digits each, as HTML."""
  head = ''.join(f'<th>{escape(name)}</th>' for name in columns)
  body = [
    '<tr>' + ''.join(f'<td>{escape(_digits(x))}</td>' for x in row) + '</tr>'
    for row in rows
  ]
  return _table(head, body)


def _digits(value: object) -> object:
  return f'{value:.4g}' if isinstance(value, float) else value


def escape(text: object) -> str:
  """Return text that HTML shows as it is."""
  return html.escape(str(text), quote=True)


def _row(method: str, failed: FailedCounts, cells: str) -> str:
  name = escape(results.label(method))
  kind = ''
  if method == results.REFERENCE:
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


def _span(rows: Sequence[results.Row]) -> tuple[float, float]:
  """Return the range that holds all values and intervals of a metric."""
  ends = [end for row in rows for end in (row.value, row.low, row.high)]
  finite = [end for end in ends if math.isfinite(end)]
  low, high = min(finite, default=0.0), max(finite, default=1.0)
  pad = 0.04 * (high - low) or 0.5
  return low - pad, high + pad


def _range(row: results.Row, span: tuple[float, float]) -> str:
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
