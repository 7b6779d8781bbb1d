"""Data sets in a separate folder with a separate cache."""

import functools

import pytest

from jaxmu.data import datasets, official


@pytest.fixture
def load(tmp_path):
  """Load a set below `tmp_path` with a separate cache."""
  return functools.partial(
    datasets.load, data_dir=tmp_path / 'data', cache_dir=tmp_path / 'cache'
  )


@pytest.fixture
def prepare(tmp_path):
  return functools.partial(
    official.prepare,
    data_dir=tmp_path / 'data',
    manual_dir=tmp_path / 'manual',
    any_size=True,
  )
