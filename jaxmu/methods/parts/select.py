"""Exactly the k smallest or largest of many numbers, without sorting them.

Bisection over bit patterns, which for non-negative floats are ordered like the
floats, gives the k-th order statistic: one counting pass per bit over the
arrays in place, so `vmap` is cheap. Ties are broken by position, lower first,
so that exactly k are selected: the position of the last tie that is selected
is an order statistic too. A cumulative sum would number the ties in one pass,
but takes longer to compile, and needs flat arrays.
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
  marked = _smallest([[b] for b in bits], jnp.stack(counts))
  return [mask for (mask,) in marked]


def _bits(leaf: Array) -> Array:
  kind = {4: jnp.int32, 8: jnp.int64}[leaf.dtype.itemsize]
  return jax.lax.bitcast_convert_type(leaf, kind)


def _mark(
  bits: list[Array], k: Array, among: Sequence[Array] | None
) -> list[Array]:
  return _smallest([_only(bits, among)], jnp.asarray(k)[None])[0]


def _only(bits: list[Array], among: Sequence[Array] | None) -> list[Array]:
  """Rank entries outside `among` after all others."""
  if among is None:
    return bits
  never = jnp.iinfo(bits[0].dtype).max
  pairs = zip(bits, among, strict=True)
  return [jnp.where(candidate, b, never) for b, candidate in pairs]


def _smallest(groups: list[list[Array]], counts: Array) -> list[list[Array]]:
  """Mark the smallest numbers of each group, counts i32[G] of them."""
  top = int(jnp.iinfo(groups[0][0].dtype).max)
  thresholds = _bisect(groups, counts, top)
  pairs = list(zip(groups, thresholds, strict=True))
  below = [[b < threshold for b in group] for group, threshold in pairs]
  left = counts - jnp.stack(list(map(_count, below)))
  most = max(sum(b.size for b in group) for group in groups)
  ties = [_ranks([b == t for b in group], most + 1) for group, t in pairs]
  ends = _bisect(ties, left, most)
  return [
    [mask | (rank <= end) for mask, rank in zip(masks, ranks, strict=True)]
    for masks, ranks, end in zip(below, ties, ends, strict=True)
  ]


def _ranks(masks: list[Array], outside: int) -> list[Array]:
  """Return the positions of True entries, from 1, and `outside` elsewhere."""
  ranks, begin = [], 1
  for mask in masks:
    ranks.append(jnp.where(mask, _positions(mask.shape, begin), outside))
    begin += mask.size
  return ranks


def _bisect(groups: list[list[Array]], counts: Array, top: int) -> Array:
  """Find the k-th smallest number of each group of arrays.

  Args:
    groups: integers that are not negative, all of one dtype.
    counts: k of each group, i32[G]; the result is 0 where it is 0.
    top: no result is larger.

  Returns:
    [G] of the dtype of the numbers.
  """
  kind = groups[0][0].dtype

  def halve(_, ends):
    low, high = ends
    middle = low + (high - low) // 2
    below = jnp.stack(
      [
        _count([b <= middle[g] for b in group])
        for g, group in enumerate(groups)
      ]
    )
    enough = below >= counts
    return (
      jnp.where(enough, low, middle + 1),
      jnp.where(enough, middle, high),
    )

  zeros = jnp.zeros(len(groups), kind)
  ends = zeros, jnp.full_like(zeros, top)
  return jax.lax.fori_loop(0, top.bit_length(), halve, ends)[1]


def _count(masks: list[Array]) -> Array:
  counts = (jnp.sum(mask, dtype=jnp.int32) for mask in masks)
  return sum(counts, jnp.zeros((), jnp.int32))


def _positions(shape: tuple[int, ...], begin: int) -> Array:
  """Number the entries of an array by their flat index, i32[shape].

  By axes, because flat arrays of kernels take another layout on a TPU.
  """
  place, step = jnp.full(shape, begin, jnp.int32), 1
  for axis in reversed(range(len(shape))):
    place += step * jax.lax.broadcasted_iota(jnp.int32, shape, axis)
    step *= shape[axis]
  return place
