"""GELU and its slope are the exact ones."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

from jaxmu.models import layers


def test_equals_the_normal_distribution_function(x64):
  x = np.linspace(-6, 6, 49)
  np.testing.assert_allclose(
    layers.gelu(jnp.asarray(x)), x * special.ndtr(x), rtol=1e-12, atol=1e-15
  )


def test_slope_equals_the_product_rule(x64):
  x = np.linspace(-6, 6, 49)
  density = np.exp(-x * x / 2) / np.sqrt(2 * np.pi)
  slope = jax.vmap(jax.grad(layers.gelu))(jnp.asarray(x))
  np.testing.assert_allclose(
    slope, special.ndtr(x) + x * density, rtol=1e-12, atol=1e-15
  )


def test_keeps_half_precision():
  assert layers.gelu(jnp.ones(2, jnp.bfloat16)).dtype == jnp.bfloat16
