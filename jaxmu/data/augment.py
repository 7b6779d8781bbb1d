"""From bytes to network input: crop, flip, normalise, in this order.

Everything happens inside the compiled step, on the device that holds the data.
Crop and flip act on the bytes, so that the zero padding of a crop is black, as
in the benchmark. The draw of an example depends on the key and on the index of
the example alone: with a key per member and epoch, neither the batch size nor
the position in a batch changes what happens to it.
"""

import functools

import jax
import jax.numpy as jnp

from jaxmu.core.types import Array, Key, Transform

_BITS = 15  # random bits behind one offset: unequal by less than 1 in 3,600


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
  # One draw of 32 bits: 1 for the flip, 15 for each offset.
  bits = jax.random.bits(key)
  if padding:
    top = _uniform(bits >> 1, 2 * padding + 1)
    left = _uniform(bits >> (1 + _BITS), 2 * padding + 1)
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
  return jax.vmap(functools.partial(augment, transform))(keys, image)


def _uniform(bits: Array, high: int) -> Array:
  """Map the lowest 15 bits to 0 .. high - 1, i32[]."""
  low = bits & ((1 << _BITS) - 1)
  return ((low * high) >> _BITS).astype(jnp.int32)
