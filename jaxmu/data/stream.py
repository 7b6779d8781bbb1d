"""Batches as index tables: an order of examples, cut into steps.

The last partial batch is always used, as in the reference: a scan over the full
batches, then the same step once more at the size of the tail. Sizes are known
when the program is traced, so every mean is exact.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxmu.core.draws import Draws
from jaxmu.core.types import Array

Step = Callable[[Any, Any, Draws], tuple[Any, Any]]


class Batches(NamedTuple):
  """A pass over data, cut into steps.

  `full` holds pytrees of arrays [S, B, ...], `tail` the same without the
  leading axis for the smaller last batch, or None.
  """

  full: Any
  tail: Any


def num_steps(size: int, batch_size: int) -> int:
  """Return how many steps one pass over `size` examples takes."""
  return -(-size // batch_size)


def shuffled(draws: Draws, name: str, index: Array) -> Array:
  """Return `index` i32[N] in the order drawn under `name`."""
  return index[draws.permutation(name, index.shape[0])]


def cut(xs: Any, batch_size: int) -> Batches:
  """Cut arrays in order of encounter, each [N, ...], into batches."""
  size = jax.tree.leaves(xs)[0].shape[0]
  batch_size = min(batch_size, size)
  steps = size // batch_size
  full = steps * batch_size
  table = jax.tree.map(
    lambda x: x[:full].reshape(steps, batch_size, *x.shape[1:]), xs
  )
  tail = jax.tree.map(lambda x: x[full:], xs) if full < size else None
  return Batches(table, tail)


def padded(index: Array, batch_size: int) -> tuple[Array, Array]:
  """Cut an order into equal batches, with weight 0 on the padding.

  Exact wherever examples do not see each other: in evaluation mode, or with
  frozen batch statistics.

  Args:
    index: i32[N].
    batch_size: B.

  Returns:
    The table i32[S, B] and weights f[S, B] that are 1 on real examples.
  """
  size = index.shape[0]
  batch_size = min(batch_size, size)
  steps = num_steps(size, batch_size)
  position = jnp.arange(steps * batch_size).reshape(steps, batch_size)
  real = position < size
  table = index[jnp.where(real, position, 0)]
  return table, real.astype(jnp.result_type(float))


def one_after_the_other(first: Batches, second: Batches) -> list[Batches]:
  """Join two passes into one loop where their batches have one size.

  A loop costs a compilation of its step; passes that cannot be joined are
  returned as they are, to be run in turn.
  """
  shapes = [
    [leaf.shape[1:] for leaf in jax.tree.leaves(one.full)]
    for one in (first, second)
  ]
  if first.tail is not None or shapes[0] != shapes[1]:
    return [first, second]
  full = jax.tree.map(
    lambda a, b: jnp.concatenate([a, b]), first.full, second.full
  )
  return [Batches(full, second.tail)]


def fold(
  step: Step, carry: Any, batches: Batches, draws: Draws
) -> tuple[Any, Any]:
  """Run `carry, out = step(carry, batch, draws)` over all batches of a pass.

  The step is traced once at the full batch size and once at the size of the
  tail, if there is one. Step t draws at ('step', t), the tail at 'tail'.

  Returns:
    The last carry and the outputs of all steps, stacked along a leading axis.
  """

  def body(carry, item):
    t, batch = item
    return step(carry, batch, draws.at('step', t))

  steps = jax.tree.leaves(batches.full)[0].shape[0]
  carry, outs = jax.lax.scan(body, carry, (jnp.arange(steps), batches.full))
  if batches.tail is not None:
    carry, last = step(carry, batches.tail, draws.at('tail'))
    outs = jax.tree.map(lambda a, b: jnp.append(a, b[None], axis=0), outs, last)
  return carry, outs
