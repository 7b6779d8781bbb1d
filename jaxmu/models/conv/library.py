"""Library convolution whose gradients are ordinary forward convolutions.

XLA on CPU runs the gradient of a convolution inside `lax.scan`, `lax.map` and
`while` 30 to 60 times slower than outside (jax-ml/jax#12868): it recognises
neither the transposed dimension numbers nor the dilation that autodiff emits.
Both gradients are therefore written as plain stride-1 convolutions of arrays
that were transposed, dilated and padded explicitly.

Under `vmap` XLA's convolution becomes a grouped one. A TPU's compiler makes an
ordinary one of it, in which the models are a third axis of space. The library
of a GPU is slow at grouped convolutions (jax-ml/jax#26568), so that there the
models take turns.
"""

import jax
import jax.numpy as jnp
from jax import lax

from jaxmu import platforms
from jaxmu.models.conv import parts
from jaxmu.types import Array

_NUMBERS = ('NHWC', 'HWIO', 'NHWC')


def _plain(x: Array, kernel: Array, stride: int, padding: int) -> Array:
  def convolve(x, kernel):
    return lax.conv_general_dilated(
      x,
      kernel,
      (stride, stride),
      ((padding, padding), (padding, padding)),
      dimension_numbers=_NUMBERS,
    )

  if platforms.name() == 'gpu':
    convolve = jax.custom_batching.sequential_vmap(convolve)
  return convolve(x, kernel)


def _forward(x, kernel, stride, padding, input_grad):
  return _plain(x, kernel, stride, padding), (x, kernel)


def _backward(stride, padding, input_grad, saved, dy):
  x, kernel = saved
  if stride > 1:  # zeros between the rows and columns
    inside = (0, 0, stride - 1)
    dy = parts.pad(dy, inside, inside)
  dkernel = _kernel_gradient(x, dy, kernel.shape[:2], padding)
  if not input_grad:
    return jnp.zeros_like(x), dkernel
  return _input_gradient(x.shape, dy, kernel, padding), dkernel


conv = parts.with_gradient(_forward, _backward)


def _kernel_gradient(x, dy, size, padding):
  """Correlate images and output gradients over the batch."""
  images = parts.examples_last(x)  # f[C, H, W, B]
  slopes = dy.transpose(1, 2, 0, 3)  # f[Ho', Wo', B, K]
  out = _plain(images, slopes, 1, padding)[:, : size[0], : size[1]]
  return out.transpose(1, 2, 0, 3)  # f[h, w, C, K]


def _input_gradient(shape, dy, kernel, padding):
  """Convolve the padded output gradient with the flipped kernel."""
  pads = []
  for axis in (1, 2):
    size = kernel.shape[axis - 1]
    low = size - 1 - padding
    high = shape[axis] + size - 1 - dy.shape[axis] - low
    pads.append((low, high, 0))
  dy = parts.pad(dy, *pads)
  return _plain(dy, kernel[::-1, ::-1].swapaxes(2, 3), 1, 0)
