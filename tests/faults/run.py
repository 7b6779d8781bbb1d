"""Run many trials of all kinds: `python -m tests.faults.run --out=DIR`.

Each trial is saved when it has run, in DIR/trials.jsonl; a second call goes on
where the first one stopped. DIR/trials.csv has the counts. The exit code is 1
if a trial was not survived.
"""

import argparse
import dataclasses
import pathlib
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence

import numpy as np

from tests.faults import (
  checkpoint_inputs,
  damage,
  data_inputs,
  disks,
  inputs,
  kills,
  override_inputs,
  score_inputs,
  tiny_job,
  trials,
)

# Of 20 bad inputs.
_INPUTS: dict[Callable[[int], list[inputs.Case]], int] = {
  override_inputs.cases: 8,
  score_inputs.cases: 5,
  data_inputs.cases: 5,
  checkpoint_inputs.cases: 2,
}


_CRAFTED = 200  # more than these begin with all crafted inputs


@dataclasses.dataclass(frozen=True)
class Counts:
  """How many trials of each group."""

  kills: int = 500
  files: int = 500
  disks: int = 120
  processes: int = 100
  inputs: int = 2000


def _each(total: int, kinds: Sequence[str]) -> dict[str, int]:
  """Divide a number of trials over kinds."""
  least, more = divmod(total, len(kinds))
  return {kind: least + (n < more) for n, kind in enumerate(kinds)}


def run_kills(home: tiny_job.Home, table: trials.Table, count: int) -> None:
  """Kill jobs."""
  for kind, number in _each(count, kills.KINDS).items():
    if number:
      kills.run(home, table, kind, number)


def run_files(home: tiny_job.Home, table: trials.Table, count: int) -> None:
  """Damage files."""
  table.run(damage.plan(count), lambda trial: damage.perform(home, trial))


def run_disks(home: tiny_job.Home, table: trials.Table, count: int) -> None:
  """Fill disks; small file systems only where they can be mounted."""
  mounted = disks.can_mount(home.folder / 'mount')
  kinds = [k for k in disks.FULL if mounted or k not in disks.NEED_ROOT]
  _disturb(home, table, [*kinds, disks.VANISHED], count)


def run_processes(home: tiny_job.Home, table: trials.Table, count: int) -> None:
  """Let processes meet, and send signals."""
  _disturb(home, table, disks.TOGETHER, count)


def _disturb(
  home: tiny_job.Home, table: trials.Table, kinds: Sequence[str], count: int
) -> None:
  for kind, number in _each(count, kinds).items():
    plan = disks.plan(kind, number)
    table.run(plan, lambda trial: disks.perform(home, trial))


def run_inputs(home: tiny_job.Home, table: trials.Table, count: int) -> None:
  """Give bad input."""
  home.reset()
  cases = []
  shares = np.array(list(_INPUTS.values())).cumsum()
  numbers = np.diff(shares * count // shares[-1], prepend=0).tolist()
  for make, number in zip(_INPUTS, numbers, strict=True):
    all_cases = make(max(number, _CRAFTED))
    chosen = trials.generator(make.__module__).sample(all_cases, number)
    cases += chosen if number < _CRAFTED else all_cases[:number]
  trials.generator('inputs').shuffle(cases)  # a part has some of each kind
  by_key = {case.trial().key: case for case in cases}
  assert len(by_key) == len(cases), 'two cases have one name'
  table.run(
    [case.trial() for case in cases],
    lambda trial: inputs.perform(home, by_key[trial.key]),
  )


GROUPS: dict[str, Callable[[tiny_job.Home, trials.Table, int], None]] = {
  'kills': run_kills,
  'files': run_files,
  'disks': run_disks,
  'processes': run_processes,
  'inputs': run_inputs,
}


def main() -> None:
  """Run the command; see the module's docstring."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--out', required=True, type=pathlib.Path)
  parser.add_argument('--home', type=pathlib.Path, help='where trials run')
  parser.add_argument('--only', choices=GROUPS, help='one group')
  parser.add_argument('--seed', type=int, default=0, help='of all choices')
  for field in dataclasses.fields(Counts):
    parser.add_argument(f'--{field.name}', type=int, default=field.default)
  chosen = parser.parse_args()
  # So that small file systems are unmounted.
  signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
  trials.choose_seed(chosen.seed)
  table = trials.Table(chosen.out / 'trials.jsonl')
  with tempfile.TemporaryDirectory() as temporary:
    for home in tiny_job.homes(chosen.home or pathlib.Path(temporary)):
      for name, run in GROUPS.items():
        if chosen.only in (None, name):
          run(home, table, getattr(chosen, name))
  table.write_summary()
  for group, kind, counts in trials.summary(table.trials):
    print(f'{group}, {kind}: {dict(counts)}')
  for trial in table.bad():
    print(f'{trial.result}: {trial.kind}, {trial.name}: {trial.detail}')
  sys.exit(bool(table.bad()))


if __name__ == '__main__':
  main()
