"""Rows of results, and the CSV and JSON files that hold them.

The files are a function of their content alone: no dates, floats in their
shortest exact form, keys sorted. Two identical runs write identical bytes.
"""

import csv
import dataclasses
import io
import json
import math
import os
import pathlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import numpy as np

from jaxmu.report import files

NAN = float('nan')


@dataclasses.dataclass(frozen=True)
class Row:
  """One number of the main job, beside that of the retrained models.

  Attributes:
    method: key of the method, e.g. 'original', 'retrain', 'msg'.
    metric: key of the metric; see `jaxmu.report.glossary`.
    value: the number; NaN where it could not be computed.
    low: lower end of its 95% interval, or NaN.
    high: upper end of its 95% interval, or NaN.
    retrained: the same number for the retrained models, or NaN.
    gap: value minus retrained, paired where the metric allows, or NaN.
    n: how many models, splits or seeds the number rests on.
  """

  method: str
  metric: str
  value: float
  low: float = NAN
  high: float = NAN
  retrained: float = NAN
  gap: float = NAN
  n: int = 0


@dataclasses.dataclass(frozen=True)
class AttackRow:
  """One number of one attack on stored scores; fields as in `Row`."""

  attack: str
  metric: str
  value: float
  low: float = NAN
  high: float = NAN
  n: int = 0


@dataclasses.dataclass(frozen=True)
class Observation:
  """One number of one independent cluster: an initialisation, or splits."""

  method: str
  metric: str
  cluster: int
  value: float


_PARSERS: dict[Any, Callable[[str], Any]] = {str: str, float: float, int: int}

R = TypeVar('R', Row, AttackRow, Observation)


def with_reference(rows: Iterable[Row], reference: str) -> list[Row]:
  """Return the rows of one metric, the reference's own row added if it lacks.

  The retrained models are shown with every number, also where only their value
  is known, or follows from the metric, as the 0 of an excess over them.

  Args:
    rows: rows of one metric.
    reference: key of the retrained models.

  Returns:
    The rows, the new one first.
  """
  rows = list(rows)
  known = [row for row in rows if not math.isnan(row.retrained)]
  if not known or any(row.method == reference for row in rows):
    return rows
  return [Row(reference, known[0].metric, known[0].retrained), *rows]


def write_csv(
  path: files.Path,
  rows: Iterable[Row | AttackRow | Observation],
  kind: type = Row,
) -> pathlib.Path:
  """Write rows as CSV; the columns are the fields of `kind`, in order.

  Args:
    path: the file to write, atomically.
    rows: instances of `kind`, written in the order given.
    kind: `Row`, `AttackRow` or `Observation`.

  Returns:
    The path written.

  Raises:
    TypeError: a row is not of this kind.
  """
  text = io.StringIO(newline='')
  writer = csv.writer(text, lineterminator='\n')
  columns = [field.name for field in dataclasses.fields(kind)]
  writer.writerow(columns)
  for row in rows:
    if not isinstance(row, kind):
      raise TypeError(
        f'{row!r} is not a {kind.__name__}; pass kind={type(row).__name__}'
      )
    writer.writerow([_cell(getattr(row, column)) for column in columns])
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
    kind: `Row`, `AttackRow` or `Observation`.

  Returns:
    The rows in file order.

  Raises:
    ValueError: the columns are not those of `kind`.
  """
  fields = dataclasses.fields(kind)
  with open(path, newline='', encoding='utf-8') as file:
    header, *lines = list(csv.reader(file)) or [[]]
  expected = [field.name for field in fields]
  if header != expected:
    raise ValueError(
      f'{path} has columns {header}, expected {expected}; '
      f'is it a file of another kind than {kind.__name__}?'
    )
  parse = [_PARSERS[field.type] for field in fields]
  return [
    kind(*(read(cell) for read, cell in zip(parse, line, strict=True)))
    for line in lines
  ]


def write_json(path: files.Path, value: Any) -> pathlib.Path:
  """Write results as JSON: keys sorted, NaN as null, infinity as a string.

  Args:
    path: the file to write, atomically.
    value: any nesting of mappings, sequences, dataclasses, NumPy arrays and
      scalars, paths, strings, numbers and None.

  Returns:
    The path written.

  Raises:
    TypeError: something that JSON has no form for.
  """
  text = json.dumps(
    plain(value), indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False
  )
  return files.write_text(path, text + '\n')


def plain(value: Any) -> Any:
  """Return a value as plain dicts, lists, strings and finite numbers."""
  if value is None or isinstance(value, str | bool):
    return value
  if dataclasses.is_dataclass(value) and not isinstance(value, type):
    fields = dataclasses.fields(value)
    return {field.name: plain(getattr(value, field.name)) for field in fields}
  if isinstance(value, Mapping):
    return {str(key): plain(item) for key, item in value.items()}
  if isinstance(value, np.ndarray | np.generic):
    return plain(value.tolist())
  if isinstance(value, list | tuple):
    return [plain(item) for item in value]
  if isinstance(value, set | frozenset):
    return sorted(plain(item) for item in value)
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
