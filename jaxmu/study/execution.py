"""Memory and speed of the programs of a population on this machine.

  the machine      cores, processor, memory
  MemoryEstimate   what a compiled program needs on each device
  retry_smaller    repeats work with half the chunk when memory runs out
  choose_fastest   chooses the best of the measured plans
  Load             the load of the machine while a probe runs
  MeasurementCache measurements of probes on this machine, for later jobs

A plan says how many devices share the members and how many members run as one
vmapped chunk on each; it changes rounding, never a draw. Nothing here runs or
times a program; `planner` does.
"""

import datetime
import functools
import itertools
import json
import logging
import math
import os
import pathlib
import platform
import time
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

import jax
import numpy as np

from jaxmu import files, platforms, terms
from jaxmu import layout as layout_lib
from jaxmu.population import Layout
from jaxmu.study import programs

log = logging.getLogger(__name__)

MOST_DEVICES = 1024  # more are a typing error; JAX would allocate them
_USABLE = 0.9  # of a device's or a machine's memory, by default
_VECTORS = ('avx512f', 'avx2', 'avx')  # vector instructions, widest first


def cores() -> int:
  """Return how many cores this process may use."""
  if hasattr(os, 'sched_getaffinity'):
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1


def processor(path: str = '/proc/cpuinfo') -> str:
  """Name the processor, with what tells generations apart.

  Virtual machines often give the same model name to several generations of a
  processor, whose vector instructions and so whose rounding differ. The name
  therefore ends with the numbers of family and model and the widest vector
  instructions, as 'AMD EPYC (family 26, model 2, avx512f)'. Without a model
  name it begins with the architecture.

  Args:
    path: file in which Linux describes the processors.
  """
  try:
    lines = pathlib.Path(path).read_text().splitlines()
  except OSError:
    lines = []
  # The first processor is described up to an empty line.
  pairs = (line.partition(':') for line in itertools.takewhile(bool, lines))
  facts = {name.strip(): value.strip() for name, _, value in pairs}
  flags = facts.get('flags', '').split()
  known = {
    'cpu family': 'family',
    'model': 'model',
    'CPU implementer': 'implementer',
    'CPU part': 'part',
  }
  details = [f'{to} {facts[of]}' for of, to in known.items() if of in facts]
  details += [flag for flag in _VECTORS if flag in flags][:1]
  name = facts.get('model name') or platform.machine()
  return f'{name} ({", ".join(details)})' if details else name


def open_program_cache() -> dict[str, Any]:
  """Delete old programs; return the settings with which JAX keeps new ones.

  Empty if the user has chosen a folder, as with JAX_COMPILATION_CACHE_DIR;
  nothing is deleted there.
  """
  config: Any = jax.config  # its attributes are made at run time
  chosen = config.jax_compilation_cache_dir
  if chosen is not None:
    if not chosen.startswith('~'):  # which JAX takes literally
      return {}
    return {'jax_compilation_cache_dir': str(files.path(chosen))}
  files.remove_old_programs()
  programs.check(files.programs_dir())
  return {
    'jax_compilation_cache_dir': str(files.programs_dir()),
    'jax_persistent_cache_min_compile_time_secs': 0.2,
  }


def peak_memory() -> int:
  """Return the largest measured use of the first device, 0 if unreported."""
  stats = platforms.memory_stats()
  return int(stats.get('peak_bytes_in_use', 0))


def memory_limit(devices: int, gigabytes: float = 0.0) -> float:
  """Return the bytes each device may take.

  Args:
    devices: how many are used; on a CPU they share the machine's memory.
    gigabytes: what the user allows: of each accelerator, or of the machine
      where devices are its cores; 0 for 90% of what there is.
  """
  if platforms.is_cpu():
    return (gigabytes * 1e9 or _USABLE * machine_bytes()) / devices
  stats = platforms.memory_stats()
  return gigabytes * 1e9 or stats.get('bytes_limit', float('inf'))


def machine_bytes() -> float:
  """Return the memory of this machine, or of the container if that is less."""
  installed = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
  return min([installed, *_container_limits()])


def _container_limits() -> list[float]:
  limits = []
  for path in ('memory.max', 'memory/memory.limit_in_bytes'):
    try:
      text = (pathlib.Path('/sys/fs/cgroup') / path).read_text().strip()
    except OSError:
      continue
    if text.isdigit():
      limits.append(float(text))
  return limits


def shared_bytes(devices: int, dataset: Any) -> float:
  """Return the bytes of the data set that count on each device.

  Args:
    devices: how many are used; on a CPU they read one copy together.
    dataset: the data set, of which every accelerator holds a copy.
  """
  return bytes_of(dataset) / (devices if platforms.is_cpu() else 1)


# Predictions are multiplied by this before they are compared with the limit,
# without the data set, whose size is known:
# measured peaks exceed those of XLA by up to 33% on a CPU (see
# benchmarks/memory.csv). On accelerators there are no measurements, and a
# failed allocation is caught.
MARGIN = {'cpu': 4 / 3}


class MemoryEstimate(NamedTuple):
  """Memory of one device, in bytes.

  Attributes:
    resident: of each member: starting model, state, index sets, key.
    copied: of each member again, while chunks run one after another: the new
      states are collected beside the old ones; 0 where they replace these.
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
      shared: bytes of what all members share.
    """
    several = members > chunk
    each = self.resident + (self.copied if several else 0)
    return shared + members * each + self.working


def memory_margin(platform: str) -> float:
  """Return the factor on predictions before they are compared with limits.

  Args:
    platform: 'cpu', 'gpu' or 'tpu'.
  """
  return MARGIN.get(platform, 1.0)


def check_memory(
  programs: Iterable[Any], resident: float, shared: float, allowance: float
) -> None:
  """Raise an error for programs that need more memory than allowed.

  Args:
    programs: compiled; see `total_bytes`.
    resident: as in `total_bytes`.
    shared: as in `total_bytes`.
    allowance: bytes that each device may take.

  Raises:
    DoesNotFit: the data and the prediction of XLA times the margin exceed the
      allowance.
  """
  needed = max(total_bytes(program, resident, 0.0) for program in programs)
  needed = shared + memory_margin(platforms.name()) * needed
  if needed > allowance:
    raise DoesNotFit(
      f'{terms.readable_bytes(needed)} needed and '
      f'{terms.readable_bytes(allowance)} allowed on each device'
    )


def total_bytes(program: Any, resident: float, shared: float) -> float:
  """Return the bytes that a compiled epoch needs on each device.

  Args:
    program: compiled epoch, whose results reuse the state it is given, or
      compiled start.
    resident: bytes of the loaded members on each device. Where starting models
      stay there although no epoch reads them, they are not inputs of the
      program, so they are counted here.
    shared: bytes of what all members share.
  """
  account = program.memory_analysis()
  results = account.output_size_in_bytes + account.temp_size_in_bytes
  return shared + resident + results


def estimate_memory(
  program: Any, resident: float, members: int, chunk: int
) -> MemoryEstimate:
  """Divide the memory of a compiled epoch into per-member and fixed parts.

  Args:
    program: as in `total_bytes`.
    resident: as in `total_bytes`.
    members: how many each device holds, padding included.
    chunk: how many of them run together.
  """
  account = program.memory_analysis()
  state = account.alias_size_in_bytes
  collected = 0 if layout_lib.replaces_states() else state
  copies = collected if members > chunk else 0
  return MemoryEstimate(
    resident=(resident + account.output_size_in_bytes) / members,
    copied=collected / members,
    working=max(account.temp_size_in_bytes - copies, 0),
  )


def bytes_of(tree: Any) -> int:
  """Return the bytes of all arrays of a tree, over all devices."""
  return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))


T = TypeVar('T')

_SIGNS = ('RESOURCE_EXHAUSTED', 'OUT_OF_MEMORY', 'Out of memory')


class DoesNotFit(Exception):
  """A program needs more memory than allowed; it was not started."""


class Narrowable(Protocol):
  """A compiled program that can be compiled again for smaller chunks."""

  layout: Layout

  def narrow(self) -> None:
    """Halve the chunk and drop the compiled program."""
    ...


def ran_out(error: BaseException) -> bool:
  """Return whether an error means that memory ran out."""
  if isinstance(error, DoesNotFit | MemoryError):
    return True
  text = str(error)
  return isinstance(error, jax.errors.JaxRuntimeError) and any(
    sign in text for sign in _SIGNS
  )


def retry_smaller(
  work: Callable[[], T],
  program: Narrowable,
  *,
  on_smaller: Callable[[int], None] = lambda chunk: None,
) -> T:
  """Do work; halve the chunk and start again each time memory runs out.

  The work starts from its beginning, because its state was donated to the
  program that failed; finished work is kept.

  Args:
    work: uses `program` and may be started again.
    program: the program to narrow.
    on_smaller: called with the new chunk before each new start.

  Raises:
    ValueError: memory ran out at a chunk of 1; the message says what helps.
  """
  while True:
    try:
      return work()
    except Exception as error:
      if not ran_out(error):
        raise
      if program.layout.chunk == 1:
        raise ValueError(_remedy(program.layout, error)) from error
    # Outside the handler, since its traceback keeps the arrays alive.
    program.narrow()
    on_smaller(program.layout.chunk)


def _remedy(layout: Layout, error: Exception) -> str:
  cause = str(error).strip().split('\n')[0][:200]
  # The devices of a CPU share its memory.
  fewer = layout.devices > 1 and platforms.is_cpu()
  return (
    'memory ran out with one model at a time on '
    f'{terms.count(layout.devices, "device")} ({cause}); hold fewer '
    'models at once (config.run.shard), '
    + ('use fewer devices (config.run.devices), ' if fewer else '')
    + 'use smaller batches (batch_size) or a smaller model, or allow more '
    'memory (config.run.memory)'
  )


GAIN = 1.05  # a doubled chunk must be this much faster for another doubling
CLOSE = 0.97  # of the fastest speed; among plans so close the smallest wins
SHARE = 0.02  # share of a job's estimated time that its probe may take
LEAST_SECONDS = 300  # shorter jobs, at the ceiling of the machine, do not probe

# Floating-point operations per second and device, used to tell small jobs from
# large ones before any measurement: for a CPU core that of a large product in
# benchmarks/shares.csv (248e9), for an accelerator an estimate.
CEILING = {'cpu': 2.5e11, 'gpu': 4e14, 'tpu': 4e14}


class Plan(NamedTuple):
  """A way to lay out members.

  Attributes:
    devices: number of devices that share the members.
    chunk: members vmapped together on each; 1 for sequential members.
  """

  devices: int
  chunk: int

  def padded(self, members: int) -> int:
    """Return how many members run where `members` are wanted."""
    width = self.devices * self.chunk
    return -(-members // width) * width


class Conditions(NamedTuple):
  """When and how a probe was made.

  Attributes:
    date: seconds since 1970 (UTC).
    load: share of the processor time that other programs took, 0 to 1; 0 where
      the system does not report it.
    spread: difference of the fastest and the slowest epoch, as a share of the
      median.
  """

  date: float
  load: float
  spread: float


_DAY = 86400.0  # seconds
KEPT_DAYS = 30  # older measurements are stale
BUSY = 0.1  # largest load of a measurement that is not stale
NOISY = 0.25  # largest spread of a measurement that is not stale


class Measured(NamedTuple):
  """Speed and memory of one plan, measured by a probe.

  Attributes:
    plan: the measured plan.
    images: training images per second over all devices; 0 if memory ran out.
    compile_seconds: time to compile the training program.
    need: memory on each device.
    peak: largest memory use of one device since the process began, in bytes; 0
      where devices do not report it.
    made: when and how.
  """

  plan: Plan
  images: float
  compile_seconds: float
  need: MemoryEstimate
  peak: int
  made: Conditions

  def day(self) -> str:
    """Return the date of the measurement, in UTC."""
    date = datetime.datetime.fromtimestamp(self.made.date, datetime.UTC)
    return f'{date:%Y-%m-%d}'

  def fault(self, now: float) -> str:
    """Return why the measurement is stale; '' if it is not.

    Args:
      now: seconds since 1970.
    """
    date, load, spread = self.made
    days = (now - date) / _DAY
    if days > KEPT_DAYS:
      return f'{days:.0f} days old'
    if load > BUSY:
      return f'other programs took {load:.0%} of the processor'
    if spread > NOISY:
      return f'epochs differed by {spread:.0%}'
    return ''


class Budget(NamedTuple):
  """The memory that a plan may use.

  Attributes:
    members: models of the largest shard.
    shared: maps the number of devices to the bytes of what all members share
      that count on each.
    limit: maps the number of devices to the bytes available on each.
    margin: factor on predictions before they are compared with the limit.
  """

  members: int
  shared: Callable[[int], float]
  limit: Callable[[int], float]
  margin: float = 1.0


class Choice(NamedTuple):
  """The decision.

  Attributes:
    best: the chosen measurement, None if no plan fits.
    why: the reason for or against each plan, in the order given.
  """

  best: Measured | None
  why: list[str]


def choose_fastest(measured: Sequence[Measured], budget: Budget) -> Choice:
  """Choose the fastest plan that fits; of those that are close, the smallest.

  The speed excludes models that only fill the last chunk.
  """
  faults = [_fault(one, budget) for one in measured]
  fitting = [
    one for one, fault in zip(measured, faults, strict=True) if not fault
  ]
  if not fitting:
    return Choice(None, faults)
  speeds = [useful_images(one, budget.members) for one in fitting]
  close = [
    one
    for one, speed in zip(fitting, speeds, strict=True)
    if speed >= CLOSE * max(speeds)
  ]
  best = min(
    close,
    key=lambda one: one.plan.devices * bytes_per_device(one, budget),
  )
  fastest = useful_images(best, budget.members) == max(speeds)
  reason = (
    'chosen: fastest' if fastest else 'chosen: nearly as fast, less memory'
  )
  why = [
    fault or (reason if one is best else 'slower or larger')
    for one, fault in zip(measured, faults, strict=True)
  ]
  return Choice(best, why)


def _fault(one: Measured, budget: Budget) -> str:
  if not one.images:
    return 'ran out of memory'
  shared = budget.shared(one.plan.devices)
  programs = bytes_per_device(one, budget) - shared
  needed = shared + budget.margin * programs
  if needed > budget.limit(one.plan.devices):
    return 'exceeds the memory limit'
  return ''


def bytes_per_device(one: Measured, budget: Budget) -> float:
  """Return the predicted peak on each device for the largest shard."""
  here = one.plan.padded(budget.members) // one.plan.devices
  shared = budget.shared(one.plan.devices)
  return one.need.total(here, one.plan.chunk, shared)


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
  """Return the plan to measure next, None if enough is known.

  The plans are all devices with chunks of 1, 2, 4, ... while doubling is faster
  and a shard fills the chunks, then on a CPU one device, whose operations use
  all cores.

  Args:
    measured: the measurements so far.
    devices: number of devices set by the user, 0 if not set.
    chunk: chunk set by the user, 0 if not set.
    visible: number of devices available.
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
  """Return whether a job is large enough to probe by itself.

  Args:
    operations: floating-point operations of all that is to be trained.
    devices: number of devices.
    platform: 'cpu', 'gpu' or 'tpu'.
  """
  ceiling = CEILING.get(platform, max(CEILING.values()))
  return operations >= LEAST_SECONDS * devices * ceiling


def may_go_on(spent: float, last: float, estimate: float) -> bool:
  """Return whether a job may probe another plan by itself.

  Args:
    spent: seconds of probing so far.
    last: seconds of the last probe, the estimate for the next one.
    estimate: seconds of the job at the best speed so far.
  """
  return spent + last <= SHARE * estimate


class Measurements(NamedTuple):
  """Measurements of a model on this machine.

  Attributes:
    measured: probed plans.
    most_chunk: maps a stage, e.g. 'train scrub', to the chunk it was left with
      after running out of memory.
  """

  measured: tuple[Measured, ...] = ()
  most_chunk: Mapping[str, int] = types.MappingProxyType({})


class Load:
  """The load of the machine by other programs since the object was made."""

  def __init__(self) -> None:
    self._begin = _processor_seconds()

  def others(self) -> float:
    """Return the share of the time of this process's cores, 0 to 1.

    It is 0 where the system does not report it.
    """
    spent = np.subtract(_processor_seconds(), self._begin)
    wall, everyone, own = map(float, spent)
    return min(max((everyone - own) / max(wall * cores(), 1e-9), 0.0), 1.0)


def _processor_seconds() -> tuple[float, float, float]:
  """Return the time: by the clock, of all programs, and of this process.

  Only the cores that this process may use count. Where the system reports no
  times of its cores, the time of all programs is 0.
  """
  wall, own = time.perf_counter(), time.process_time()
  try:
    lines = pathlib.Path('/proc/stat').read_text().splitlines()
    allowed = {f'cpu{core}' for core in os.sched_getaffinity(0)}
  except (OSError, AttributeError):
    return wall, 0.0, own
  everyone = 0.0
  for line in lines:
    name, *ticks = line.split()
    if name in allowed:
      # user, nice, system, idle, waiting, interrupts (2), taken by the host
      busy = [int(ticks[k]) for k in (0, 1, 2, 5, 6, 7)]
      everyone += sum(busy) / os.sysconf('SC_CLK_TCK')
  return wall, everyone, own


class MeasurementCache:
  """The measurements of one model on one machine, kept for later jobs.

    <root>/plans/<key>.json    facts, measurements, chunks that were too large,
                               SHA-256 of all this

  One file per model, batch size, image shape, precision, hardware and versions;
  the key is a digest of these facts, which the file repeats in clear. A file
  that is damaged counts as empty. Deleting the folder is always safe.
  """

  def __init__(self, root: pathlib.Path, facts: dict[str, Any]):
    """Open the measurements.

    Args:
      root: cache folder.
      facts: everything that the measurements depend on, as JSON values.
    """
    self.path = root / 'plans' / f'{files.digest(facts, digits=16)}.json'
    self._facts = json.loads(json.dumps(facts))
    # This process knows added measurements even if they cannot be written.
    self._added = Measurements()
    self._dropped: set[Measured] = set()

  def read(self) -> Measurements:
    """Return the measurements of the file and those added since."""
    return _merge(self._on_disk(), self._added)

  def _on_disk(self) -> Measurements:
    try:
      content = json.loads(self.path.read_text())
      if content.pop('sha256') != files.digest(content, digits=64):
        raise ValueError('it has changed since it was written')
      if content['facts'] != self._facts:
        raise ValueError('it belongs to another model or machine')
      return Measurements(
        tuple(
          one
          for one in map(_measured, content['measured'])
          if one not in self._dropped
        ),
        {
          str(stage): _checked(chunk, 'chunk', int, 1)
          for stage, chunk in content['most_chunk'].items()
        },
      )
    except FileNotFoundError:
      return Measurements()
    except (
      *(OSError, ValueError, KeyError, TypeError, AttributeError),
      *(OverflowError, RecursionError),
    ) as error:
      log.warning('%s is damaged (%s); it is measured again', self.path, error)
      return Measurements()

  def add(self, one: Measured) -> Measurements:
    """Add a measurement in place of an older one of the same plan."""
    return self._add(Measurements((one,)))

  def drop(self, measured: Iterable[Measured]) -> Measurements:
    """Remove measurements; return those that are left."""
    self._dropped.update(measured)
    return self._add(Measurements()) if self._dropped else self.read()

  def ran_out(self, stage: str, chunk: int) -> Measurements:
    """Add the chunk that a stage was left with after running out of memory."""
    return self._add(Measurements(most_chunk={stage: chunk}))

  def _add(self, new: Measurements) -> Measurements:
    self._added = _merge(self._added, new)
    known = self.read()
    content = {
      'facts': self._facts,
      'measured': [_entry(one) for one in known.measured],
      'most_chunk': dict(known.most_chunk),
    }
    content['sha256'] = files.digest(content, digits=64)
    try:
      files.write_text(self.path, json.dumps(content, indent=1))
    except OSError as error:
      # A job must not fail because its measurements cannot be kept.
      log.warning('%s cannot be written (%s)', self.path, error)
    return known


def _merge(old: Measurements, new: Measurements) -> Measurements:
  """Merge: the newer measurement of a plan, the smaller chunk of a stage."""
  again = {one.plan for one in new.measured}
  others = [one for one in old.measured if one.plan not in again]
  chunks = dict(old.most_chunk)
  for stage, chunk in new.most_chunk.items():
    chunks[stage] = min(chunk, chunks.get(stage, chunk))
  return Measurements((*others, *new.measured), chunks)


def _entry(one: Measured) -> dict[str, Any]:
  return {
    **one._asdict(),
    'plan': one.plan._asdict(),
    'need': one.need._asdict(),
    'made': one.made._asdict(),
  }


def _measured(entry: dict[str, Any]) -> Measured:
  """Return a measurement from an entry of a file.

  Raises:
    ValueError, KeyError, TypeError: it is not a measurement, or has an
      impossible value.
  """
  plan, need, made = entry['plan'], entry['need'], entry['made']
  number = functools.partial(_checked, kind=float, least=0)
  if number(made['date'], 'date') > time.time() + _DAY:
    raise ValueError(f'date = {made["date"]!r} is in the future')
  return Measured(
    plan=Plan(*(_checked(plan[f], f, int, 1) for f in Plan._fields)),
    images=number(entry['images'], 'images'),
    compile_seconds=number(entry['compile_seconds'], 'compile_seconds'),
    need=MemoryEstimate(*(number(need[f], f) for f in MemoryEstimate._fields)),
    peak=_checked(entry['peak'], 'peak', int, 0),
    made=Conditions(*(number(made[f], f) for f in Conditions._fields)),
  )


def _checked(value: Any, name: str, kind: type, least: int) -> Any:
  allowed = (int, float) if kind is float else int
  if isinstance(value, bool) or not isinstance(value, allowed):
    raise TypeError(f'{name} = {value!r} is not a number')
  if not math.isfinite(value) or value < least:
    raise ValueError(f'{name} = {value!r} is out of range')
  return value
