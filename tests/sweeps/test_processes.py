"""Several processes share a sweep: the same bits as one, whatever happens."""

import hashlib
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import pytest

from jaxmu.report import results

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group('processes')]

ROOT = pathlib.Path(__file__).parents[2]
FILE = """
from tests.sweeps import small_sweep

def get_config(folder):
  return small_sweep.config(folder)
"""


@pytest.fixture(scope='module')
def home(tmp_path_factory):
  folder = tmp_path_factory.mktemp('processes')
  (folder / 'sweep.py').write_text(FILE)
  return folder


def environment(home, **changes):
  return {
    **os.environ,
    'PYTHONPATH': str(ROOT),
    'JAXMU_CACHE_DIR': str(home / 'cache'),
    'JAXMU_DATA_DIR': str(home / 'data'),
    'JAX_COMPILATION_CACHE_DIR': str(home / 'jax'),
    **changes,
  }


def start(home, name, *flags, **changes):
  """Start a sweep in a process, in a session of its own."""
  argv = [f'--config={home / "sweep.py"}:{home / name}', *flags]
  return subprocess.Popen(
    [sys.executable, '-m', 'jaxmu.sweep', *argv],
    cwd=home,
    env=environment(home, **changes),
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
    start_new_session=True,
  )


def finish(process, timeout=560):
  """Return what a process printed; it must succeed."""
  out, _ = process.communicate(timeout=timeout)
  assert process.returncode == 0, out
  return out


def models(folder):
  """Return a digest of all arrays of each shard of models and predictions."""
  found = {}
  for record in sorted(folder.glob('*/*/store/*/*/shard_*/record.json')):
    content = json.loads(record.read_text())
    if content['place']['stage'] not in ('models', 'scores'):
      continue
    arrays = {
      name: sha
      for name, (_, sha) in content['files'].items()
      if name.endswith('.npy')
    }
    place = str(record.relative_to(folder).parent)
    found[place] = hashlib.sha256(repr(sorted(arrays.items())).encode())
  return {place: digest.hexdigest() for place, digest in found.items()}


def numbers(folder):
  """Return every number of every report, without run times."""
  return {
    (str(path.relative_to(folder)), row.method, row.metric): row.value
    for path in sorted(folder.glob('*/*/results.csv'))
    for row in results.read_csv(path)
  }


@pytest.fixture(scope='module')
def alone(home):
  """The sweep by one process."""
  finish(start(home, 'alone'))
  return home / 'alone'


def assert_equal(folder, alone):
  assert models(folder) == models(alone) and models(alone)
  assert repr(numbers(folder)) == repr(numbers(alone)) and numbers(alone)
  assert (folder / 'leaderboard.html').is_file()


@pytest.mark.parametrize('count', [2, 4])
def test_processes_make_the_same_bits_as_one(home, alone, count):
  name = f'of_{count}'
  shares = [f'--share={k + 1}/{count}' for k in range(count)]
  for out in map(finish, [start(home, name, share) for share in shares]):
    assert '24 of 24 units done' in out
  assert_equal(home / name, alone)
  assert '24 of 24 units done' in finish(start(home, name, '--status'))


def test_one_of_the_processes_does_all_if_the_others_never_start(home, alone):
  finish(start(home, 'single', '--share=2/3'))
  assert_equal(home / 'single', alone)


def test_killed_processes_lose_nothing(home, alone):
  """Kill one of two at ten moments; another number of processes goes on."""
  name, draws = 'killed', random.Random(0)
  for _ in range(10):
    both = [start(home, name, f'--share={k}/2') for k in (1, 2)]
    time.sleep(draws.uniform(2, 20))
    for process in both:
      os.killpg(process.pid, signal.SIGKILL)
      process.communicate()
  shares = [f'--share={k}/3' for k in (1, 2, 3)]
  for process in [start(home, name, share) for share in shares]:
    finish(process)
  assert_equal(home / name, alone)


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
