"""Several networks in one: HFTA's horizontal fusion (arXiv 2102.02344).

Every layer becomes one layer that computes all networks: a convolution becomes
a grouped one, BatchNorm gets the channels of all networks, and a linear layer
becomes a batched product. The state dict is that of the networks, with each
entry concatenated along its first axis.

`torch.vmap` over `torch.func.functional_call` computes the same, but ignores
`torch.autocast`, and so could not use bfloat16.
"""

import copy

import torch
from torch import nn


class Linear(nn.Module):
  """Linear layers, each with its part of the inputs."""

  def __init__(self, count: int, inputs: int, outputs: int):
    super().__init__()
    self.count = count
    self.weight = nn.Parameter(torch.empty(count * outputs, inputs))
    self.bias = nn.Parameter(torch.empty(count * outputs))

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    """Map f[B, P C] to f[B, P K]."""
    parts = x.unflatten(1, (self.count, -1)).transpose(0, 1)  # f[P, B, C]
    weights = self.weight.unflatten(0, (self.count, -1))  # f[P, K, C]
    y = torch.bmm(parts, weights.transpose(1, 2))
    return y.transpose(0, 1).flatten(1) + self.bias


def fuse(model: nn.Module, count: int) -> nn.Module:
  """Return one network with the layers of `count` networks; weights unset.

  It maps images f[B, P 3, H, W] to logits f[B, P K].
  """
  network = copy.deepcopy(model)
  for name, layer in model.named_modules():
    if isinstance(layer, nn.Conv2d):
      network.set_submodule(name, _conv(layer, count))
    elif isinstance(layer, nn.BatchNorm2d):
      network.set_submodule(name, nn.BatchNorm2d(count * layer.num_features))
    elif isinstance(layer, nn.Linear):
      fused = Linear(count, layer.in_features, layer.out_features)
      network.set_submodule(name, fused)
  return network


def _conv(layer: nn.Conv2d, count: int) -> nn.Conv2d:
  return nn.Conv2d(
    count * layer.in_channels,
    count * layer.out_channels,
    layer.kernel_size,
    layer.stride,
    layer.padding,
    groups=count,
    bias=layer.bias is not None,
  )
