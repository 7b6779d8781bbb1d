"""PyTorch's backend of `benchmarks/gpu.py`: one model at its best settings."""

from typing import Any

import numpy as np
import torch
import torch_backend
from torch import nn
from workload import Workload


class Autocast(nn.Module):
  """A network whose forward pass runs in bfloat16 by autocast.

  The context ends with the forward pass: it caches cast weights until it ends,
  so a context around several steps would use stale ones.
  """

  def __init__(self, model: nn.Module, device: str):
    super().__init__()
    self.model, self.device = model, device

  def forward(self, x: torch.Tensor, noise=None) -> torch.Tensor:
    """Map images f32[B, 3, H, W] to logits f32[B, C]."""
    with torch.autocast(self.device, torch.bfloat16):
      return self.model(x, noise).float()


class TorchGpu(torch_backend.TorchBackend):
  """The first member of a population, trained over and over."""

  def __init__(
    self,
    workload: Workload,
    folder: str,
    hparams: dict[str, Any],
    device: str,
    mode: str,
    repeats: int,
  ):
    """Build the backend.

    Args:
      workload: a population of one.
      folder: the folder of its member, see `gpu_jax.Reference`.
      hparams: of the method, and `check_rate`.
      device: 'cpu' or 'cuda'.
      mode: of `torch.compile`; '' to run eagerly.
      repeats: how often a turn trains the member.
    """
    if workload.precision != 'float32':
      torch.set_float32_matmul_precision('high')
      torch.backends.cudnn.allow_tf32 = True
    else:
      torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = True
    self.device, self.repeats = device, repeats
    super().__init__(
      workload,
      folder,
      hparams,
      threads=torch.get_num_threads(),
      layout='channels_last',
      device=device,
    )
    network = self.models[0]
    if workload.precision == 'bfloat16':
      network = Autocast(network, device)
    self.callable = [torch.compile(network, mode=mode) if mode else network]

  def run(self) -> None:
    """Train an epoch `repeats` times and wait for the device."""
    for _ in range(self.repeats):
      super().run()
    if self.device == 'cuda':
      torch.cuda.synchronize()

  def losses(self) -> np.ndarray:
    """Train an epoch at a small rate and return its mean loss, f[1, 1]."""
    usual = self.hparams
    self.hparams = {**usual, 'learning_rate': usual['check_rate']}
    found = super().losses(1)
    self.hparams = usual
    return np.stack([found[0]])
