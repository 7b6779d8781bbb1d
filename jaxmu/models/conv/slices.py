"""Work a batch off in slices whose intermediate arrays stay in the cache.

On CPU a layer that makes larger arrays than it reads (patches, tiles) is
limited by memory; slice by slice it is not. Elsewhere a batch is one slice.
"""

import math
from collections.abc import Sequence

import jax

from jaxmu.types import Array

# Numbers in a slice of images that leave room in the cache for what is made of
# them.
NUMBERS = 2**17


def images_per_slice(shape: Sequence[int]) -> int:
  """Return how many images of f[B, H, W, C] make a slice, at least one."""
  return max(1, NUMBERS // math.prod(shape[1:]))


def split_batch(x: Array, most: int) -> Array:
  """Cut f[B, ...] into slices f[n, B / n, ...] of at most `most` images.

  One slice unless on CPU, and where the divisors of B leave only slices of less
  than a quarter of `most`.
  """
  batch = x.shape[0]
  size = max(n for n in range(1, batch + 1) if batch % n == 0 and n <= most)
  if jax.default_backend() != 'cpu' or 4 * size < most:
    size = batch
  return x.reshape(batch // size, size, *x.shape[1:])


def join_batch(x: Array) -> Array:
  """Undo `cut`: f[n, B / n, ...] to f[B, ...]."""
  return x.reshape(-1, *x.shape[2:])
