"""Library convolution whose gradients are ordinary forward convolutions.

XLA on CPU runs the gradient of a convolution inside `lax.scan`, `lax.map` and
`while` 30 to 60 times slower than outside (jax-ml/jax#12868): it recognises
neither the transposed dimension numbers nor the dilation that autodiff emits.
Both gradients are therefore written as plain stride-1 convolutions of arrays
that were transposed, dilated and padded explicitly.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from jaxmu.types import Array

_NUMBERS = ('NHWC', 'HWIO', 'NHWC')


def _plain(x: Array, kernel: Array, stride: int, padding: int) -> Array:
  return lax.conv_general_dilated(
    x,
    kernel,
    (stride, stride),
    ((padding, padding), (padding, padding)),
    dimension_numbers=_NUMBERS,
  )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def conv(
  x: Array,  # f[B, H, W, C]
  kernel: Array,  # f[h, w, C, K]
  stride: int,
  padding: int,
  input_grad: bool,
) -> Array:  # f[B, Ho, Wo, K]
  """Convolve by XLA's own operation; see `jaxmu.models.conv.choose.conv`."""
  return _plain(x, kernel, stride, padding)


def _forward(x, kernel, stride, padding, input_grad):
  return _plain(x, kernel, stride, padding), (x, kernel)


def _backward(stride, padding, input_grad, saved, dy):
  x, kernel = saved
  dy = _dilate(dy, stride)
  dkernel = _kernel_gradient(x, dy, kernel.shape[:2], padding)
  if not input_grad:
    return jnp.zeros_like(x), dkernel
  return _input_gradient(x.shape, dy, kernel, padding), dkernel


conv.defvjp(_forward, _backward)


def _dilate(dy: Array, stride: int) -> Array:
  """Put `stride - 1` zeros between the rows and columns of a map."""
  if stride == 1:
    return dy
  inside = (0, 0, stride - 1)
  zero = jnp.zeros((), dy.dtype)
  return lax.pad(dy, zero, ((0, 0, 0), inside, inside, (0, 0, 0)))


def _kernel_gradient(x, dy, size, padding):
  """Correlate images and output gradients over the batch."""
  images = x.transpose(3, 1, 2, 0)  # f[C, H, W, B]
  slopes = dy.transpose(1, 2, 0, 3)  # f[Ho', Wo', B, K]
  out = _plain(images, slopes, 1, padding)[:, : size[0], : size[1]]
  return out.transpose(1, 2, 0, 3)  # f[h, w, C, K]


def _input_gradient(shape, dy, kernel, padding):
  """Convolve the padded output gradient with the flipped kernel."""
  pads = [(0, 0, 0)]
  for axis in (1, 2):
    size = kernel.shape[axis - 1]
    low = size - 1 - padding
    high = shape[axis] + size - 1 - dy.shape[axis] - low
    pads.append((low, high, 0))
  dy = lax.pad(dy, jnp.zeros((), dy.dtype), (*pads, (0, 0, 0)))
  return _plain(dy, kernel[::-1, ::-1].swapaxes(2, 3), 1, 0)
