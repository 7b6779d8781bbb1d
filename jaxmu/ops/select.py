"""Exactly the k smallest or largest of many numbers, without sorting them.

The k-th order statistic is found by bisection over bit patterns, which for
non-negative floats are ordered like the floats: one counting pass per bit over
the leaves as they lie, so memory stays that of the input and `vmap` is cheap.
Ties are broken by position, lower first, so that exactly k are selected.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jaxmu.core.types import Array


def k_smallest(leaves: Sequence[Array], k: Array) -> list[Array]:
  """Mark the k smallest entries of several arrays taken together.

  Args:
    leaves: non-negative floats of one dtype, any shapes; the order of ties is
      that of the leaves and, within a leaf, of its flat index.
    k: how many to mark, an integer from 0 to the total size; may be traced.

  Returns:
    Boolean masks of the shapes of the leaves with exactly k entries True.
  """
  return _mark([_bits(leaf) for leaf in leaves], k)


def k_largest(leaves: Sequence[Array], k: Array) -> list[Array]:
  """Mark the k largest entries; otherwise as `k_smallest`."""
  bits = [_bits(leaf) for leaf in leaves]
  top = jnp.iinfo(bits[0].dtype).max
  return _mark([top - b for b in bits], k)


def _bits(leaf: Array) -> Array:
  kind = {4: jnp.int32, 8: jnp.int64}[leaf.dtype.itemsize]
  return jax.lax.bitcast_convert_type(leaf, kind)


def _mark(bits: list[Array], k: Array) -> list[Array]:
  kind = bits[0].dtype

  def count(threshold):
    return sum(jnp.sum(b <= threshold, dtype=jnp.int32) for b in bits)

  def halve(_, ends):
    low, high = ends
    middle = low + (high - low) // 2
    enough = count(middle) >= k
    return (
      jnp.where(enough, low, middle + 1),
      jnp.where(enough, middle, high),
    )

  ends = jnp.zeros((), kind), jnp.asarray(jnp.iinfo(kind).max, kind)
  passes = jnp.iinfo(kind).bits - 1
  _, threshold = jax.lax.fori_loop(0, passes, halve, ends)
  left = k - sum(jnp.sum(b < threshold, dtype=jnp.int32) for b in bits)
  masks = []
  for b in bits:
    tie = (b == threshold).reshape(-1)
    rank = jnp.cumsum(tie, dtype=jnp.int32)
    chosen = tie & (rank <= left)
    left = jnp.maximum(left - jnp.sum(tie, dtype=jnp.int32), 0)
    masks.append((b < threshold) | chosen.reshape(b.shape))
  return masks
