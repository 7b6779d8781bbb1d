"""Import scripts from the folder of benchmarks, as they import each other."""

import importlib
import pathlib

import pytest

HERE = pathlib.Path(__file__).parents[2] / 'benchmarks'


@pytest.fixture
def load(monkeypatch):
  """Import a module from the folder of benchmarks."""
  monkeypatch.syspath_prepend(str(HERE))
  return importlib.import_module
