"""One convolution, several formulations, one setting to choose.

`library` is XLA's convolution, `patches` gathers patches for one matrix
product, `blocks` lets neighbouring outputs share a patch, `dense` unrolls the
kernel into a structured matrix. All are equal in
value and gradient; which is fastest depends on map size, channels and
platform, and `auto` knows what was measured. Each has its own gradient, so
that nothing slows down inside compiled loops.
"""

import jax
from jax import lax

from jaxmu.core.types import Array
from jaxmu.models import conv_blocks, conv_dense, conv_library, conv_patches

_FORMULATIONS = {
  'library': conv_library.conv,
  'patches': conv_patches.conv,
  'blocks': conv_blocks.conv,
  'dense': conv_dense.conv,
}


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
    impl: formulation; 'auto' chooses by shape and platform.
    input_grad: False promises that nobody needs the gradient with respect to
      `x` (the stem of a network), which is then zero and costs nothing.

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
  if impl == 'auto':
    impl = choose(x.shape, kernel.shape, stride)
  # Without the barriers XLA fuses (hence recomputes) whatever produced `x`
  # into every slice of the patches.
  x, kernel = lax.optimization_barrier((x, kernel))
  y = _FORMULATIONS[impl](x, kernel, stride, padding, input_grad)
  return lax.optimization_barrier(y)


def check_impl(impl: str) -> None:
  """Raise a ValueError if there is no such formulation."""
  if impl not in ('auto', *_FORMULATIONS):
    known = ', '.join(('auto', *_FORMULATIONS))
    raise ValueError(f'conv cannot be {impl!r}; choose one of: {known}')


def choose(
  x_shape: tuple[int, ...],
  kernel_shape: tuple[int, ...],
  stride: int,
) -> str:
  """Name the formulation measured fastest for a layer on this platform."""
  pixels = x_shape[1] * x_shape[2]
  if kernel_shape[:2] == (1, 1):
    return 'patches'
  if pixels <= 4:
    return 'dense'
  if x_shape[3] < 8:
    return 'blocks'
  if jax.default_backend() != 'cpu':
    return 'library' if pixels > 64 else 'patches'
  return 'patches' if stride > 1 else 'library'
