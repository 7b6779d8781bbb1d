"""The jaxmu backend of `benchmarks/gpu.py`, the probe and the check."""

import pathlib
import tempfile
import time
from typing import Any

import flops
import jax
import jax.numpy as jnp
import jax_backend
import kernels
import numpy as np
from workload import Workload

from jaxmu import hparams as hp
from jaxmu import platforms, population, precision
from jaxmu.study import execution

PRODUCTS = 10  # in a row, when the ceiling is measured
# Training amplifies rounding; at this rate it hardly does within an epoch, but
# the steps change its losses by 2e-3 to 8e-3 (width 16, batch 128).
CHECK_RATE = 3e-4


class Probe:
  """Reports the device and its peak speed."""

  def platform(self) -> str:
    """Return PyTorch's name of the platform, 'cpu' or 'cuda'."""
    return 'cpu' if platforms.is_cpu() else 'cuda'

  def device(self) -> str:
    """Return the name of the device."""
    return platforms.local_devices()[0].device_kind

  def ceiling(self, backend: int, name: str) -> float:
    """Return the TFLOP/s of a large matrix product in a precision."""
    dtype = jnp.bfloat16 if name == 'bfloat16' else jnp.float32
    a = jax.random.normal(jax.random.key(0), (backend, backend), dtype)
    with precision.products(name):
      product = jax.jit(lambda a: a @ a).lower(a).compile()
    times = []
    for _ in range(4):  # the first one warms up
      begin = time.perf_counter()
      jax.block_until_ready([product(a) for _ in range(PRODUCTS)])
      times.append((time.perf_counter() - begin) / PRODUCTS)
    return 2 * backend**3 / min(times[1:]) / 1e12


class JaxGpu(jax_backend.JaxBackend):
  """A population on one device, some models vmapped together."""

  def __init__(self, workload: Workload, chunk: int, folder: str = ''):
    super().__init__(workload, population.Layout(1, chunk), folder)

  def losses(self) -> np.ndarray:
    """Train an epoch at a small rate; mean loss of each member, f64[P, 1]."""
    changed = jax_backend.hyper_parameters(self.workload, 1)
    changed['learning_rate'] = CHECK_RATE
    hparams = hp.from_config(self.method.Hparams, changed)
    loaded = self.trainer.load(
      [hparams] * self.workload.members,
      self.keys,
      self.splits,
      self.originals,
    )
    return self.trainer.train(loaded).losses

  def facts(self) -> dict[str, Any]:
    """Return time to compile, memory and work per example.

    Bytes are NaN or 0 if JAX does not report them.
    """
    live = flops.training_step(self.task.model, self.workload.side).live
    return {
      'compile_seconds': self.compile_seconds,
      'bytes_per_member': self._account() / self.workload.members,
      'peak_bytes': execution.peak_memory(),
      'live_flops': live,
    }

  def _account(self) -> float:
    try:
      memory = self.loaded.epoch.memory_analysis()
    except jax.errors.JaxRuntimeError:
      memory = None
    if memory is None:  # for example, a program from the cache
      return float('nan')
    return (
      memory.argument_size_in_bytes
      + memory.output_size_in_bytes
      + memory.temp_size_in_bytes
      - memory.alias_size_in_bytes
    )

  def profile(self) -> str:
    """Return shares of a turn's time by kind of kernel, in words."""
    with tempfile.TemporaryDirectory() as folder:
      with jax.profiler.trace(folder):
        begin = time.perf_counter()
        self.run()
        wall = time.perf_counter() - begin
      (path,) = pathlib.Path(folder).rglob('*.xplane.pb')
      data = jax.profiler.ProfileData.from_file(str(path))
    return kernels.summary(kernels.times(data), wall)


class Reference(JaxGpu):
  """Losses of a CPU in float32; writes its members for the other backends."""

  def __init__(self, workload: Workload, folder: str):
    super().__init__(workload, 1, folder)

  def hparams(self) -> dict[str, Any]:
    """Return all hyper-parameters of the workload, for PyTorch."""
    known = hp.defaults(self.method.Hparams)
    given = jax_backend.hyper_parameters(self.workload, 1)
    return {**known, **given, 'check_rate': CHECK_RATE}
