"""The examples in the docstrings of the models run as they stand."""

import doctest
import importlib
import pkgutil

import jax

from jaxmu import models


def test_examples_run(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  names = pkgutil.walk_packages(models.__path__, 'jaxmu.models.')
  modules = [models, *(importlib.import_module(info.name) for info in names)]
  ran = 0
  with jax.numpy_rank_promotion('allow'):  # as for users; tests forbid it
    for module in modules:
      result = doctest.testmod(module)
      assert not result.failed, module.__name__
      ran += result.attempted
  assert ran > 10
