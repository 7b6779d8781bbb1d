"""Batches as index tables, and from bytes to network input.

A pass over data is an order of examples cut into steps: a scan over the full
batches, then the same step once more at the size of the last, partial batch,
which is always used, as in the reference. Sizes are known when the program is
traced, so every mean is exact.

Inside the compiled step a batch is cropped, flipped and normalised, in this
order. Crop and flip act on the bytes, so that the zero padding of a crop is
black, as in the benchmark. The draw of an example depends only on the key and
on the index of the example: with a key per member and epoch, neither the batch
size nor the position in a batch affects it.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxmu import platforms
from jaxmu.draws import Draws
from jaxmu.types import Array, Key, Transform

Step = Callable[[Any, Any, Draws], tuple[Any, Any]]

# Random bits of one offset: probabilities differ by less than 1 in 3,600.
_BITS = 15


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


def make_batches(xs: Any, batch_size: int) -> Batches:
  """Cut arrays, each [N, ...], into batches without changing their order."""
  size = jax.tree.leaves(xs)[0].shape[0]
  batch_size = min(batch_size, size)
  steps = size // batch_size
  full = steps * batch_size
  table = jax.tree.map(
    lambda x: x[:full].reshape(steps, batch_size, *x.shape[1:]), xs
  )
  tail = jax.tree.map(lambda x: x[full:], xs) if full < size else None
  return Batches(table, tail)


def padded_batches(index: Array, batch_size: int) -> tuple[Array, Array]:
  """Cut an order into equal batches, with weight 0 on the padding.

  Exact where examples do not affect each other: in evaluation mode, or with
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
  """Join two passes into one loop if their batches have the same size.

  Each loop compiles its step, so that one loop halves the compilation. Passes
  that cannot be joined are returned unchanged, to be run one after the other.
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


def normalise(transform: Transform, image: Array, dtype: jnp.dtype) -> Array:
  """Return (image / 255 - mean) / std per channel.

  Args:
    transform: gives mean and std.
    image: u8[..., H, W, C].
    dtype: of the result and of the arithmetic.

  Returns:
    float[..., H, W, C].
  """
  shape = (1,) * (image.ndim - 1) + (len(transform.mean),)
  mean = jnp.asarray(transform.mean, dtype).reshape(shape)
  std = jnp.asarray(transform.std, dtype).reshape(shape)
  return (image.astype(dtype) / 255 - mean) / std


def augment(transform: Transform, key: Key, image: Array) -> Array:
  """Crop and flip one image at random.

  The image is padded with zeros on each side, cut back to its size at an offset
  drawn uniformly from 0 .. 2 crop_padding in both directions, then mirrored
  left to right with probability one half.

  Args:
    transform: says which of these to do.
    key: of this member, epoch and example.
    image: u8[H, W, C].

  Returns:
    u8[H, W, C].
  """
  padding = transform.crop_padding
  if not padding and not transform.flip:
    return image
  bits = jax.random.bits(key)
  if padding:
    top, left = _offsets(bits, padding)
    sides = (padding, padding)
    padded = jnp.pad(image, (sides, sides, (0, 0)))
    image = jax.lax.dynamic_slice(padded, (top, left, 0), image.shape)
  if transform.flip:
    image = jnp.where((bits & 1).astype(bool), image[:, ::-1], image)
  return image


def augment_batch(
  transform: Transform, key: Key, index: Array, image: Array
) -> Array:
  """Augment a batch, each example with the key `fold_in(key, index)`.

  Args:
    transform: says what to do.
    key: of this member and epoch.
    index: i32[B] indices of the examples in the data set.
    image: u8[B, H, W, C].

  Returns:
    u8[B, H, W, C].
  """
  keys = jax.vmap(functools.partial(jax.random.fold_in, key))(index)
  if platforms.name() == 'tpu':
    return _augment_by_selection(transform, keys, image)
  return jax.vmap(functools.partial(augment, transform))(keys, image)


def _augment_by_selection(
  transform: Transform, keys: Key, image: Array
) -> Array:
  """Do what `augment` does, to u8[B, H, W, C] at once and without slices.

  The slices of a batch at different offsets are a loop over images on a TPU,
  which takes longer than half of a network.
  """
  padding = transform.crop_padding
  if not padding and not transform.flip:
    return image
  bits = jax.vmap(jax.random.bits)(keys)
  if padding:
    for axis, offset in enumerate(_offsets(bits, padding), start=1):
      image = _shift(image, offset, padding, axis)
  if transform.flip:
    image = jnp.where(_spread(bits & 1, image), image[:, :, ::-1], image)
  return image


def _shift(image: Array, offset: Array, padding: int, axis: int) -> Array:
  """Pad an axis with zeros and cut it at offsets i32[B], a bit at a time."""
  powers = (2 * padding).bit_length()
  sides = [(0, 0)] * image.ndim
  sides[axis] = padding, 2**powers - 1 - padding
  image = jnp.pad(image, sides)
  for power in reversed(range(powers)):
    size = image.shape[axis] - 2**power
    here = jax.lax.slice_in_dim(image, 0, size, axis=axis)
    there = jax.lax.slice_in_dim(image, 2**power, 2**power + size, axis=axis)
    image = jnp.where(_spread(offset >> power & 1, image), there, here)
  return image


def _spread(flag: Array, image: Array) -> Array:
  """Return flags [B] as bool[B, 1, 1, 1]."""
  return flag.astype(bool).reshape(-1, *[1] * (image.ndim - 1))


def _offsets(bits: Array, padding: int) -> tuple[Array, Array]:
  """Return offsets down and right from bits: 1 for the flip, 15 for each."""
  high = 2 * padding + 1
  return _uniform(bits >> 1, high), _uniform(bits >> (1 + _BITS), high)


def _uniform(bits: Array, high: int) -> Array:
  """Map the lowest 15 bits to 0 .. high - 1, i32[]."""
  low = bits & ((1 << _BITS) - 1)
  return ((low * high) >> _BITS).astype(jnp.int32)
