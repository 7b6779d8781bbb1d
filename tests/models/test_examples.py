"""The examples in the docstrings of the models run unchanged."""

import doctest
import importlib
import pkgutil

from jaxmu import models


def test_examples_run(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  ran = 0
  for info in pkgutil.walk_packages(models.__path__, 'jaxmu.models.'):
    result = doctest.testmod(importlib.import_module(info.name))
    assert not result.failed, info.name
    ran += result.attempted
  result = doctest.testmod(models)
  assert not result.failed
  assert ran + result.attempted > 10
