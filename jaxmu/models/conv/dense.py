"""Convolution as one product with a structured dense matrix.

For a small map the kernel is unrolled into a matrix from all input pixels to
all output pixels, `f[H * W * C, Ho * Wo * K]`, with zeros where no tap
connects the two. Only taps on real pixels enter, so dead taps have exactly
zero gradient. At a 1x1 map the matrix is the kernel's centre tap alone.
"""

import functools

import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxmu.models.conv import parts


def _forward(x, kernel, stride, padding, input_grad):
  links = _links(x.shape, kernel.shape, stride, padding)
  matrix = _unroll(kernel, links)
  out = _matrix_product(x.reshape(x.shape[0], -1), matrix, 1, 0)
  ho, wo = links[0].shape[1], links[1].shape[1]
  return out.reshape(x.shape[0], ho, wo, kernel.shape[3]), (x, kernel)


def _backward(stride, padding, input_grad, saved, dy):
  x, kernel = saved
  batch = x.shape[0]
  links = _links(x.shape, kernel.shape, stride, padding)
  dy = dy.reshape(batch, -1)
  dmatrix = _matrix_product(x.reshape(batch, -1), dy, 0, 0)
  dkernel = _roll_up(dmatrix, kernel.shape, links)
  if not input_grad:
    return jnp.zeros_like(x), dkernel
  dx = _matrix_product(dy, _unroll(kernel, links), 1, 1)
  return dx.reshape(x.shape), dkernel


conv = parts.with_gradient(_forward, _backward)


def _matrix_product(a, b, axis_a, axis_b):
  return lax.dot_general(a, b, (((axis_a,), (axis_b,)), ((), ())))


def _links(x_shape, kernel_shape, stride, padding):
  """Per spatial axis, i[in, out]: the tap that joins two pixels, or -1."""
  links = []
  for size, taps in zip(x_shape[1:3], kernel_shape[:2], strict=True):
    out = parts.num_outputs(size, taps, stride, padding)
    tap = np.arange(size)[:, None] + padding - stride * np.arange(out)[None]
    links.append(np.where((tap >= 0) & (tap < taps), tap, -1))
  return links


def _unroll(kernel, links):
  """Spread a kernel into its matrix f[H * W * C, Ho * Wo * K]."""
  rows, columns = links
  channels, features = kernel.shape[2:]
  if rows.size == columns.size == 1:
    return kernel[rows.item(), columns.item()]
  if rows.min() < 0 or columns.min() < 0:
    # One extra tap of zeros stands for "not connected".
    kernel = jnp.pad(kernel, ((0, 1), (0, 1), (0, 0), (0, 0)))
  spread = kernel[rows[:, None, :, None], columns[None, :, None, :]]
  spread = spread.transpose(0, 1, 4, 2, 3, 5)  # f[H, W, C, Ho, Wo, K]
  return spread.reshape(
    rows.shape[0] * columns.shape[0] * channels,
    rows.shape[1] * columns.shape[1] * features,
  )


def _roll_up(dmatrix, kernel_shape, links):
  """Sum a matrix gradient over all pairs of pixels that share a tap."""
  rows, columns = links
  height, width, channels, features = kernel_shape
  spread = dmatrix.reshape(
    rows.shape[0],
    columns.shape[0],
    channels,
    rows.shape[1],
    columns.shape[1],
    features,
  )
  taps = []
  for row in range(height):
    for column in range(width):
      pairs = [
        spread[i, j, :, m, n]
        for i, m in zip(*np.nonzero(rows == row), strict=True)
        for j, n in zip(*np.nonzero(columns == column), strict=True)
      ]
      zero = jnp.zeros((channels, features), dmatrix.dtype)
      taps.append(functools.reduce(jnp.add, pairs, zero))
  return jnp.stack(taps).reshape(kernel_shape)
