"""Print tables of results; store them with command, versions and hardware."""

import csv
import importlib.metadata
import pathlib
import platform
import shlex
import sys
from collections.abc import Sequence
from typing import Any

from jaxmu import terms
from jaxmu.study import execution

PACKAGES = ('jax', 'torch', 'libtpu', 'jax-cuda12-plugin')


def versions() -> str:
  """Return the versions of Python, of both backends and of compilers."""
  found = [f'python {platform.python_version()}']
  for name in PACKAGES:
    try:
      found.append(f'{name} {importlib.metadata.version(name)}')
    except importlib.metadata.PackageNotFoundError:
      pass
  return ', '.join(found)


def machine() -> str:
  """Name the processor and the number of cores this process may use."""
  return f'{execution.cores()} x {execution.processor()}'


def show(rows: list[dict[str, Any]]) -> None:
  """Print a table, its columns as wide as they need to be."""
  names = list(rows[0])
  cells = [[str(row.get(name, '')) for name in names] for row in rows]
  print('\n'.join(terms.columns([names, *cells])))


def made(path: pathlib.Path, hardware: str = '') -> dict[str, str]:
  """Return the columns for command, versions and hardware.

  The command is without folders of this machine.
  """
  given = [
    one
    for one in sys.argv[1:]
    if not pathlib.Path(one.rpartition('=')[2]).is_absolute()
  ]
  return {
    'command': shlex.join(['python', f'benchmarks/{path.stem}.py', *given]),
    'versions': versions(),
    'hardware': hardware or machine(),
  }


def read(path: pathlib.Path) -> list[dict[str, str]]:
  """Return the rows of a table, none if it was not written yet."""
  if not path.exists():
    return []
  with path.open(newline='') as file:
    return list(csv.DictReader(file))


def has(rows: Sequence[dict[str, Any]], row: dict[str, Any]) -> bool:
  """Return whether one of the rows has all values of `row`."""
  return any(row.items() <= one.items() for one in rows)


def append(
  path: pathlib.Path,
  rows: list[dict[str, Any]],
  row: dict[str, Any],
  hardware: str = '',
) -> None:
  """Print a row, add it to the others, and write them all.

  Args:
    path: the table.
    rows: its rows; the row is added with what made it.
    row: without the columns of `made`.
    hardware: as for `made`.
  """
  print(*row.values(), flush=True)
  rows.append(row | made(path, hardware))
  write(path, rows)


def write(path: pathlib.Path, rows: list[dict[str, Any]]) -> None:
  """Write rows of equal columns."""
  with path.open('w', newline='') as file:
    writer = csv.DictWriter(file, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)


def replace(
  path: pathlib.Path, rows: list[dict[str, Any]], names: Sequence[str]
) -> None:
  """Write rows in place of those with equal values in some columns.

  Args:
    path: the table; its other rows stay.
    rows: the new ones.
    names: the columns.
  """

  def case(row: dict[str, Any]) -> list[str]:
    return [str(row[name]) for name in names]

  new = [case(row) for row in rows]
  write(path, [*(row for row in read(path) if case(row) not in new), *rows])


def save(
  path: pathlib.Path, rows: list[dict[str, Any]], hardware: str = ''
) -> None:
  """Print a table and write it with command, versions and hardware."""
  show(rows)
  how = made(path, hardware)
  write(path, [{**row, **how} for row in rows])
  print(f'written to {path}')
