"""Convolution by patches that several neighbouring outputs share.

With few input channels (the stem: 3) a patch is gathered in pieces too short
to copy fast, and a product with few output channels reaches a small part of the
peak speed. Here one patch holds the pixels of `g` neighbouring outputs of a
row, and the kernel becomes a banded matrix `f[h * pixels * C, g * K]`: more
multiplications than needed, but longer copies, fewer of them, and a product of
a better shape. On CPU the batch is processed in slices, so that the patches of
one slice stay in the cache until they are used.
"""

import functools
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax

from jaxmu.models.conv import parts

_MOST_COLUMNS = 128  # of the banded matrix
_MOST_OUTPUTS = 4  # per patch
_SLICE_IMAGES = 16  # most images whose patches fit the cache of a CPU core


class _Plan(NamedTuple):
  """Sizes of one layer."""

  stride: int
  padding: int
  height: int  # outputs
  blocks: int  # patches per row of outputs
  outputs: int  # per patch
  pixels: int  # width of a patch


def _forward(x, kernel, stride, padding, input_grad):
  plan = _plan(x.shape, kernel.shape, stride, padding)
  matrix = _band(kernel, plan)

  def product(images):
    patches = _patches(images, kernel.shape[0], plan)
    return lax.dot_general(patches, matrix, (((3,), (0,)), ((), ())))

  y = lax.map(product, parts.split_batch(x, _images_per_slice(x.shape)))
  shape = (x.shape[0], plan.height, plan.blocks * plan.outputs, -1)
  return y.reshape(shape), (x, kernel)


def _backward(stride, padding, input_grad, saved, dy):
  x, kernel = saved
  plan = _plan(x.shape, kernel.shape, stride, padding)
  matrix = _band(kernel, plan)
  dy = dy.reshape(x.shape[0], plan.height, plan.blocks, -1)
  over = ((0, 1, 2), (0, 1, 2))

  def add(total, pair):
    patches = _patches(pair[0], kernel.shape[0], plan)
    # In this order XLA transposes the gradients, not the larger patches.
    return total + lax.dot_general(pair[1], patches, (over, ((), ()))), None

  most = _images_per_slice(x.shape)
  slices = tuple(parts.split_batch(a, most) for a in (x, dy))
  dmatrix, _ = lax.scan(add, jnp.zeros_like(matrix.T), slices)
  dkernel = _unband(dmatrix.T, kernel.shape, plan)
  if not input_grad:
    return jnp.zeros_like(x), dkernel
  dpatches = lax.dot_general(dy, matrix, (((3,), (1,)), ((), ())))
  return _scatter(dpatches, x.shape, kernel.shape[0], plan), dkernel


conv = parts.with_gradient(_forward, _backward)


def _images_per_slice(shape):
  if not parts.too_large(shape):
    return _SLICE_IMAGES
  return min(_SLICE_IMAGES, parts.images_per_slice(shape))


def _plan(x_shape, kernel_shape, stride, padding) -> _Plan:
  height, width = (
    parts.num_outputs(size, taps, stride, padding)
    for size, taps in zip(x_shape[1:3], kernel_shape[:2], strict=True)
  )
  outputs = 1
  while (
    width % (2 * outputs) == 0
    and 2 * outputs <= _MOST_OUTPUTS
    and 2 * outputs * kernel_shape[3] <= _MOST_COLUMNS
  ):
    outputs *= 2
  pixels = stride * (outputs - 1) + kernel_shape[1]
  return _Plan(stride, padding, height, width // outputs, outputs, pixels)


def _patches(x, taps, plan):
  """Gather f[B, Ho, blocks, taps * pixels * C], rows first."""
  batch, _, width, channels = x.shape
  side = (plan.padding, plan.padding, 0)
  x = parts.pad(x, side, side)
  x = x.reshape(batch, x.shape[1], x.shape[2] * channels)
  last = plan.stride * (plan.height - 1) + 1
  rows = [x[:, tap : tap + last : plan.stride] for tap in range(taps)]
  # Two short stages of long copies; fused they would be many short ones.
  rows = lax.optimization_barrier(jnp.stack(rows, axis=2))
  step = plan.stride * plan.outputs * channels
  size = plan.pixels * channels
  columns = [
    rows[..., block * step : block * step + size]
    for block in range(plan.blocks)
  ]
  return jnp.stack(columns, axis=2).reshape(
    batch, plan.height, plan.blocks, taps * size
  )


def _band(kernel, plan):
  """Shift the kernel once for each output of a patch."""
  zero = jnp.zeros((), kernel.dtype)
  shifted = []
  for output in range(plan.outputs):
    low = plan.stride * output
    high = plan.pixels - low - kernel.shape[1]
    pads = ((0, 0, 0), (low, high, 0), (0, 0, 0), (0, 0, 0))
    shifted.append(lax.pad(kernel, zero, pads))
  band = jnp.stack(shifted, axis=3)  # f[h, pixels, C, g, K]
  return band.reshape(-1, plan.outputs * kernel.shape[3])


def _unband(dmatrix, kernel_shape, plan):
  """Sum the gradients of the shifted kernels."""
  height, width, channels, features = kernel_shape
  band = dmatrix.reshape(height, plan.pixels, channels, plan.outputs, features)
  return functools.reduce(
    jnp.add,
    (
      band[:, plan.stride * i : plan.stride * i + width, :, i]
      for i in range(plan.outputs)
    ),
  )


def _scatter(dpatches, shape, taps, plan):
  """Add the gradients of all patches back onto the pixels they came from."""
  batch, height, width, channels = shape
  dpatches = dpatches.reshape(
    batch, plan.height, plan.blocks, taps, plan.pixels, channels
  )
  total = jnp.zeros(shape, dpatches.dtype)
  for block in range(plan.blocks):
    left = plan.stride * plan.outputs * block - plan.padding
    for tap in range(taps):
      low = tap - plan.padding
      high = height - low - plan.stride * (plan.height - 1) - 1
      rows = low, high, plan.stride - 1
      columns = left, width - left - plan.pixels, 0
      total += parts.pad(dpatches[:, :, block, tap], rows, columns)
  return total
