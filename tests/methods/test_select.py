"""Selecting exactly k entries, against a stable sort."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmu.methods.parts import select

SHAPES = ((3, 4), (7,), (2, 2, 3))
TOTAL = 31


def _leaves(seed: int, dtype) -> list[np.ndarray]:
  """Magnitudes with many ties: small integers, zeros among them."""
  random = np.random.default_rng(seed)
  return [random.integers(0, 4, shape).astype(dtype) for shape in SHAPES]


def _naive(leaves, k, *, largest, among=None):
  flat = np.concatenate([leaf.reshape(-1) for leaf in leaves])
  keys = -flat if largest else flat.copy()
  if among is not None:
    allowed = np.concatenate([leaf.reshape(-1) for leaf in among])
    keys = np.where(allowed, keys, np.inf)
  chosen = np.zeros(flat.size, bool)
  chosen[np.argsort(keys, kind='stable')[:k]] = True
  ends = np.cumsum([leaf.size for leaf in leaves])[:-1]
  parts = np.split(chosen, ends)
  return [p.reshape(leaf.shape) for p, leaf in zip(parts, leaves, strict=True)]


def _assert_equal(found, expected):
  for a, b in zip(found, expected, strict=True):
    np.testing.assert_array_equal(np.asarray(a), b)


@pytest.mark.parametrize('k', [0, 1, 7, 8, 20, 30, 31])
@pytest.mark.parametrize('largest', [False, True])
def test_ties_go_to_the_lower_index(k, largest):
  function = select.k_largest if largest else select.k_smallest
  for seed in range(3):
    leaves = _leaves(seed, np.float32)
    found = function([jnp.asarray(leaf) for leaf in leaves], jnp.int32(k))
    assert sum(int(mask.sum()) for mask in found) == k
    _assert_equal(found, _naive(leaves, k, largest=largest))


def test_values_without_ties_of_any_scale():
  random = np.random.default_rng(0)
  leaf = np.abs(random.normal(size=200) * 10.0 ** random.integers(-38, 38, 200))
  leaf = leaf.astype(np.float32)
  for k in (1, 99, 200):
    (found,) = select.k_smallest([jnp.asarray(leaf)], jnp.int32(k))
    _assert_equal([found], _naive([leaf], k, largest=False))


@pytest.mark.parametrize('largest', [False, True])
def test_only_candidates_are_chosen(largest):
  function = select.k_largest if largest else select.k_smallest
  random = np.random.default_rng(1)
  leaves = _leaves(1, np.float32)
  among = [random.random(shape) < 0.6 for shape in SHAPES]
  most = sum(int(leaf.sum()) for leaf in among)
  for k in (0, 5, most):
    found = function(
      [jnp.asarray(leaf) for leaf in leaves],
      jnp.int32(k),
      [jnp.asarray(leaf) for leaf in among],
    )
    expected = _naive(leaves, k, largest=largest, among=among)
    _assert_equal(found, expected)


def test_counts_may_differ_per_member():
  leaves = [jnp.asarray(leaf) for leaf in _leaves(0, np.float32)]
  counts = jnp.arange(0, TOTAL, 5)
  found = jax.vmap(lambda k: select.k_largest(leaves, k))(counts)
  per_member = sum(mask.reshape(len(counts), -1).sum(1) for mask in found)
  np.testing.assert_array_equal(per_member, counts)


def test_float64():
  with jax.enable_x64(True):
    leaves = _leaves(2, np.float64)
    leaves[0] = leaves[0] + 1e-12  # equal to the others in float32
    found = select.k_smallest([jnp.asarray(leaf) for leaf in leaves], 12)
    _assert_equal(found, _naive(leaves, 12, largest=False))
