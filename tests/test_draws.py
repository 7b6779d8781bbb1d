"""Randomness by name: addresses, independence of position, recorded draws."""

import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmu.draws import Draws, derive

SHAPES = {'a': (2, 3), 'b': (4,), 'c': (1, 2, 2)}


def _draws(**recorded) -> Draws:
  values = {name.replace('__', '/'): v for name, v in recorded.items()}
  return Draws(jax.random.key(0), values)


def test_a_draw_depends_on_its_address_alone():
  a = _draws().at('epoch', 3)
  a.normal('noise', (4,))  # what was drawn before does not matter
  b = _draws().at('epoch', 3)
  np.testing.assert_array_equal(a.normal('x', (4,)), b.normal('x', (4,)))
  for other in (_draws().at('epoch', 4), _draws().at('init'), _draws()):
    assert not np.array_equal(other.normal('x', (4,)), b.normal('x', (4,)))
  assert not np.array_equal(b.normal('y', (4,)), b.normal('x', (4,)))


def test_counters_may_be_traced():
  eager = _draws().at('epoch', 5).uniform('x', (3,))
  traced = jax.jit(lambda e: _draws().at('epoch', e).uniform('x', (3,)))(5)
  np.testing.assert_array_equal(eager, traced)


def test_names_are_folded_in_by_a_stable_hash():
  key = derive(jax.random.key(0), 'member', 7)
  expected = jax.random.fold_in(jax.random.key(0), zlib.crc32(b'member'))
  expected = jax.random.fold_in(expected, 7)
  np.testing.assert_array_equal(
    jax.random.key_data(key), jax.random.key_data(expected)
  )


def test_recorded_draws_have_one_axis_per_counter():
  table = jnp.arange(24.0).reshape(2, 3, 4)
  draws = _draws(epoch__step__x=table)
  place = draws.at('epoch', 1).at('step', 2)
  assert place.is_recorded('x') and not place.is_recorded('y')
  np.testing.assert_array_equal(place.normal('x', (4,)), table[1, 2])
  np.testing.assert_array_equal(place.uniform('x', (2, 2)).ravel(), table[1, 2])
  with pytest.raises(ValueError, match='one leading axis per counter'):
    place.normal('x', (5,))


def test_recorded_orders_and_trees():
  order = jnp.array([2, 0, 1])
  draws = _draws(init__order=order, init__net={'w': jnp.ones(2)})
  place = draws.at('init')
  np.testing.assert_array_equal(place.permutation('order', 3), order)
  made = place.make('net', lambda key: {'w': jnp.zeros(2)})
  np.testing.assert_array_equal(made['w'], 1)
  made = _draws().make('net', lambda key: jax.random.normal(key, (2,)))
  key = derive(jax.random.key(0), 'net')
  np.testing.assert_array_equal(made, jax.random.normal(key, (2,)))


def test_permutations_are_permutations():
  for epoch in range(3):
    order = _draws().at('epoch', epoch).permutation('order', 17)
    np.testing.assert_array_equal(np.sort(order), np.arange(17))


def test_several_arrays_are_cut_from_one_draw():
  place = _draws().at('init')
  found = place.normals('noise', SHAPES)
  flat = np.concatenate([np.ravel(found[key]) for key in SHAPES])
  np.testing.assert_array_equal(flat, place.normal('noise', (14,)))
  assert {key: x.shape for key, x in found.items()} == SHAPES


def test_of_several_arrays_some_may_be_recorded():
  place = _draws(init__noise__b=jnp.arange(4.0)).at('init')
  found = place.uniforms('noise', SHAPES)
  assert list(found) == list(SHAPES)
  np.testing.assert_array_equal(found['b'], np.arange(4))
  rest = np.concatenate([np.ravel(found[key]) for key in 'ac'])
  np.testing.assert_array_equal(rest, place.uniform('noise', (10,)))
