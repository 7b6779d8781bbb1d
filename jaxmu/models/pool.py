"""Max-pooling 3x3, stride 2, padding 1, with a gradient that is cheap.

The library's gradient (select-and-scatter) takes longer on CPU than the whole
first stage of the network. Here the forward pass remembers which of the nine
taps won; the gradient gathers, for each of the four kinds of pixels (even or
odd row and column), from the one, two or four windows that hold it.
"""

import jax
import jax.numpy as jnp
from jax import lax

from jaxmu.core.types import Array


@jax.custom_vjp
def max_pool(x: Array) -> Array:  # f[B, H, W, C] -> f[B, H / 2, W / 2, C]
  """Take the maximum of each 3x3 window at stride 2, padded by -inf.

  Among equal values the gradient goes to the first in row-major order of the
  window, as in PyTorch.

  Args:
    x: maps of even height and width, f[B, H, W, C].

  Returns:
    f[B, H / 2, W / 2, C].

  Raises:
    ValueError: if height or width is odd.
  """
  return _forward(x)[0]


def _forward(x):
  batch, height, width, channels = x.shape
  if height % 2 or width % 2:
    raise ValueError(
      f'max_pool halves its maps, got {height}x{width}; use images whose '
      'side is a multiple of 4'
    )
  # Windows start at -1 and end before H: only the low side is padded.
  lowest = jnp.array(-jnp.inf, x.dtype)
  low = (1, 0, 0)
  padded = lax.pad(x, lowest, ((0, 0, 0), low, low, (0, 0, 0)))
  best = jnp.full((batch, height // 2, width // 2, channels), lowest)
  winner = jnp.zeros(best.shape, jnp.int8)
  for tap in range(9):
    row, column = divmod(tap, 3)
    view = padded[
      :, row : row + height - 1 : 2, column : column + width - 1 : 2
    ]
    winner = jnp.where(view > best, jnp.int8(tap), winner)
    best = jnp.maximum(view, best)
  return best, winner


def _backward(winner, dy):
  batch, rows, columns, channels = dy.shape
  side = ((0, 0, 0), (0, 1, 0), (0, 1, 0), (0, 0, 0))
  zero = jnp.zeros((), dy.dtype)
  # Padded once and kept: a pad fused into the selections below would test
  # every element for being outside.
  winner = lax.pad(winner, jnp.int8(-1), side)
  dy = lax.pad(dy, zero, side)
  winner, dy = lax.optimization_barrier((winner, dy))

  def won(tap, down, right):
    """Gradient of the windows `down` and `right` of here, where `tap` won."""
    here = (
      slice(None),
      slice(down, down + rows),
      slice(right, right + columns),
    )
    return jnp.where(winner[here] == tap, dy[here], zero)

  even_even = won(4, 0, 0)
  even_odd = won(5, 0, 0) + won(3, 0, 1)
  odd_even = won(7, 0, 0) + won(1, 1, 0)
  odd_odd = won(8, 0, 0) + won(6, 0, 1) + won(2, 1, 0) + won(0, 1, 1)
  even_even, even_odd, odd_even, odd_odd = lax.optimization_barrier(
    (even_even, even_odd, odd_even, odd_odd)
  )
  even = jnp.stack((even_even, even_odd), axis=3)
  odd = jnp.stack((odd_even, odd_odd), axis=3)
  dx = jnp.stack((even, odd), axis=2)  # f[B, H / 2, 2, W / 2, 2, C]
  return (dx.reshape(batch, 2 * rows, 2 * columns, channels),)


max_pool.defvjp(_forward, _backward)
