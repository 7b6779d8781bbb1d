"""The report works without jax, and starts without drawing anything."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
  ('module', 'absent'),
  [
    ('html', ('jax', 'matplotlib.pyplot')),
    ('tables', ('jax', 'matplotlib')),
    ('progress', ('jax', 'matplotlib')),
  ],
)
def test_importing_leaves_out(module, absent):
  code = f'import sys, jaxmu.report.{module}; print(*sys.modules)'
  done = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True, check=True
  )
  loaded = done.stdout.split()
  assert f'jaxmu.report.{module}' in loaded
  assert not set(absent) & set(loaded)
