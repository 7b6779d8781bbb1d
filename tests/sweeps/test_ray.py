"""The Ray engine: resources, and sweeps on clusters of this machine."""

import os
import random
import signal
import socket
import subprocess
import sys
import time

import pytest

from jaxmu.sweeps import ray_engine
from tests.sweeps import processes
from tests.sweeps.processes import KILLS, assert_equal, finish, start


def test_what_a_process_reserves():
  assert ray_engine.parse('gpu=0.5,cpu=2') == {'gpu': 0.5, 'cpu': 2.0}
  assert ray_engine.choose({'CPU': 4, 'TPU': 4}) == {'cpu': 1, 'tpu': 4}
  for text in ('cpu', 'cpu=x', 'disk=1', 'cpu=-1', 'cpu=nan', 'gpu=0'):
    with pytest.raises(ValueError, match=f'--resources={text}: '):
      ray_engine.parse(text)


def test_without_ray_one_line_says_what_to_install(monkeypatch):
  monkeypatch.setitem(sys.modules, 'ray', None)
  with pytest.raises(ValueError, match='pip install'):
    ray_engine.Cluster({'workdir': '.'}, '', '', lambda *_: None)


def _ray(*arguments, check=True):
  command = [sys.executable, '-m', 'ray.scripts.scripts', *arguments]
  done = subprocess.run(
    command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
  )
  assert not check or done.returncode == 0, done.stdout


def _raylets():
  """Return the process numbers of all raylets, oldest first."""
  found = subprocess.run(
    ['pgrep', '-x', 'raylet'], stdout=subprocess.PIPE, text=True
  )
  return [int(number) for number in found.stdout.split()]


@pytest.fixture
def cluster(monkeypatch):
  """Two machines with one CPU each, on this one; gives the address."""
  with socket.socket() as one:
    one.bind(('127.0.0.1', 0))
    port = one.getsockname()[1]
  address = f'127.0.0.1:{port}'
  monkeypatch.setenv('PYTHONPATH', str(processes.ROOT))
  monkeypatch.setenv('RAY_AUTH_MODE', 'token')
  monkeypatch.setenv('RAY_AUTH_TOKEN', 'of this test')
  one = ('--num-cpus=1', '--disable-usage-stats')
  _ray('start', '--head', f'--port={port}', '--include-dashboard=false', *one)
  _ray('start', f'--address={address}', *one)
  yield address
  _ray('stop', '--force', check=False)


def _ray_sweep(home, name, address=''):
  changes = {'RAY_ADDRESS': address} if address else {}
  return start(home, name, '--engine=ray', **changes)


@pytest.mark.parametrize('machines', [1, 2])
@pytest.mark.slow
@pytest.mark.xdist_group('processes')
def test_a_cluster_makes_the_same_bits(home, alone, machines, request):
  address = request.getfixturevalue('cluster') if machines == 2 else ''
  out = finish(_ray_sweep(home, f'ray_{machines}', address))
  assert '24 of 24 units done' in out
  assert_equal(home / f'ray_{machines}', alone)


@pytest.mark.slow
@pytest.mark.xdist_group('processes')
def test_a_lost_machine_and_a_killed_driver_lose_nothing(home, alone, cluster):
  draws = random.Random(1)
  for _ in range(KILLS):
    driver = _ray_sweep(home, 'ray_lost', cluster)
    time.sleep(draws.uniform(15, 40))
    if driver.poll() is None:
      os.killpg(driver.pid, signal.SIGKILL)
    driver.communicate()
  driver = _ray_sweep(home, 'ray_lost', cluster)
  time.sleep(20)
  os.kill(_raylets()[-1], signal.SIGKILL)
  finish(driver)
  assert_equal(home / 'ray_lost', alone)
