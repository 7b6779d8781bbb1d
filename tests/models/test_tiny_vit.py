"""TinyViT-11M has the published shapes, initialisation and dropped paths."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmu import models
from jaxmu.models import pytorch_names, tiny_vit

# Its tests share compiled steps.
pytestmark = pytest.mark.xdist_group('vit11m')

IMAGE = (32, 32, 3)
SMALL = {'widths': (4, 32, 32, 64), 'depths': (1, 1, 1, 1)}


def _build(classes=10, **options):
  return models.build('vit11m', num_classes=classes, options=options)


def _shapes(model, side=32):
  return jax.eval_shape(
    lambda key: models.init(model, key, (side, side, 3)), jax.random.key(0)
  )


def _count(tree):
  return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def test_parameter_counts():
  for classes, side in ((5, 224), (10, 32), (1000, 64)):
    shapes = _shapes(_build(classes), side)
    assert _count(shapes['params']) == 10_547_972 + 449 * classes
    assert len(jax.tree.leaves(shapes['params'])) == 215


def test_parameter_counts_of_groups():
  params = _shapes(_build())['params']
  assert {name: _count(part) for name, part in params.items()} == {
    'patch_embed': 19_488,
    'stage0': 98_944,
    'stage1': 501_896,
    'stage2': 5_086_976,
    'stage3': 4_839_772,
    'norm_head': 896,
    'head': 4_490,
  }
  merges = [_count(params[f'stage{i}']['downsample']) for i in range(3)]
  assert merges == [26_496, 102_144, 322_112]


def test_kinds_of_tensors():
  leaves = pytorch_names.parameters(_build())
  assert sum('bn' in leaf.torch for leaf in leaves) == 54
  kinds = [leaf.kind for leaf in leaves]
  assert kinds.count('conv') + kinds.count('depthwise') == 27


def test_initial_distributions():
  model = _build(depths=(2, 1, 1, 1))
  params = models.init(model, jax.random.key(0), IMAGE)['params']
  block = params['stage3']['block0']
  kernel = np.asarray(block['mlp']['fc1']['kernel'])
  np.testing.assert_allclose(kernel.std(), 0.02, rtol=0.01)
  np.testing.assert_array_equal(block['mlp']['fc1']['bias'], 0)
  np.testing.assert_array_equal(block['attn']['attention_biases'], 0)
  np.testing.assert_array_equal(
    params['stage0']['block1']['conv3']['bn']['scale'], 0
  )
  np.testing.assert_array_equal(
    params['stage0']['block1']['conv1']['bn']['scale'], 1
  )
  for kernel, fan_in in (
    (block['local_conv']['conv']['kernel'], 9),
    (params['patch_embed']['conv2']['conv']['kernel'], 32 * 9),
    (params['stage2']['downsample']['conv3']['conv']['kernel'], 448),
  ):
    kernel, bound = np.asarray(kernel), 1 / math.sqrt(fan_in)
    assert np.abs(kernel).max() <= bound
    np.testing.assert_allclose(kernel.std(), bound / math.sqrt(3), rtol=0.03)


def test_paths_are_dropped_in_network_order(monkeypatch):
  seen = []

  def watch(x, noise, rate):
    seen.append((noise is not None, round(rate * 110)))
    return x

  model = _build()
  shapes = _shapes(model)  # before the watch, which would see this trace too
  monkeypatch.setattr(tiny_vit, '_keep', watch)
  images = jnp.zeros((2, *IMAGE))

  def forward(variables):
    noise = jnp.zeros((21, 2))
    return models.apply(model, variables, images, train=True, drop_path=noise)

  jax.eval_shape(forward, shapes)
  expected = [(False, 0), (True, 1)]
  for block in range(2, 12):
    expected += [(True, block)] * 2
  assert seen == expected


def test_a_dropped_path_is_zero_and_the_others_grow():
  x = jnp.ones((3, 2, 2, 1))
  y = tiny_vit._keep(x, jnp.array([0.05, 0.1, 0.99]), 0.1)
  np.testing.assert_allclose(y[:, 0, 0, 0], [0, 1 / 0.9, 1 / 0.9], rtol=1e-6)
  assert tiny_vit._keep(x, None, 0.1) is x


@pytest.mark.parametrize('shape', [None, (20, 2), (21, 3)])
def test_missing_draws_are_refused(shape):
  model = _build()
  noise = None if shape is None else jnp.zeros(shape)
  with pytest.raises(ValueError, match=r'shape \(21, 2\)'):
    models.apply(model, {}, jnp.zeros((2, *IMAGE)), train=True, drop_path=noise)


def test_other_sides_are_refused():
  with pytest.raises(ValueError, match='multiples of 32, got 28x28'):
    _shapes(_build(), 28)


@pytest.mark.parametrize(
  'option',
  [
    {'padfree_attention': 'flash'},
    {'conv': 'fft'},
    {'width': 3},
    {'widths': (8, 32, 32, 48)},
    {'widths': (8, 32, 32)},
    {'depths': (0, 1, 1, 1)},
  ],
)
def test_bad_options_are_refused(option):
  with pytest.raises(ValueError, match=next(iter(option))):
    _build(**option)


def test_bfloat16_keeps_single_precision_weights_and_statistics():
  model = _build(dtype='bfloat16')
  images = jnp.ones((2, *IMAGE))

  def loss(params, stats):
    logits, stats = models.apply(
      model,
      {'params': params, 'batch_stats': stats},
      images,
      train=True,
      drop_path=jnp.ones((21, 2)),
    )
    return logits.sum(), stats

  shapes = _shapes(model)
  found = jax.eval_shape(
    jax.value_and_grad(loss, has_aux=True),
    shapes['params'],
    shapes['batch_stats'],
  )
  assert {x.dtype for x in jax.tree.leaves(found)} == {jnp.dtype('float32')}


def _member(model, side, seed=0):
  """Variables without zeros or ones, images and draws."""
  rng = np.random.default_rng(seed)
  shapes = _shapes(model, side)
  variables = jax.tree.map(
    lambda x: jnp.asarray(0.2 * rng.standard_normal(x.shape)), shapes
  )
  variables['batch_stats'] = jax.tree.map(
    lambda x: 1 + x**2, variables['batch_stats']
  )
  images = jnp.asarray(rng.standard_normal((3, side, side, 3)))
  return variables, images, jnp.asarray(rng.random((model.num_drop_paths, 3)))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _step(model, train, member):
  """Return logits, new statistics and the gradient of a sum of squares."""
  variables, images, noise = member

  def loss(params):
    logits, stats = models.apply(
      model,
      {**variables, 'params': params},
      images,
      train=train,
      drop_path=noise if train else None,
    )
    return (logits**2).sum(), (logits, stats)

  return jax.grad(loss, has_aux=True)(variables['params'])


def _assert_close(found, expected):
  # A bias right before BatchNorm has no gradient but rounding; compare all
  # leaves on the scale of the largest.
  top = max(np.abs(leaf).max() for leaf in jax.tree.leaves(expected))
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-12 * top),
    found,
    expected,
  )


@pytest.mark.parametrize(('side', 'train'), [(32, True), (64, False)])
def test_without_pads_the_network_is_the_same(x64, side, train):
  model = _build(**SMALL)
  member = _member(model, side)
  found = _step(model, train, member)
  _assert_close(
    found, _step(_build(padfree_attention=False, **SMALL), train, member)
  )
  for index in (1, 2, 3):  # each window is larger than its map or cuts it
    bias = found[0][f'stage{index}']['block0']['attn']['attention_biases']
    assert np.count_nonzero(bias) > 0.5 * bias.size


def test_formulations_agree_on_the_whole_network(x64):
  model = _build(**SMALL)
  member = _member(model, 32)
  found = _step(_build(conv='library', **SMALL), True, member)
  _assert_close(found, _step(model, True, member))


def test_members_under_vmap_agree_with_one_at_a_time(x64):
  model = _build(**SMALL)
  members = [_member(model, 32, seed) for seed in range(2)]
  stacked = jax.tree.map(lambda *a: jnp.stack(a), *members)
  together = jax.vmap(functools.partial(_step, model, True))(stacked)
  alone = [_step(model, True, member) for member in members]
  _assert_close(together, jax.tree.map(lambda *a: jnp.stack(a), *alone))


def test_sizes_may_be_lists():
  model = _build(widths=[4, 32, 32, 64], depths=[1, 1, 2, 1])
  assert hash(model) == hash(
    _build(widths=(4, 32, 32, 64), depths=(1, 1, 2, 1))
  )
  assert model.num_drop_paths == 8
  assert len(jax.tree.leaves(_shapes(model)['params'])) == len(
    pytorch_names.parameters(model)
  )
