"""All files of a report in one call."""

import pathlib
from typing import Any

from jaxmu.report import files, page, records


# Metrics that go to timing.csv, so that results.csv is the same in every run.
CLOCKED = ('rte', 'rte_cold', 'seconds')


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
  return [
    records.write_csv(directory / 'results.csv', steady, kind),
    *(
      [records.write_csv(directory / 'timing.csv', clocked, kind)]
      if clocked
      else []
    ),
    records.write_json(directory / 'results.json', content),
    *(
      files.write_bytes(
        directory / 'plots' / f'{picture.name}.png', picture.png
      )
      for picture in report.pictures
    ),
    page.write(directory / 'report.html', report),
  ]
