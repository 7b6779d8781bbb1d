"""Map a function of one model over a population of models.

  population [P] -> devices of the mesh -> chunks in sequence -> members vmapped

Devices do not communicate; the compiled program has no collectives. On a CPU
the best chunk is 1 (members one after another, one device per core); on a GPU
it is larger.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmu.types import Array


@dataclasses.dataclass(frozen=True)
class Layout:
  """How a population is laid out on the machine.

  Attributes:
    devices: number of devices that share the members.
    chunk: members that run as one vmapped batch on a device.
  """

  devices: int = 1
  chunk: int = 1

  def __post_init__(self) -> None:
    available = len(jax.devices())
    if not 1 <= self.devices <= available:
      raise ValueError(
        f'devices = {self.devices}; this process sees {available}. On a CPU '
        'set jax_num_cpu_devices before the first computation'
      )
    if self.chunk < 1:
      raise ValueError(f'chunk = {self.chunk}; give at least 1')

  @property
  def width(self) -> int:
    """Members that run at once; populations are padded to a multiple of it."""
    return self.devices * self.chunk

  def halved(self) -> 'Layout':
    """Return the layout with half the chunk, at least 1."""
    return dataclasses.replace(self, chunk=max(self.chunk // 2, 1))

  def mesh(self) -> jax.sharding.Mesh:
    """Return the mesh with the single axis 'members'."""
    return jax.make_mesh(
      (self.devices,),
      ('members',),
      axis_types=(jax.sharding.AxisType.Auto,),
      devices=jax.devices()[: self.devices],
    )


def map_members(
  fn: Callable[[Any, Any], Any],
  shared: Any,
  stacked: Any,
  *,
  layout: Layout,
  active: Array | None = None,
  skip: Callable[[Any, Any], Any] | None = None,
) -> Any:
  """Apply `fn(shared, member)` to every member of a population.

  Args:
    fn: a function of one member.
    shared: data that all members share, e.g. the data set.
    stacked: members stacked along leading axes [P]; P a multiple of
      `layout.width`, see `pad`.
    layout: devices and chunk.
    active: bool[P]; chunks without an active member cost nothing.
    skip: gives the result of an inactive member, `skip(shared, member)`, of the
      same shapes as `fn`'s result; needed with `active`.

  Returns:
    The results, stacked along leading axes [P].
  """
  spec = jax.sharding.PartitionSpec
  per_device = functools.partial(
    _map_chunks, fn, skip=skip, chunk=layout.chunk, masked=active is not None
  )
  # Methods may start a loop from constants, which the check of varying axes
  # would refuse. It is not needed, because devices do not communicate.
  mapped = jax.shard_map(
    per_device,
    mesh=layout.mesh(),
    in_specs=(spec(), spec('members'), spec('members')),
    out_specs=spec('members'),
    check_vma=False,
  )
  if active is None:
    active = jnp.ones(_size(stacked), bool)
  return mapped(shared, stacked, active)


def _map_chunks(
  fn: Callable[[Any, Any], Any],
  shared: Any,
  stacked: Any,
  active: Array,
  *,
  skip: Callable[[Any, Any], Any] | None,
  chunk: int,
  masked: bool,
) -> Any:
  count = _size(stacked) // chunk
  split = jax.tree.map(
    lambda x: x.reshape(count, chunk, *x.shape[1:]), (stacked, active)
  )

  def run(members):
    if chunk > 1:
      return jax.vmap(functools.partial(fn, shared))(members)
    # With a batch of one, vmap would still batch every matrix product.
    one = fn(shared, jax.tree.map(lambda x: x[0], members))
    return jax.tree.map(lambda x: x[None], one)

  def skipped(members):
    assert skip is not None
    return jax.vmap(functools.partial(skip, shared))(members)

  def body(item):
    members, on = item
    if not masked:
      return run(members)

    def some():
      if chunk == 1:  # its only member is active
        return run(members)
      choose = functools.partial(_where, on)
      return jax.tree.map(choose, run(members), skipped(members))

    return jax.lax.cond(jnp.any(on), some, lambda: skipped(members))

  out = jax.lax.map(body, split)
  return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), out)


def _where(on: Array, new: Array, old: Array) -> Array:
  return jnp.where(on.reshape(-1, *[1] * (new.ndim - 1)), new, old)


def _size(stacked: Any) -> int:
  return jax.tree.leaves(stacked)[0].shape[0]


def pad(stacked: Any, layout: Layout) -> Any:
  """Repeat the last member until the population fills the layout."""
  size = _size(stacked)
  missing = -size % layout.width
  index = np.concatenate([np.arange(size), np.full(missing, size - 1)])
  return jax.tree.map(lambda x: x[index], stacked) if missing else stacked


def sharding(layout: Layout) -> jax.NamedSharding:
  """Return the sharding of stacked members over the devices of the layout."""
  return jax.NamedSharding(layout.mesh(), jax.sharding.PartitionSpec('members'))


def put(stacked: Any, layout: Layout) -> Any:
  """Spread a padded population over the devices of the layout."""
  return jax.device_put(stacked, sharding(layout))


def replicate(shared: Any, layout: Layout) -> Any:
  """Copy what all members share to every device of the layout."""
  sharding = jax.NamedSharding(layout.mesh(), jax.sharding.PartitionSpec())
  return jax.device_put(shared, sharding)
