"""Sweeps in processes of their own, and what they leave."""

import hashlib
import json
import os
import pathlib
import re
import subprocess
import sys

from jaxmu.report import results

# Times that a test kills what it tests; more on demand, see .ci/servers.
KILLS = int(os.environ.get('JAXMU_TEST_KILLS', '1'))

ROOT = pathlib.Path(__file__).parents[2]
FILE = """
from tests.sweeps import small_sweep

def get_config(folder):
  return small_sweep.config(folder)
"""


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


def epochs(text):
  """Return how many epochs of models processes have trained."""
  trained = re.findall(r'train \w+: (\d+) epochs? of ([\d,]+) models? in', text)
  return sum(int(n) * int(of.replace(',', '')) for n, of in trained)


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


def assert_equal(folder, alone):
  assert models(folder) == models(alone) and models(alone)
  assert repr(numbers(folder)) == repr(numbers(alone)) and numbers(alone)
  assert (folder / 'leaderboard.html').is_file()
