"""All files of a report in one call."""

import pathlib
from typing import Any

from jaxmu.report import files, page, records

# Metrics that go to timing.csv, so that results.csv is the same in every run.
CLOCKED = ('rte', 'rte_cold', 'seconds', 'seconds_cold')


def write(directory: files.Path, report: page.Report) -> list[pathlib.Path]:
  """Write results.csv, timing.csv, results.json, plots/*.png and report.html.

  Args:
    directory: where to; created if absent. Files of an earlier report are
      replaced one by one, each atomically.
    report: what to write.

  Returns:
    The paths written.
  """
  directory = pathlib.Path(directory)
  attack = any(isinstance(row, records.AttackRow) for row in report.rows)
  kind = records.AttackRow if attack else records.Row
  content: dict[str, Any] = {
    'title': report.title,
    'command': report.command,
    'provenance': report.provenance,
    'findings': report.findings,
    'warnings': report.warnings,
    'failed': report.failed,
    'results': report.rows,
  }
  # What a clock measured differs from run to run; the rest does not.
  clocked = [row for row in report.rows if row.metric in CLOCKED]
  steady = [row for row in report.rows if row.metric not in CLOCKED]
  paths = [records.write_csv(directory / 'results.csv', steady, kind)]
  if clocked:
    paths.append(records.write_csv(directory / 'timing.csv', clocked, kind))
  paths.append(records.write_json(directory / 'results.json', content))
  for picture in report.pictures:
    path = directory / 'plots' / f'{picture.name}.png'
    paths.append(files.write_bytes(path, picture.png))
  paths.append(page.write(directory / 'report.html', report))
  return paths
