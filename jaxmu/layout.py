"""Where the members of a population are, and how functions are mapped over it.

  population [P] -> devices of the mesh -> chunks in sequence -> members vmapped

Devices do not communicate; the compiled program has no collectives. What
depends on the platform is here too: how many members run together by default,
whether new states are written over the old ones, and how images are stored.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmu import platforms
from jaxmu.types import Array, Dataset, Task

# Members that run together by default. One member fills a TPU and a CPU core
# (`benchmarks/aot.csv`); many run together on a GPU, which was not measured.
_CHUNKS = {'cpu': 1, 'tpu': 1, 'gpu': 8}


def default_chunk() -> int:
  """Return how many members run together if nothing was measured."""
  return _CHUNKS[platforms.name()]


@dataclasses.dataclass(frozen=True)
class Layout:
  """How a population is laid out on the machine.

  Attributes:
    devices: number of devices that share the members.
    chunk: members that run as one vmapped batch on a device.
    given: the devices to choose from, if not those of this process. They may
      be descriptions of devices, see `Trainer.lower`.
  """

  devices: int = 1
  chunk: int = 1
  given: tuple[platforms.Device, ...] = ()

  def __post_init__(self) -> None:
    available = len(self._available())
    if not 1 <= self.devices <= available:
      raise ValueError(
        f'devices = {self.devices}; '
        + (
          f'{available} are given'
          if self.given
          else f'this process sees {available}. On a CPU set '
          'jax_num_cpu_devices before the first computation'
        )
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
      devices=self._available()[: self.devices],
    )

  def tracing(self) -> contextlib.AbstractContextManager[Any]:
    """Return the context in which to trace programs for the devices."""
    if not self.given:
      return contextlib.nullcontext()
    return platforms.target(platforms.of(self.given[0]))

  def _available(self) -> Sequence[platforms.Device]:
    return self.given or platforms.local_devices()


def map_members(
  fn: Callable[[Any, Any], Any],
  shared: Any,
  stacked: Any,
  *,
  layout: Layout,
  active: Array | None = None,
  skip: Callable[[Any, Any], Any] | None = None,
  in_place: bool = False,
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
    in_place: for `stacked` that is a pair (inputs, state) and results that are
      pairs (state, rest): each new state is written over the old one, so that
      there is no second copy of all states.

  Returns:
    The results, stacked along leading axes [P].
  """
  spec = jax.sharding.PartitionSpec
  per_device = functools.partial(
    _map_chunks,
    fn,
    skip=skip,
    chunk=layout.chunk,
    masked=active is not None,
    in_place=in_place,
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
    active = jnp.ones(size(stacked), bool)
  with layout.tracing():
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
  in_place: bool,
) -> Any:
  count = size(stacked) // chunk
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

  def replace(states, item):
    index, inputs, on = item
    state = jax.tree.map(lambda x: x[index], states)
    state, rest = body(((inputs, state), on))
    return jax.tree.map(lambda x, y: x.at[index].set(y), states, state), rest

  if in_place:
    (inputs, states), on = split
    steps = jnp.arange(count), inputs, on
    out = jax.lax.scan(replace, states, steps)
  else:
    out = jax.lax.map(body, split)
  return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), out)


def _where(on: Array, new: Array, old: Array) -> Array:
  return jnp.where(on.reshape(-1, *[1] * (new.ndim - 1)), new, old)


def replaces_states() -> bool:
  """Return whether programs write new states over the old ones.

  Accelerators then hold more models. On a CPU new states are collected beside
  the old ones.
  """
  return not platforms.is_cpu()


def size(stacked: Any) -> int:
  """Return the number of members of a population."""
  return jax.tree.leaves(stacked)[0].shape[0]


def pad(stacked: Any, layout: Layout) -> Any:
  """Repeat the last member until the population fills the layout."""
  length = size(stacked)
  missing = -length % layout.width
  index = np.concatenate([np.arange(length), np.full(missing, length - 1)])
  return jax.tree.map(lambda x: x[index], stacked) if missing else stacked


def sharding(layout: Layout) -> jax.NamedSharding:
  """Return the sharding of stacked members over the devices of the layout."""
  return jax.NamedSharding(layout.mesh(), jax.sharding.PartitionSpec('members'))


def put(stacked: Any, layout: Layout) -> Any:
  """Spread a padded population over the devices of the layout."""
  return jax.device_put(stacked, sharding(layout))


def replicate(shared: Any, layout: Layout) -> Any:
  """Make what all members share available to every device of the layout.

  Accelerators get a copy each. The devices of a CPU read the same memory.
  Shapes stay shapes; they get the sharding.
  """
  sharding = jax.NamedSharding(layout.mesh(), jax.sharding.PartitionSpec())
  if any(isinstance(x, jax.ShapeDtypeStruct) for x in jax.tree.leaves(shared)):
    return jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
      shared,
    )
  if platforms.of(layout.mesh().devices.flat[0]) == 'cpu':
    # JAX copies an array of one device to the others, but takes an aligned
    # array of the host for each device where it is.
    shared = jax.tree.map(np.asarray, shared)
  return jax.device_put(shared, sharding)


def device_dataset(image: np.ndarray, label: np.ndarray) -> Dataset:
  """Put a data set on the first device, stored as its programs read it.

  On a CPU, a read-only array whose address is a multiple of 64, as that of a
  mapped file, is not copied. Others are, because their owner may change them.

  Args:
    image: u8[N, H, W, C].
    label: integer[N].
  """
  dataset = Dataset(image, label)  # type: ignore[arg-type]
  if _packs_images():
    dataset = dataset.packed()
  return jax.tree.map(
    lambda one: jnp.array(one) if one.flags.writeable else jax.device_put(one),
    dataset,
  )


def _packs_images() -> bool:
  return platforms.name() == 'tpu'


def with_readable_images(task: Task, layout: Layout) -> Task:
  """Pack the images where programs would otherwise copy the data set."""
  with layout.tracing():
    if not _packs_images():
      return task
  return dataclasses.replace(task, dataset=task.dataset.packed())


def shapes(stacked: Any, layout: Layout) -> Any:
  """Return the shapes of a population, padded and laid out on the devices.

  Args:
    stacked: arrays or shapes of members stacked along leading axes [P].
    layout: devices and chunk.
  """
  place = sharding(layout)
  length = -(-size(stacked) // layout.width) * layout.width
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(
      (length, *x.shape[1:]), x.dtype, sharding=place
    ),
    jax.eval_shape(lambda x: x, stacked),  # with JAX's dtypes
  )
