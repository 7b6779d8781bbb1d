"""The contract check passes the built-in models and says what others break."""

import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from jaxmu import models, testing

# Smaller networks and images than the defaults, to save time.
SMALL = {
  'resnet18': ({'width': 2}, (8, 8, 3)),
  'tiny': ({}, (8, 8, 3)),
  'vit11m': ({'widths': (4, 32, 32, 64), 'depths': (1, 1, 1, 1)}, (32, 32, 3)),
}


@pytest.mark.parametrize('name', models.MODELS)
def test_built_in_models_keep_it(name):
  options, image_shape = SMALL.get(name, ({}, (32, 32, 3)))
  testing.check_model(
    name, image_shape=image_shape, num_classes=3, options=options
  )
  model = models.build(name, num_classes=3, options=options)
  assert model.num_classes == 3


def test_the_table_of_models_says_where_each_comes_from():
  rows = repr(models.MODELS).splitlines()
  assert len(rows) == len(models.MODELS)
  assert all(re.search(r'\(.+\), images: ', row) for row in rows)
  cards = [model.card for model in models.MODELS.values()]
  assert all(isinstance(card, models.Card) and all(card[:3]) for card in cards)


class Net(nn.Module):
  """Breaks the contract in a named way; keeps it by default."""

  fault: str = ''
  deterministic: bool = True

  @nn.compact
  def __call__(self, x):
    train = not self.deterministic and self.fault != 'ignores the mode'
    if self.fault == 'mixes examples':
      x = x - x.mean((0, 1, 2), keepdims=True)
    x = nn.Conv(4, (3, 3), strides=2)(x)
    x = nn.relu(nn.BatchNorm(use_running_average=not train)(x))
    x = nn.Dense(4)(x.mean((1, 2)))
    if self.fault == 'nan':
      x = jnp.sqrt(x - x)
    if self.fault == 'one answer':
      x = jnp.ones_like(x)
    if self.fault == 'overflows':
      x = x / 0
    if self.fault == 'no classifier gradient':
      return jax.lax.stop_gradient(nn.Dense(3)(x)) + 0 * x[:, :3]
    zeros = nn.initializers.zeros
    init = zeros if self.fault == 'zero head' else nn.initializers.ones
    return nn.Dense(3, kernel_init=init)(x)


class Same(nn.Module):
  @nn.compact
  def __call__(self, x):
    x = nn.Dense(4, kernel_init=nn.initializers.ones)(x.mean((1, 2)))
    return nn.Dense(3, kernel_init=nn.initializers.ones)(x)


class Nnx(nnx.Module):
  def __init__(self, num_classes, *, rngs):
    self.conv = nnx.Conv(3, 4, (3, 3), rngs=rngs)
    self.norm = nnx.BatchNorm(4, rngs=rngs)
    self.body = nnx.Linear(4, 4, rngs=rngs)
    self.drop = nnx.Dropout(0.5, rngs=rngs)
    self.head = nnx.Linear(4, num_classes, rngs=rngs)

  def __call__(self, x):
    x = nnx.relu(self.norm(self.conv(x))).mean((1, 2))
    return self.head(self.drop(nnx.relu(self.body(x))))


def _check(spec):
  testing.check_model(spec, image_shape=(8, 8, 3), num_classes=3)


def test_custom_networks_can_keep_it():
  for network in (Net(), Nnx):
    _check(network)
    built = models.build(network, image_shape=(8, 8, 3), num_classes=3)
    assert built.num_classes == 3


BREACHES = [
  (Net('ignores the mode'), 'train mode does not change its statistics'),
  (Net('mixes examples'), 'depend on the other images'),
  (Net('nan'), 'gradients are not finite'),
  (Net('overflows'), 'logits are not finite'),
  (Net('one answer'), 'gives all images the same logits'),
  (Net('no classifier gradient'), 'its classifier has no gradient'),
  (Same(), 'two keys draw the same parameters'),
  (nn.Dense(3), 'is not a linear layer|maps images'),
]


def test_each_breach_is_said_in_a_sentence():
  wrong = []
  for network, sentence in BREACHES:
    try:
      _check(network)
      wrong.append(f'accepted: {sentence}')
    except (ValueError, testing.ContractError) as error:
      if not re.search(sentence, str(error)):
        wrong.append(f'{sentence}: {error}')
  assert not wrong
