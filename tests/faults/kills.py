"""Kill the tiny job again and again, let it end, and compare the results."""

import json
import random

from tests.faults import judging, tiny_job, trials

GROUP = 'kills'
MOMENT = 'SIGKILL at a random moment'
OPERATION = 'SIGKILL at a file operation'
REPORT = 'SIGKILL while the report is written'
PROGRAMS = 'SIGKILL while programs are compiled'
KINDS = (MOMENT, OPERATION, REPORT, PROGRAMS)
# Moments as multiples of the processor time of the undisturbed job, which has
# its programs in the cache.
_MOMENTS = {MOMENT: (0.02, 0.9), PROGRAMS: (0.1, 2.0)}
_MOST = 12  # kills of one job
_STRIDE = 13  # the first kills are at operations 1, 14, 27, ...


def chain(
  home: tiny_job.Home, kind: str, number: int, operations: int, seconds: float
) -> list[trials.Trial]:
  """Kill one job until it ends; return a trial for each kill.

  Args:
    home: where it runs.
    kind: one of `KINDS`.
    number: of the chain.
    operations: on files of the undisturbed job.
    seconds: of processor time of the undisturbed job.
  """
  draw = trials.generator(kind, number)
  if kind == REPORT:
    gone = draw.choice((('work/store/report',), ('work/*.*', 'work/plots')))
    home.reset('work/store/report', *gone)
  else:
    home.reset(empty=True)
  if kind == PROGRAMS:
    home.reset('cache/programs', 'cache/digits*', 'work')
  killed, stamps = [], home.finished()
  result, detail = '', ''
  for step in range(_MOST + 1):
    call = _killed(home, kind, draw, number if not step else -1, operations)
    if kind in _MOMENTS:
      call = home.job(kill_after=draw.uniform(*_MOMENTS[kind]) * seconds)
    ended = home.server.run(call if step < _MOST else home.job())[0]
    now = home.finished()
    redone = [path for path, stamp in stamps.items() if now.get(path) != stamp]
    if redone and not result:
      result, detail = 'lost', f'redone: {redone}; {ended.output[-800:]}'
    stamps = {**stamps, **now}
    if ended.code != -9 or ended.hung:
      break
    killed.append((f'{number}.{step}', ended))
  if not result:
    result, detail = judging.completion(home, ended)
  return [
    judging.ended_as(
      trials.Trial(GROUP, kind, name), result, detail or one.last, one.seconds
    )
    for name, one in killed
  ]


def _killed(
  home: tiny_job.Home,
  kind: str,
  draw: random.Random,
  number: int,
  operations: int,
):
  """Return a call that is killed at an operation."""
  most = 60 if kind == REPORT else operations
  at = int(most ** draw.uniform(0, 1))
  if number >= 0:
    at = 1 + number * _STRIDE % most
  return home.job(fault={'kind': 'kill', 'below': str(home.trial), 'at': at})


def _undisturbed(home: tiny_job.Home) -> tuple[int, float]:
  """Return the operations and the processor time of the undisturbed job."""
  known = home.folder / 'undisturbed.json'
  if not known.exists():
    counted = home.folder / 'operations'
    count = {'kind': 'count', 'below': str(home.trial), 'to': str(counted)}
    home.reset(empty=True)
    ended = home.run(fault=count)
    assert ended.code == 0, ended.output
    known.write_text(json.dumps([int(counted.read_text()), ended.processor]))
  operations, seconds = json.loads(known.read_text())
  return operations, seconds


def run(
  home: tiny_job.Home, table: trials.Table, kind: str, count: int
) -> None:
  """Run chains until a table has a number of kills of a kind."""
  done = [trial for trial in table.trials if trial.kind == kind]
  number = 1 + max((int(t.name.split('.')[0]) for t in done), default=-1)
  left = count - len(done)
  while left > 0:
    for trial in chain(home, kind, number, *_undisturbed(home))[:left]:
      table.add(trial)
      left -= 1
    number += 1
