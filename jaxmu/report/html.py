"""The files of a report, including a self-contained HTML page.

The page contains its style and pictures and fetches nothing, and the report of
a job has no scripts. A content security policy enforces this. All text from
outside is escaped.
"""

import base64
import dataclasses
import functools
import html
import logging
import math
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from matplotlib import figure

from jaxmu import files, terms
from jaxmu.report import glossary, plots, results, summary

log = logging.getLogger(__name__)

_POLICY = (
  "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
  "base-uri 'none'; form-action 'none'"
)


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


@dataclasses.dataclass(frozen=True)
class Picture:
  """A figure of the report.

  Attributes:
    name: name of its file, without ending.
    caption: description in a sentence or two, also the alternative text.
    figure: the figure.
  """

  name: str
  caption: str
  figure: figure.Figure

  @functools.cached_property
  def png(self) -> bytes:
    """The figure as PNG, drawn once."""
    return plots.png(self.figure)


def draw(
  name: str,
  function: Callable[[], figure.Figure | None],
  problems: list[str],
  **words: object,
) -> list[Picture]:
  """Draw a picture; an error does not stop the report.

  Args:
    name: key of its caption in `glossary`, and name of its file.
    function: draws the figure, or returns None if there is nothing to draw.
    problems: gets a sentence if the picture cannot be drawn.
    **words: values of the placeholders of the caption.

  Returns:
    The picture, or an empty list.
  """
  try:
    drawn = function()
    if drawn is None:
      return []
    picture = Picture(name, glossary.caption(name, **words), drawn)
    _ = picture.png
    return [picture]
  except Exception as error:  # a model may give any values
    log.debug('picture %s', name, exc_info=True)
    problems.append(
      f'The picture {name!r} could not be drawn '
      f'({type(error).__name__}: {error}).'
    )
    return []


@dataclasses.dataclass(frozen=True)
class Report:
  """Everything that a report shows.

  Attributes:
    title: headline.
    lead: introductory paragraphs.
    rows: the numbers.
    pictures: figures in the order of the page.
    provenance: configuration, versions, hardware, seeds, data fingerprint;
      nested mappings are folded away on the page.
    command: the command that reproduces the run.
    warnings: limitations of the numbers, shown first.
    failed: method -> (failed members, all members), where there are any.
    missing: why numbers are not available.
  """

  title: str
  lead: Sequence[str]
  rows: Sequence[results.Row]
  pictures: Sequence[Picture] = ()
  provenance: Mapping[str, object] = dataclasses.field(default_factory=dict)
  command: str = ''
  warnings: Sequence[str] = ()
  failed: Mapping[str, tuple[int, int]] = dataclasses.field(
    default_factory=dict
  )
  missing: results.Missing = dataclasses.field(default_factory=dict)

  @property
  def findings(self) -> list[str]:
    """The key results, computed from the rows."""
    return summary.summarise(self.rows, failed=self.failed)


def render(report: Report) -> str:
  """Return a report as one self-contained HTML document."""
  sections = [
    ('findings', 'Key findings', _findings(report)),
    ('pictures', 'Pictures', figures(report.pictures)),
    ('numbers', 'Every number', _numbers(report)),
    ('provenance', 'How it was made', _provenance(report)),
  ]
  return page(report.title, report.lead, sections)


def page(
  title: str,
  lead: Sequence[str],
  sections: Sequence[tuple[str, str, str]],
  script: str = '',
) -> str:
  """Return a self-contained HTML document.

  Args:
    title: headline.
    lead: introductory paragraphs.
    sections: (identifier, headline, HTML) of each; empty ones are left out.
    script: JavaScript of the page; the only one that its policy allows.
  """
  policy, code = _POLICY, ''
  if script:
    allowed = base64.b64encode(bytes.fromhex(files.sha256_of(script.encode())))
    policy += f"; script-src 'sha256-{allowed.decode()}'"
    code = f'<script>{script}</script>\n'
  sections = [section for section in sections if section[2]]
  links = ''.join(f'<a href="#{key}">{name}</a>' for key, name, _ in sections)
  paragraphs = ''.join(f'<p class="lead">{escape(text)}</p>\n' for text in lead)
  body = '\n'.join(
    f'<section id="{key}">\n<h2>{name}</h2>\n{content}\n</section>'
    for key, name, content in sections
  )
  return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{escape(policy)}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{CSS}</style>
</head>
<body>
<main>
<header>
<h1>{escape(title)}</h1>
{paragraphs}<nav>{links}</nav>
</header>
{body}
</main>
{code}</body>
</html>
"""


def _findings(report: Report) -> str:
  parts = []
  if report.warnings:
    items = bullets(report.warnings)
    parts.append(
      '<div class="warnings" role="note"><strong>Before you rely on these '
      f'numbers</strong><ul>{items}</ul></div>'
    )
  sentences = report.findings
  if sentences:
    parts.append(f'<ul class="findings">{bullets(sentences)}</ul>')
  for table, caption in (
    (
      overview(report.rows, report.failed),
      glossary.OVERVIEW_CAPTION,
    ),
    (attack_overview(report.rows), glossary.ATTACKS_CAPTION),
  ):
    if table:
      parts += [table, f'<p class="soft">{caption}</p>']
  return '\n'.join(parts)


def bullets(texts: Sequence[str]) -> str:
  """Return sentences as the items of an HTML list."""
  return ''.join(f'<li>{escape(text)}</li>' for text in texts)


def figures(pictures: Sequence[Picture]) -> str:
  """Return pictures with their captions as HTML."""
  parts = []
  for picture in pictures:
    data = base64.b64encode(picture.png).decode('ascii')
    caption = escape(picture.caption)
    parts.append(
      f'<figure><img width="{_width(picture.png)}" alt="{caption}" '
      f'src="data:image/png;base64,{data}">\n'
      f'<figcaption>{caption}</figcaption></figure>'
    )
  return '\n'.join(parts)


def _width(png: bytes) -> int:
  """Return the CSS pixels that show a figure at its size in inches."""
  pixels = int.from_bytes(png[16:20], 'big')  # width in the IHDR chunk
  return round(96 * pixels / plots.DPI)


def _numbers(report: Report) -> str:
  if not report.rows:
    return ''
  tables = metric_sections(report.rows, report.failed, report.missing)
  return f'<p>{glossary.NUMBERS_CAPTION}</p>\n{tables}'


def _provenance(report: Report) -> str:
  parts = []
  if report.command:
    parts.append(
      '<p>This command reproduces the numbers, except run times:</p>'
      f'<pre>{escape(report.command)}</pre>'
    )
  if report.provenance:
    parts.append(facts(report.provenance))
  return '\n'.join(parts)


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
    flat = dict(terms.dotted(value))
    parts.append(
      f'<details><summary>{escape(key)}</summary>{_facts_table(flat)}</details>'
    )
  return '\n'.join(parts)


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


# The style sheet: no images, fonts or scripts from elsewhere.
CSS = """
:root {
  --ink: #1c1f23; --soft: #5b626b; --line: #dcdfe3; --paper: #ffffff;
  --wash: #f5f6f8; --mark: #0072b2; --differs: #b34700; --warn: #fff4e0;
  --warn-line: #e69f00;
  color-scheme: light dark;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ink: #e6e8eb; --soft: #a0a8b2; --line: #363c44; --paper: #16191d;
    --wash: #1f2328; --mark: #56b4e9; --differs: #f0a060; --warn: #33270f;
    --warn-line: #b37b00;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body {
  margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.6 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue",
    Arial, "DejaVu Sans", sans-serif;
}
main { max-width: 60rem; margin: 0 auto; padding: 2.5rem 1.25rem 5rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .75rem;
  letter-spacing: -.01em; overflow-wrap: anywhere; }
h2 { font-size: 1.3rem; line-height: 1.3; margin: 3rem 0 .75rem;
  padding-top: .75rem; border-top: 1px solid var(--line); }
h3 { font-size: 1.05rem; line-height: 1.35; margin: 2rem 0 .25rem; }
p, li { max-width: 44rem; }
p { margin: .5rem 0; }
.lead { font-size: 1.08rem; }
.soft, figcaption, .source { color: var(--soft); }
.source, .key { font-size: .82rem; }
.key { font-family: ui-monospace, "DejaVu Sans Mono", monospace;
  font-weight: 400; color: var(--soft); }
.findings { padding-left: 1.2rem; }
.findings li { margin: .55rem 0; }
.warnings { background: var(--warn); border-left: 4px solid var(--warn-line);
  padding: .6rem 1rem; margin: 1rem 0; }
.warnings ul { margin: .25rem 0; padding-left: 1.1rem; }
nav { margin: 1rem 0 0; font-size: .92rem; display: flex; flex-wrap: wrap;
  gap: .2rem 1.1rem; }
a { color: var(--mark); }
.scroll { overflow-x: auto; margin: .75rem 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums;
  font-size: .9rem; line-height: 1.4; }
th, td { padding: .3rem .8rem .3rem 0; text-align: right; white-space: nowrap;
  border-bottom: 1px solid var(--line); }
th:first-child, td:first-child, td.words, th.words { text-align: left; }
td.words { white-space: normal; min-width: 15rem; color: var(--soft); }
thead th { color: var(--soft); font-weight: 500; border-bottom-width: 2px;
  vertical-align: bottom; }
tr.reference td { background: var(--wash); font-weight: 600; }
tr.reference td:first-child { box-shadow: inset 3px 0 var(--soft);
  padding-left: .6rem; }
td.differs { color: var(--differs); font-weight: 600; }
.failed { color: var(--differs); font-size: .82rem; }
svg.range { display: block; width: 11rem; height: 1.1rem; }
svg.range .whole { stroke: var(--line); }
svg.range .null { stroke: var(--soft); stroke-dasharray: 2 2; }
svg.range .interval { stroke: var(--mark); stroke-width: 2; }
svg.range .value { fill: var(--mark); }
tr.reference svg .interval { stroke: var(--soft); }
tr.reference svg .value { fill: var(--soft); }
figure { margin: 2rem 0; }
figure img { display: block; max-width: 100%; height: auto; background: #fff;
  border: 1px solid var(--line); border-radius: 6px; padding: .5rem; }
figcaption { font-size: .92rem; max-width: 44rem; margin-top: .5rem; }
pre { background: var(--wash); padding: .8rem 1rem; border-radius: 6px;
  overflow-x: auto; font: .85rem/1.5 ui-monospace, "DejaVu Sans Mono",
  monospace; }
details { margin: .5rem 0; }
summary { cursor: pointer; font-weight: 600; }
table.facts td { text-align: left; white-space: normal; vertical-align: top;
  overflow-wrap: anywhere; }
table.facts td:first-child { color: var(--soft); white-space: nowrap; }
@media (max-width: 40rem) {
  body { font-size: 15px; }
  main { padding: 1.5rem .9rem 3rem; }
  svg.range { width: 7rem; }
  table.facts td:first-child { white-space: normal; }
}
@media print { nav { display: none; } details { display: block; } }
"""


# Wall-clock metrics go to timing.csv, so that results.csv is reproducible.
CLOCKED = ('rte', 'rte_cold', 'seconds', 'seconds_cold')


def report_folder(folder: files.Path) -> pathlib.Path:
  """Make the folder of a report for `--out`, and return its path.

  Raises:
    ValueError: it cannot be made or written, or a job has its report there.
  """
  made = files.writable_folder(folder, '--out')
  if (made / results.PER_CLUSTER_FILE).exists():
    raise ValueError(
      f'--out={folder} is the work directory of a job, whose report would be '
      'replaced; choose another folder'
    )
  return made


def write_report(directory: files.Path, report: Report) -> list[pathlib.Path]:
  """Write results.csv, timing.csv, results.json, plots/*.png and report.html.

  Args:
    directory: where to; created if absent. Files of an earlier report are
      replaced one by one, each atomically.
    report: what to write.

  Returns:
    The paths written.
  """
  directory = pathlib.Path(directory)
  content: dict[str, Any] = {
    'title': report.title,
    'command': report.command,
    'provenance': report.provenance,
    'findings': report.findings,
    'warnings': report.warnings,
    'failed': report.failed,
    'missing': [[*key, why] for key, why in report.missing.items()],
    'results': report.rows,
  }
  clocked = [row for row in report.rows if row.metric in CLOCKED]
  steady = [row for row in report.rows if row.metric not in CLOCKED]
  paths = [results.write_csv(directory / 'results.csv', steady)]
  if clocked:
    paths.append(results.write_csv(directory / 'timing.csv', clocked))
  paths.append(results.write_json(directory / 'results.json', content))
  for picture in report.pictures:
    path = directory / 'plots' / f'{picture.name}.png'
    paths.append(files.write_bytes(path, picture.png))
  page = files.write_text(directory / 'report.html', render(report))
  return [*paths, page]
