"""The product of a linear layer, with a gradient that transposes less.

The gradient of the weights is a product over all examples, for which one factor
must be transposed first. On CPU XLA transposes the left one, the layer's input,
which may be four times as large as the other.
"""

import jax
from jax import lax

from jaxmu.types import Array


@jax.custom_vjp
def product(
  x: Array,  # f[..., C]
  kernel: Array,  # f[C, K]
) -> Array:  # f[..., K]
  """Multiply the last axis by a matrix of the same dtype."""
  return lax.dot_general(x, kernel, (((x.ndim - 1,), (0,)), ((), ())))


def _forward(x, kernel):
  return product(x, kernel), (x, kernel)


def _backward(saved, dy):
  x, kernel = saved
  dx = lax.dot_general(dy, kernel, (((dy.ndim - 1,), (1,)), ((), ())))
  return dx, weight_gradient(x, dy)


product.defvjp(_forward, _backward)


def weight_gradient(
  x: Array,  # f[..., C]
  dy: Array,  # f[..., K]
) -> Array:  # f[C, K]
  """Sum the outer products of inputs and output gradients over all examples."""
  over = tuple(range(x.ndim - 1))
  if x.shape[-1] <= dy.shape[-1] or jax.default_backend() != 'cpu':
    return lax.dot_general(x, dy, ((over, over), ((), ())))
  slopes = lax.optimization_barrier(dy.reshape(-1, dy.shape[-1]).T)
  x = x.reshape(-1, x.shape[-1])
  # Without the barriers XLA swaps the factors back.
  return lax.optimization_barrier(slopes @ x).T
