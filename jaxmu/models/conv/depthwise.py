"""Depthwise convolution as a sum of shifted products.

Each channel has its own kernel, so no matrix product applies. XLA's grouped
convolution and its gradient are very slow on CPU; here every tap is one
multiplication of a shifted view, fused into one loop over the channels. Taps
that only meet padding are left out. The batch is processed in slices, because
in the gradient XLA makes the views of all taps, nine times the input.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxmu import platforms
from jaxmu.models.conv import choose, fastest, parts
from jaxmu.types import Array


def depthwise(
  x: Array,  # f[B, H, W, C]
  kernel: Array,  # f[h, w, 1, C]
  *,
  stride: int = 1,
  padding: int = 0,
  impl: str = 'auto',
) -> Array:  # f[B, Ho, Wo, C]
  """Convolve each channel with its own kernel.

  Args:
    x: images, f[B, H, W, C].
    kernel: weights, f[h, w, 1, C], of the same dtype.
    stride: step of the window, both axes.
    padding: zeros on each of the four sides.
    impl: 'library' for XLA's grouped convolution; 'auto' chooses it for some
      layers on a TPU; every other formulation of `jaxmu.models.conv.choose`
      means the shifted products.

  Returns:
    f[B, Ho, Wo, C] with Ho = (H + 2 padding - h) // stride + 1.

  Raises:
    ValueError: if `impl` is unknown.
  """
  choose.check_impl(impl)
  if impl == 'auto' and platforms.name() == 'tpu' and fastest.TPU_DEPTHWISE:
    layer = fastest.layer(x.shape, kernel.shape, stride)
    impl = fastest.formulation(layer, fastest.TPU_DEPTHWISE)
  if impl == 'library':
    return lax.conv_general_dilated(
      x,
      kernel,
      (stride, stride),
      ((padding, padding), (padding, padding)),
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
      feature_group_count=x.shape[3],
    )
  return _depthwise(x, kernel, stride, padding)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _depthwise(x, kernel, stride, padding):
  return _forward(x, kernel, stride, padding)[0]


def _forward(x, kernel, stride, padding):
  def part(images):
    return _convolve(images, kernel, stride, padding)

  images = parts.split_batch(x, parts.images_per_slice(x.shape))
  y = parts.join_batch(lax.map(part, images))
  return parts.barrier(y), (x, kernel)


def _convolve(x, kernel, stride, padding):
  """Sum, over the taps, the pixels it meets times the tap."""
  taps = _taps(x, kernel, stride, padding)
  return functools.reduce(
    jnp.add,
    (
      view * kernel[row, column].reshape(1, 1, 1, -1)
      for (row, column), view in _views(x, kernel, stride, padding, taps)
    ),
  )


def _backward(stride, padding, saved, dy):
  x, kernel = saved
  taps = _taps(x, kernel, stride, padding)

  def add(dkernel, pair):
    images, slopes = pair
    views = _views(images, kernel, stride, padding, taps)
    dtaps = jnp.stack([(view * slopes).sum((0, 1, 2)) for _, view in views])
    dx = _input_gradient(images.shape, slopes, kernel, stride, padding, taps)
    return dkernel + dtaps.astype(kernel.dtype), dx

  dy = parts.barrier(dy)
  zero = jnp.zeros((len(taps), kernel.shape[3]), kernel.dtype)
  most = parts.images_per_slice(x.shape)
  pairs = parts.split_batch(x, most), parts.split_batch(dy, most)
  dtaps, dx = lax.scan(add, zero, pairs)
  rows, columns = np.array(taps).T
  dkernel = jnp.zeros_like(kernel).at[rows, columns, 0].set(dtaps)
  return parts.join_batch(dx), dkernel


_depthwise.defvjp(_forward, _backward)


def _taps(x, kernel, stride, padding):
  rows, columns = parts.live_window(x, kernel, stride, padding)
  return [(row, column) for row in rows for column in columns]


def _views(x, kernel, stride, padding, taps):
  """Yield for each live tap the pixels it meets, f[B, Ho, Wo, C]."""
  side = (padding, padding, 0)
  # Padded once and kept: a pad fused into the products would test every
  # element for being outside.
  padded = parts.barrier(parts.pad(x, side, side))
  outputs = [
    parts.num_outputs(x.shape[1 + i], kernel.shape[i], stride, padding)
    for i in range(2)
  ]
  last = [stride * (count - 1) + 1 for count in outputs]
  for row, column in taps:
    rows = slice(row, row + last[0], stride)
    columns = slice(column, column + last[1], stride)
    yield (row, column), padded[:, rows, columns]


def _input_gradient(shape, dy, kernel, stride, padding, taps):
  """Sum, over the taps, the shifted output gradient times the tap."""
  pads = []
  for axis in (1, 2):
    size = kernel.shape[axis - 1]
    low = size - 1 - padding
    spread = stride * (dy.shape[axis] - 1) + 1
    pads.append((low, shape[axis] + padding - spread, stride - 1))
  padded = parts.barrier(parts.pad(dy, *pads))
  height, width = kernel.shape[:2]
  products = []
  for row, column in taps:
    top, left = height - 1 - row, width - 1 - column
    view = padded[:, top : top + shape[1], left : left + shape[2]]
    products.append(view * kernel[row, column].reshape(1, 1, 1, -1))
  return parts.barrier(functools.reduce(jnp.add, products))
