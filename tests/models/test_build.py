"""Models are built by name and refuse unknown options."""

import jax
import jax.numpy as jnp
import pytest

from jaxmu import models, plugins


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
    ('resnet18', 'dtype', 3),
    ('tiny', 'dtype', 'x'),
    ('tiny', 'dtype', 'int32'),
    *(('tiny', 'width', value) for value in (2.5, 'x', True, None, 10**7)),
    *(('vit11m', 'widths', value) for value in (3, 'x', None)),
    *(('vit11m', 'depths', value) for value in (3, {})),
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


NET = """
import flax.linen as nn

class Net(nn.Module):
  num_classes: int
  width: int = 4

  @nn.compact
  def __call__(self, x):
    x = nn.relu(nn.Conv(self.width, (3, 3))(x)).mean((1, 2))
    return nn.Dense(self.num_classes)(x)

MODEL = Net
"""


def test_a_plug_in_is_named_by_its_file(tmp_path):
  path = tmp_path / 'my_net.py'
  path.write_text(NET)
  build = lambda spec, **options: models.build(  # noqa: E731
    spec, num_classes=3, image_shape=(8, 8, 3), options=options
  )
  model = build(f'{path}:Net', width=5)
  assert model == build(str(path), width=5) != build(str(path))
  assert [layer.path for layer in model.layers] == ['Conv_0', 'Dense_0']
  assert build(model) is model
  with pytest.raises(ValueError, match="Net has no option 'depth'; it has: wi"):
    build(str(path), depth=3)
  with pytest.raises(ValueError, match='give image_shape='):
    models.build(str(path), num_classes=3)
  with pytest.raises(ValueError, match='already built with num_classes = 3'):
    models.build(model, num_classes=4)


def test_the_fingerprint_follows_code_and_settings(tmp_path):
  path = tmp_path / 'my_net.py'
  path.write_text(NET)
  module = plugins.load_file(str(path))
  first = models.fingerprint(f'{path}:Net')
  assert models.fingerprint('tiny') == ''
  assert models.fingerprint(module.Net) == first
  assert models.fingerprint(module.Net(3, 4)) != models.fingerprint(
    module.Net(3, 5)
  )
  path.write_text(NET.replace('relu', 'gelu'))
  assert models.fingerprint(f'{path}:Net') != first
