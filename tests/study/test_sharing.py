"""Jobs in folders beside each other share originals, not reports."""

import pathlib
import shutil

import pytest

from jaxmu.study import job as job_lib
from jaxmu.study import planner, run, sharing
from tests.study import small_job

pytestmark = pytest.mark.xdist_group('job')


def _make(folder: pathlib.Path, **changes):
  return small_job.make(folder, run__share=True, **changes)


def _ct(folder: pathlib.Path):
  return _make(folder, unlearn={'method': 'ct', 'hparams': {'num_epochs': 1}})


def _shards(folder: pathlib.Path) -> dict[str, int]:
  """Return the inodes of the records of originals and retrained models."""
  return {
    str(path.relative_to(folder)): path.stat().st_ino
    for name in ('original', 'retrain')
    for path in folder.glob(f'store/*/{name}-*/shard_*/record.json')
  }


@pytest.fixture(name='folder')
def _folder(finished, tmp_path):
  shutil.copytree(finished, tmp_path / 'msg')
  return tmp_path


def test_another_method_trains_no_original(folder, capsys):
  # The first shard of the originals is damaged there, so it is trained here.
  damaged = min((folder / 'msg').glob('store/models/original-*/shard_000'))
  largest = max(
    (p for p in damaged.rglob('*') if p.is_file()),
    key=lambda p: p.stat().st_size,
  )
  content = bytearray(largest.read_bytes())
  content[len(content) // 2] ^= 1
  largest.write_bytes(content)

  job = job_lib.open_job(_ct(folder / 'ct'))
  assert sharing.counts(job)['models', 'retrain'] == 16
  steps = {
    step.stage: step for step in planner.plan_steps(job, sharing.counts(job))
  }
  assert steps['train retrain'].missing == 0 < steps['train ct'].missing
  assert not (folder / 'ct').exists()

  run.run(_ct(folder / 'ct'))
  out = capsys.readouterr().out
  assert f'retrain: 16 models taken from {folder / "msg"}' in out
  assert f'original: 4 models taken from {folder / "msg"}' in out
  theirs, ours = _shards(folder / 'msg'), _shards(folder / 'ct')
  assert theirs.keys() == ours.keys()
  trained = [name for name in ours if ours[name] != theirs[name]]
  assert trained == [str((damaged / 'record.json').relative_to(folder / 'msg'))]
  # Neither folder needs the other.
  shutil.rmtree(folder / 'msg')
  run.run(_ct(folder / 'ct'))
  assert 'nothing redone' in capsys.readouterr().out


def test_nothing_is_taken_where_nothing_is_shared(folder, tmp_path):
  alone = small_job.make(folder / 'alone')
  assert not sharing.counts(job_lib.open_job(alone))
  other = _make(folder / 'other', seed=5)
  assert not sharing.counts(job_lib.open_job(other))


def test_no_job_replaces_the_report_of_another_method(folder):
  before = (folder / 'msg' / 'results.json').read_bytes()
  with pytest.raises(ValueError, match='report of msg.*--compare=msg'):
    run.run(_ct(folder / 'msg'))
  assert (folder / 'msg' / 'results.json').read_bytes() == before
