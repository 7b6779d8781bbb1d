"""Attention biases in evaluation mode: held constant or trained.

The reference keeps the values that they had at the switch to evaluation mode. A
toy network with such biases shows which methods do so.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmu import method as method_lib
from jaxmu import models
from jaxmu.methods import ff, get, iu, salun
from jaxmu.methods.parts import weights
from jaxmu.models import interface
from jaxmu.models import layers as layers_lib
from jaxmu.testing import tiny_problem
from jaxmu.types import Problem
from tests.methods import small

PATH = 'attn/attention_biases'


class _Biases(nn.Module):
  @nn.compact
  def __call__(self, x):
    zeros = nn.initializers.zeros
    return x + self.param('attention_biases', zeros, (4,))[None]


class _Biased(nn.Module):
  """A convolution, biases, a classifier."""

  num_classes: int
  num_drop_paths = 0

  @nn.compact
  def __call__(self, images, *, train):
    x = layers_lib.Conv(4, 3, 2, 1, name='conv1')(images)
    x = layers_lib.BatchNorm(name='bn1')(x, train=train).mean((1, 2))
    x = jax.nn.relu(_Biases(name='attn')(x))
    return layers_lib.Linear(self.num_classes, name='fc')(x)

  @property
  def blocks(self):
    return interface.Blocks(
      stem=('conv1', 'bn1'),
      body=(('attn',),),
      neck=(),
      classifier=('fc',),
      stem_conv=('conv1',),
    )

  @property
  def layers(self):
    biases = interface.Layer('attn', PATH.replace('/', '.'), 'attention_bias')
    return (
      interface.Layer('conv1', 'conv1', 'conv'),
      interface.Layer('bn1', 'bn1', 'batch_norm'),
      biases,
      interface.Layer('fc', 'fc', 'linear'),
    )


def _problem() -> Problem:
  problem = small.problem()
  model = _Biased(tiny_problem.CLASSES)
  start = models.init(model, jax.random.key(0), (8, 8, 3))
  task = problem.task.replace(model=model)
  return problem.replace(task=task, start=start)


def _trained(name: str, **values) -> jax.Array:
  method, problem = get(name), _problem()
  compiled = method._replace(
    init=jax.jit(method.init), epoch=jax.jit(method.epoch)
  )
  found, _ = method_lib.run(
    compiled,
    small.hparams(name, num_epochs=1, learning_rate=0.1, **values),
    small.draws(),
    problem,
  )
  return weights.by_path(found['params'])[PATH]


@pytest.mark.parametrize('name', ['neggrad_plus', 'cfk', 'euk'])
def test_training_holds_them_unless_told_otherwise(name):
  np.testing.assert_array_equal(_trained(name), 0)
  assert np.all(_trained(name, attn_bias_mode='live') != 0)


def test_held_biases_still_decay():
  problem = _problem()
  start = jax.tree.map(jnp.ones_like, problem.start['params']['attn'])
  hparams = small.hparams(
    'neggrad_plus', learning_rate=0.1, momentum=0.0, weight_decay=0.5
  )
  params = {**problem.start['params'], 'attn': start}
  problem = problem.replace(start={**problem.start, 'params': params})
  method = get('neggrad_plus')
  place = small.draws().at('epoch', 0)
  state = method.init(hparams, place, problem)
  state, _ = jax.jit(method.epoch)(hparams, place, problem, state, 0)
  # Three steps over 20 retained examples in batches of 8.
  found = state.variables['params']['attn']['attention_biases']
  np.testing.assert_allclose(found, (1 - 0.1 * 0.5) ** 3, rtol=1e-6)


@pytest.mark.parametrize(
  ('name', 'default', 'measure'),
  [
    ('salun', 'cached', lambda h, p: salun.saliency(h, small.draws(), p)),
    ('ff', 'live', lambda h, p: ff.fisher(h, p)[0]),
    ('iu', 'live', lambda h, p: iu.influence(h, p).step),
  ],
)
def test_gradients_see_them_or_not(name, default, measure):
  other = {'live': 'cached', 'cached': 'live'}[default]
  for mode, values in (
    (default, {}),
    (other, {'attn_bias_mode': other}),
  ):
    found = jax.jit(measure)(small.hparams(name, **values), _problem())
    seen = np.any(weights.by_path(found)[PATH] != 0)
    assert seen == (mode == 'live'), mode
