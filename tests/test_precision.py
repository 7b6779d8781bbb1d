"""Precision changes only the products of a network."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmu import hparams as hp
from jaxmu import models, platforms, population, precision
from jaxmu.methods import METHODS
from jaxmu.testing import tiny_problem

SIZE = 2


def _task(name):
  model = models.build(
    'tiny',
    num_classes=tiny_problem.CLASSES,
    options=precision.model_options(name),
  )
  return dataclasses.replace(tiny_problem.task(), model=model, precision=name)


def _train(name):
  method = METHODS['retrain']
  hparams = hp.from_config(
    method.Hparams, {'num_epochs': 3, 'learning_rate': 0.05, 'batch_size': 8}
  )
  trainer = population.Trainer(method, _task(name), population.Layout(1, 1))
  loaded = trainer.load(
    [hparams] * SIZE,
    tiny_problem.keys(SIZE),
    tiny_problem.splits(SIZE),
    tiny_problem.originals(SIZE),
  )
  return loaded, trainer.train(loaded)


@pytest.fixture(scope='module')
def trained():
  return {name: _train(name) for name in precision.PRECISIONS}


def _floats(tree):
  leaves = [jnp.asarray(x) for x in jax.tree.leaves(tree)]
  return {x.dtype.name for x in leaves if jnp.issubdtype(x.dtype, jnp.floating)}


def test_bfloat16_training_is_close_to_float32(trained):
  single, half = (trained[name][1] for name in ('float32', 'bfloat16'))
  assert (single.losses != half.losses).all()
  np.testing.assert_allclose(half.losses, single.losses, rtol=0.03)


def test_weights_momentum_and_statistics_stay_float32(trained):
  loaded, result = trained['bfloat16']
  assert _floats(result.variables) == {'float32'}
  active = np.ones(SIZE, bool)
  task = _task('bfloat16')
  state = loaded.init(task, loaded.members, None, active)
  assert _floats(state) == {'float32'}
  # But the products are bfloat16 indeed.
  assert 'bf16' in loaded.epoch.as_text()


def test_bfloat16_models_are_scored_in_float32(trained):
  _, result = trained['bfloat16']
  layout = population.Layout(1, 1)
  found = {
    name: population.Predictor(_task(name), layout).run(result.variables)
    for name in ('float32', 'bfloat16')
  }
  half, single = found['bfloat16'].log_odds, found['float32'].log_odds
  assert half.dtype == np.float32
  # Rounded to bfloat16, logits of one class would often be equal.
  assert len(np.unique(half)) == half.size
  np.testing.assert_allclose(half, single, atol=0.1)


def test_tf32_is_float32_on_a_cpu(trained):
  single, rounded = (trained[name][1] for name in ('float32', 'tf32'))
  np.testing.assert_array_equal(single.losses, rounded.losses)


@pytest.mark.parametrize(
  ('name', 'asked'),
  [('float32', 'HIGHEST'), ('tf32', 'HIGH'), ('bfloat16', 'HIGHEST')],
)
def test_an_accelerator_is_told_how_to_multiply(name, asked):
  with platforms.target('gpu'), precision.products(name):
    (dot,) = jax.make_jaxpr(lambda x: jnp.dot(x, x))(jnp.ones((2, 2))).eqns
  assert {found.name for found in dot.params['precision']} == {asked}


def test_unknown_precision_is_refused_with_those_there_are():
  with pytest.raises(ValueError, match='float16.*float32, tf32, bfloat16'):
    precision.check('float16')
