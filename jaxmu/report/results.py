"""The numbers of a report: rows, their files, and their format in tables.

A `Row` is a number of a job or of an attack on stored scores. CSV and JSON
files depend on their content alone: they have no dates, floats in their
shortest exact form, and sorted keys. Two identical runs write identical bytes.
"""

import csv
import dataclasses
import io
import json
import math
import os
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from jaxmu import files
from jaxmu.attacks import intervals
from jaxmu.report import checksums, glossary

NAN = float('nan')

REFERENCE = 'retrain'
ORIGINAL = 'original'
UNLEARNED = 'unlearned'  # the audited population of stored scores

# A job's numbers for each initialisation or pair of splits.
PER_CLUSTER_FILE = 'per_cluster.csv'

_BETTER = 'better'  # a column that follows from the name of the number


@dataclasses.dataclass(frozen=True)
class Row:
  """One number of one population, with that of the retrained models.

  Attributes:
    method: 'original', 'retrain' or the unlearning method, e.g. 'msg';
      'unlearned' for stored scores.
    metric: e.g. 'fa', 'ulira_auc', 'excess_ulira_auc'; see
      `jaxmu.report.glossary`.
    value: the number; NaN where it is not available.
    low: lower end of its 95% interval, or NaN.
    high: upper end of its 95% interval, or NaN.
    retrained: the same number for the retrained models, or NaN.
    gap: value minus retrained, paired where the metric allows, or NaN.
    n: number of models, splits or seeds behind the number.
    gap_low: lower end of the 95% interval of the paired difference, or NaN.
    gap_high: upper end of it, or NaN.
  """

  method: str
  metric: str
  value: float
  low: float = NAN
  high: float = NAN
  retrained: float = NAN
  gap: float = NAN
  n: int = 0
  gap_low: float = NAN
  gap_high: float = NAN


# Why numbers are not available, by (method, metric).
Missing = Mapping[tuple[str, str], str]


@dataclasses.dataclass(frozen=True)
class Observation:
  """One number of one independent cluster: an initialisation, or splits."""

  method: str
  metric: str
  cluster: int
  value: float


_PARSERS: dict[Any, Callable[[str], Any]] = {str: str, float: float, int: int}

R = TypeVar('R', Row, Observation)


def rows(numbers: Mapping[str, Mapping[str, intervals.Estimate]]) -> list[Row]:
  """Return estimates as rows, compared with those of the retrained models.

  Args:
    numbers: estimates by population and metric. `excess_X` is the paired
      difference in X; without it X is paired here, where both populations have
      values of the same splits.
  """
  reference = numbers.get(REFERENCE, {})
  table = []
  for method, estimates in numbers.items():
    for metric, estimate in estimates.items():
      null = reference.get(metric)
      retrained = NAN if null is None else null.value
      excess = estimates.get(f'{glossary.EXCESS}{metric}')
      if metric.startswith(glossary.EXCESS):
        retrained, excess = 0.0, estimate
      elif excess is None and null is not None and method != REFERENCE:
        excess = _paired(estimate, null)
      row = Row(
        method=method,
        metric=metric,
        value=estimate.value,
        low=estimate.low,
        high=estimate.high,
        retrained=retrained,
        gap=estimate.value - retrained,
        n=estimate.n,
        gap_low=NAN if excess is None else excess.low,
        gap_high=NAN if excess is None else excess.high,
      )
      table.append(row)
  return table


def _paired(
  estimate: intervals.Estimate, null: intervals.Estimate
) -> intervals.Estimate | None:
  shape = estimate.by_split.shape
  if shape != null.by_split.shape or not estimate.by_split.size:
    return None
  return intervals.paired_difference(estimate, null)


def with_reference(rows: Iterable[Row]) -> list[Row]:
  """Return the rows of one metric, with the retrained models' row.

  It is added if it is missing and their value is known. For excess metrics the
  value is 0 by definition.

  Args:
    rows: rows of one metric.

  Returns:
    The rows, an added one first.
  """
  rows = list(rows)
  known = [row for row in rows if not math.isnan(row.retrained)]
  if not known or any(row.method == REFERENCE for row in rows):
    return rows
  return [Row(REFERENCE, known[0].metric, known[0].retrained), *rows]


def by_metric(rows: Sequence[Row]) -> dict[str, list[Row]]:
  """Return the rows of each metric, the retrained models' row first."""
  methods = ordered([REFERENCE, *(row.method for row in rows)])
  chosen: dict[str, list[Row]] = {}
  for row in rows:
    chosen.setdefault(row.metric, []).append(row)
  return {
    metric: sorted(
      with_reference(some), key=lambda row: methods.index(row.method)
    )
    for metric, some in chosen.items()
  }


def differs(row: Row) -> bool:
  """Say whether the interval of the paired difference excludes 0."""
  return row.gap_low > 0 or row.gap_high < 0


def write_csv(
  path: files.Path,
  rows: Iterable[Row | Observation],
  kind: type = Row,
) -> pathlib.Path:
  """Write rows as CSV; the columns are the fields of `kind`, in order.

  Numbers of methods have one more column, `better`: the values that are better,
  as in `jaxmu.terms.Term`.

  Args:
    path: the file to write, atomically.
    rows: instances of `kind`, written in the order given.
    kind: `Row` or `Observation`.

  Returns:
    The path written.

  Raises:
    TypeError: a row is not of this kind.
  """
  text = io.StringIO(newline='')
  writer = csv.writer(text, lineterminator='\n')
  columns = [field.name for field in dataclasses.fields(kind)]
  writer.writerow(columns + [_BETTER] * (kind is Row))
  for row in rows:
    if not isinstance(row, kind):
      raise TypeError(
        f'{row!r} is not a {kind.__name__}; pass kind={type(row).__name__}'
      )
    cells = [_cell(getattr(row, column)) for column in columns]
    if isinstance(row, Row):
      cells.append(glossary.describe(row.metric).better)
    writer.writerow(cells)
  return files.write_text(path, text.getvalue())


def _cell(value: Any) -> str:
  if isinstance(value, str):
    return value
  if isinstance(value, int | np.integer):
    return str(int(value))
  return repr(float(value))


def read_csv(path: files.Path, kind: type[R] = Row) -> list[R]:
  """Read what `write_csv` wrote.

  Args:
    path: the file to read.
    kind: `Row` or `Observation`.

  Returns:
    The rows in file order.

  Raises:
    ValueError: the columns are not those of `kind`, or the file is damaged.
  """
  fields = dataclasses.fields(kind)
  try:
    text = checksums.read(pathlib.Path(path)).decode('utf-8')
    header, *lines = list(csv.reader(io.StringIO(text, newline=''))) or [[]]
  except (UnicodeDecodeError, csv.Error) as error:
    raise ValueError(f'{path} is damaged ({error})') from error
  expected = [field.name for field in fields]
  if header not in (expected, [*expected, _BETTER]):
    raise ValueError(
      f'{path} has columns {header}, expected {expected}; '
      f'is it a file of another kind than {kind.__name__}?'
    )
  parse = [_PARSERS[field.type] for field in fields]
  rows = []
  for number, line in enumerate(lines, 2):
    given = line[: len(parse)]
    try:
      if len(given) < len(parse):
        raise ValueError(f'{len(given)} columns instead of {len(parse)}')
      cells = [read(cell) for read, cell in zip(parse, given, strict=True)]
    except ValueError as error:
      raise ValueError(
        f'{path} is damaged in line {number} ({error}); run again what wrote it'
      ) from None
    rows.append(kind(*cells))
  return rows


def read_json(path: files.Path) -> dict[str, Any]:
  """Read the facts of a report.

  Raises:
    OSError: there is no such file, or it cannot be read.
    ValueError: it was changed after the report was written, or is damaged.
  """
  return files.parse_json(checksums.read(pathlib.Path(path)))


def write_json(path: files.Path, value: Any) -> pathlib.Path:
  """Write results as JSON: keys sorted, NaN as null, infinity as a string.

  Args:
    path: the file to write, atomically.
    value: any nesting of mappings, sequences, dataclasses, NumPy arrays and
      scalars, paths, strings, numbers and None.

  Returns:
    The path written.

  Raises:
    TypeError: a value has no JSON representation.
  """
  text = json.dumps(
    to_plain(value),
    indent=1,
    sort_keys=True,
    ensure_ascii=False,
    allow_nan=False,
  )
  return files.write_text(path, text + '\n')


def to_plain(value: Any) -> Any:
  """Return a value as plain dicts, lists, strings and finite numbers."""
  if value is None or isinstance(value, str | bool):
    return value
  if dataclasses.is_dataclass(value) and not isinstance(value, type):
    fields = dataclasses.fields(value)
    return {
      field.name: to_plain(getattr(value, field.name)) for field in fields
    }
  if isinstance(value, Mapping):
    return {str(key): to_plain(item) for key, item in value.items()}
  if isinstance(value, np.ndarray | np.generic):
    return to_plain(value.tolist())
  if isinstance(value, list | tuple):
    return [to_plain(item) for item in value]
  if isinstance(value, set | frozenset):
    return sorted(to_plain(item) for item in value)
  if isinstance(value, int):
    return value
  if isinstance(value, float):
    if math.isnan(value):
      return None
    return value if math.isfinite(value) else str(value)
  if isinstance(value, os.PathLike):
    return os.fspath(value)
  raise TypeError(
    f'cannot write {value!r} of type {type(value).__name__} as JSON; '
    'convert it to a number, string, list or mapping first'
  )


# Populations without an unlearning method.
_LABELS = {
  ORIGINAL: 'Original',
  REFERENCE: 'Retrained',
  UNLEARNED: 'Unlearned',
}


def label(method: str) -> str:
  """Return the label of a method in tables: the label on its card.

  Names of methods that are neither built in nor plug-ins that this process has
  resolved are returned unchanged.

  Example:
    >>> label('neggrad_plus'), label('mine')
    ('NG+', 'mine')
  """
  if method in _LABELS:
    return _LABELS[method]
  from jaxmu import methods  # late: imports all networks

  known = methods.known_methods().get(method)
  return known.card.label or method if known else method


def ordered(methods: Iterable[str]) -> list[str]:
  """Return distinct methods: retrained, original, then as given."""
  distinct = list(dict.fromkeys(methods))
  first = [name for name in (REFERENCE, ORIGINAL) if name in distinct]
  return first + [name for name in distinct if name not in first]


MISSING = 'n/a'


def format_value(number: float, unit: str = '', decimals: int = 4) -> str:
  """Return a number as text, in the precision of its unit.

  Args:
    number: any float; NaN becomes 'n/a'.
    unit: a unit of `jaxmu.terms.Term`.
    decimals: digits after the point of fractions and of numbers without unit.

  Returns:
    For instance '0.8734', '12.4×', '3.2 s', '1.25M'.
  """
  if math.isnan(number):
    return MISSING
  if math.isinf(number):
    return '∞' if number > 0 else '-∞'
  if unit == 'times':
    return f'{_significant(number)}×'
  if unit == 'seconds':
    return f'{_significant(number)} s'
  if unit == 'count':
    return _count(number)
  if number and (abs(number) < 0.5 * 10**-decimals or abs(number) >= 1e4):
    return f'{number:.1e}'
  return f'{number:.{decimals}f}'


def format_gap(number: float, unit: str = '', decimals: int = 4) -> str:
  """Return a difference, with its sign even when positive."""
  if math.isnan(number):
    return MISSING
  text = format_value(number, unit, decimals)
  return text if number < 0 else f'+{text}'


def format_interval(
  low: float, high: float, unit: str = '', decimals: int = 4
) -> str:
  """Return '[low, high]', or '' where there is no interval."""
  if math.isnan(low) and math.isnan(high):
    return ''
  ends = (format_value(end, unit, decimals) for end in (low, high))
  return f'[{", ".join(ends)}]'


def deviation(values: Sequence[float] | np.ndarray) -> float:
  """Return the standard deviation of the finite values; NaN of fewer than two.

  Example:
    >>> deviation([1.0, 3.0, math.nan])
    1.4142135623730951
  """
  finite = [value for value in values if math.isfinite(value)]
  return float(np.std(finite, ddof=1)) if len(finite) > 1 else math.nan


def format_spread(mean: float, deviation: float) -> str:
  """Return 'mean ± sd', without the sd where it is NaN."""
  if math.isnan(mean):
    return MISSING
  decimals = 1 if abs(mean) >= 10 else 3
  if math.isnan(deviation):
    return f'{mean:.{decimals}f}'
  return f'{mean:.{decimals}f} ± {deviation:.{decimals}f}'


def format_duration(seconds: float) -> str:
  """Return a time as '45 s', '3 min 20 s' or '2 h 05 min'."""
  seconds = round(seconds)
  if seconds < 60:
    return f'{seconds} s'
  if seconds < 3600:
    return f'{seconds // 60} min {seconds % 60:02d} s'
  return f'{seconds // 3600} h {seconds % 3600 // 60:02d} min'


def _significant(number: float) -> str:
  if abs(number) >= 100:
    return f'{number:,.0f}'
  return f'{number:.1f}' if abs(number) >= 10 else f'{number:.2f}'


def _count(number: float) -> str:
  for size, suffix in ((1e12, 'T'), (1e9, 'G'), (1e6, 'M')):
    if abs(number) >= size:
      return f'{number / size:.3g}{suffix}'
  return f'{number:,.0f}' if number == round(number) else f'{number:,.1f}'
