"""Max-pooling equals the window-by-window definition, ties included."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmu import platforms
from jaxmu.models import layers


def _naive(x, dy):
  """Maximum and gradient, one window after the other."""
  batch, height, width, channels = x.shape
  y = np.empty_like(dy)
  dx = np.zeros_like(x)
  for b, i, j, c in np.ndindex(*dy.shape):
    best, place = -np.inf, None
    for h in range(max(2 * i - 1, 0), 2 * i + 2):
      for w in range(max(2 * j - 1, 0), 2 * j + 2):
        if x[b, h, w, c] > best:
          best, place = x[b, h, w, c], (h, w)
    y[b, i, j, c] = best
    dx[b, place[0], place[1], c] += dy[b, i, j, c]
  return y, dx


@pytest.mark.parametrize('shape', [(2, 8, 8, 3), (1, 2, 2, 4), (2, 4, 6, 1)])
@pytest.mark.parametrize('ties', [False, True])
@pytest.mark.parametrize('platform', ['cpu', 'tpu'])
def test_equals_the_naive_loop(x64, shape, ties, platform):
  rng = np.random.default_rng(0)
  x = rng.standard_normal(shape)
  if ties:
    x = np.maximum(np.round(x), 0)
  dy = rng.standard_normal((shape[0], shape[1] // 2, shape[2] // 2, shape[3]))
  y, dx = _naive(x, dy)
  with platforms.target(platform):
    ours, pull = jax.vjp(layers.max_pool, jnp.asarray(x))
  np.testing.assert_array_equal(ours, y)
  np.testing.assert_allclose(pull(jnp.asarray(dy))[0], dx, rtol=0, atol=1e-12)


def test_members_under_vmap_and_map_agree():
  x = jax.random.normal(jax.random.key(0), (3, 2, 4, 4, 2))
  gradient = jax.grad(lambda x: (layers.max_pool(x) ** 2).sum())
  np.testing.assert_array_equal(jax.vmap(gradient)(x), jax.lax.map(gradient, x))


def test_refuses_odd_maps():
  with pytest.raises(ValueError, match='got 7x8'):
    layers.max_pool(jnp.zeros((1, 7, 8, 1)))
