"""The tables of the HTML report, each number explained where it stands."""

import html
import math
from collections.abc import Mapping, Sequence

from jaxmu.report import glossary, names, numbers, records

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

Failed = Mapping[str, tuple[int, int]]


def overview(
  rows: Sequence[records.Row], reference: str, original: str, failed: Failed
) -> str:
  """Return one table of methods × headline metrics."""
  present = dict.fromkeys(row.metric for row in rows)
  table = {
    (row.method, row.metric): row
    for metric in present
    for row in records.with_reference(
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
  order = names.ordered((method for method, _ in table), reference, original)
  for method in order:
    cells = ''.join(
      _overview_cell(table.get((method, key))) for key, _ in columns
    )
    body.append(_row(method, reference, failed, cells))
  return _table(f'<th>Method</th>{head}', body)


def _overview_cell(row: records.Row | None) -> str:
  if row is None:
    return '<td></td>'
  unit = glossary.describe(row.metric).unit
  mark = ' class="differs"' if differs(row) else ''
  title = numbers.interval(row.low, row.high, unit)
  return f'<td{mark} title="{title}">{numbers.value(row.value, unit)}</td>'


def metric_sections(
  rows: Sequence[records.Row], reference: str, original: str, failed: Failed
) -> str:
  """Return a section per metric: what it means, then one row per method."""
  everyone = [reference, *(row.method for row in rows)]
  order = names.ordered(everyone, reference, original)
  parts = []
  for metric in dict.fromkeys(row.metric for row in rows):
    chosen = records.with_reference(
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
  rows: Sequence[records.Row], reference: str, failed: Failed
) -> str:
  unit = glossary.describe(rows[0].metric).unit
  spans = _span(rows)
  body = []
  for row in rows:
    own = row.method == reference
    mark = ' class="differs"' if differs(row) and not own else ''
    cells = (
      f'<td>{numbers.value(row.value, unit)}</td>'
      f'<td>{"" if own else numbers.value(row.retrained, unit)}</td>'
      f'<td{mark}>{"" if own else numbers.gap(row.gap, unit)}</td>'
      f'<td>{numbers.interval(row.low, row.high, unit)}</td>'
      f'<td>{_range(row, spans)}</td>'
      f'<td>{row.n or ""}</td>'
    )
    body.append(_row(row.method, reference, failed, cells))
  head = '<th>Method</th>' + ''.join(
    f'<th>{title}</th>'
    for title in ('Value', 'Retrained', 'Gap', '95% interval', '', 'n')
  )
  return _table(head, body)


def attack_sections(rows: Sequence[records.AttackRow]) -> str:
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
        f'<td>{numbers.value(row.value, entry.unit)}</td>'
        f'<td>{numbers.interval(row.low, row.high, entry.unit)}</td>'
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


def differs(row: records.Row) -> bool:
  """Say whether the interval excludes the value of the retrained models."""
  return row.low > row.retrained or row.high < row.retrained


def escape(text: object) -> str:
  """Return text that HTML shows as it is."""
  return html.escape(str(text), quote=True)


def _symbol(metric: str) -> str:
  return glossary.SYMBOLS[glossary.describe(metric).better]


def _row(method: str, reference: str, failed: Failed, cells: str) -> str:
  name = escape(names.label(method))
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


def _span(rows: Sequence[records.Row]) -> tuple[float, float]:
  """Return the range that holds all values and intervals of a metric."""
  ends = [end for row in rows for end in (row.value, row.low, row.high)]
  finite = [end for end in ends if math.isfinite(end)]
  low, high = min(finite, default=0.0), max(finite, default=1.0)
  pad = 0.04 * (high - low) or 0.5
  return low - pad, high + pad


def _range(row: records.Row, span: tuple[float, float]) -> str:
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
