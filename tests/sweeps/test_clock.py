"""A clock that is wrong by an hour changes nothing.

Locks are the system's, durations come from `time.monotonic` and
`time.perf_counter`, and no unit depends on the times of files.
"""

import pathlib
import re
import time

import pytest

import jaxmu
from jaxmu.study import shelves
from jaxmu.sweeps import status
from tests.sweeps.processes import assert_equal, epochs, finish, start

ROOT = pathlib.Path(jaxmu.__file__).parent

# Where the time of day is read: to remove programs that were compiled months
# ago, to show the age of stored work, and to repeat old measurements of speed.
READ = {
  'files.py',
  'study/execution.py',
  'study/planner.py',
  'study/shelves.py',
}
WALL_CLOCK = re.compile(r'time\.time(_ns)?\(|datetime\.(now|utcnow|today)\(')


def test_the_time_of_day_is_read_for_ages_alone():
  reads = {
    path.relative_to(ROOT).as_posix()
    for path in ROOT.rglob('*.py')
    if WALL_CLOCK.search(path.read_text())
  }
  assert reads == READ


def test_no_age_is_negative():
  assert shelves._age(time.time() + 3600) == '0 s'
  assert shelves._age(time.time() - 3600).startswith('1 h')


def test_a_state_adds_up_measured_seconds():
  state = status.State(4)
  state.add([0], status.Record('done', seconds=2.0), runs=False)
  assert state.left == 0.75 and state.seconds == 2.0


# Shifts the clock of a process, and the times of the files that it writes.
SHIFT = """
import os, time

hours = float(os.environ.get('TEST_HOURS', '0'))
now, now_ns, replace = time.time, time.time_ns, os.replace
time.time = lambda: now() + 3600 * hours
time.time_ns = lambda: now_ns() + int(3600e9 * hours)

def shifted(source, target, **kwargs):
  replace(source, target, **kwargs)
  os.utime(target, (time.time(), time.time()))

os.replace = shifted
"""


@pytest.mark.cluster
@pytest.mark.xdist_group('processes')
def test_processes_whose_clocks_differ_by_two_hours(home, alone):
  (home / 'shift').mkdir()
  (home / 'shift/sitecustomize.py').write_text(SHIFT)

  def shifted(hours, *flags):
    path = f'{home / "shift"}:{ROOT.parent}'
    return start(
      home, 'shifted', *flags, PYTHONPATH=path, TEST_HOURS=str(hours)
    )

  pair = [shifted(1, '--share=1/2'), shifted(-1, '--share=2/2')]
  while all(process.poll() is None for process in pair):
    out = finish(shifted(1, '--status'))
    assert not re.search(r'about -|-\d+ (s|min|h)\b', out)
    time.sleep(1)
  outs = [finish(process) for process in pair]
  assert all('24 of 24 units done' in out for out in outs)
  assert epochs(''.join(outs)) == epochs((home / 'alone.log').read_text())
  assert_equal(home / 'shifted', alone)
  for hours in (-1, 0, 1):
    out = finish(shifted(hours, '--status'))
    assert '24 of 24 units done; no sweep is running' in out
  out = finish(shifted(-1))
  assert epochs(out) == 0 and '24 of 24 units done' in out
