"""The small job from splits to report, with learning curves."""

import pathlib

import pytest

from jaxmu.study import run
from tests.study import small_job


@pytest.fixture(scope='session')
def finished(tmp_path_factory) -> pathlib.Path:
  """A work directory to read or to copy, never to change."""
  folder = tmp_path_factory.mktemp('job')
  run.run(small_job.make(folder, curve__every=1))
  return folder
