"""SIGINT and SIGTERM end every command at once, with one line."""

import os
import pathlib
import shlex
import signal
import subprocess
import sys

import numpy as np
import pytest

from tests.attacks import test_suite
from tests.study import small_job

ROOT = pathlib.Path(__file__).parents[1]

# Python runs this file before the command. When the module that MOMENT names
# is imported, or its function is called, the process gets a signal in the
# middle of compiled code that does not return to Python for minutes.
SITE = """
import importlib.abc, importlib.util, hashlib, os, signal, sys

# Shells let processes in the background ignore it.
signal.signal(signal.SIGINT, signal.default_int_handler)
module, _, function = os.environ['MOMENT'].partition(':')


def strike(*args, **options):
  print('so far', end='')
  os.kill(os.getpid(), int(os.environ['SIGNAL']))
  hashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)


class Finder(importlib.abc.MetaPathFinder):

  def find_spec(self, name, path=None, target=None):
    if name != module:
      return None
    sys.meta_path.remove(self)
    if not function:
      strike()
    spec = importlib.util.find_spec(name)
    execute = spec.loader.exec_module

    def patched(loaded):
      execute(loaded)
      place = loaded
      *path, last = function.split('.')
      for one in path:
        place = getattr(place, one)
      setattr(place, last, strike)

    spec.loader.exec_module = patched
    return spec


sys.meta_path.insert(0, Finder())
"""

JOB = ['jaxmu.main', *small_job.ARGUMENTS, '--workdir=a b']
JOB_KEPT = 'finished models are kept; continue with: '
ATTACK = ['jaxmu.attack', '--scores=scores.npz', '--out=o', '--attacks=loss']
AGAIN = 'start again with: '

# The command, the moment, and what the line says.
MOMENTS = [
  (JOB, 'jaxmu.cli.arguments', JOB_KEPT),
  (ATTACK, 'jax', AGAIN),
  (['jaxmu.rank', 'a', 'b'], 'numpy', AGAIN),
  (
    ['jaxmu.prepare', 'pets', '--from_images=a'],
    'PIL',
    'finished downloads are kept; continue with: ',
  ),
  (['jaxmu.store', 'list', 'a'], 'jaxmu.files', AGAIN),
]
SLOW = [
  (JOB, 'jax', JOB_KEPT),
  (JOB, 'jaxmu.study.job:open_job', JOB_KEPT),
  (JOB, 'jaxmu.data.datasets:load', JOB_KEPT),
  (JOB, 'jaxmu.study.run:check_job', JOB_KEPT),
  (JOB, 'jaxmu.population:Trainer.load', JOB_KEPT),
  (JOB, 'jaxmu.population:Trainer.train', JOB_KEPT),
  (JOB, 'orbax.checkpoint', JOB_KEPT),
  (JOB, 'jaxmu.study.store:_save_models', JOB_KEPT),
  (JOB, 'jaxmu.files:publish_folder', JOB_KEPT),
  (JOB, 'jaxmu.study.stages:predict', JOB_KEPT),
  (JOB, 'jaxmu.study.evaluate:evaluate', JOB_KEPT),
  (JOB, 'jaxmu.report.html:write_report', JOB_KEPT),
  (ATTACK, 'jaxmu.attacks.registry:run', AGAIN),
  (
    ['jaxmu.search', *small_job.ARGUMENTS],
    'jaxmu.tuning.driver:run',
    'finished trials are kept; continue with: ',
  ),
  (
    ['jaxmu.sweep', '--config=deep_unlearn'],
    'jaxmu.sweeps.work:perform_all',
    'finished work is kept; continue with: ',
  ),
]


def _started(command):
  """Return a command as `jaxmu` starts it, where that has another name."""
  if command[0] != 'jaxmu.store':
    return command
  return ['jaxmu', 'store', *command[1:]]


@pytest.mark.parametrize(
  'moments', [MOMENTS, pytest.param(SLOW, marks=pytest.mark.slow)]
)
def test_every_command_ends_at_any_moment(moments, tmp_path, job_environment):
  (tmp_path / 'site').mkdir()
  (tmp_path / 'site' / 'sitecustomize.py').write_text(SITE)
  np.savez(tmp_path / 'scores.npz', **test_suite.make_arrays())
  path = f'{tmp_path / "site"}{os.pathsep}{ROOT}'
  wrong = []
  for number, (command, moment, kept) in enumerate(moments):
    sent = (signal.SIGINT, signal.SIGTERM)[number % 2]
    done = subprocess.run(
      [sys.executable, '-m', *_started(command)],
      cwd=tmp_path,
      env={
        **job_environment,
        'PYTHONPATH': path,
        'MOMENT': moment,
        'SIGNAL': str(int(sent)),
      },
      capture_output=True,
      text=True,
    )
    first = 'interrupted' if sent == signal.SIGINT else 'stopped by SIGTERM'
    line = f'{first}; {kept}{shlex.join(["python", "-m", *command])}\n'
    # Imports take seconds, and are announced.
    early = command[0] in ('jaxmu.rank', 'jaxmu.prepare', 'jaxmu.store')
    if (
      done.returncode != 128 + sent
      or done.stderr != line
      or not done.stdout.endswith('so far')
      or not (early or 'starting JAX\n' in done.stdout)
    ):
      wrong.append((command, moment, done))
  assert not wrong
