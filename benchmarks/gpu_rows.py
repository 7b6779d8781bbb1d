"""The rows of `benchmarks/gpu.py`: kept or made, then stored at once."""

import csv
import pathlib
import time
from collections.abc import Callable
from typing import Any

import table

COLUMNS = (
  'backend',
  'precision',
  'chunk',
  'images_per_s',
  'low',
  'high',
  'speed_up',
  'ratio_low',
  'ratio_high',
  'losses_apart',
  'tflops_live',
  'tflops_ceiling',
  'share_of_ceiling',
  'mb_per_model',
  'peak_mb',
  'models_per_hour',
  'study_hours',
  'compile_s',
  'note',
)
FAILED = 'failed: '


class Rows:
  """A table that survives a killed program, so that another can continue it.

  Attributes:
    hardware: what new rows are measured on.
    late: number of rows not started because time was up.
  """

  def __init__(self, path: pathlib.Path, end: float = float('inf')):
    """Read the existing rows.

    Args:
      path: of the table.
      end: time by `time.monotonic` after which no row is started.
    """
    self.path, self.end, self.late = path, end, 0
    self.hardware = ''
    self._rows: list[dict[str, str]] = []
    if path.exists():
      with path.open(newline='') as file:
        self._rows = list(csv.DictReader(file))
      print(f'{len(self._rows)} rows kept from {path}')

  def all(self, backend: str, precision: str) -> list[dict[str, str]]:
    """Return the rows of a backend in a precision."""
    key = backend, precision
    return [r for r in self._rows if (r['backend'], r['precision']) == key]

  def find(self, backend: str, precision: str) -> dict[str, str]:
    """Return the first row of a backend in a precision."""
    return self.all(backend, precision)[0]

  def add(
    self,
    backend: str,
    precision: str,
    work: Callable[[], dict[str, Any]],
    chunk: int | str = '',
  ) -> dict[str, str] | None:
    """Return a row: a kept one, or the result of `work`, stored at once.

    A `RuntimeError` in `work` gives a row with a note, so that one layout that
    needs too much memory does not stop the others. The next program does not
    keep such a row and tries again.

    Returns:
      The row, None if there is no time left for it.
    """
    kept = [r for r in self.all(backend, precision) if r['chunk'] == str(chunk)]
    if kept and not kept[0]['note'].startswith(FAILED):
      return kept[0]
    if time.monotonic() > self.end:
      self.late += 1
      return None
    try:
      found = work()
    except RuntimeError as error:
      last = str(error).strip().splitlines()[-1]
      found = {'note': FAILED + last[:200]}
    known = {
      'backend': backend,
      'precision': precision,
      'chunk': chunk,
      **found,
    }
    row = {name: str(known.get(name, '')) for name in COLUMNS}
    table.show([{k: v for k, v in row.items() if v}])
    self._rows = [r for r in self._rows if r not in kept]
    self._rows.append(row | table.made(self.path, self.hardware))
    table.write(self.path, self._rows)
    return row
