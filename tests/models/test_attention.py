"""Pad-free attention equals window attention with pads in a naive loop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmu.models import tiny_vit

HEADS = 2
CHANNELS = HEADS * tiny_vit.HEAD
# Side of the map and of the window: fewer tokens than a window, exactly one,
# several whole windows, and a border of incomplete ones.
CASES = [(4, 7), (2, 14), (1, 7), (3, 3), (4, 2), (5, 3)]


def _module_and_params(side, window, form):
  module = tiny_vit.Attention(HEADS, window, form)
  shapes = jax.eval_shape(
    module.init, jax.random.key(0), jnp.zeros((1, side, side, CHANNELS))
  )
  rng = np.random.default_rng(side * 100 + window)
  params = jax.tree.map(
    lambda x: jnp.asarray(0.3 * rng.standard_normal(x.shape)), shapes
  )
  return (
    module,
    params,
    jnp.asarray(rng.standard_normal((2, side, side, CHANNELS))),
  )


def _naive(variables, x, window):
  """One window, head and query after the other, on the padded map."""
  p = jax.tree.map(np.asarray, variables['params'])
  side = x.shape[1]
  size = side + -side % window
  tokens = np.zeros((x.shape[0], size, size, CHANNELS))
  tokens[:, :side, :side] = x
  mean = tokens.mean(-1, keepdims=True)
  normal = (tokens - mean) / np.sqrt(tokens.var(-1, keepdims=True) + 1e-5)
  normal = normal * p['norm']['scale'] + p['norm']['bias']
  qkv = normal @ p['qkv']['kernel'] + p['qkv']['bias']
  out = np.zeros_like(tokens)
  for b, row, column, head in np.ndindex(*tokens.shape[:3], HEADS):
    top, left = row - row % window, column - column % window
    part = qkv[b, top : top + window, left : left + window]
    part = part[..., 96 * head : 96 * (head + 1)].reshape(-1, 96)
    q = qkv[b, row, column, 96 * head : 96 * head + 32]
    logits = part[:, 32:64] @ q / np.sqrt(32)
    for j in range(window**2):
      rows = abs(row - top - j // window)
      columns = abs(column - left - j % window)
      logits[j] += p['attention_biases'][head, rows * window + columns]
    weights = np.exp(logits - logits.max())
    value = weights @ part[:, 64:] / weights.sum()
    out[b, row, column, 32 * head : 32 * (head + 1)] = value
  out = out @ p['proj']['kernel'] + p['proj']['bias']
  return out[:, :side, :side]


@pytest.mark.parametrize('form', tiny_vit.FORMS)
@pytest.mark.parametrize(('side', 'window'), CASES)
def test_equals_the_naive_loop(x64, side, window, form):
  module, params, x = _module_and_params(side, window, form)
  np.testing.assert_allclose(
    jax.jit(module.apply)(params, x),
    _naive(params, np.asarray(x), window),
    rtol=1e-10,
    atol=1e-12,
  )


@pytest.mark.parametrize(('side', 'window'), CASES)
def test_gradients_equal_those_of_the_padded_form(x64, side, window):
  gradients = []
  for form in tiny_vit.FORMS:
    module, params, x = _module_and_params(side, window, form)
    loss = lambda params, x, module=module: (  # noqa: E731
      module.apply(params, x) ** 2
    ).sum()
    gradients.append(jax.jit(jax.grad(loss, (0, 1)))(params, x))
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10),
    *gradients,
  )


def test_biases_of_pads_take_part(x64):
  module, params, x = _module_and_params(1, 7, 'padfree')
  gradient = jax.grad(lambda p: (module.apply(p, x) ** 2).sum())(params)
  assert np.all(np.asarray(gradient['params']['attention_biases']) != 0)
