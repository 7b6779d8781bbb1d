"""The benchmark's table: methods × ten columns, mean ± sd over seeds.

The table is text for the terminal or Markdown. Its input is already paired with
the retrained model of the same seed, so 'mean ± sd' is over paired values.
Values that are not finite are left out of the mean and counted: '[8/10]' means
that eight of ten seeds are included. Below the retrained models is the noise
floor: each retrained model compared with that of the next seed.
"""

import dataclasses
import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
import rich.console
import rich.table
from numpy.typing import ArrayLike

from jaxmu.report import glossary, results, tables

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
  'retrained model of the same initialisation (RTE: over repeated runs of one '
  'model). '
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
  """Contents of the table.

  Attributes:
    per_seed: method -> metric -> one value per seed; metrics not given show as
      n/a, further metrics are ignored.
    floor: metric -> values of retrained models against that of another seed;
      empty where there is one seed.
    failed: method -> (failed members, all members), where there are any.
  """

  per_seed: PerSeed
  floor: Mapping[str, ArrayLike] = dataclasses.field(default_factory=dict)
  failed: Mapping[str, Sequence[int]] = dataclasses.field(default_factory=dict)


def show(
  table: PaperTable, *, console: rich.console.Console | None = None
) -> None:
  """Print the table in the width of the terminal, in one part elsewhere."""
  console = console or rich.console.Console()
  whole = as_text(table, width=console.width if console.is_terminal else 200)
  if console.options.ascii_only:
    whole = whole.translate(tables.ASCII)
  print(whole, file=console.file)


def as_text(table: PaperTable, *, width: int = 120) -> str:
  """Return the table as plain text, in several parts where it is too wide.

  Args:
    table: what to show.
    width: columns of the terminal.

  Returns:
    Text that ends with a newline.
  """
  methods, cells = _cells(table)
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
    parts.append(tables.plain_text(lambda c, g=grid: c.print(g), width))
  notes = (
    textwrap.fill(note, min(width, 100)) + '\n' for note in _notes(table)
  )
  return '\n'.join([*parts, *notes])


def as_markdown(table: PaperTable) -> str:
  """Return the table as Markdown."""
  methods, cells = _cells(table)
  lines = [
    ['Method', *_titles()],
    ['---', *('---:' for _ in COLUMNS)],
    *(
      [name.replace('|', r'\|'), *line]
      for name, line in zip(methods, cells, strict=True)
    ),
  ]
  rows = ''.join(f'| {" | ".join(line)} |\n' for line in lines)
  notes = (textwrap.fill(note, 80) + '\n' for note in _notes(table))
  return '\n'.join([rows, *notes])


def _titles() -> list[str]:
  return [
    f'{title} {glossary.symbol(metric)}' for metric, title in COLUMNS.items()
  ]


def _notes(table: PaperTable) -> list[str]:
  notes = [NOTE]
  if table.floor:
    notes.append(_FLOOR_NOTE)
  if any(bad for bad, _ in table.failed.values()):
    notes.append(
      "'failed' counts models whose loss or weights are not finite; their "
      'predictions count as wrong.'
    )
  return notes


def _cells(table: PaperTable) -> tuple[list[str], list[list[str]]]:
  methods = results.ordered(table.per_seed)
  labels = [_label(method, table.failed) for method in methods]
  cells = [
    [_cell(table.per_seed[method].get(metric, ())) for metric in COLUMNS]
    for method in methods
  ]
  if table.floor:
    floor = [
      _cell(table.floor[metric]) if metric in table.floor else ''
      for metric in COLUMNS
    ]
    at = int(results.REFERENCE in methods)
    labels.insert(at, _FLOOR)
    cells.insert(at, floor)
  return labels, cells


def _label(method: str, failed: Mapping[str, Sequence[int]]) -> str:
  bad, total = failed.get(method, (0, 0))
  count = f' ({bad} of {total} failed)' if bad else ''
  return results.label(method) + count


def _cell(values: ArrayLike) -> str:
  """Return 'mean ± sd', with '[finite/all]' where some are not finite."""
  values = np.ravel(np.asarray(values, np.float64))
  finite = values[np.isfinite(values)]
  if not finite.size:
    return results.MISSING
  deviation = finite.std(ddof=1) if finite.size > 1 else np.nan
  cell = results.format_spread(finite.mean(), float(deviation))
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
