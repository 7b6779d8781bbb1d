"""Convolution as one matrix product over gathered patches (im2col).

Kernel taps that meet nothing but padding are left out of the patches, so that
they cost nothing and their gradient is exactly zero. On CPU the patches of
large maps are made in slices of the batch, see `parts`.
"""

import functools
import operator

import jax.numpy as jnp
from jax import lax

from jaxmu.models.conv import parts


def _forward(x, kernel, stride, padding, input_grad):
  if not _in_slices(x, kernel):
    return _of_slice(x, kernel, stride, padding), (x, kernel)
  slices = parts.split_batch(x, parts.images_per_slice(x.shape))
  y = lax.map(lambda x: _of_slice(x, kernel, stride, padding), slices)
  return parts.join_batch(y), (x, kernel)


def _in_slices(x, kernel):
  return parts.too_large(x.shape) and kernel.shape[:2] != (1, 1)


def _of_slice(x, kernel, stride, padding):
  taps = parts.live_window(x, kernel, stride, padding)
  patches = _patches(x, kernel.shape, stride, padding, taps)
  live = _live(kernel, taps).reshape(-1, kernel.shape[3])
  return lax.dot_general(patches, live, (((3,), (0,)), ((), ())))


def _backward(stride, padding, input_grad, saved, dy):
  x, kernel = saved
  pull = functools.partial(_pull, kernel, stride, padding, input_grad)
  if not _in_slices(x, kernel):
    dx, dkernel = pull(x, dy)
  else:
    slices = parts.split_batch(x, parts.images_per_slice(x.shape))
    slopes = dy.reshape(*slices.shape[:2], *dy.shape[1:])

    def add(total, pair):
      dx, dkernel = pull(*pair)
      return total + dkernel, dx

    dkernel, dx = lax.scan(add, jnp.zeros_like(kernel), (slices, slopes))
    dx = None if dx is None else parts.join_batch(dx)
  return (jnp.zeros_like(x) if dx is None else dx), dkernel


def _pull(kernel, stride, padding, input_grad, x, dy):
  """Return the gradients of a slice; None for the first if it is not needed."""
  taps = parts.live_window(x, kernel, stride, padding)
  patches = _patches(x, kernel.shape, stride, padding, taps)
  live = _live(kernel, taps)
  dlive = parts.weight_gradient(patches, dy)
  low = [t[0] for t in taps]
  high = [kernel.shape[i] - 1 - t[-1] for i, t in enumerate(taps)]
  dkernel = lax.pad(
    dlive.reshape(live.shape),
    jnp.zeros((), dlive.dtype),
    ((low[0], high[0], 0), (low[1], high[1], 0), (0, 0, 0), (0, 0, 0)),
  )
  if not input_grad:
    return None, dkernel
  flat = live.reshape(-1, live.shape[3])
  dpatches = lax.dot_general(dy, flat, (((3,), (1,)), ((), ())))
  return _scatter(dpatches, x.shape, stride, padding, taps), dkernel


conv = parts.with_gradient(_forward, _backward)


def _live(kernel, taps):
  rows, columns = taps
  return kernel[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _patches(x, kernel_shape, stride, padding, taps):
  """Gather f[B, Ho, Wo, live taps * C], taps in row-major order."""
  batch, height, width, channels = x.shape
  ho = parts.num_outputs(height, kernel_shape[0], stride, padding)
  wo = parts.num_outputs(width, kernel_shape[1], stride, padding)
  side = (padding, padding, 0)
  padded = parts.pad(x, side, side)
  views = [
    lax.slice(
      padded,
      (0, row, column, 0),
      (
        batch,
        row + stride * (ho - 1) + 1,
        column + stride * (wo - 1) + 1,
        channels,
      ),
      (1, stride, stride, 1),
    )
    for row in taps[0]
    for column in taps[1]
  ]
  return views[0] if len(views) == 1 else jnp.concatenate(views, axis=3)


def _scatter(dpatches, shape, stride, padding, taps):
  """Add the gradients of all patches back onto the pixels they came from."""
  channels = shape[3]
  ho, wo = dpatches.shape[1:3]

  def shifted():
    pairs = ((row, column) for row in taps[0] for column in taps[1])
    for index, (row, column) in enumerate(pairs):
      part = dpatches[..., index * channels : (index + 1) * channels]
      pads = []
      for tap, outputs, size in ((row, ho, shape[1]), (column, wo, shape[2])):
        low = tap - padding
        pads.append((low, size - low - stride * (outputs - 1) - 1, stride - 1))
      yield parts.pad(part, *pads)

  return functools.reduce(operator.add, shifted())
