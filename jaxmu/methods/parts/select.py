"""Exactly the k smallest or largest of many numbers, without sorting them.

Bisection over bit patterns, which for non-negative floats are ordered like the
floats, gives the k-th order statistic: one counting pass per bit over the
arrays in place, so memory stays that of the input and `vmap` is cheap.
Ties are broken by position, lower first, so that exactly k are selected.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jaxmu.types import Array


def k_smallest(
  leaves: Sequence[Array], k: Array, among: Sequence[Array] | None = None
) -> list[Array]:
  """Mark the k smallest entries of several arrays taken together.

  Args:
    leaves: non-negative floats of one dtype, any shapes; the order of ties is
      that of the leaves and, within a leaf, of its flat index.
    k: how many to mark, an integer from 0 to the number of candidates; may be
      traced.
    among: bool of the shapes of the leaves, the candidates; all by default.

  Returns:
    Boolean masks of the shapes of the leaves with exactly k entries True.
  """
  return _mark([_bits(leaf) for leaf in leaves], k, among)


def k_largest(
  leaves: Sequence[Array], k: Array, among: Sequence[Array] | None = None
) -> list[Array]:
  """Mark the k largest entries; otherwise as `k_smallest`."""
  bits = [_bits(leaf) for leaf in leaves]
  # One less than the largest integer, which marks entries out of `among`.
  top = jnp.iinfo(bits[0].dtype).max - 1
  return _mark([top - b for b in bits], k, among)


def k_smallest_each(
  leaves: Sequence[Array],
  counts: Sequence[Array],
  among: Sequence[Array] | None = None,
) -> list[Array]:
  """Mark the smallest entries of each array by itself, all in one bisection.

  Args:
    leaves: non-negative floats of one dtype, any shapes.
    counts: how many to mark in each, may be traced.
    among: the candidates, as for `k_smallest`.

  Returns:
    Boolean masks of the shapes of the leaves, with that many entries True.
  """
  bits = _only([_bits(leaf) for leaf in leaves], among)
  thresholds = _bisect([[b] for b in bits], jnp.stack(counts))
  return [_up_to([b], thresholds[i], counts[i])[0] for i, b in enumerate(bits)]


def _bits(leaf: Array) -> Array:
  kind = {4: jnp.int32, 8: jnp.int64}[leaf.dtype.itemsize]
  return jax.lax.bitcast_convert_type(leaf, kind)


def _mark(
  bits: list[Array], k: Array, among: Sequence[Array] | None
) -> list[Array]:
  bits = _only(bits, among)
  (threshold,) = _bisect([bits], jnp.asarray(k)[None])
  return _up_to(bits, threshold, k)


def _only(bits: list[Array], among: Sequence[Array] | None) -> list[Array]:
  """Rank entries outside `among` after all others."""
  if among is None:
    return bits
  never = jnp.iinfo(bits[0].dtype).max
  pairs = zip(bits, among, strict=True)
  return [jnp.where(candidate, b, never) for b, candidate in pairs]


def _bisect(groups: list[list[Array]], counts: Array) -> Array:
  """Find the k-th smallest bit pattern of each group of arrays, [G]."""
  kind = groups[0][0].dtype

  def halve(_, ends):
    low, high = ends
    middle = low + (high - low) // 2
    below = jnp.stack(
      [
        sum(jnp.sum(b <= middle[g], dtype=jnp.int32) for b in group)
        for g, group in enumerate(groups)
      ]
    )
    enough = below >= counts
    return (
      jnp.where(enough, low, middle + 1),
      jnp.where(enough, middle, high),
    )

  zeros = jnp.zeros(len(groups), kind)
  passes = jnp.iinfo(kind).bits - 1
  ends = zeros, jnp.full_like(zeros, jnp.iinfo(kind).max)
  return jax.lax.fori_loop(0, passes, halve, ends)[1]


def _up_to(bits: list[Array], threshold: Array, k: Array) -> list[Array]:
  """Mark entries below the threshold, and ties in order up to k in all."""
  left = k - sum(jnp.sum(b < threshold, dtype=jnp.int32) for b in bits)
  masks = []
  for b in bits:
    tie = (b == threshold).reshape(-1)
    rank = jnp.cumsum(tie, dtype=jnp.int32)
    chosen = tie & (rank <= left)
    left = jnp.maximum(left - jnp.sum(tie, dtype=jnp.int32), 0)
    masks.append((b < threshold) | chosen.reshape(b.shape))
  return masks
