"""A run that is killed at any moment and started again ends the same."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).parent.parent.parent
DEADLINE = 240  # seconds to wait for a file before the test gives up

COMMAND = [
  *(sys.executable, '-m', 'jaxmu.main', '--config=configs/msg_resnet.py'),
  '--config.model.name=tiny',
  '--config.model.options={}',
  '--config.splits.num_splits=8',
  '--config.train.num_epochs=2',
  '--config.unlearn.hparams.num_epochs=1',
  '--config.timing.repeats=1',
  '--config.run.shard=4',
]


def _start(workdir: pathlib.Path) -> subprocess.Popen:
  environment = dict(os.environ, PYTHONPATH=str(ROOT))
  return subprocess.Popen(
    [*COMMAND, f'--config.workdir={workdir}'],
    cwd=ROOT,
    env=environment,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
  )


def _finish(workdir: pathlib.Path) -> str:
  process = _start(workdir)
  output, _ = process.communicate(timeout=DEADLINE)
  assert process.returncode == 0, output.decode()
  return output.decode()


def _kill_when(workdir: pathlib.Path, pattern: str) -> None:
  """Start a run and kill it as soon as a file exists."""
  process = _start(workdir)
  end = time.monotonic() + DEADLINE
  while not list(workdir.glob(pattern)) and process.poll() is None:
    assert time.monotonic() < end
    time.sleep(0.01)
  process.send_signal(signal.SIGKILL)
  process.communicate()
  assert process.returncode == -signal.SIGKILL


@pytest.mark.xdist_group('killed')
def test_killed_runs_end_with_the_same_bits(tmp_path):
  whole, broken = tmp_path / 'whole', tmp_path / 'broken'
  _finish(whole)
  # While a shard is being written, between shards, and in the predictions.
  patterns = (
    'store/models/original-*/.draft-*',
    'store/models/retrain-*/shard_001/record.json',
    'store/scores/original-*/.draft-*',
  )
  stamps = {}
  for pattern in patterns:
    _kill_when(broken, pattern)
    done = broken.glob('store/models/*/shard_???/record.json')
    for path in done:
      stamps.setdefault(path, path.stat().st_mtime_ns)
  _finish(broken)
  assert stamps
  hidden = [p for p in broken.rglob('.*') if p.is_file() or 'draft' in p.name]
  assert not hidden
  for path, stamp in stamps.items():
    assert path.stat().st_mtime_ns == stamp, f'{path} was redone'
  a, b = ((f / 'results.csv').read_bytes() for f in (whole, broken))
  assert a == b
