"""Results as plain tables and as pandas frames."""

import abc
import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from jaxmu.report import results, tables

_MOST_LINES = 12


class Tabular(abc.ABC):
  """A result that prints as a table and converts to a pandas frame."""

  @abc.abstractmethod
  def columns(self) -> dict[str, list[Any]]:
    """Return the table as columns of equal length, by title."""

  def table(self) -> str:
    """Return all lines of the table as plain text."""
    return grid(self.columns())

  def to_pandas(self) -> Any:
    """Return the table as a `pandas.DataFrame`, values unrounded.

    Raises:
      ImportError: pandas is not installed.
    """
    try:
      import pandas
    except ImportError as error:
      raise ImportError(
        "to_pandas needs pandas: pip install 'jaxmu[pandas]'"
      ) from error
    return pandas.DataFrame(self.columns())


class Numbers(Tabular):
  """Rows of numbers, each of a method and a metric.

  Attributes:
    rows: the numbers.
    failed: (failed models, all models) of methods with failed models.
    missing: why numbers are not available, by (method, metric).
  """

  rows: Any
  failed: Any
  missing: Any

  def headline(self) -> list[results.Row]:
    """Return the main rows, which `print` shows."""
    return tables.headline(self.rows)

  def columns(self) -> dict[str, list[Any]]:
    """Return one line per number."""
    names = [field.name for field in dataclasses.fields(results.Row)]
    return {n: [getattr(row, n) for row in self.rows] for n in names}

  def table(self, *, width: int = 100, everything: bool = True) -> str:
    """Return the numbers as text, a block per metric.

    Args:
      width: columns of the terminal.
      everything: show all metrics, not only the main ones that `print` shows.
    """
    rows = list(self.rows) if everything else self.headline()
    return tables.table_text(
      rows, width=width, failed=self.failed, missing=self.missing
    )

  def __getitem__(self, key: tuple[str, str]) -> results.Row:
    """Return the row of (method, metric), such as ('msg', 'ulira_auc').

    Raises:
      KeyError: there is no such row.
    """
    for row in self.rows:
      if (row.method, row.metric) == key:
        return row
    known = sorted({row.metric for row in self.rows if row.method == key[0]})
    raise KeyError(f'no {key[1]!r} of {key[0]!r}; there are {known}')


def grid(columns: Mapping[str, Sequence[Any]], *, most: int = 0) -> str:
  """Return columns as aligned text, one line per row.

  Args:
    columns: values by title; numbers are set flush right.
    most: show at most this many rows, the first ones, and say how many there
      are; 0 for all.
  """
  cells = {
    title: [_cell(v) for v in values] for title, values in columns.items()
  }
  size = len(next(iter(cells.values()), []))
  shown = size if not most or size <= most else most
  parts = []
  for title, values in cells.items():
    values = values[:shown]
    width = max(map(len, [title, *values]))
    right = all(not isinstance(v, str) for v in columns[title])
    align = str.rjust if right else str.ljust
    parts.append([align(v, width) for v in [title, *values]])
  lines = ['  '.join(row).rstrip() for row in zip(*parts, strict=True)]
  if shown < size:
    lines.append(f'... {size} rows; table() shows all')
  return '\n'.join(lines)


def settings(values: Mapping[str, Any], separator: str = ' ') -> str:
  """Return values by name in one line, such as 'learning_rate=0.1'."""
  return separator.join(
    f'{k}={v:g}' if isinstance(v, float) else f'{k}={v}'
    for k, v in values.items()
  )


def summary(heading: str, columns: Mapping[str, Sequence[Any]]) -> str:
  """Return a heading above the first lines of a table."""
  return f'{heading}\n{grid(columns, most=_MOST_LINES)}'


def _cell(value: Any) -> str:
  if value is None:
    return ''
  if isinstance(value, str | bool):
    return str(value)
  if isinstance(value, float):
    return results.MISSING if math.isnan(value) else f'{value:.4g}'
  return str(value)
