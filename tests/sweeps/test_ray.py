"""The Ray engine: resources, and sweeps on clusters of this machine."""

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import time
import types

import pytest

from jaxmu.sweeps import ray_engine
from tests import servers
from tests.sweeps import processes
from tests.sweeps.processes import KILLS, assert_equal, finish, start


def test_what_a_process_reserves():
  assert ray_engine.parse('gpu=0.5,cpu=2') == {'gpu': 0.5, 'cpu': 2.0}
  assert ray_engine.choose({'CPU': 4, 'TPU': 4}) == {'cpu': 1, 'tpu': 4}
  wrong = ('cpu', 'cpu=x', 'disk=1', 'cpu=-1', 'cpu=nan', 'gpu=0')
  for text in (*wrong, 'cpu=1,cpu=2'):
    with pytest.raises(ValueError, match=f'--resources={text}: '):
      ray_engine.parse(text)


class _Ray:
  """Ray on a machine with two CPUs, or a cluster that does not answer."""

  def __init__(self, error=None):
    self._error, self.ended = error, False

  def init(self, **_):
    if self._error:
      raise self._error

  def cluster_resources(self):
    return {'CPU': 2.0}

  def shutdown(self):
    self.ended = True


def _run_on(monkeypatch, ray, address, resources=''):
  monkeypatch.setitem(sys.modules, 'ray', ray)
  monkeypatch.delenv('RAY_ADDRESS', raising=False)
  if address:
    monkeypatch.setenv('RAY_ADDRESS', address)
  cluster = ray_engine.Cluster({'workdir': '.'}, '', resources, lambda *_: None)
  cluster(None, types.SimpleNamespace(tell=lambda _: None))


def test_more_than_this_machine_has_is_refused(monkeypatch):
  ray = _Ray()
  with pytest.raises(ValueError, match='--resources=gpu=8 is more.*RAY_ADDR'):
    _run_on(monkeypatch, ray, '', 'cpu=1,gpu=8')
  assert ray.ended


def test_a_cluster_that_does_not_answer_is_named(monkeypatch):
  wanted = 'RAY_ADDRESS={}: .*unset RAY_A'
  with socket.create_server(('127.0.0.1', 0)) as server:
    address = f'127.0.0.1:{server.getsockname()[1]}'
    for error in (ValueError('a\nb'), ConnectionError('x'), RuntimeError('y')):
      with pytest.raises(ValueError, match=wanted.format(address)):
        _run_on(monkeypatch, _Ray(error), address)
  # Nobody listens any more, so Ray is not asked.
  with pytest.raises(ValueError, match=wanted.format(address)):
    _run_on(monkeypatch, _Ray(AssertionError()), address)


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


@contextlib.contextmanager
def _cluster():
  """Two machines with one CPU each, on this one; gives the address."""
  port = servers.free_port()
  address = f'127.0.0.1:{port}'
  one = ('--num-cpus=1', '--disable-usage-stats')
  try:
    _ray('start', '--head', f'--port={port}', '--include-dashboard=false', *one)
    _ray('start', f'--address={address}', *one)
    yield address
  finally:
    _ray('stop', '--force', check=False)


def _ray_sweep(home, name, address=''):
  changes = {'RAY_ADDRESS': address} if address else {}
  return start(home, name, '--engine=ray', **changes)


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
  monkeypatch.setenv('PYTHONPATH', str(processes.ROOT))
  monkeypatch.setenv('RAY_AUTH_MODE', 'token')
  monkeypatch.setenv('RAY_AUTH_TOKEN', 'of this test')


@pytest.mark.parametrize(
  'machines',
  [
    pytest.param(1, marks=pytest.mark.slow),
    pytest.param(2, marks=pytest.mark.cluster),
  ],
)
@pytest.mark.xdist_group('processes')
def test_a_cluster_makes_the_same_bits(home, alone, machines):
  with contextlib.nullcontext() if machines == 1 else _cluster() as address:
    out = finish(_ray_sweep(home, f'ray_{machines}', address))
  assert '24 of 24 units done' in out
  assert_equal(home / f'ray_{machines}', alone)


def _processes(pattern):
  """Return the process numbers of programs whose command line has a pattern."""
  found = subprocess.run(
    ['pgrep', '-f', pattern], stdout=subprocess.PIPE, text=True
  )
  return [int(number) for number in found.stdout.split()]


# What to kill, by its name: the processes of each.
VICTIMS = {
  'worker': lambda driver: _processes('^ray::_perform'),
  'machine': lambda driver: _raylets()[-1:],
  'head': lambda driver: [*_processes('gcs_server'), *_raylets()[:1]],
  'driver': lambda driver: [driver.pid],
}


@pytest.mark.parametrize('what', VICTIMS)
@pytest.mark.cluster
@pytest.mark.xdist_group('processes')
def test_kills_lose_nothing(home, alone, what):
  """Kill it at a random moment of a sweep, and go on with a new cluster.

  Ray starts the tasks of a lost worker or machine again, so the first sweep may
  succeed. Without a head or driver it ends, without a traceback.
  """
  draws = random.Random(what)
  for number in range(KILLS):
    name = f'ray_{what}_{number}'
    with _cluster() as address:
      driver = _ray_sweep(home, name, address)
      time.sleep(draws.uniform(5, 60))
      victims = VICTIMS[what](driver) if driver.poll() is None else []
      for victim in victims:
        os.kill(victim, signal.SIGKILL)
      out, _ = driver.communicate(timeout=1200)
      assert 'Traceback' not in out, out
    with _cluster() as address:
      finish(_ray_sweep(home, name, address))
    assert_equal(home / name, alone)
