"""Which execution plan is best: measurements in, choice out.

Nothing here runs or times anything. A plan says how many devices share the
members and how many members run as one vmapped chunk on each; it changes
rounding, never a draw.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from jaxmu.execution.memory import Need

GAIN = 1.05  # a doubled chunk must be this much faster for another doubling
CLOSE = 0.97  # of the fastest speed; among plans so close the smallest wins
SHARE = 0.02  # of the estimated time of a job that its own probe may take
LEAST_SECONDS = 300  # at the ceiling of the machine, below which none probes

# Floating-point operations per second and device, only used to tell small jobs
# from large ones before anything was measured: of a CPU core twice the largest
# in benchmarks/shares.csv (128e9), of an accelerator a guess.
CEILING = {'cpu': 2.5e11, 'gpu': 4e14, 'tpu': 4e14}


class Plan(NamedTuple):
  """A way to lay out members.

  Attributes:
    devices: how many share the members.
    chunk: members vmapped together on each; 1 for one after another.
  """

  devices: int
  chunk: int

  def padded(self, members: int) -> int:
    """Return how many members run where `members` are wanted."""
    width = self.devices * self.chunk
    return -(-members // width) * width


class Measured(NamedTuple):
  """What the probe of one plan found.

  Attributes:
    plan: what was tried.
    images: training images per second over all devices; 0 if memory ran out.
    compile_seconds: time to compile the training program.
    need: memory on each device.
    peak: bytes that one device had in use at most since the process began, 0
      where devices do not report it.
  """

  plan: Plan
  images: float
  compile_seconds: float
  need: Need
  peak: int


class Room(NamedTuple):
  """What a plan must fit into.

  Attributes:
    members: models of the largest shard.
    shared: bytes of what all members see, on each device.
    limit: of a number of devices, the bytes each of them may take.
    margin: what a prediction is multiplied by before it is compared with it.
  """

  members: int
  shared: int
  limit: Callable[[int], float]
  margin: float = 1.0


class Choice(NamedTuple):
  """The decision.

  Attributes:
    best: the chosen measurement, None if no plan fits.
    why: of every plan, in the order given, what speaks for or against it.
  """

  best: Measured | None
  why: list[str]


def choose(measured: Sequence[Measured], room: Room) -> Choice:
  """Choose the fastest plan that fits; of those that are close, the smallest.

  Speed counts without the models that only fill up the last chunk.
  """
  faults = [_fault(one, room) for one in measured]
  fitting = [
    one for one, fault in zip(measured, faults, strict=True) if not fault
  ]
  if not fitting:
    return Choice(None, faults)
  speeds = [useful_images(one, room.members) for one in fitting]
  close = [
    one
    for one, speed in zip(fitting, speeds, strict=True)
    if speed >= CLOSE * max(speeds)
  ]
  best = min(
    close,
    key=lambda one: one.plan.devices * bytes_per_device(one, room),
  )
  fastest = useful_images(best, room.members) == max(speeds)
  reason = 'chosen: fastest' if fastest else 'chosen: as fast, less memory'
  why = [
    fault or (reason if one is best else 'slower or larger')
    for one, fault in zip(measured, faults, strict=True)
  ]
  return Choice(best, why)


def _fault(one: Measured, room: Room) -> str:
  if not one.images:
    return 'ran out of memory'
  needed = room.margin * bytes_per_device(one, room)
  if needed > room.limit(one.plan.devices):
    return 'exceeds the memory limit'
  return ''


def bytes_per_device(one: Measured, room: Room) -> float:
  """Return the predicted peak on each device for the largest shard."""
  here = one.plan.padded(room.members) // one.plan.devices
  return one.need.total(here, one.plan.chunk, room.shared)


def useful_images(one: Measured, members: int) -> float:
  """Return images per second without those of padding."""
  return one.images * members / one.plan.padded(members)


def next_plan(
  measured: Sequence[Measured],
  *,
  devices: int,
  chunk: int,
  visible: int,
  members: int,
  on_cpu: bool,
) -> Plan | None:
  """Say what to measure next, None if enough is known.

  All devices with chunks of 1, 2, 4, ... while a doubling pays and a shard
  fills the chunks; on a CPU then one device, whose operations use all cores.

  Args:
    measured: what was measured so far.
    devices: number of devices the user set, 0 for open.
    chunk: chunk the user set, 0 for open.
    visible: devices there are.
    members: models of the largest shard.
    on_cpu: whether devices share cores and memory.
  """
  known = {one.plan: one.images for one in measured}
  all_of_them = devices or min(visible, members)
  if chunk:
    wanted = [Plan(all_of_them, chunk)]
  else:
    wanted = _doublings(known, all_of_them, math.ceil(members / all_of_them))
  if on_cpu and not devices and all_of_them > 1:
    wanted.append(Plan(1, chunk or 1))
  return next((plan for plan in wanted if plan not in known), None)


def _doublings(known: dict[Plan, float], devices: int, most: int) -> list[Plan]:
  plans = [Plan(devices, 1)]
  while plans[-1] in known and 2 * plans[-1].chunk <= most:
    speed = known[plans[-1]]
    before = known[plans[-2]] if len(plans) > 1 else 0.0
    if speed < GAIN * before or not speed:
      break
    plans.append(Plan(devices, 2 * plans[-1].chunk))
  return plans


def is_large(operations: float, devices: int, platform: str) -> bool:
  """Whether a job is so large that it probes without being asked.

  Args:
    operations: floating-point operations of all that is to be trained.
    devices: how many there are.
    platform: 'cpu', 'gpu' or 'tpu'.
  """
  ceiling = CEILING.get(platform, max(CEILING.values()))
  return operations >= LEAST_SECONDS * devices * ceiling


def may_go_on(spent: float, last: float, estimate: float) -> bool:
  """Whether a job may probe another plan of its own accord.

  Args:
    spent: seconds of probing so far.
    last: seconds of the last plan, taken for those of the next.
    estimate: seconds of the job at the best speed so far.
  """
  return spent + last <= SHARE * estimate
