"""The depthwise convolution is the library's grouped one."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxmu.models.conv import depthwise, parts

CHANNELS = 5


def _draw(side, stride):
  rng = np.random.default_rng(side)
  out = (side - 1) // stride + 1
  return (
    jnp.asarray(rng.standard_normal((3, side, side, CHANNELS))),
    jnp.asarray(rng.standard_normal((3, 3, 1, CHANNELS))),
    jnp.asarray(rng.standard_normal((3, out, out, CHANNELS))),
  )


@functools.partial(jax.jit, static_argnums=(0, 1))
def _all(impl, stride, x, kernel, dy):
  y, pull = jax.vjp(
    lambda x, kernel: depthwise.depthwise(
      x, kernel, stride=stride, padding=1, impl=impl
    ),
    x,
    kernel,
  )
  return (y, *pull(dy))


@pytest.mark.parametrize('side', [1, 2, 4, 7])
@pytest.mark.parametrize('stride', [1, 2])
def test_equals_the_grouped_convolution(x64, side, stride):
  arrays = _draw(side, stride)
  for a, b in zip(
    _all('auto', stride, *arrays),
    _all('library', stride, *arrays),
    strict=True,
  ):
    np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10)


def test_slices_of_the_batch_add_up(x64, monkeypatch):
  x, kernel, dy = _draw(4, 1)
  x, dy = (jnp.repeat(a, 4, axis=0) for a in (x, dy))
  x = x * jnp.arange(12.0).reshape(-1, 1, 1, 1)
  monkeypatch.setattr(parts, 'NUMBERS', 2 * 4 * 4 * CHANNELS)
  for a, b in zip(
    _all('auto', 1, x, kernel, dy),
    _all('library', 1, x, kernel, dy),
    strict=True,
  ):
    np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-9)


def test_dead_taps_have_exactly_zero_gradient():
  dkernel = np.asarray(_all('auto', 1, *_draw(1, 1))[2])
  assert np.all(dkernel[1, 1] != 0)
  assert np.sum(np.any(dkernel != 0, axis=(2, 3))) == 1


def test_members_under_vmap_and_map_agree(x64):
  members = jax.tree.map(lambda *a: jnp.stack(a), _draw(4, 1), _draw(4, 1))
  one = lambda member: _all('auto', 1, *member)  # noqa: E731
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10),
    jax.vmap(one)(members),
    lax.map(one, members),
  )


def test_refuses_an_unknown_formulation():
  x, kernel, _ = _draw(2, 1)
  with pytest.raises(ValueError, match='fft'):
    depthwise.depthwise(x, kernel, padding=1, impl='fft')
