"""Several processes share a sweep: the same bits as one, whatever happens.

JAXMU_TEST_KILLS=10 kills them more often than by default.
"""

import os
import random
import signal
import time

import pytest

from tests.sweeps.processes import KILLS, assert_equal, epochs, finish, start

pytestmark = pytest.mark.xdist_group('processes')


@pytest.mark.parametrize(
  'count',
  [
    pytest.param(2, marks=pytest.mark.slow),
    pytest.param(4, marks=pytest.mark.cluster),
  ],
)
def test_processes_make_the_same_bits_as_one(home, alone, count):
  name = f'of_{count}'
  shares = [f'--share={k + 1}/{count}' for k in range(count)]
  for out in map(finish, [start(home, name, share) for share in shares]):
    assert '24 of 24 units done' in out
  assert_equal(home / name, alone)
  assert '24 of 24 units done' in finish(start(home, name, '--status'))


@pytest.mark.cluster
def test_one_of_the_processes_does_all_if_the_others_never_start(home, alone):
  finish(start(home, 'single', '--share=2/3'))
  assert_equal(home / 'single', alone)


@pytest.mark.cluster
def test_killed_processes_lose_nothing(home, alone):
  """Kill both at random moments; another number of processes goes on."""
  name, draws = 'killed', random.Random(0)
  for _ in range(KILLS):
    both = [start(home, name, f'--share={k}/2') for k in (1, 2)]
    time.sleep(draws.uniform(2, 20))
    for process in both:
      os.killpg(process.pid, signal.SIGKILL)
      process.communicate()
  shares = [f'--share={k}/3' for k in (1, 2, 3)]
  for process in [start(home, name, share) for share in shares]:
    finish(process)
  assert_equal(home / name, alone)


@pytest.mark.cluster
def test_a_plain_sweep_is_refused_beside_a_share(home):
  share = start(home, 'beside', '--share=1/2')
  lock = home / 'beside' / '.sweep.lock'
  while not lock.exists():
    time.sleep(0.05)
    assert share.poll() is None
  time.sleep(0.5)
  out, _ = (plain := start(home, 'beside')).communicate(timeout=120)
  os.killpg(share.pid, signal.SIGKILL)
  share.communicate()
  assert plain.returncode == 1 and 'in use by another sweep' in out
  assert 'Traceback' not in out


@pytest.mark.cluster
def test_two_drivers_train_no_part_twice(home, alone):
  """Both have the same share; parts are kept apart all the same."""
  both = [start(home, 'drivers', '--share=1/1') for _ in range(2)]
  outs = [finish(process) for process in both]
  assert all('24 of 24 units done' in out for out in outs)
  assert epochs(''.join(outs)) == epochs((home / 'alone.log').read_text())
  assert_equal(home / 'drivers', alone)
