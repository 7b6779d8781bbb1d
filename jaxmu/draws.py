"""Randomness by name: every draw has an address, and tests can replace it.

A draw is addressed by the path of names and counters that leads to it, for
example `unlearn / member 17 / epoch 3 / order`. No key is split by
position, so chunking, sharding and resuming do not change a draw. A draw whose
path of names is in `recorded` is taken from there, so that a run can be
compared step by step with a recorded one.
"""

import math
import operator
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from jaxmu.types import Array, Key


def derive(key: Key, *path: str | int | Array) -> Key:
  """Fold names and counters into a key.

  Args:
    key: a typed key.
    *path: strings (folded as their CRC-32, which unlike `hash` is the same in
      every process) and integers, which may be traced.

  Returns:
    The key that belongs to this path.
  """
  for part in path:
    number = zlib.crc32(part.encode()) if isinstance(part, str) else part
    key = jax.random.fold_in(key, number)
  return key


@struct.dataclass
class Draws:
  """A place in the tree of draws.

  Attributes:
    key: the key of this place.
    recorded: draws to use instead of the generator, by path of names joined
      with '/'. An entry has one leading axis per counter on its path.
    counters: the counters passed on the way here, outermost first.
    path: the names passed on the way here.
  """

  key: Key
  recorded: Mapping[str, Array] = struct.field(default_factory=dict)
  counters: tuple[Array, ...] = ()
  path: str = struct.field(pytree_node=False, default='')

  def at(self, name: str, counter: int | Array | None = None) -> 'Draws':
    """Descend to the place `name`, and to its `counter`-th copy if given."""
    key = derive(self.key, name)
    counters = self.counters
    if counter is not None:
      key = derive(key, counter)
      counters = (*counters, jnp.asarray(counter))
    return Draws(key, self.recorded, counters, f'{self.path}{name}/')

  def permutation(self, name: str, size: int) -> Array:
    """Draw a random order of `size` items, i32[size]."""
    recorded = self._lookup(name, (size,))
    if recorded is not None:
      return recorded.astype(jnp.int32)
    return jax.random.permutation(derive(self.key, name), size).astype(
      jnp.int32
    )

  def normal(
    self, name: str, shape: tuple[int, ...], dtype: Any = None
  ) -> Array:
    """Draw from the standard normal distribution, float[shape]."""
    dtype = dtype or jnp.result_type(float)
    recorded = self._lookup(name, shape)
    if recorded is not None:
      return recorded.astype(dtype)
    return jax.random.normal(derive(self.key, name), shape, dtype)

  def normals(
    self, name: str, shapes: Mapping[str, tuple[int, ...]], dtype: Any = None
  ) -> dict[str, Array]:
    """Draw several normal arrays, recorded as `name/key` each.

    They are cut from one vector: a generator per array would multiply the time
    to compile.
    """
    return self._several(self.normal, name, shapes, dtype)

  def uniforms(
    self, name: str, shapes: Mapping[str, tuple[int, ...]], dtype: Any = None
  ) -> dict[str, Array]:
    """Draw several arrays uniform on [0, 1); otherwise as `normals`."""
    return self._several(self.uniform, name, shapes, dtype)

  def uniform(
    self, name: str, shape: tuple[int, ...], dtype: Any = None
  ) -> Array:
    """Draw from the uniform distribution on [0, 1), float[shape]."""
    dtype = dtype or jnp.result_type(float)
    recorded = self._lookup(name, shape)
    if recorded is not None:
      return recorded.astype(dtype)
    return jax.random.uniform(derive(self.key, name), shape, dtype)

  def integers(self, name: str, shape: tuple[int, ...], high: int) -> Array:
    """Draw integers uniformly from 0 to `high` - 1, i32[shape]."""
    recorded = self._lookup(name, shape)
    if recorded is not None:
      return recorded.astype(jnp.int32)
    return jax.random.randint(derive(self.key, name), shape, 0, high, jnp.int32)

  def make(self, name: str, maker: Callable[[Key], Any]) -> Any:
    """Draw any pytree, for example a network: `maker(key)` unless recorded.

    A recorded pytree has one name; its leaves have the leading axes of the
    counters.
    """
    recorded = self.recorded.get(self.path + name)
    if recorded is None:
      return maker(derive(self.key, name))
    for counter in self.counters:
      recorded = jax.tree.map(operator.itemgetter(counter), recorded)
    return recorded

  def key_for(self, name: str) -> Key:
    """Return the key of a draw that cannot be recorded (augmentation)."""
    return derive(self.key, name)

  def is_recorded(self, name: str) -> bool:
    """Return whether the draw `name` of this place is recorded."""
    return self.path + name in self.recorded

  def _several(
    self,
    draw: Callable[..., Array],
    name: str,
    shapes: Mapping[str, tuple[int, ...]],
    dtype: Any,
  ) -> dict[str, Array]:
    """Look up recorded arrays; cut the others from one draw."""
    known = {
      key: draw(f'{name}/{key}', shape, dtype)
      for key, shape in shapes.items()
      if self.is_recorded(f'{name}/{key}')
    }
    rest = {key: shape for key, shape in shapes.items() if key not in known}
    drawn = _cut(draw(name, (_total(rest),), dtype), rest) if rest else {}
    return {key: {**known, **drawn}[key] for key in shapes}

  def _lookup(self, name: str, shape: tuple[int, ...]) -> Array | None:
    value = self.recorded.get(self.path + name)
    if value is None:
      return None
    value = jnp.asarray(value)
    for counter in self.counters:
      value = value[counter]
    if math.prod(value.shape) != math.prod(shape):
      raise ValueError(
        f'recorded draw {self.path + name!r} has shape {value.shape}, '
        f'needed {shape}; give it one leading axis per counter on its path '
        f'({len(self.counters)} here)'
      )
    return value.reshape(shape)


def _total(shapes: Mapping[str, tuple[int, ...]]) -> int:
  return sum(math.prod(shape) for shape in shapes.values())


def _cut(
  flat: Array, shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, Array]:
  parts, begin = {}, 0
  for key, shape in shapes.items():
    end = begin + math.prod(shape)
    parts[key] = flat[begin:end].reshape(shape)
    begin = end
  return parts
