"""A run that is killed at any moment and started again ends the same."""

import pathlib
import signal
import subprocess
import sys

import pytest

from tests.study import small_job

ROOT = pathlib.Path(__file__).parent.parent.parent


# The child kills itself when `jaxmu.files` is to write a path, or has just
# written it: polling from outside would miss what lives for milliseconds.
KILLED = """
import fnmatch, os, runpy, signal, sys
from jaxmu import files

function, moment, pattern = sys.argv[1:4]
del sys.argv[1:4]
write = getattr(files, function)

def killing(*args):
  paths = [str(arg) for arg in args if isinstance(arg, os.PathLike)]
  hit = bool(fnmatch.filter(paths, pattern))
  if hit and moment == 'before':
    os.kill(os.getpid(), signal.SIGKILL)
  result = write(*args)
  if hit:
    os.kill(os.getpid(), signal.SIGKILL)
  return result

setattr(files, function, killing)
runpy.run_module('jaxmu.main', run_name='__main__', alter_sys=True)
"""

MOMENTS = (
  # A shard is written but not yet moved to its place.
  ('publish_folder', 'before', '*/store/models/original-*/shard_000'),
  # Between two shards.
  ('publish_folder', 'after', '*/store/models/retrain-*/shard_001'),
  # Predictions are written without their record.
  ('write_text', 'before', '*/store/scores/original-*/.draft-*/record.json'),
)


def _run(
  environment: dict[str, str], workdir: pathlib.Path, *python: str
) -> tuple[int, str]:
  """Run the job with Python's arguments; return its code and its output."""
  done = subprocess.run(
    [
      sys.executable,
      *python,
      *small_job.ARGUMENTS,
      f'--config.workdir={workdir}',
    ],
    cwd=ROOT,
    env=environment,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
  )
  return done.returncode, done.stdout.decode()


@pytest.mark.slow
@pytest.mark.xdist_group('killed')
def test_killed_runs_end_with_the_same_bits(tmp_path, job_environment):
  whole, broken = tmp_path / 'whole', tmp_path / 'broken'
  code, output = _run(job_environment, whole, '-m', 'jaxmu.main')
  assert code == 0, output
  stamps = {}
  for moment in MOMENTS:
    code, output = _run(job_environment, broken, '-c', KILLED, *moment)
    assert code == -signal.SIGKILL, (moment, output)
    assert [*broken.glob('store/*/*/.draft-*')] or moment[1] == 'after'
    for path in broken.glob('store/models/*/shard_???/record.json'):
      stamps.setdefault(path, path.stat().st_mtime_ns)
  code, output = _run(job_environment, broken, '-m', 'jaxmu.main')
  assert code == 0, output
  assert stamps
  hidden = [p for p in broken.rglob('.*') if p.is_file() or 'draft' in p.name]
  assert not hidden
  for path, stamp in stamps.items():
    assert path.stat().st_mtime_ns == stamp, f'{path} was redone'
  a, b = ((f / 'results.csv').read_bytes() for f in (whole, broken))
  assert a == b
