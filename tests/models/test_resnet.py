"""ResNet-18 has the published shapes, initialisation and behaviour."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmu import models
from jaxmu.models import resnet

SMALL = {'width': 2}
IMAGE = (32, 32, 3)


def _build(classes=10, **options):
  return models.build('resnet18', num_classes=classes, options=options)


def _shapes(model, image=IMAGE):
  return jax.eval_shape(
    lambda key: models.init(model, key, image), jax.random.key(0)
  )


def _count(tree):
  return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def test_parameter_counts():
  for classes, side in itertools.product((5, 10, 100), (32, 224)):
    shapes = _shapes(_build(classes), (side, side, 3))
    assert _count(shapes['params']) == 11_176_512 + 513 * classes
    assert len(jax.tree.leaves(shapes['params'])) == 62
    assert _count(shapes['batch_stats']) == 2 * 4_800


def test_parameter_counts_of_groups():
  params = _shapes(_build())['params']
  groups = {}
  for name, part in params.items():
    group = name.split('_')[0]
    groups[group] = groups.get(group, 0) + _count(part)
  assert groups == {
    'conv1': 9_408,
    'bn1': 128,
    'layer1': 147_968,
    'layer2': 525_568,
    'layer3': 2_099_712,
    'layer4': 8_393_728,
    'fc': 5_130,
  }


def test_initial_distributions():
  params = models.init(_build(width=16), jax.random.key(0), IMAGE)['params']
  kernel = np.asarray(params['layer4_1']['conv2']['kernel'])
  deviation = math.sqrt(2 / (128 * 9))
  np.testing.assert_allclose(kernel.std(), deviation, rtol=0.02)
  # Not truncated: 147,456 normal draws reach beyond four deviations.
  assert np.abs(kernel).max() > 4 * deviation
  bound = 1 / math.sqrt(128)
  for leaf in jax.tree.leaves(params['fc']):
    assert np.abs(leaf).max() <= bound
  np.testing.assert_allclose(
    np.asarray(params['fc']['kernel']).std(), bound / math.sqrt(3), rtol=0.05
  )
  assert np.abs(params['fc']['bias']).max() > 0.2 * bound
  np.testing.assert_array_equal(params['bn1']['scale'], 1)
  np.testing.assert_array_equal(params['bn1']['bias'], 0)


def _loss_and_gradient(model, variables, images):
  def loss(params):
    logits, stats = models.apply(
      model, variables | {'params': params}, images, train=True
    )
    return (logits**2).sum(), stats

  return jax.value_and_grad(loss, has_aux=True)(variables['params'])


def test_formulations_agree_on_the_whole_network(x64):
  images = jax.random.normal(jax.random.key(1), (3, 16, 16, 3))
  results = []
  for impl in ('auto', 'patches'):
    model = _build(3, conv=impl, **SMALL)
    variables = models.init(model, jax.random.key(0), (16, 16, 3))
    results.append(
      jax.jit(lambda v, model=model: _loss_and_gradient(model, v, images))(
        variables
      )
    )
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-10),
    *results,
  )


def test_follows_the_dtype_of_the_variables(x64):
  model = _build(3, **SMALL)
  variables = models.init(model, jax.random.key(0), IMAGE)
  single = jax.tree.map(lambda x: x.astype(jnp.float32), variables)
  images = jnp.ones((2, *IMAGE), jnp.float32)
  for state, dtype in ((variables, jnp.float64), (single, jnp.float32)):
    logits, stats = jax.eval_shape(
      lambda v: models.apply(model, v, images, train=True), state
    )
    dtypes = {x.dtype for x in jax.tree.leaves((logits, stats))}
    assert dtypes == {jnp.dtype(dtype)}


def test_bfloat16_keeps_single_precision_weights_and_statistics():
  model = _build(3, dtype='bfloat16', **SMALL)
  images = jnp.ones((8, *IMAGE))
  shapes = jax.eval_shape(
    lambda v: _loss_and_gradient(model, v, images), _shapes(model)
  )
  assert {x.dtype for x in jax.tree.leaves(shapes)} == {jnp.dtype('float32')}


def test_bfloat16_block_is_close_to_the_single_precision_one():
  x = jax.random.normal(jax.random.key(1), (8, 4, 4, 3))
  single, half = (
    resnet.BasicBlock(4, 2, 'auto', dtype) for dtype in (None, 'bfloat16')
  )
  variables = single.init(jax.random.key(0), x, train=False)
  expected, y = (
    block.apply(variables, x, train=True, mutable=['batch_stats'])[0]
    for block in (single, half)
  )
  assert y.dtype == jnp.bfloat16
  np.testing.assert_allclose(
    y.astype(jnp.float32), expected, rtol=0.05, atol=0.05
  )


def test_eval_mode_changes_no_statistics():
  model = models.build('tiny', num_classes=3)
  variables = models.init(model, jax.random.key(0), IMAGE)
  images = jnp.ones((2, *IMAGE))
  for train in (False, True):
    _, stats = jax.jit(
      lambda v, train=train: models.apply(model, v, images, train=train)
    )(variables)
    same = jax.tree.map(jnp.array_equal, stats, variables['batch_stats'])
    assert jax.tree.all(same) != train


def test_a_train_batch_of_one_is_refused_on_small_images():
  model = _build(3, **SMALL)
  with pytest.raises(ValueError, match='batch size'):
    jax.eval_shape(
      lambda v: models.apply(model, v, jnp.ones((1, *IMAGE)), train=True),
      _shapes(model),
    )


def test_blocks_cover_all_parameters_once():
  for name in models.MODELS:
    model = models.build(name, num_classes=3)
    blocks = model.blocks
    parts = [
      *blocks.stem,
      *(part for block in blocks.body for part in block),
      *blocks.neck,
      *blocks.classifier,
    ]
    assert len(parts) == len(set(parts))
    assert set(parts) == set(_shapes(model)['params'])
    assert set(blocks.stem_conv) <= set(blocks.stem)
