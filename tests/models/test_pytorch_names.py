"""Our variables and PyTorch's state dicts convert into each other."""

import jax
import numpy as np
import pytest

from jaxmu import models
from jaxmu.models import pytorch_names


def _model_and_variables(name):
  model = models.build(name, num_classes=10)
  shapes = jax.eval_shape(
    lambda key: models.init(model, key, (32, 32, 3)), jax.random.key(0)
  )
  rng = np.random.default_rng(0)
  return model, jax.tree.map(
    lambda x: rng.standard_normal(x.shape, np.float32), shapes
  )


def test_the_names_are_a_bijection():
  for name in models.MODELS:
    model, variables = _model_and_variables(name)
    state = pytorch_names.to_torch(model, variables)
    back = pytorch_names.from_torch(model, state)
    jax.tree.map(np.testing.assert_array_equal, back, variables)
    assert list(state) == [leaf.torch for leaf in pytorch_names.leaves(model)]
    assert len(pytorch_names.parameters(model)) == len(
      jax.tree.leaves(variables['params'])
    )


def test_resnet_names_and_layouts():
  model, variables = _model_and_variables('resnet18')
  state = pytorch_names.to_torch(model, variables)
  assert list(state)[:6] == [
    'conv1.weight',
    'bn1.weight',
    'bn1.bias',
    'bn1.running_mean',
    'bn1.running_var',
    'layer1.0.conv1.weight',
  ]
  params = variables['params']
  assert state['conv1.weight'].shape == (64, 3, 7, 7)
  assert (
    state['conv1.weight'][5, 2, 1, 6] == params['conv1']['kernel'][1, 6, 2, 5]
  )
  assert state['fc.weight'][3, 7] == params['fc']['kernel'][7, 3]
  assert state['layer2.0.downsample.0.weight'].shape == (128, 64, 1, 1)
  np.testing.assert_array_equal(
    state['layer4.1.bn2.running_var'],
    variables['batch_stats']['layer4_1']['bn2']['var'],
  )


def test_counters_of_batches_are_ignored():
  model, variables = _model_and_variables('tiny')
  state = pytorch_names.to_torch(model, variables)
  state['bn1.num_batches_tracked'] = np.array(3)
  pytorch_names.from_torch(model, state)


def test_a_missing_tensor_is_named():
  model, variables = _model_and_variables('tiny')
  state = pytorch_names.to_torch(model, variables)
  del state['fc.bias']
  with pytest.raises(ValueError, match='fc.bias'):
    pytorch_names.from_torch(model, state)


def test_variables_of_another_model_are_refused():
  model, _ = _model_and_variables('resnet18')
  _, variables = _model_and_variables('tiny')
  with pytest.raises(ValueError, match='another model'):
    pytorch_names.to_torch(model, variables)
