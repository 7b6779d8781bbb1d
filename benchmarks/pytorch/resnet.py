"""ResNet-18 in PyTorch, with torchvision's names and the ImageNet stem."""

import torch
import torch.nn.functional as F
from torch import nn


class Block(nn.Module):
  """Two 3x3 convolutions and a shortcut."""

  def __init__(self, channels: int, features: int, stride: int):
    super().__init__()
    self.conv1 = _conv(channels, features, 3, stride)
    self.bn1 = nn.BatchNorm2d(features)
    self.conv2 = _conv(features, features, 3, 1)
    self.bn2 = nn.BatchNorm2d(features)
    self.downsample = None
    if stride > 1 or channels != features:
      self.downsample = nn.Sequential(
        _conv(channels, features, 1, stride), nn.BatchNorm2d(features)
      )

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    y = F.relu(self.bn1(self.conv1(x)), inplace=True)
    y = self.bn2(self.conv2(y))
    y += x if self.downsample is None else self.downsample(x)
    return F.relu(y, inplace=True)


class ResNet18(nn.Module):
  """ResNet-18; `width` is the channels of the first stage."""

  def __init__(self, num_classes: int, width: int = 64):
    super().__init__()
    self.conv1 = _conv(3, width, 7, 2)
    self.bn1 = nn.BatchNorm2d(width)
    self.maxpool = nn.MaxPool2d(3, 2, 1)
    channels = width
    for stage in range(4):
      features = width * 2**stage
      first = Block(channels, features, 2 if stage else 1)
      blocks = nn.Sequential(first, Block(features, features, 1))
      self.add_module(f'layer{stage + 1}', blocks)
      channels = features
    self.fc = nn.Linear(channels, num_classes)

  num_drop_paths = 0

  def forward(self, x: torch.Tensor, noise=None) -> torch.Tensor:
    """Map images f[B, 3, H, W] to logits f[B, C]; there is no noise."""
    del noise
    x = self.maxpool(F.relu(self.bn1(self.conv1(x)), inplace=True))
    for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
      x = stage(x)
    return self.fc(x.mean((2, 3)))


def _conv(channels: int, features: int, size: int, stride: int) -> nn.Conv2d:
  return nn.Conv2d(channels, features, size, stride, size // 2, bias=False)
