"""BatchNorm equals the NumPy formulae of PyTorch's semantics."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmu import platforms
from jaxmu.models import layers
from jaxmu.models.conv import parts

SHAPE = (5, 3, 2, 4)


def _variables(rng):
  draw = lambda: jnp.asarray(rng.standard_normal(SHAPE[-1]))  # noqa: E731
  return {
    'params': {'scale': draw(), 'bias': draw()},
    'batch_stats': {'mean': draw(), 'var': jnp.exp(draw())},
  }


def _apply(variables, x):
  return layers.BatchNorm().apply(
    variables, x, train=True, mutable=['batch_stats']
  )


def test_train_mode(x64):
  rng = np.random.default_rng(0)
  variables = _variables(rng)
  x = 3 + 2 * rng.standard_normal(SHAPE)
  y, changed = _apply(variables, jnp.asarray(x))
  rows = x.reshape(-1, SHAPE[-1])
  params, stats = variables['params'], variables['batch_stats']
  normal = (x - rows.mean(0)) / np.sqrt(rows.var(0) + 1e-5)
  expected = normal * np.asarray(params['scale']) + np.asarray(params['bias'])
  np.testing.assert_allclose(y, expected, rtol=1e-12)
  np.testing.assert_allclose(
    changed['batch_stats']['mean'],
    0.9 * stats['mean'] + 0.1 * rows.mean(0),
    rtol=1e-12,
  )
  np.testing.assert_allclose(
    changed['batch_stats']['var'],
    0.9 * stats['var'] + 0.1 * rows.var(0, ddof=1),
    rtol=1e-12,
  )


def test_eval_mode(x64):
  rng = np.random.default_rng(1)
  variables = _variables(rng)
  x = rng.standard_normal(SHAPE)
  params, stats = jax.tree.map(
    np.asarray, (variables['params'], variables['batch_stats'])
  )
  y = layers.BatchNorm().apply(variables, jnp.asarray(x), train=False)
  normal = (x - stats['mean']) / np.sqrt(stats['var'] + 1e-5)
  np.testing.assert_allclose(
    y, normal * params['scale'] + params['bias'], rtol=1e-12
  )


def test_gradient_flows_through_the_batch_statistics(x64):
  rng = np.random.default_rng(2)
  x = jnp.asarray(rng.standard_normal(SHAPE))
  scale, bias = jnp.asarray(rng.standard_normal((2, SHAPE[-1])))
  weight = jnp.asarray(rng.standard_normal(SHAPE))

  def autodiff(x, scale, bias):
    mean = x.mean((0, 1, 2), keepdims=True)
    var = ((x - mean) ** 2).mean((0, 1, 2), keepdims=True)
    normal = (x - mean) / jnp.sqrt(var + 1e-5)
    spread = lambda a: a.reshape(1, 1, 1, -1)  # noqa: E731
    return (weight * (normal * spread(scale) + spread(bias))).sum()

  def ours(x, scale, bias):
    return (weight * layers.batch_norm(x, scale, bias)[0]).sum()

  over = (0, 1, 2)
  for a, b in zip(
    jax.grad(ours, over)(x, scale, bias),
    jax.grad(autodiff, over)(x, scale, bias),
    strict=True,
  ):
    np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)


def test_running_statistics_take_no_gradient():
  x = jnp.asarray(np.random.default_rng(3).standard_normal(SHAPE))
  scale = jnp.ones(SHAPE[-1])
  gradient = jax.grad(
    lambda x: sum(part.sum() for part in layers.batch_norm(x, scale, scale)[1:])
  )(x)
  np.testing.assert_array_equal(gradient, jnp.zeros_like(x))


def test_large_means_do_not_spoil_the_variance():
  x = 1000 + np.random.default_rng(4).standard_normal((64, 1, 1, 2))
  x = x.astype(np.float32)
  var = layers.batch_norm(jnp.asarray(x), jnp.ones(2), jnp.zeros(2))[2]
  np.testing.assert_allclose(
    var, x.astype(np.float64).var((0, 1, 2)), rtol=1e-5
  )


def test_one_value_per_channel_is_refused_at_trace_time():
  variables = _variables(np.random.default_rng(5))
  with pytest.raises(ValueError, match='one example'):
    jax.eval_shape(_apply, variables, jnp.zeros((1, 1, 1, SHAPE[-1])))


def test_sums_in_slices_add_up(x64, monkeypatch):
  rng = np.random.default_rng(2)
  shape = (48, 2, 2, 4)
  x, dy = (jnp.asarray(rng.standard_normal(shape)) for _ in range(2))
  params = _variables(rng)['params']

  def all_of(x, scale, bias):
    outputs, pull = jax.vjp(layers.batch_norm, x, scale, bias)
    zero = jnp.zeros_like(scale)
    return *outputs, *pull((dy, zero, zero))

  arguments = (5 + x, params['scale'], params['bias'])
  whole = all_of(*arguments)
  monkeypatch.setattr(layers, '_SLICED', 0)
  monkeypatch.setattr(parts, 'NUMBERS', 16 * 2 * 2 * 4)
  with platforms.target('cpu'):
    sliced = all_of(*arguments)
  for a, b in zip(sliced, whole, strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10)
