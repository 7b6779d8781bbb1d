"""The platform that programs are compiled for: this machine's, or another one.

All code gets the name, the devices and the memory of the platform from here.
Programs differ between platforms (`jaxmu.models.conv.choose`,
`jaxmu.precision`), so code that is traced calls `name`, and `target` sets
another platform. JAX's caches keep the programs of different platforms apart.

`machine` describes accelerators that this machine need not have: a compiler
needs only a description of the devices. The TPU compiler is the package libtpu;
NVIDIA's is in JAX's plug-in for CUDA.
"""

import contextlib
import glob
import importlib.util
import os
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax

from jaxmu import terms

Device = Any  # a jax.Device, which is no type in JAX's annotations

# None for the platform of this process.
_target = jax.make_user_context()


def name() -> str:
  """Return the platform that programs are traced for: cpu, gpu or tpu."""
  return _target.value or jax.default_backend()


def is_cpu() -> bool:
  """Return whether programs are traced for a CPU."""
  return name() == 'cpu'


def target(platform: str) -> contextlib.AbstractContextManager[Any]:
  """Return the context in which to trace programs for another platform.

  Args:
    platform: 'cpu', 'gpu' or 'tpu'.

  Example:
    >>> with target('tpu'):
    ...   name()
    'tpu'
  """
  return _target(platform)


def of(device: Device) -> str:
  """Return the platform of a device, by the name that `name` returns."""
  return 'gpu' if device.platform in ('cuda', 'rocm') else device.platform


def has_room_for_programs(proc: str = '/proc') -> bool:
  """Return whether this process may load more large compiled programs.

  A program for a CPU takes up to some ten thousand memory maps. Linux gives a
  process 65,530 of them, and the process crashes when XLA gets no more.

  Args:
    proc: folder with the facts of Linux.

  Returns:
    Whether less than half of the maps are in use; True where this is unknown.
  """
  try:
    with open(f'{proc}/sys/vm/max_map_count') as file:
      most = int(file.read())
    with open(f'{proc}/self/maps', 'rb') as file:
      return sum(1 for _ in file) < most / 2
  except OSError:  # not Linux
    return True


def check_devices() -> None:
  """Start the devices of this process, which its first computation needs.

  Raises:
    ValueError: this process has none of the platforms of JAX_PLATFORMS.
  """
  try:
    jax.devices()
  except Exception as error:  # one of several types, some without a message
    chosen = getattr(jax.config, 'jax_platforms', None)
    if not chosen:
      raise
    reason = str(error).partition('\n')[0] or 'there is no such device'
    raise ValueError(
      f'JAX_PLATFORMS={chosen} cannot be used here ({reason}); unset it, or '
      'set JAX_PLATFORMS=cpu, or install JAX for this platform, see README.md'
    ) from error


# Device files of accelerators, what they are, and the extra of JAX that they
# need.
_FILES = {
  '/dev/nvidia[0-9]*': ('an NVIDIA GPU', 'jax[cuda13]'),
  '/dev/accel[0-9]*': ('a TPU', 'jax[tpu]'),
}


def unused_accelerator() -> str:
  """Return a line on an accelerator for which JAX is not installed, or ''."""
  chosen = getattr(jax.config, 'jax_platforms', None)
  if chosen or jax.default_backend() != 'cpu':
    return ''
  for pattern, (what, extra) in _FILES.items():
    if glob.glob(pattern):
      return (
        f'this machine has {what}, but JAX is installed for the CPU alone: '
        f"pip install '{extra}' to use it, or set JAX_PLATFORMS=cpu"
      )
  return ''


def local_devices() -> list[Device]:
  """Return the devices of this process."""
  return jax.local_devices()


def memory_stats() -> dict[str, int]:
  """Return the memory statistics of the first device; empty on a CPU."""
  return local_devices()[0].memory_stats() or {}


class Machine(NamedTuple):
  """Accelerators that programs can be compiled for.

  Attributes:
    name: kind and arrangement, as in 'v5e:2x2'.
    platform: 'tpu' or 'gpu'.
    devices: descriptions of the devices; nothing can run on them.
    memory: bytes of each device that programs may use.
    clock: cycles per second; 0 if the compiler estimates no cycles.
  """

  name: str
  platform: str
  devices: tuple[Device, ...]
  memory: float
  clock: float


class _Kind(NamedTuple):
  memory: float
  clock: float
  arrangements: tuple[str, ...]
  bandwidth: float = 0.0  # bytes per second, of a GPU


_GIB = 2.0**30

# The memory of a TPU is what its compiler leaves to programs. The clock is the
# published speed in bfloat16, divided by the operations of its matrix units per
# cycle. A process works on the devices of one host, so larger arrangements are
# left out.
_TPUS = {
  'v5e': _Kind(15.75 * _GIB, 1.5e9, ('1x1', '2x2', '2x4')),
  'v6e': _Kind(31.25 * _GIB, 1.75e9, ('1x1', '2x2', '2x4')),
  'v5p': _Kind(95.74 * _GIB, 1.75e9, ('1x1x1', '2x2x1')),
  'v4': _Kind(30.75 * _GIB, 1.05e9, ('1x1x1', '2x2x1')),
}
_GPUS = {
  'h100': _Kind(84_942_979_072, 0.0, ('1', '2', '4', '8'), 3.35e12),
  'h200': _Kind(151_397_597_184, 0.0, ('1', '2', '4', '8'), 4.8e12),
}
# The share of a GPU's memory that JAX takes by default.
_JAX_SHARE = 0.75


def machine_names() -> list[str]:
  """Return the names that `machine` knows; a kind alone means the first."""
  kinds = {**_TPUS, **_GPUS}
  return [f'{kind}:{one}' for kind in kinds for one in kinds[kind].arrangements]


def machine(name: str) -> Machine:
  """Return accelerators to compile for, which this machine need not have.

  Args:
    name: one of `machine_names`, or a kind alone, as in 'v5e'.

  Raises:
    ValueError: the name is unknown.
    ImportError: their compiler is not installed.
  """
  kind, _, arrangement = name.partition(':')
  one = _TPUS.get(kind) or _GPUS.get(kind)
  if one is None or (arrangement or one.arrangements[0]) not in (
    one.arrangements
  ):
    known = machine_names()
    raise ValueError(f'no machine {name!r}; {terms.choices(name, known)}')
  arrangement = arrangement or one.arrangements[0]
  full = f'{kind}:{arrangement}'
  if kind in _TPUS:
    _check_compiler(full, 'libtpu', 'jaxmu[aot]')
    return Machine(full, 'tpu', _tpus(kind, arrangement), one.memory, one.clock)
  _check_compiler(full, 'jax_cuda12_plugin', 'jaxmu[aot-cuda]')
  devices = _gpus(one, int(arrangement))
  return Machine(full, 'gpu', devices, _JAX_SHARE * one.memory, one.clock)


def _check_compiler(name: str, package: str, remedy: str) -> None:
  if importlib.util.find_spec(package) is None:
    raise ImportError(
      f"the compiler for {name} is not installed; pip install '{remedy}'"
    )


def _tpus(kind: str, arrangement: str) -> tuple[Device, ...]:
  # Imported late: few processes need it.
  from jax.experimental import topologies

  sides = [int(side) for side in arrangement.split('x')]
  with _environment(**_FOR_LIBTPU):
    described = topologies.get_topology_desc(
      topology_name=f'{kind}:{arrangement}',
      platform='tpu',
      # A v4 chip has two cores, which work as one device.
      chip_config_name='megacore' if kind == 'v4' else 'default',
      chips_per_host_bounds=(*sides, 1)[:3],
      num_slices=1,
      wrap=(False,) * 3,
    )
  return tuple(described.devices)


# Without these, libtpu queries the network for its machine and writes a log.
_FOR_LIBTPU = {
  'ALLOW_MULTIPLE_LIBTPU_LOAD': '1',
  'TPU_ACCELERATOR_TYPE': 'v5litepod-1',
  'TPU_LOG_DIR': 'disabled',
  'TPU_MIN_LOG_LEVEL': '3',
  'TPU_SKIP_MDS_QUERY': '1',
  'TPU_STDERR_LOG_LEVEL': '3',
  'TPU_WORKER_HOSTNAMES': 'localhost',
  'TPU_WORKER_ID': '0',
}


def _gpus(kind: _Kind, count: int) -> tuple[Device, ...]:
  from jax.experimental import topologies

  limits = ' '.join(f'{name}: {value}' for name, value in _HOPPER.items())
  described = topologies.get_topology_desc(
    platform='cuda',
    topology=f'1x1x{count}',
    target_config=f"""
      platform_name: "CUDA"
      gpu_device_info {{
        {limits}
        device_memory_size: {kind.memory:.0f}
        memory_bandwidth: {kind.bandwidth:.0f}
        cuda_compute_capability {{ major: 9 }}
      }}
      dnn_version_info {{ major: 9 minor: 7 }}
      runtime_version {{ major: 12 minor: 8 }}
    """,
  )
  return tuple(described.devices)


# Limits of a GPU of compute capability 9.0, from NVIDIA's tables.
_HOPPER = {
  'block_dim_limit_x': 2**31 - 1,
  'block_dim_limit_y': 2**16 - 1,
  'block_dim_limit_z': 2**16 - 1,
  'clock_rate_ghz': 1.98,
  'core_count': 132,
  'fpus_per_core': 128,
  'l2_cache_size': 50 * 2**20,
  'registers_per_block_limit': 2**16,
  'registers_per_core_limit': 2**16,
  'shared_memory_per_block': 48 * 2**10,
  'shared_memory_per_block_optin': 227 * 2**10,
  'shared_memory_per_core': 228 * 2**10,
  'threads_per_block_limit': 1024,
  'threads_per_core_limit': 2048,
  'threads_per_warp': 32,
}


@contextlib.contextmanager
def _environment(**variables: str) -> Iterator[None]:
  """Set environment variables for a while."""
  before = {one: os.environ.get(one) for one in variables}
  os.environ.update(variables)
  try:
    yield
  finally:
    for one, value in before.items():
      if value is None:
        del os.environ[one]
      else:
        os.environ[one] = value
