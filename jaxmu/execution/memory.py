"""The memory that a population's program needs on each device.

What a device holds in an epoch is the data, the loaded members, and from XLA's
account of the compiled program its results (the states, in the place of the old
ones) and temporaries. All but the data and the temporaries of a chunk grow with
the members of a shard.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import jax

from jaxmu.execution import fallback

# Measured peaks exceed XLA's account, by up to 33 % on a CPU (see
# benchmarks/memory.csv): a prediction times this must stay within the limit.
# On accelerators they were not compared, and a failed allocation is caught.
MARGIN = {'cpu': 4 / 3}


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


def margin(platform: str) -> float:
  """Return what predictions are multiplied by before limits are applied.

  Args:
    platform: 'cpu', 'gpu' or 'tpu'.
  """
  return MARGIN.get(platform, 1.0)


def check(
  programs: Iterable[Any], held: float, shared: float, allowance: float
) -> None:
  """Refuse to start programs that need more memory than they may take.

  Args:
    programs: compiled; see `total_of`.
    held: as in `total_of`.
    shared: as in `total_of`.
    allowance: bytes that each device may take.

  Raises:
    fallback.TooLarge: by XLA's account of a program and the margin.
  """
  needed = max(total_of(program, held, shared) for program in programs)
  needed *= margin(jax.default_backend())
  if needed > allowance:
    raise fallback.TooLarge(
      f'{readable(needed)} needed and {readable(allowance)} allowed on each '
      'device'
    )


def total_of(program: Any, held: float, shared: float) -> float:
  """Return the bytes that a compiled epoch needs on each device.

  Args:
    program: compiled epoch, whose results reuse the state it is given, or
      compiled start.
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
