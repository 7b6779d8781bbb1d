"""A pass over data visits every example once, in partial batches too."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmu.data import batches as batches_lib
from jaxmu.draws import Draws

SIZES = [(12, 4), (13, 4), (3, 4), (4, 4), (1, 1)]


def _batches(passes):
  """Return the batches of a pass in order, as lists."""
  found = [row.tolist() for row in passes.full]
  return found if passes.tail is None else [*found, passes.tail.tolist()]


@pytest.mark.parametrize(('size', 'batch'), SIZES)
def test_cut_equals_slicing(size, batch):
  index = jnp.arange(size) * 3
  sliced = [index[k : k + batch].tolist() for k in range(0, size, batch)]
  assert _batches(batches_lib.make_batches(index, batch)) == sliced
  assert batches_lib.num_steps(size, batch) == len(sliced)


@pytest.mark.parametrize(('size', 'batch'), SIZES)
def test_padding_has_no_weight(size, batch):
  index = jnp.arange(size) + 5
  table, weight = batches_lib.padded_batches(index, batch)
  assert table.shape == weight.shape
  assert table[weight > 0].tolist() == index.tolist()
  assert weight.sum() == size


@pytest.mark.parametrize(('size', 'batch'), SIZES)
def test_fold_equals_a_loop_over_all_batches(size, batch):
  """The step gets batches in order, each with separate draws."""

  def step(carry, values, draws):
    carry = 0.5 * carry + jnp.mean(values) * draws.uniform('u', ())
    return carry, carry

  values = jnp.linspace(1.0, 2.0, size)
  draws = Draws(jax.random.key(3)).at('epoch', 1)
  batches = batches_lib.make_batches(values, batch)
  carry, outs = batches_lib.fold(step, jnp.float32(0), batches, draws)
  expected, places = [0.0], [('step', t) for t in range(len(batches.full))]
  places += [('tail',)] if batches.tail is not None else []
  for k, place in enumerate(places):
    mean = np.mean(np.asarray(values[k * batch : (k + 1) * batch]))
    drawn = float(draws.at(*place).uniform('u', ()))
    expected.append(0.5 * expected[-1] + mean * drawn)
  np.testing.assert_allclose(outs, expected[1:], rtol=1e-5)
  np.testing.assert_allclose(carry, expected[-1], rtol=1e-5)


def test_passes_of_one_size_become_one_loop():
  index = jnp.arange(10)
  whole, rest = (
    batches_lib.make_batches(index[:4], 2),
    batches_lib.make_batches(index[4:9], 2),
  )
  (joined,) = batches_lib.one_after_the_other(whole, rest)
  assert _batches(joined) == [[0, 1], [2, 3], [4, 5], [6, 7], [8]]
  # A partial batch in between must stay one.
  apart = batches_lib.one_after_the_other(rest, whole)
  assert [_batches(one) for one in apart] == [_batches(rest), _batches(whole)]


def test_shuffled_is_a_permutation_by_name():
  draws, index = Draws(jax.random.key(0)), jnp.arange(50) * 2
  first = batches_lib.shuffled(draws, 'train', index)
  assert sorted(first.tolist()) == index.tolist()
  assert first.tolist() != index.tolist()
  again = batches_lib.shuffled(draws, 'train', index)
  assert first.tolist() == again.tolist()
  assert first.tolist() != batches_lib.shuffled(draws, 'other', index).tolist()
