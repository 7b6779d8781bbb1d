"""Run a whole benchmark from Python, as `python -m jaxmu.sweep` does.

board = jaxmu.sweep(methods=('ft', 'msg'), studies=('search', 'main'))
print(board)                    # main numbers of every cell
board.to_pandas()               # all of them
"""

import dataclasses
import math
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from jaxmu import files
from jaxmu.api import jobs, printing
from jaxmu.api import setup as setup_lib

_SHOWN = ('ret_dev', 'indisc_test', 'ulira_auc', 'excess_ulira_auc', 'rte')


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class SweepResult(printing.Tabular):
  """The reports of all cells of a sweep; made by `sweep`.

  Attributes:
    folder: where they are, with `leaderboard.html` and the other leaderboards.
    lines: every number, see `jaxmu.sweeps.leaderboard.Line`.
    failed: why units failed, by name; empty if all succeeded.
  """

  folder: pathlib.Path
  lines: Any
  failed: Mapping[str, str]

  def columns(self) -> dict[str, list[Any]]:
    """Return one line per number; `deviation` is over initialisations."""
    return _columns(self.lines)

  def __repr__(self) -> str:
    shown = [line for line in self.lines if line.row.metric in _SHOWN]
    page = files.shown(self.folder / 'leaderboard.html')
    lines = [printing.grid(_columns(shown)), page]
    lines += [f'{name} failed: {why}' for name, why in self.failed.items()]
    return '\n'.join(lines)


def _columns(lines: Any) -> dict[str, list[Any]]:
  fields = ('method', 'metric', 'value', 'low', 'high', 'retrained')
  return {
    **{n: [getattr(line, n) for line in lines] for n in ('data', 'model')},
    'study': [line.study for line in lines],
    **{n: [getattr(line.row, n) for line in lines] for n in fields},
    'deviation': [
      None if math.isnan(line.deviation) else line.deviation for line in lines
    ],
  }


def sweep(
  scale: str = 'digits',
  *,
  workdir: str | os.PathLike | None = None,
  **fields: Any,
) -> SweepResult:
  """Search, train, unlearn, attack and rank in all cells of a benchmark.

  A second call trains nothing again; a call after an interruption continues.

  Args:
    scale: 'digits', 'paper' or 'reference'; see
      `jaxmu.sweeps.design.deep_unlearn`.
    workdir: folder of models and results; default
      `workdir/deep_unlearn_<scale>`.
    **fields: other values for fields of the sweep: `data`, `models`, `methods`,
      `studies`, `ulira_data`, `ulira_models`, `ulira_methods`, and fields of
      jobs by dotted name in `all`, `search`, `main`, `ulira`, `ulira_search`.

  Raises:
    ValueError: an unknown name or a wrong value, before any training; or no
      cell has a report, because all failed.

  Example:
    >>> import jaxmu, tempfile
    >>> board = jaxmu.sweep(  # doctest: +ELLIPSIS
    ...   workdir=tempfile.mkdtemp(), models=('tiny',), methods=('ft',),
    ...   studies=('main',), all={'train.num_epochs': 1, 'timing.repeats': 1},
    ...   main={'splits.design': 'main', 'splits.seeds': 2,
    ...         'splits.num_splits': 1, 'splits.forget_sets': 1,
    ...         'run.shard': 2})
    <BLANKLINE>
    digits_tiny/main
    ...
    >>> sorted(set(board.columns()['method']))
    ['ft', 'original', 'retrain']
  """
  # Imported late: other functions need no search and no attack.
  from jaxmu.sweeps import design, graph, leaderboard, work

  config = {**design.deep_unlearn(scale), **fields}
  if workdir is not None:
    config['workdir'] = str(workdir)
  chosen = design.from_config(config)
  setup_lib.set_up_devices()
  with jobs.compile_cache():
    failed = work.perform_all(chosen, graph.build(chosen), '')
  board = leaderboard.collect(chosen)
  reasons = {name: why for name, (why, _) in failed.items()}
  return SweepResult(chosen.workdir, board.lines, reasons)
