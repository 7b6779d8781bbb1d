"""The convolution that models call, in one of several formulations.

`library` is XLA's convolution, `patches` gathers patches for one matrix
product, `blocks` lets neighbouring outputs share a patch, `columns` makes them
channels of one output for the library, `dense` unrolls the kernel into a
structured matrix, `winograd` multiplies less. All are equal in
value and gradient. Which is fastest depends on map size, channels and platform;
`auto` chooses by measurements on a CPU (`benchmarks/layers.py`), and on a TPU
by estimates of its compiler (`benchmarks/aot.py`). Each has a custom gradient,
because XLA's gradients are slow inside compiled loops.
"""

import math

import jax.numpy as jnp

from jaxmu import platforms
from jaxmu.models.conv import (
  blocks,
  columns,
  dense,
  fastest,
  library,
  parts,
  patches,
  winograd,
)
from jaxmu.types import Array

_FORMULATIONS: dict[str, parts.Convolution] = {
  'library': library.conv,
  'patches': patches.conv,
  'blocks': blocks.conv,
  'columns': columns.conv,
  'dense': dense.conv,
  'winograd': winograd.conv,
}

# With smaller maps f[H, W, C] or batches f[B, H, W, C], moving tiles and
# kernels takes longer than it saves.
_WINOGRAD_MAP = 2**11
_WINOGRAD_BATCH = 2**17
# On larger maps f[H, W], neighbouring patches of kernels up to this size share
# too little to pay for the additional multiplications.
_BLOCKS_MAP = 2**12
_BLOCKS_KERNEL = 3 * 3
# The largest maps f[H, W] that were measured in columns: of images, of others.
_COLUMNS_STEM = 2**12
_COLUMNS_MAP = 2**8


def conv(
  x: Array,  # f[B, H, W, C]
  kernel: Array,  # f[h, w, C, K]
  *,
  stride: int = 1,
  padding: int = 0,
  impl: str = 'auto',
  input_grad: bool = True,
) -> Array:  # f[B, Ho, Wo, K]
  """Convolve images with a kernel (cross-correlation, as everywhere).

  Args:
    x: images, f[B, H, W, C].
    kernel: weights, f[h, w, C, K], of the same dtype.
    stride: step of the window, both axes.
    padding: zeros on each of the four sides.
    impl: formulation; 'auto' chooses by shape, dtype and platform; layers that
      'winograd' does not support use 'auto'.
    input_grad: False if the gradient with respect to `x` is not needed (the
      stem of a network); it is then zero and costs nothing.

  Returns:
    f[B, Ho, Wo, K] with Ho = (H + 2 padding - h) // stride + 1.

  Raises:
    ValueError: if `impl` is unknown or the channels do not match.
  """
  check_impl(impl)
  if x.shape[3] != kernel.shape[2]:
    raise ValueError(
      f'images of shape {x.shape} have {x.shape[3]} channels, but the kernel '
      f'of shape {kernel.shape} reads {kernel.shape[2]}; make them equal'
    )
  if impl == 'winograd' and not winograd.fits(
    x.shape, kernel.shape, stride, padding
  ):
    impl = 'auto'
  if impl == 'auto':
    impl = choose(x.shape, kernel.shape, stride, padding, x.dtype)
  # Without the barriers XLA on a CPU fuses the operation that produced `x` into
  # every slice of the patches, and so recomputes it.
  x, kernel = parts.barrier((x, kernel))
  return parts.barrier(
    _FORMULATIONS[impl](x, kernel, stride, padding, input_grad)
  )


def check_impl(impl: str) -> None:
  """Raise a ValueError if there is no such formulation."""
  if impl not in ('auto', *_FORMULATIONS):
    known = ', '.join(('auto', *_FORMULATIONS))
    raise ValueError(f'conv cannot be {impl!r}; choose one of: {known}')


def choose(
  x_shape: tuple[int, ...],
  kernel_shape: tuple[int, ...],
  stride: int,
  padding: int,
  dtype: jnp.dtype,
) -> str:
  """Name the formulation to use for a layer.

  On a CPU it is the one measured fastest, on a TPU the one that its compiler
  estimates to be fastest, see `fastest`. On a GPU nothing was measured; small
  maps get products, which `vmap` batches.

  Only float32 uses `winograd`: float64 is for exact comparison (a gradient that
  is zero stays zero), and half precision has too few digits. Only float32 uses
  `columns`: in other dtypes XLA has no fast convolution.

  Args:
    x_shape: of the images, (B, H, W, C).
    kernel_shape: (h, w, C, K).
    stride: step of the window.
    padding: zeros on each side.
    dtype: of both.

  Returns:
    A name that `conv` takes as `impl`, not 'auto'.
  """
  if platforms.name() == 'tpu':
    layer = fastest.layer(x_shape, kernel_shape, stride)
    return fastest.formulation(layer, fastest.TPU)
  pixels = x_shape[1] * x_shape[2]
  if kernel_shape[:2] == (1, 1):
    return 'patches'
  if pixels <= 4:
    return 'dense'
  # In the gradient of the kernel, the examples are the channels.
  fits_columns = (
    platforms.is_cpu()
    and dtype == jnp.float32
    and x_shape[0] > columns.FEW_CHANNELS
  )
  if x_shape[3] < 8:
    small_kernel = math.prod(kernel_shape[:2]) <= _BLOCKS_KERNEL
    if platforms.is_cpu() and small_kernel and pixels > _BLOCKS_MAP:
      return 'patches'
    stem = x_shape[3] <= 3 and pixels <= _COLUMNS_STEM
    return 'columns' if stem and fits_columns else 'blocks'
  if not platforms.is_cpu():
    return 'library' if pixels > 64 else 'patches'
  few = max(kernel_shape[2:]) <= columns.FEW_CHANNELS
  if few and fits_columns and stride == 1 and pixels <= _COLUMNS_MAP:
    return 'columns'
  if (
    dtype == jnp.float32
    and pixels * x_shape[3] >= _WINOGRAD_MAP
    and math.prod(x_shape) >= _WINOGRAD_BATCH
    and winograd.fits(x_shape, kernel_shape, stride, padding)
  ):
    return 'winograd'
  return 'patches' if stride > 1 else 'library'
