"""Trace methods on a transformer that have no recorded run on one.

The reference's FF and IU raise an error; SRL was not recorded.
"""

import jax
import jax.numpy as jnp
import pytest

from jaxmu import method as method_lib
from jaxmu import methods, models
from jaxmu.types import Problem
from tests.methods import small

SMALL = {'widths': (32, 32, 32, 32), 'depths': (1, 1, 1, 1)}


def _problem() -> Problem:
  problem = small.problem()
  model = models.build('vit11m', num_classes=4, options=SMALL)
  dataset = problem.task.dataset
  image = jnp.zeros((len(dataset.label), 32, 32, 3), jnp.uint8)
  task = problem.task.replace(model=model, dataset=dataset.replace(image=image))
  start = jax.eval_shape(
    lambda key: models.init(model, key, (32, 32, 3)), jax.random.key(0)
  )
  return problem.replace(task=task, start=start)


@pytest.mark.parametrize('name', ['ff', 'iu', 'srl'])
def test_takes_a_transformer(name):
  method, problem, draws = methods.get(name), _problem(), small.draws()
  method_lib.check(method, problem)
  hparams = method.prepare(small.hparams(name), problem)
  state = jax.eval_shape(method.init, hparams, draws.at('init'), problem)
  place = draws.at('epoch', jnp.int32(0))
  after, info = jax.eval_shape(
    method.epoch, hparams, place, problem, state, jnp.int32(0)
  )
  assert 'loss' in info
  found = jax.eval_shape(method.finish, hparams, after)
  assert jax.tree.structure(found) == jax.tree.structure(problem.start)
  assert [x.shape for x in jax.tree.leaves(found)] == [
    x.shape for x in jax.tree.leaves(problem.start)
  ]
