"""The sweep that several processes are compared with."""

import pytest

from tests.sweeps import processes


@pytest.fixture(scope='session')
def home(tmp_path_factory):
  """A folder with a file of sweeps."""
  folder = tmp_path_factory.mktemp('processes')
  (folder / 'sweep.py').write_text(processes.FILE)
  return folder


@pytest.fixture(scope='session')
def alone(home):
  """The small sweep by one process."""
  out = processes.finish(processes.start(home, 'alone'))
  (home / 'alone.log').write_text(out)
  return home / 'alone'
