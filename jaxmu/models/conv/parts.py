"""What several formulations share: the gradient rule, taps, slices, products.

On CPU a layer that makes larger arrays than it reads (patches, tiles) is
limited by memory bandwidth, unless the batch is processed in slices whose
arrays fit the cache. On other platforms a batch is one slice.

The gradient of weights is a product over all examples, for which one factor
must be transposed first. On CPU XLA transposes the left one, the layer's input,
which may be four times as large as the other; here the smaller one is.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxmu import platforms
from jaxmu.types import Array

# x f[B, H, W, C], kernel f[h, w, C, K], stride, padding, input_grad
# -> f[B, Ho, Wo, K]
Convolution = Callable[[Array, Array, int, int, bool], Array]

# Numbers in a slice of images; the cache also holds the arrays made of them.
NUMBERS = 2**17
_LARGE = 32**2  # pixels; the patches of a batch of larger maps fit no cache

_TRANSPOSED = 8  # images that are transposed at once


def with_gradient(
  forward: Callable[..., tuple[Array, Any]],
  backward: Callable[..., tuple[Array, Array]],
) -> Convolution:
  """Return a formulation for `jaxmu.models.conv.choose.conv`.

  Args:
    forward: takes the arguments of `Convolution` and returns its result, and
      whatever `backward` needs.
    backward: takes stride, padding, input_grad, what `forward` kept, and the
      gradient of the result; returns those of `x` and of `kernel`. Without
      `input_grad` the first one is zero.
  """

  @functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
  def conv(x, kernel, stride, padding, input_grad):
    return forward(x, kernel, stride, padding, input_grad)[0]

  def convolve(
    x: Array, kernel: Array, stride: int, padding: int, input_grad: bool
  ) -> Array:
    return conv(x, kernel, stride, padding, input_grad)

  conv.defvjp(forward, backward)
  return convolve


def barrier(arrays: Any) -> Any:
  """Keep XLA from fusing the operations before and after, but not on a TPU.

  A TPU's compiler fuses normalisation, activation and addition into
  convolutions, which saves passes over memory.
  """
  if platforms.name() == 'tpu':
    return arrays
  return lax.optimization_barrier(arrays)


def num_outputs(size: int, taps: int, stride: int, padding: int) -> int:
  """Return the number of outputs along an axis of `size` pixels."""
  return (size + 2 * padding - taps) // stride + 1


def live_taps(size: int, taps: int, stride: int, padding: int) -> range:
  """Return the taps of one axis that meet a real pixel for some output.

  They are consecutive: a tap `t` reads pixels `t - padding + stride * o`.
  """
  outputs = range(num_outputs(size, taps, stride, padding))
  live = [
    tap
    for tap in range(taps)
    if any(0 <= tap - padding + stride * o < size for o in outputs)
  ]
  return range(live[0], live[-1] + 1)


def live_window(
  x: Array, kernel: Array, stride: int, padding: int
) -> tuple[range, range]:
  """Return the live taps of both axes."""
  rows, columns = (
    live_taps(x.shape[1 + i], kernel.shape[i], stride, padding)
    for i in range(2)
  )
  return rows, columns


def pad(
  x: Array, rows: tuple[int, int, int], columns: tuple[int, int, int]
) -> Array:
  """Pad maps f[B, H, W, C] with zeros: below, above, and between entries."""
  zero = jnp.zeros((), x.dtype)
  return lax.pad(x, zero, ((0, 0, 0), rows, columns, (0, 0, 0)))


def too_large(shape: Sequence[int]) -> bool:
  """Whether patches of maps f[B, H, W, C] are made in slices of the batch."""
  return platforms.is_cpu() and shape[1] * shape[2] > _LARGE


def images_per_slice(shape: Sequence[int]) -> int:
  """Return how many images of f[B, H, W, C] make a slice, at least one."""
  return max(1, NUMBERS // math.prod(shape[1:]))


def split_batch(x: Array, most: int) -> Array:
  """Split f[B, ...] into slices f[n, B / n, ...] of at most `most` images.

  The batch stays one slice on other platforms than CPU, and if every divisor of
  B gives slices smaller than a quarter of `most`.
  """
  batch = x.shape[0]
  size = max(n for n in range(1, batch + 1) if batch % n == 0 and n <= most)
  if not platforms.is_cpu() or 4 * size < most:
    size = batch
  return x.reshape(batch // size, size, *x.shape[1:])


def join_batch(x: Array) -> Array:
  """Undo `split_batch`: f[n, B / n, ...] to f[B, ...]."""
  return x.reshape(-1, *x.shape[2:])


def sum_over(fn: Callable[..., Array], *slices: Array) -> Array:
  """Add up the results of a function of one slice of each f[n, ...]."""
  if slices[0].shape[0] == 1:
    return fn(*(a[0] for a in slices))
  shape = jax.eval_shape(fn, *(a[0] for a in slices))
  zero = jnp.zeros(shape.shape, shape.dtype)
  add = lambda total, each: (total + fn(*each), None)  # noqa: E731
  return lax.scan(add, zero, slices)[0]


def examples_last(x: Array) -> Array:
  """Transpose f[B, H, W, C] to f[C, H, W, B].

  In slices of few images on CPU: XLA walks through memory in the order of the
  result, and fetches a line of the cache for each number of a large batch.
  """
  slices = split_batch(x, _TRANSPOSED)
  each = lax.map(lambda images: images.transpose(3, 1, 2, 0), slices)
  each = each.transpose(1, 2, 3, 0, 4)  # f[C, H, W, n, B / n]
  return each.reshape(*each.shape[:3], -1)


@jax.custom_vjp
def product(
  x: Array,  # f[..., C]
  kernel: Array,  # f[C, K]
) -> Array:  # f[..., K]
  """Multiply the last axis by a matrix of the same dtype."""
  return lax.dot_general(x, kernel, (((x.ndim - 1,), (0,)), ((), ())))


def _product_forward(x, kernel):
  return product(x, kernel), (x, kernel)


def _product_backward(saved, dy):
  x, kernel = saved
  dx = lax.dot_general(dy, kernel, (((dy.ndim - 1,), (1,)), ((), ())))
  return dx, weight_gradient(x, dy)


product.defvjp(_product_forward, _product_backward)


def weight_gradient(
  x: Array,  # f[..., C]
  dy: Array,  # f[..., K]
) -> Array:  # f[C, K]
  """Sum the outer products of inputs and output gradients over all examples."""
  over = tuple(range(x.ndim - 1))
  if x.shape[-1] <= dy.shape[-1] or not platforms.is_cpu():
    return lax.dot_general(x, dy, ((over, over), ((), ())))
  slopes = lax.optimization_barrier(dy.reshape(-1, dy.shape[-1]).T)
  x = x.reshape(-1, x.shape[-1])
  # Without the barriers XLA swaps the factors back.
  return lax.optimization_barrier(slopes @ x).T
