"""Trials with their results, one line of JSON each, and the table of them.

survived     the result is right, or bad input was refused in one line
lost         finished work was lost, or a result differs
silent       damage or bad input was used without a word
traceback    more than one line of error, or a crash
hang         more time or memory than allowed
"""

import collections
import csv
import dataclasses
import hashlib
import json
import pathlib
import platform
import random
from collections.abc import Callable, Iterable
from importlib import metadata

from jaxmu.study import execution

RESULTS = ('survived', 'lost', 'silent', 'traceback', 'hang')


@dataclasses.dataclass(frozen=True)
class Trial:
  """One trial.

  Attributes:
    group: 'kills', 'damaged files', 'full disks', 'processes' or 'bad input'.
    kind: of the fault.
    name: identifies the trial within its kind.
    result: one of `RESULTS`; '' while it has not run.
    detail: what was seen.
    seconds: how long it took.
  """

  group: str
  kind: str
  name: str
  result: str = ''
  detail: str = ''
  seconds: float = 0.0

  @property
  def key(self) -> tuple[str, str, str]:
    """Identifies the trial."""
    return self.group, self.kind, self.name


class Table:
  """The trials of a file; each is added when it has run."""

  def __init__(self, path: pathlib.Path):
    self.path = path
    self.trials: list[Trial] = []
    if path.is_file():
      lines = path.read_text().splitlines()
      self.trials = [Trial(**json.loads(line)) for line in lines]
    self._known = {trial.key for trial in self.trials}

  def add(self, trial: Trial) -> Trial:
    """Add a trial that has run."""
    assert trial.result in RESULTS, trial
    self.trials.append(trial)
    self._known.add(trial.key)
    self.path.parent.mkdir(parents=True, exist_ok=True)
    with self.path.open('a') as file:
      file.write(json.dumps(dataclasses.asdict(trial)) + '\n')
    return trial

  def __contains__(self, trial: Trial) -> bool:
    return trial.key in self._known

  def run(
    self, trials: Iterable[Trial], perform: Callable[[Trial], Trial]
  ) -> list[Trial]:
    """Perform those trials that are not in the file yet; return all others."""
    return [self.add(perform(t)) for t in trials if t not in self]

  def bad(self) -> list[Trial]:
    """Return the trials that were not survived."""
    return [trial for trial in self.trials if trial.result != 'survived']

  def write_summary(self) -> pathlib.Path:
    """Write the counts by group and kind as CSV, and return its path."""
    path, made = self.path.with_suffix('.csv'), _made()
    with path.open('w', newline='') as file:
      writer = csv.writer(file, lineterminator='\n')
      writer.writerow(['group', 'kind', 'trials', *RESULTS, *MADE])
      for group, kind, counts in summary(self.trials):
        numbers = [sum(counts.values()), *(counts[r] for r in RESULTS)]
        writer.writerow([group, kind, *numbers, *made])
    return path


# Columns that say what made a table, as in benchmarks/*.csv.
MADE = ('command', 'versions', 'hardware')


def _made() -> tuple[str, str, str]:
  """Return the values of `MADE`."""
  versions = (
    f'python {platform.python_version()}, jax {metadata.version("jax")}'
  )
  hardware = f'{execution.cores()} x {execution.processor()}'
  return 'python -m tests.faults.run', versions, hardware


def summary(
  trials: Iterable[Trial],
) -> list[tuple[str, str, collections.Counter]]:
  """Return counts of results by group and kind, in order of appearance."""
  counts: dict[tuple[str, str], collections.Counter] = {}
  for trial in trials:
    place = trial.group, trial.kind
    counts.setdefault(place, collections.Counter())[trial.result] += 1
  return [(*place, count) for place, count in counts.items()]


def markdown(text: str) -> str:
  """Return the CSV of `Table.write_summary` as a table with totals."""
  head, *rows = [row[: -len(MADE)] for row in csv.reader(text.splitlines())]
  lines = [f'| {" | ".join(head[1:])} |', '| --- |' + ' ---: |' * len(head[2:])]
  for group in dict.fromkeys(row[0] for row in rows):
    own = [row for row in rows if row[0] == group]
    columns = range(2, len(head))
    totals = [f'{sum(int(row[k]) for row in own):,}' for k in columns]
    lines.append(f'| **{group}** | {" | ".join(totals)} |')
    lines += [f'| {" | ".join(row[1:])} |' for row in sorted(own)]
  return '\n'.join(lines)


_seed = [0]


def choose_seed(seed: int) -> None:
  """Make other random choices in all trials; the default is 0."""
  _seed[:] = [seed]


def generator(*names: object) -> random.Random:
  """Return random numbers that depend on names and the seed alone."""
  text = json.dumps([*_seed, *map(str, names)]).encode()
  return random.Random(hashlib.sha256(text).hexdigest())


def errors(output: str) -> list[str]:
  """Return the lines of an output that begin with 'error:'."""
  return [line for line in output.splitlines() if line.startswith('error:')]
