"""The benchmark's table: methods × ten columns, mean ± sd over seeds.

Numbers are paired with the retrained model of the same seed before they get
here, hence 'mean ± sd' is over paired values. Values that are not finite are
left out of the mean and counted in the open: '[8/10]' says that eight of ten
seeds entered.
"""

import io
from collections.abc import Mapping, Sequence

import numpy as np
import rich.console
import rich.table
from numpy.typing import ArrayLike

from jaxmu.report import names, numbers

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


def text(
  per_seed: PerSeed,
  *,
  width: int = 120,
  decimals: int = 3,
  reference: str = names.REFERENCE,
) -> str:
  """Return the table as plain text, in several parts where it is too wide.

  Args:
    per_seed: method -> metric -> one value per seed; metrics not given show
      as n/a, further metrics are ignored.
    width: columns of the terminal.
    decimals: digits after the point.
    reference: key of the retrained models, shown first.

  Returns:
    Text that ends with a newline.
  """
  methods, cells = _cells(per_seed, decimals, reference)
  titles = list(COLUMNS.values())
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
  return '\n'.join(parts)


def markdown(
  per_seed: PerSeed,
  *,
  decimals: int = 3,
  reference: str = names.REFERENCE,
) -> str:
  """Return the table as Markdown; arguments as for `text`."""
  methods, cells = _cells(per_seed, decimals, reference)
  lines = [
    ['Method', *COLUMNS.values()],
    ['---', *('---:' for _ in COLUMNS)],
    *(
      [name.replace('|', r'\|'), *line]
      for name, line in zip(methods, cells, strict=True)
    ),
  ]
  return ''.join(f'| {" | ".join(line)} |\n' for line in lines)


def _cells(
  per_seed: PerSeed, decimals: int, reference: str
) -> tuple[list[str], list[list[str]]]:
  methods = names.ordered(per_seed, reference)
  cells = [
    [_cell(per_seed[method].get(metric, ()), decimals) for metric in COLUMNS]
    for method in methods
  ]
  return [names.label(method) for method in methods], cells


def _cell(values: ArrayLike, decimals: int) -> str:
  """Return 'mean ± sd', with '[finite/all]' where some are not finite."""
  values = np.ravel(np.asarray(values, np.float64))
  finite = values[np.isfinite(values)]
  if not finite.size:
    return numbers.MISSING
  deviation = finite.std(ddof=1) if finite.size > 1 else np.nan
  cell = numbers.spread(finite.mean(), float(deviation), decimals)
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
