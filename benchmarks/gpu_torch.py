"""PyTorch's backends of `benchmarks/gpu.py`: one model, or several fused."""

import pathlib
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import torch_backend
from pytorch import data as data_lib
from pytorch import fused, train
from torch import nn
from workload import MEAN, STD, Workload


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


def set_precision(precision: str) -> None:
  """Let float32 products use TF32 or not, and cuDNN search for kernels."""
  exact = precision == 'float32'
  torch.set_float32_matmul_precision('highest' if exact else 'high')
  torch.backends.cudnn.allow_tf32 = not exact
  torch.backends.cudnn.benchmark = True


def finished(
  network: nn.Module, workload: Workload, device: str, mode: str
) -> nn.Module:
  """Return the network in the workload's precision, compiled if asked for."""
  if workload.precision == 'bfloat16':
    network = Autocast(network, device)
  return torch.compile(network, mode=mode) if mode else network


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
    set_precision(workload.precision)
    self.device, self.repeats = device, repeats
    super().__init__(
      workload,
      folder,
      hparams,
      threads=torch.get_num_threads(),
      layout='channels_last',
      device=device,
    )
    self.callable = [finished(self.models[0], workload, device, mode)]

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


class FusedGpu:
  """A population as one network, see `pytorch.fused`."""

  def __init__(
    self,
    workload: Workload,
    folder: str,
    hparams: dict[str, Any],
    device: str,
    mode: str,
    written: int,
  ):
    """Build the backend.

    Args:
      workload: the population.
      folder: the folder of its first members, see `gpu_jax.Reference`.
      hparams: of the method, and `check_rate`.
      device: 'cpu' or 'cuda'.
      mode: of `torch.compile`; '' to run eagerly.
      written: how many members the folder has. Models after these have the
        weights and batches of the same members again.
    """
    set_precision(workload.precision)
    self.workload, self.hparams, self.device = workload, hparams, device
    self.written = written
    self.data = data_lib.load(
      *workload.data(), MEAN, STD, torch.channels_last, device
    )
    members = [
      data_lib.read(pathlib.Path(folder) / f'{number % written}.npz', device)
      for number in range(workload.members)
    ]
    self.weights = {
      name: torch.cat([one.weights[name] for one in members])
      for name in members[0].weights
    }
    orders = [
      one.retain[one.draws['epoch:retain'][0].long()] for one in members
    ]
    self.order = torch.stack(orders, 1)  # i64[R, P]
    network = fused.fuse(torch_backend.build(workload), workload.members)
    self.network = network.to(device, memory_format=torch.channels_last)
    self.callable = finished(self.network, workload, device, mode)

  def run(self) -> None:
    """Train all models for an epoch and wait for the device."""
    self._train(self.hparams['learning_rate'])
    if self.device == 'cuda':
      torch.cuda.synchronize()

  def losses(self) -> np.ndarray:
    """Train an epoch at a small rate; mean losses of the members, f[2, 1]."""
    found = self._train(self.hparams['check_rate'])
    return found[: self.written, None].cpu().numpy()

  def _train(self, rate: float) -> torch.Tensor:
    """Train an epoch; mean loss of each model, f[P]."""
    torch_backend.load_weights(self.network, self.weights)
    self.network.train()
    optimiser = train.sgd(self.network, {**self.hparams, 'learning_rate': rate})
    losses = []
    for index in self.order.split(self.hparams['batch_size']):  # i64[B, P]
      images = self.data.image[index].flatten(1, 2)  # f[B, P 3, H, W]
      images = images.contiguous(memory_format=torch.channels_last)
      logits = self.callable(images).unflatten(1, (index.shape[1], -1))
      each = F.cross_entropy(
        logits.movedim(1, 2), self.data.label[index], reduction='none'
      ).mean(0)
      # The sum gives each model the gradient of its own mean.
      train.descend(optimiser, each.sum())
      losses.append(each.detach())
    return torch.stack(losses).mean(0)
