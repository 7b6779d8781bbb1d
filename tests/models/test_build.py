"""Models are built by name and refuse unknown options."""

import jax
import jax.numpy as jnp
import pytest

from jaxmu import models


def test_models_are_hashable_and_equal_by_value():
  one, two = (models.build('tiny', num_classes=3) for _ in range(2))
  assert hash(one) == hash(two) and one == two
  assert one != models.build('tiny', num_classes=4)


def test_an_unknown_model_is_named():
  with pytest.raises(ValueError, match="'vgg'; choose one of resnet18"):
    models.build('vgg', num_classes=3)


def test_an_unknown_option_is_named():
  with pytest.raises(ValueError, match="no option 'depth'; it has: width"):
    models.build('resnet18', num_classes=3, options={'depth': 50})


@pytest.mark.parametrize(
  ('name', 'option', 'value'),
  [
    ('resnet18', 'stem', 'image_net'),
    ('resnet18', 'width', 0),
    ('resnet18', 'conv', 'fft'),
    ('resnet18', 'num_classes', 1),
    ('tiny', 'conv', 'fft'),
  ],
)
def test_a_bad_value_is_named(name, option, value):
  classes = value if option == 'num_classes' else 3
  options = {} if option == 'num_classes' else {option: value}
  with pytest.raises(ValueError, match=f'{option}.*{value}'):
    models.build(name, num_classes=classes, options=options)


def test_tiny_is_tiny():
  model = models.build('tiny', num_classes=10)
  variables = models.init(model, jax.random.key(0), (8, 8, 3))
  count = sum(x.size for x in jax.tree.leaves(variables['params']))
  assert count < 1_200
  logits, _ = models.apply(model, variables, jnp.ones((4, 8, 8, 3)), train=True)
  assert logits.shape == (4, 10)
