"""The memory that a population's program needs on each device.

What a device holds in an epoch is the data, the loaded members, and from XLA's
account of the compiled program its results (the states, in the place of the old
ones) and temporaries. All but the data and the temporaries of a chunk grow with
the members of a shard.
"""

from typing import Any, NamedTuple

import jax


class Need(NamedTuple):
  """Memory of one device, in bytes.

  Attributes:
    resident: of each member: starting model, state, index sets, key.
    copied: of each member again, while chunks run one after another: the new
      states are collected beside the old ones.
    working: of one chunk in flight: activations, gradients, new weights.
  """

  resident: float
  copied: float
  working: float

  def total(self, members: int, chunk: int, shared: float) -> float:
    """Return the predicted peak.

    Args:
      members: how many the device holds, padding included.
      chunk: how many of them run together.
      shared: bytes of what all members see.
    """
    several = members > chunk
    each = self.resident + (self.copied if several else 0)
    return shared + members * each + self.working


def total_of(program: Any, held: float, shared: float) -> float:
  """Return the bytes that a compiled epoch needs on each device.

  Args:
    program: compiled epoch; its results reuse the state it is given.
    held: bytes of the loaded members on each device. Their starting models stay
      there even where no epoch reads them, hence are no argument of it.
    shared: bytes of what all members see.
  """
  found = program.memory_analysis()
  results = found.output_size_in_bytes + found.temp_size_in_bytes
  return shared + held + results


def need_of(program: Any, held: float, members: int, chunk: int) -> Need:
  """Divide the memory of a compiled epoch into what grows and what does not.

  Args:
    program: as in `total_of`.
    held: as in `total_of`.
    members: how many each device holds, padding included.
    chunk: how many of them run together.
  """
  found = program.memory_analysis()
  state = found.alias_size_in_bytes
  copies = state if members > chunk else 0
  return Need(
    resident=(held + found.output_size_in_bytes) / members,
    copied=state / members,
    working=max(found.temp_size_in_bytes - copies, 0),
  )


def size_of(tree: Any) -> int:
  """Return the bytes of all arrays of a tree, over all devices."""
  return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))


def readable(count: float) -> str:
  """Return bytes in decimal units, e.g. '1.5 MB'."""
  for unit in ('B', 'kB', 'MB', 'GB'):
    if count < 1000:
      return f'{count:.0f} {unit}' if unit == 'B' else f'{count:.1f} {unit}'
    count /= 1000
  return f'{count:.1f} TB'
