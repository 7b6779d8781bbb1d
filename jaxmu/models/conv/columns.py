"""The library's convolution, of several neighbouring outputs at once.

On CPU, XLA runs a float32 convolution with more than 16 channels in or out at
the speed of a large matrix product, without writing patches to memory; one with
16 or fewer takes two to five times as long. Here `g` neighbouring outputs of a
row are channels of one output: the kernel is shifted once for each of them, so
that it has `g K` output channels and `stride * (g - 1)` more pixels, which
multiply by zeros. Where images have few channels (the stem: 3), two
neighbouring pixels are channels of one pixel, too.

The gradient of the kernel is a convolution of another kind: the examples of the
batch are its channels, and the gradient of the output, with gaps between its
pixels if the stride is above 1, is its kernel.
"""

import math

import jax.numpy as jnp
from jax import lax

from jaxmu.models.conv import parts
from jaxmu.types import Array

FEW_CHANNELS = 16  # for which XLA's convolution is slow
_MERGED = 2  # pixels that are channels of one, for images with few channels
_MERGED_BELOW = 8  # channels
# Numbers of a slice of output gradients, which fit the cache as a kernel.
_SLOPES = 2**18

Pads = tuple[tuple[int, int], tuple[int, int]]  # low and high, of both axes


def _forward(x, kernel, stride, padding, input_grad):
  pads = (padding, padding), (padding, padding)
  return _convolve(x, kernel, stride, pads), (x, kernel)


def _backward(stride, padding, input_grad, saved, dy):
  x, kernel = saved
  dkernel = _kernel_gradient(x, dy, kernel.shape[:2], stride, padding)
  if not input_grad:
    return jnp.zeros_like(x), dkernel
  if stride > 1:  # zeros between the rows and columns
    inside = (0, 0, stride - 1)
    dy = parts.pad(dy, inside, inside)

  def ends(axis):
    most = kernel.shape[axis - 1] - 1
    low = most - padding
    return low, x.shape[axis] - dy.shape[axis] + most - low

  flipped = kernel[::-1, ::-1].swapaxes(2, 3)
  return _convolve(dy, flipped, 1, (ends(1), ends(2))), dkernel


conv = parts.with_gradient(_forward, _backward)


def _convolve(x: Array, kernel: Array, stride: int, pads: Pads) -> Array:
  batch, height, width, channels = x.shape
  taps, features = kernel.shape[1], kernel.shape[3]
  left, right = pads[1]
  columns = (width + left + right - taps) // stride + 1
  group = _group(columns, features)
  step = stride * group
  merged = 1
  if channels < _MERGED_BELOW and width % _MERGED == step % _MERGED == 0:
    merged = _MERGED
  lead = -left % merged
  wide = _shifted(kernel, stride, group, lead, merged)
  x = x.reshape(batch, height, width // merged, merged * channels)
  low = (left + lead) // merged
  last = (columns // group - 1) * (step // merged)  # where its window begins
  high = max(0, last + wide.shape[1] - x.shape[2] - low)
  y = lax.conv_general_dilated(
    x,
    lax.optimization_barrier(wide),
    (stride, step // merged),
    (pads[0], (low, high)),
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )
  return y.reshape(batch, -1, columns, features)


def _group(columns: int, features: int) -> int:
  """Return how many outputs of a row are enough, a power of two."""
  group = 1
  while group * features <= FEW_CHANNELS and columns % (2 * group) == 0:
    group *= 2
  return group


def _shifted(kernel, stride, group, lead, merged):
  """Shift f[h, w, C, K] for each output: f[h, pixels, merged C, group K]."""
  height, taps, channels, features = kernel.shape
  pixels = lead + taps + stride * (group - 1)
  pixels += -pixels % merged
  zero = jnp.zeros((), kernel.dtype)
  shifted = []
  for output in range(group):
    low = lead + stride * output
    sides = (0, 0, 0), (low, pixels - taps - low, 0), (0, 0, 0), (0, 0, 0)
    shifted.append(lax.pad(kernel, zero, sides))
  wide = jnp.stack(shifted, axis=3)  # f[h, pixels, C, group, K]
  return wide.reshape(
    height, pixels // merged, merged * channels, group * features
  )


def _kernel_gradient(x, dy, size, stride, padding):
  """Correlate images and output gradients over the batch, in slices."""
  pads = [
    (padding, max(0, taps + stride * (outputs - 1) - pixels - padding))
    for taps, outputs, pixels in zip(
      size, dy.shape[1:3], x.shape[1:3], strict=True
    )
  ]

  def correlate(x, dy):
    return lax.conv_general_dilated(
      parts.examples_last(x),
      dy.transpose(1, 2, 0, 3),  # f[Ho, Wo, B, K]
      (1, 1),
      pads,
      rhs_dilation=(stride, stride),
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    )

  most = max(_SLOPES // math.prod(dy.shape[1:]), FEW_CHANNELS + 1)
  slices = [parts.split_batch(a, most) for a in (x, dy)]
  gradient = parts.sum_over(correlate, *slices)
  return gradient[:, : size[0], : size[1]].transpose(1, 2, 0, 3)
