"""Both sides of `benchmarks/gpu.py`, and the probe of the machine."""

import contextlib
import pathlib
import time
from typing import Any

import flops
import jax
import jax.numpy as jnp
import jax_side
import numpy as np
import torch
import torch_side
from workload import Workload

from jaxmu import population, training
from jaxmu.core import precision
from jaxmu.core.types import Split

PRODUCTS = 10  # in a row, when the ceiling is measured


class Probe:
  """Says what the machine is and what it can do."""

  def platform(self) -> str:
    """Return PyTorch's name of the platform, 'cuda' or 'cpu'."""
    return 'cpu' if jax.default_backend() == 'cpu' else 'cuda'

  def device(self) -> str:
    """Return the name of the device."""
    return jax.devices()[0].device_kind

  def ceiling(self, side: int, name: str) -> float:
    """Return the TFLOP/s of a large matrix product in a precision."""
    dtype = jnp.bfloat16 if name == 'bfloat16' else jnp.float32
    a = jax.random.normal(jax.random.key(0), (side, side), dtype)
    with precision.products(name):
      product = jax.jit(lambda a: a @ a).lower(a).compile()
    jax.block_until_ready(product(a))
    times = []
    for _ in range(3):
      begin = time.perf_counter()
      out = [product(a) for _ in range(PRODUCTS)]
      jax.block_until_ready(out)
      times.append((time.perf_counter() - begin) / PRODUCTS)
    return 2 * side**3 / min(times) / 1e12

  def record(self, workload: Workload, folder: str) -> None:
    """Write the one member that PyTorch trains."""
    task = jax_side.task(workload)
    keys = jax.random.split(jax.random.key(1), 1)
    original = training.fresh(task, keys)
    one = lambda x: np.asarray(x[0])  # noqa: E731
    jax_side.record(
      pathlib.Path(folder) / '0.npz',
      workload,
      task.model,
      keys[0],
      Split(*map(one, workload.sets())),
      jax.tree.map(one, original),
      epochs=1,
    )


class JaxGpu(jax_side.JaxSide):
  """A population on one device, some models vmapped together."""

  def __init__(self, workload: Workload, chunk: int):
    super().__init__(workload, population.Layout(1, chunk))

  def facts(self) -> dict[str, Any]:
    """Return time to compile, bytes per model and work per example."""
    memory = self.loaded.epoch.memory_analysis()
    held = (
      memory.argument_size_in_bytes
      + memory.output_size_in_bytes
      + memory.temp_size_in_bytes
      - memory.alias_size_in_bytes
    )
    live = flops.training_step(self.task.model, self.workload.side).live
    return {
      'compile_seconds': self.compile_seconds,
      'bytes_per_member': held / self.workload.members,
      'live_flops': live,
    }


class TorchGpu(torch_side.TorchSide):
  """One model in PyTorch at its best settings on a device."""

  def __init__(
    self,
    workload: Workload,
    folder: str,
    hparams: dict[str, Any],
    device: str,
    compiled: bool,
  ):
    torch.set_float32_matmul_precision('high')
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    self.device = device
    super().__init__(
      workload,
      folder,
      hparams,
      threads=torch.get_num_threads(),
      layout='channels_last',
      device=device,
      compiled=compiled,
    )

  def run(self) -> None:
    """Train it for an epoch and wait for the device."""
    context = contextlib.nullcontext()
    if self.workload.precision == 'bfloat16':
      context = torch.autocast(self.device, torch.bfloat16)
    with context:
      super().run()
    if self.device == 'cuda':
      torch.cuda.synchronize()
