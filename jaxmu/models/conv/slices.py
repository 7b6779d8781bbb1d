"""Process a batch in slices whose intermediate arrays fit the CPU's cache.

On CPU a layer that makes larger arrays than it reads (patches, tiles) is
limited by memory bandwidth; slice by slice it is not. On other platforms a
batch is one slice.
"""

import math
from collections.abc import Sequence

import jax

from jaxmu.types import Array

# Numbers in a slice of images; the cache also holds the arrays made of them.
NUMBERS = 2**17


def images_per_slice(shape: Sequence[int]) -> int:
  """Return how many images of f[B, H, W, C] make a slice, at least one."""
  return max(1, NUMBERS // math.prod(shape[1:]))


def split_batch(x: Array, most: int) -> Array:
  """Split f[B, ...] into slices f[n, B / n, ...] of at most `most` images.

  The batch stays one slice on other platforms than CPU, and if every divisor of
  B gives slices smaller than a quarter of `most`.
  """
  batch = x.shape[0]
  size = max(n for n in range(1, batch + 1) if batch % n == 0 and n <= most)
  if jax.default_backend() != 'cpu' or 4 * size < most:
    size = batch
  return x.reshape(batch // size, size, *x.shape[1:])


def join_batch(x: Array) -> Array:
  """Undo `split_batch`: f[n, B / n, ...] to f[B, ...]."""
  return x.reshape(-1, *x.shape[2:])
