"""The product of a linear layer has the gradients of a plain one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmu.models.conv import products


@pytest.mark.parametrize('shape', [(6, 3, 4), (6, 4, 3), (6, 1, 5), (6, 5, 1)])
def test_equals_the_sum_of_outer_products(x64, shape):
  count, inputs, outputs = shape
  rng = np.random.default_rng(0)
  x = rng.standard_normal((2, count // 2, inputs))
  kernel = rng.standard_normal((inputs, outputs))
  dy = rng.standard_normal((2, count // 2, outputs))
  y, pull = jax.vjp(products.product, jnp.asarray(x), jnp.asarray(kernel))
  dx, dkernel = pull(jnp.asarray(dy))
  flat = x.reshape(count, inputs), dy.reshape(count, outputs)
  outer = sum(np.outer(a, b) for a, b in zip(*flat, strict=True))
  np.testing.assert_allclose(y, x @ kernel, rtol=1e-12)
  np.testing.assert_allclose(dkernel, outer, rtol=1e-12)
  np.testing.assert_allclose(dx, dy @ kernel.T, rtol=1e-12)
