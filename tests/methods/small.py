"""Runs of one method on the tiny problem."""

from typing import Any

import jax
import numpy as np

from jaxmu import hparams as hp
from jaxmu import method as method_lib
from jaxmu import methods
from jaxmu.draws import Draws
from jaxmu.testing import tiny_problem
from jaxmu.types import Problem

BATCH = 8
BATCHES = ('batch_size', 'retain_batch_size', 'forget_batch_size')


def problem() -> Problem:
  """Return the problem of one member, without augmentation."""
  return tiny_problem.problem(flip=False)


def draws() -> Draws:
  """Return the draws of one member."""
  return Draws(tiny_problem.keys(1)[0])


def hparams(name: str, **values: Any) -> Any:
  """Build hyper-parameters whose batches fit the tiny problem."""
  cls = methods.get(name).Hparams
  small = {k: BATCH for k in hp.defaults(cls) if k in BATCHES}
  return hp.from_config(cls, {**small, **values})


def run(
  name: str, *, cache_teacher: bool = True, **values: Any
) -> tuple[Any, list[Any]]:
  """Run a method; returns variables and infos."""
  one = problem()
  one = one.replace(task=one.task.replace(cache_teacher=cache_teacher))
  method = methods.get(name)
  compiled = method._replace(
    init=jax.jit(method.init), epoch=jax.jit(method.epoch)
  )
  return method_lib.run(compiled, hparams(name, **values), draws(), one)


def state(name: str, **values: Any) -> tuple[Any, Any]:
  """Prepare and initialise a method; returns hyper-parameters and state."""
  method = methods.get(name)
  prepared = method.prepare(hparams(name, **values), problem())
  found = jax.jit(method.init)(prepared, draws().at('init'), problem())
  return prepared, found


def assert_close(a: Any, b: Any, tolerance: float = 1e-5) -> None:
  """Compare two trees."""
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance)


def same(a: Any, b: Any) -> bool:
  """Whether two trees are equal bit for bit."""
  pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
  return all(np.array_equal(x, y) for x, y in pairs)
