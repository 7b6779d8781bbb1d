"""A report as one HTML file that needs nothing else, now or in ten years.

Style and pictures are inside the file; there are no scripts and nothing is
fetched, which a content security policy in its head also enforces. All text
that comes from outside is escaped.
"""

import base64
import dataclasses
import functools
import pathlib
from collections.abc import Mapping, Sequence

from matplotlib import figure

from jaxmu.report import (
  files,
  findings,
  names,
  page_style,
  page_tables,
  plots,
  records,
)

_POLICY = (
  "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
  "base-uri 'none'; form-action 'none'"
)


@dataclasses.dataclass(frozen=True)
class Picture:
  """A figure of the report.

  Attributes:
    name: name of its file, without ending.
    caption: what one sees, in a sentence or two; also read out to the blind.
    figure: the figure.
  """

  name: str
  caption: str
  figure: figure.Figure

  @functools.cached_property
  def png(self) -> bytes:
    """The figure as PNG, drawn once."""
    return plots.png(self.figure)


@dataclasses.dataclass(frozen=True)
class Report:
  """Everything that a report shows.

  Attributes:
    title: headline.
    lead: paragraphs on what was run, in plain words.
    rows: the numbers: rows of the main job, or of attacks on stored scores.
    pictures: figures in the order of the page.
    provenance: configuration, versions, hardware, seeds, data fingerprint;
      nested mappings are folded away on the page.
    command: the command that reproduces the run.
    warnings: whatever a reader must know before believing a number.
    failed: method -> (failed members, all members), where there are any.
    reference: key of the retrained models.
    original: key of the original models.
  """

  title: str
  lead: Sequence[str]
  rows: Sequence[records.Row] | Sequence[records.AttackRow]
  pictures: Sequence[Picture] = ()
  provenance: Mapping[str, object] = dataclasses.field(default_factory=dict)
  command: str = ''
  warnings: Sequence[str] = ()
  failed: Mapping[str, tuple[int, int]] = dataclasses.field(
    default_factory=dict
  )
  reference: str = names.REFERENCE
  original: str = names.ORIGINAL

  @property
  def findings(self) -> list[str]:
    """The key findings, computed from the rows."""
    main, attacks = _kinds(self.rows)
    if attacks:
      return findings.attack_findings(attacks)
    return findings.findings(
      main,
      reference=self.reference,
      original=self.original,
      failed=self.failed,
    )


def write(path: files.Path, report: Report) -> pathlib.Path:
  """Write a report as HTML, atomically; returns the path."""
  return files.write_text(path, html(report))


def html(report: Report) -> str:
  """Return a report as one self-contained HTML document."""
  escape = page_tables.escape
  sections = [
    ('findings', 'Key findings', _findings(report)),
    ('pictures', 'Pictures', _pictures(report)),
    ('numbers', 'Every number', _numbers(report)),
    ('provenance', 'How it was made', _provenance(report)),
  ]
  sections = [section for section in sections if section[2]]
  links = ''.join(f'<a href="#{key}">{title}</a>' for key, title, _ in sections)
  lead = ''.join(
    f'<p class="lead">{escape(text)}</p>\n' for text in report.lead
  )
  body = '\n'.join(
    f'<section id="{key}">\n<h2>{title}</h2>\n{content}\n</section>'
    for key, title, content in sections
  )
  return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{escape(_POLICY)}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(report.title)}</title>
<style>{page_style.CSS}</style>
</head>
<body>
<main>
<header>
<h1>{escape(report.title)}</h1>
{lead}<nav>{links}</nav>
</header>
{body}
</main>
</body>
</html>
"""


def _kinds(
  rows: Sequence[records.Row] | Sequence[records.AttackRow],
) -> tuple[list[records.Row], list[records.AttackRow]]:
  main = [row for row in rows if isinstance(row, records.Row)]
  attacks = [row for row in rows if isinstance(row, records.AttackRow)]
  return main, attacks


def _findings(report: Report) -> str:
  parts = []
  if report.warnings:
    items = _items(report.warnings)
    parts.append(
      '<div class="warnings" role="note"><strong>Before you rely on these '
      f'numbers</strong><ul>{items}</ul></div>'
    )
  sentences = report.findings
  if sentences:
    parts.append(f'<ul class="findings">{_items(sentences)}</ul>')
  table = page_tables.overview(
    _kinds(report.rows)[0], report.reference, report.original, report.failed
  )
  if table:
    parts.append(table)
    parts.append(
      '<p class="soft">Second line: the direction that is better (↑ higher, ↓ '
      'lower, →R closer to the retrained models, →0 or →½ closer to that '
      'number). Coloured: the 95% interval excludes the value of the '
      'retrained models.</p>'
    )
  return '\n'.join(parts)


def _items(texts: Sequence[str]) -> str:
  return ''.join(f'<li>{page_tables.escape(text)}</li>' for text in texts)


def _pictures(report: Report) -> str:
  parts = []
  for picture in report.pictures:
    data = base64.b64encode(picture.png).decode('ascii')
    caption = page_tables.escape(picture.caption)
    parts.append(
      f'<figure><img width="{_width(picture.png)}" alt="{caption}" '
      f'src="data:image/png;base64,{data}">\n'
      f'<figcaption>{caption}</figcaption></figure>'
    )
  return '\n'.join(parts)


def _width(png: bytes) -> int:
  """Return the CSS pixels that show a figure at its size in inches."""
  pixels = int.from_bytes(png[16:20], 'big')  # from the header, IHDR
  return round(96 * pixels / plots.DPI)


def _numbers(report: Report) -> str:
  main, attacks = _kinds(report.rows)
  parts = []
  if main:
    parts.append(
      '<p>One section per metric. The retrained models come first: they are '
      'what perfect unlearning would give, and the dashed line in the small '
      'pictures. The gap is the value minus theirs; n says how many models, '
      'splits or seeds a number rests on.</p>'
    )
    parts.append(
      page_tables.metric_sections(
        main, report.reference, report.original, report.failed
      )
    )
  if attacks:
    parts.append(page_tables.attack_sections(attacks))
  return '\n'.join(parts)


def _provenance(report: Report) -> str:
  parts = []
  if report.command:
    parts.append(
      '<p>This command makes the same numbers again, run times aside:</p>'
      f'<pre>{page_tables.escape(report.command)}</pre>'
    )
  if report.provenance:
    parts.append(page_tables.facts(report.provenance))
  return '\n'.join(parts)
