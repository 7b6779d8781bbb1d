"""What the machine has: processor, cores and memory."""

import os
import pathlib
import platform

import jax

_USABLE = 0.9  # of a device's or a machine's memory, by default


def cores() -> int:
  """Return how many cores this process may use."""
  if hasattr(os, 'sched_getaffinity'):
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1


def processor() -> str:
  """Return the name of the processor, of its kind where that is unknown."""
  try:
    lines = pathlib.Path('/proc/cpuinfo').read_text().splitlines()
  except OSError:
    lines = []
  names = [line for line in lines if line.startswith('model name')]
  return names[0].split(':', 1)[1].strip() if names else platform.machine()


def peak() -> int:
  """Return the largest measured use of the first device, 0 if unreported."""
  stats = jax.devices()[0].memory_stats() or {}
  return int(stats.get('peak_bytes_in_use', 0))


def limit(devices: int, gigabytes: float = 0.0) -> float:
  """Return the bytes each device may take.

  Args:
    devices: how many are used; on a CPU they share the machine's memory.
    gigabytes: what the user allows: of each accelerator, or of the machine
      where devices are its cores; 0 for 90 % of what there is.
  """
  if jax.default_backend() == 'cpu':
    return (gigabytes * 1e9 or _USABLE * machine_bytes()) / devices
  stats = jax.devices()[0].memory_stats() or {}
  return gigabytes * 1e9 or stats.get('bytes_limit', float('inf'))


def machine_bytes() -> float:
  """Return the memory of this machine, or of the container if that is less."""
  installed = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
  return min([installed, *_container_limits()])


def _container_limits() -> list[float]:
  found = []
  for path in ('memory.max', 'memory/memory.limit_in_bytes'):
    try:
      text = (pathlib.Path('/sys/fs/cgroup') / path).read_text().strip()
    except OSError:
      continue
    if text.isdigit():
      found.append(float(text))
  return found
