"""The data and the members of a population, as tensors in memory."""

import pathlib
from typing import Any, NamedTuple

import numpy as np
import torch


class Data(NamedTuple):
  """Normalised images f[N, 3, H, W] and labels i64[N], ready to index."""

  image: torch.Tensor
  label: torch.Tensor


class Member(NamedTuple):
  """Weights, index sets and draws of one model.

  Attributes:
    weights: state dict.
    retain, forget, val: index sets.
    draws: orders and noise by name, 'start:...' and 'epoch:...' [E, ...].
  """

  weights: dict[str, torch.Tensor]
  retain: torch.Tensor
  forget: torch.Tensor
  val: torch.Tensor
  draws: dict[str, torch.Tensor]


def load(
  image: np.ndarray,
  label: np.ndarray,
  mean: Any,
  std: Any,
  memory_format: torch.memory_format,
  device: str = 'cpu',
) -> Data:
  """Normalise once; the loops only look images up."""
  scaled = (image.astype(np.float32) / 255 - np.float32(mean)) / np.float32(std)
  tensor = torch.from_numpy(scaled.transpose(0, 3, 1, 2))
  tensor = tensor.contiguous(memory_format=memory_format)
  return Data(tensor.to(device), torch.from_numpy(label).long().to(device))


def read(path: pathlib.Path, device: str = 'cpu') -> Member:
  """Read a member that jaxmu's backend wrote."""
  with np.load(path) as found:
    tensors = {name: torch.from_numpy(found[name]).to(device) for name in found}
  weights = {
    name.removeprefix('weights:'): value
    for name, value in tensors.items()
    if name.startswith('weights:')
  }
  sets = [tensors[part].long() for part in ('retain', 'forget', 'val')]
  draws = {
    name: value
    for name, value in tensors.items()
    if name.startswith(('start:', 'epoch:', 'fresh:', 'noise'))
  }
  return Member(weights, *sets, draws)
