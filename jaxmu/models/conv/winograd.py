"""3x3 convolution by Winograd's minimal filtering, F(4x4, 3x3).

A tile of 4x4 outputs reads 6x6 inputs. Tiles and kernel are moved to a domain
of 36 points, in which a convolution is 36 products of matrices f[tiles, C] and
f[C, K]: a quarter of the multiplications. The moves are sums of few views with
small constants. Source: Lavin and Gray 2015 (arXiv 1509.09308); the points 0,
1, -1, 1/2, -2 and infinity lose least to rounding (Barabasz et al. 2018, arXiv
1803.10986): a relative error of 1e-6 in float32.
"""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxmu.models.conv import parts
from jaxmu.types import Array

TILE = 4  # outputs per axis of a tile
_TAPS = 3

Axes = tuple[int, ...]
Grid = list[list[Array]]  # 6 x 6 points

# Inputs -> points, f[6, 6].
_INPUT = np.array(
  [
    [1, -3 / 2, -2, 3 / 2, 1, 0],
    [0, -1, 1 / 2, 5 / 2, 1, 0],
    [0, 1, -5 / 2, 1 / 2, 1, 0],
    [0, -2, -1, 2, 1, 0],
    [0, 1 / 2, -1, -1 / 2, 1, 0],
    [0, 1, -3 / 2, -2, 3 / 2, 1],
  ]
)
# Taps -> points, f[6, 3].
_KERNEL = np.array(
  [
    [1, 0, 0],
    [1 / 3, 1 / 3, 1 / 3],
    [-1 / 3, 1 / 3, -1 / 3],
    [-16 / 15, -8 / 15, -4 / 15],
    [1 / 15, -2 / 15, 4 / 15],
    [0, 0, 1],
  ]
)
# Points -> outputs, f[4, 6].
_OUTPUT = np.array(
  [
    [1, 1, 1, 1, 1, 0],
    [0, 1, -1, 1 / 2, -2, 0],
    [0, 1, 1, 1 / 4, 4, 0],
    [0, 1, -1, 1 / 8, -8, 1],
  ]
)


def fits(
  x_shape: Sequence[int], kernel_shape: Sequence[int], stride: int, padding: int
) -> bool:
  """Whether a layer is a padded 3x3 one whose map is made of whole tiles."""
  whole = x_shape[1] % TILE == 0 and x_shape[2] % TILE == 0
  same = stride == 1 and padding == 1
  return whole and same and tuple(kernel_shape[:2]) == (_TAPS, _TAPS)


def _forward(x, kernel, stride, padding, input_grad):
  if not fits(x.shape, kernel.shape, stride, padding):
    raise ValueError(
      f'winograd takes 3x3 kernels with stride 1 and padding 1 on maps whose '
      f'sides are multiples of {TILE}; got images of shape {x.shape}, a kernel '
      f'of shape {kernel.shape}, stride {stride}, padding {padding}'
    )
  images = parts.split_batch(x, parts.images_per_slice(x.shape))
  matrices = _kernel_to_points(kernel)

  def convolve(x):
    tiles = lax.optimization_barrier(_to_points(x, _INPUT, _windows))
    points = _each(
      functools.partial(_product, axes=((3,), (0,))), tiles, matrices
    )
    points = lax.optimization_barrier(points)
    return _from_points(points, _OUTPUT, _interleave), tiles

  y, tiles = lax.map(convolve, images)
  return parts.join_batch(y), (tiles, kernel)


def _backward(stride, padding, input_grad, saved, dy):
  tiles, kernel = saved
  matrices = _kernel_to_points(kernel)
  over = (0, 1, 2)

  def pull(total, piece):
    tiles, dy = piece
    slopes = lax.optimization_barrier(_to_points(dy, _OUTPUT.T, _pixels))
    product = functools.partial(_product, axes=(over, over))
    total = jax.tree.map(jnp.add, total, _each(product, tiles, slopes))
    if not input_grad:
      return total, None
    dtiles = _each(
      functools.partial(_product, axes=((3,), (1,))), slopes, matrices
    )
    dtiles = lax.optimization_barrier(dtiles)
    return total, _from_points(dtiles, _INPUT.T, _add_windows)

  slices = dy.reshape(*tiles[0][0].shape[:2], *dy.shape[1:])
  zeros = jax.tree.map(jnp.zeros_like, matrices)
  total, dx = lax.scan(pull, zeros, (tiles, slices))
  dkernel = _kernel_from_points(lax.optimization_barrier(total))
  if dx is None:
    return jnp.zeros((*dy.shape[:3], kernel.shape[2]), dy.dtype), dkernel
  return parts.join_batch(dx), dkernel


conv = parts.with_gradient(_forward, _backward)


def _product(a: Array, b: Array, axes: tuple[Axes, Axes]) -> Array:
  return lax.dot_general(a, b, (axes, ((), ())))


def _each(product: Callable, a: Grid, b: Grid) -> Grid:
  return [
    [product(x, y) for x, y in zip(*rows, strict=True)]
    for rows in zip(a, b, strict=True)
  ]


def _mix(matrix: np.ndarray, parts: Sequence[Array]) -> list[Array]:
  """Multiply a small constant matrix and a vector of arrays."""

  def row(factors):
    terms = [
      part if factor == 1 else jnp.asarray(factor, part.dtype) * part
      for factor, part in zip(factors, parts, strict=True)
      if factor
    ]
    return functools.reduce(jnp.add, terms)

  return [row(factors) for factors in matrix]


def _to_points(x: Array, matrix: np.ndarray, views: Callable) -> Grid:
  """Move f[B, H, W, C] to 6 x 6 arrays f[B, H / 4, W / 4, C]."""
  rows = lax.optimization_barrier(_mix(matrix, views(x, 1)))
  return [_mix(matrix, views(row, 2)) for row in rows]


def _from_points(grid: Grid, matrix: np.ndarray, join: Callable) -> Array:
  """Move 6 x 6 arrays f[B, H / 4, W / 4, C] to f[B, H, W, C]."""
  rows = [join(_mix(matrix, row), 2) for row in grid]
  return join(_mix(matrix, lax.optimization_barrier(rows)), 1)


def _kernel_to_points(kernel: Array) -> Grid:
  rows = _mix(_KERNEL, list(kernel))
  return [_mix(_KERNEL, list(row)) for row in rows]


def _kernel_from_points(grid: Grid) -> Array:
  rows = [jnp.stack(_mix(_KERNEL.T, row)) for row in grid]
  return jnp.stack(_mix(_KERNEL.T, rows))


def _windows(x: Array, axis: int) -> list[Array]:
  """Read the six inputs of each tile, which begins one pixel early."""
  pads = [(0, 0, 0)] * x.ndim
  pads[axis] = (1, 1, 0)
  padded = lax.pad(x, jnp.zeros((), x.dtype), pads)
  size = TILE + _TAPS - 1
  last = x.shape[axis] - TILE + 1
  return [
    lax.slice_in_dim(padded, i, i + last, TILE, axis) for i in range(size)
  ]


def _add_windows(parts: list[Array], axis: int) -> Array:
  """Add six inputs of each tile up where tiles overlap; twin of `_windows`."""
  zero = jnp.zeros((), parts[0].dtype)

  def moved(part, low):
    pads = [(0, 0, 0)] * part.ndim
    pads[axis] = (low, -low, 0)
    return lax.pad(part, zero, pads)

  own = list(parts[1 : 1 + TILE])
  own[0] = own[0] + moved(parts[-1], 1)  # end of the previous tile
  own[-1] = own[-1] + moved(parts[0], -1)  # start of the next tile
  return _interleave(own, axis)


def _pixels(y: Array, axis: int) -> list[Array]:
  """Read the four outputs of each tile."""
  return [lax.slice_in_dim(y, i, None, TILE, axis) for i in range(TILE)]


def _interleave(parts: list[Array], axis: int) -> Array:
  """Put four outputs of each tile in their places; twin of `_pixels`."""
  stacked = jnp.stack(parts, axis=axis + 1)
  shape = stacked.shape
  return stacked.reshape(*shape[:axis], shape[axis] * TILE, *shape[axis + 2 :])
