"""Bad input: each must be refused in one line, or give a right result.

`cases` of each module make the input; what is accepted is checked as well: an
override must have the value that was given, a file with a flipped bit the
arrays of the undamaged one, and every number must be possible.
"""

import csv
import math
import pathlib
import shutil
from collections.abc import Callable
from typing import NamedTuple

from tests.faults import forks, judging, tiny_job, trials

GROUP = 'bad input'
REFUSED, EITHER = 'refused', 'either'


class Case(NamedTuple):
  """A bad or doubtful input.

  Attributes:
    kind: of the input.
    name: identifies it within its kind.
    call: writes files into an empty folder and returns the command.
    expected: `REFUSED`, or `EITHER`.
    check: says what is wrong with an accepted one; '' if nothing is.
  """

  kind: str
  name: str
  call: Callable[[tiny_job.Home, pathlib.Path], forks.Call]
  expected: str = EITHER
  check: Callable[[forks.Ended, pathlib.Path], str] = lambda *_: ''

  def trial(self) -> trials.Trial:
    """Return the trial of this case."""
    return trials.Trial(GROUP, self.kind, self.name)


def perform(home: tiny_job.Home, case: Case) -> trials.Trial:
  """Run a command with the input."""
  folder = home.trial / 'input'
  shutil.rmtree(folder, ignore_errors=True)
  folder.mkdir(parents=True)
  if not home.cache.exists():
    shutil.copytree(home.whole / 'cache', home.cache)
  ended = home.server.run(case.call(home, folder))[0]
  result, detail = _judge(case, ended, folder)
  evil = [p for p in (folder / 'EVIL', forks.ROOT / 'EVIL') if p.exists()]
  if evil:
    result, detail = 'silent', f'code was run: {evil}'
  return judging.ended_as(case.trial(), result, detail, ended.seconds)


def _judge(
  case: Case, ended: forks.Ended, folder: pathlib.Path
) -> tuple[str, str]:
  if ended.code:
    return judging.refusal(ended)
  result, detail = judging.crash(ended)
  if result:
    return result, detail
  if case.expected == REFUSED:
    return 'silent', f'accepted: {ended.output[-800:]}'
  fault = case.check(ended, folder)
  if fault:
    return 'silent', f'{fault}; {ended.output[-800:]}'
  return '', f'accepted: {ended.last}'


def flipped(content: bytes, *names: object) -> bytes:
  """Return bytes with one bit flipped, which the names choose."""
  draw = trials.generator('flip', *names)
  changed = bytearray(content)
  changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
  return bytes(changed)


def cut(content: bytes, *names: object) -> bytes:
  """Return a beginning of bytes, whose length the names choose."""
  return content[: trials.generator('cut', *names).randrange(len(content))]


def possible_numbers(path: pathlib.Path) -> str:
  """Say which numbers of a results.csv are impossible; '' if none is."""
  wrong = []
  with path.open(newline='') as file:
    for row in csv.DictReader(file):
      values = [float(row[key]) for key in ('value', 'low', 'high')]
      share = row['metric'].endswith(('_auc', '_tpr'))
      share &= not row['metric'].startswith('excess')
      least, most = (0, 1) if share else (-math.inf, math.inf)
      for value in values:
        if math.isinf(value) or not (least <= value <= most or value != value):
          wrong.append(f'{row["metric"]} = {value}')
  return f'impossible numbers: {wrong[:5]}' if wrong else ''


class Evil:
  """An object whose pickle makes a file where it is read."""

  def __reduce__(self):
    return open, ('EVIL', 'w')
