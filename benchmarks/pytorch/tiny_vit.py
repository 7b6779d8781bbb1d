"""TinyViT-11M in PyTorch, with the names of the published code.

Window attention comes in two forms with equal results. 'padded' fills windows
up with zero tokens, as published code does (at 32 pixels, 196 tokens for 4 real
ones); 'padfree' replaces all of them by one key, as jaxmu does.
"""

import torch
import torch.nn.functional as F
from torch import nn

HEAD = 32  # channels of a head
WINDOWS = (0, 7, 14, 7)
MOST_DROPPED = 0.1


class ConvNorm(nn.Module):
  """Convolution without bias, then BatchNorm."""

  def __init__(self, channels, features, size=1, stride=1, groups=1):
    super().__init__()
    self.c = nn.Conv2d(
      channels, features, size, stride, size // 2, groups=groups, bias=False
    )
    self.bn = nn.BatchNorm2d(features)

  def forward(self, x):
    return self.bn(self.c(x))


class Bottleneck(nn.Module):
  """1x1, depthwise 3x3, 1x1, shared by MBConv and PatchMerging."""

  def __init__(self, channels, hidden, features, stride):
    super().__init__()
    self.conv1 = ConvNorm(channels, hidden)
    self.conv2 = ConvNorm(hidden, hidden, 3, stride, hidden)
    self.conv3 = ConvNorm(hidden, features)

  def forward(self, x):
    return self.conv3(F.gelu(self.conv2(F.gelu(self.conv1(x)))))


class MBConv(Bottleneck):
  """Inverted bottleneck with a residual."""

  def __init__(self, channels, rate):
    super().__init__(channels, 4 * channels, channels, 1)
    self.rate = rate

  def forward(self, x, draw):
    y = super().forward(x)
    return F.gelu(x + (_drop(y, draw(), self.rate) if self.rate else y))


class Attention(nn.Module):
  """LayerNorm, attention in windows, projection; f[B, H, W, C]."""

  def __init__(self, channels, window, form):
    super().__init__()
    self.heads, self.window = channels // HEAD, window
    self.form = form
    self.norm = nn.LayerNorm(channels)
    self.qkv = nn.Linear(channels, 3 * channels)
    self.proj = nn.Linear(channels, channels)
    self.attention_biases = nn.Parameter(torch.zeros(self.heads, window**2))
    place = torch.cartesian_prod(torch.arange(window), torch.arange(window))
    gap = (place[:, None] - place[None]).abs()
    index = gap[..., 0] * window + gap[..., 1]
    self.register_buffer('index', index, persistent=False)

  def forward(self, x):
    height, width = x.shape[1:3]
    if self.form == 'padded':
      return self.padded(x)[:, :height, :width]
    if max(height, width) > self.window:
      raise ValueError(
        'the pad-free form here supports only maps of one window'
      )
    return self.padfree(x)

  def split(self, qkv):
    """Cut f[..., n, 3 C] into q, k and v, each f[..., heads, n, 32]."""
    shape = (*qkv.shape[:-1], self.heads, 3 * HEAD)
    return qkv.view(shape).transpose(-2, -3).split(HEAD, dim=-1)

  def attend(self, q, k, v, bias):
    logits = (q * HEAD**-0.5) @ k.transpose(-1, -2) + bias
    y = logits.softmax(-1) @ v
    return self.proj(y.transpose(-2, -3).flatten(-2))

  def padded(self, x):
    w = self.window
    x = F.pad(x, (0, 0, 0, -x.shape[2] % w, 0, -x.shape[1] % w))
    batch, height, width, channels = x.shape
    x = x.view(batch, height // w, w, width // w, w, channels).transpose(2, 3)
    x = x.reshape(-1, w * w, channels)
    bias = self.attention_biases[:, self.index]
    y = self.attend(*self.split(self.qkv(self.norm(x))), bias)
    y = y.view(batch, height // w, width // w, w, w, channels)
    return y.transpose(2, 3).reshape(batch, height, width, channels)

  def padfree(self, x):
    batch, height, width, channels = x.shape
    tokens = self.norm(x).flatten(1, 2)
    q, k, v = self.split(self.qkv(tokens))
    grid = torch.arange(self.window**2, device=x.device)
    inside = (grid // self.window < height) & (grid % self.window < width)
    bias = self.attention_biases[:, self.index[inside]]
    real = bias[:, :, inside]
    if not inside.all():
      _, k0, v0 = self.split(self.qkv(self.norm.bias[None]))
      k = torch.cat((k, k0.expand(batch, -1, -1, -1)), 2)
      v = torch.cat((v, v0.expand(batch, -1, -1, -1)), 2)
      pads = bias[:, :, ~inside].logsumexp(-1, keepdim=True)
      real = torch.cat((real, pads), -1)
    return self.attend(q, k, v, real).view(batch, height, width, channels)


class Mlp(nn.Module):
  """LayerNorm, linear to four times the width, GELU, linear."""

  def __init__(self, channels):
    super().__init__()
    self.norm = nn.LayerNorm(channels)
    self.fc1 = nn.Linear(channels, 4 * channels)
    self.fc2 = nn.Linear(4 * channels, channels)

  def forward(self, x):
    return self.fc2(F.gelu(self.fc1(self.norm(x))))


class Block(nn.Module):
  """Window attention, depthwise convolution, MLP; f[B, C, H, W]."""

  def __init__(self, channels, window, rate, form):
    super().__init__()
    self.rate = rate
    self.attn = Attention(channels, window, form)
    self.mlp = Mlp(channels)
    self.local_conv = ConvNorm(channels, channels, 3, 1, channels)

  def forward(self, x, draw):
    y = self.attn(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    x = self.local_conv(x + _drop(y, draw(), self.rate))
    y = self.mlp(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    return x + _drop(y, draw(), self.rate)


class Stage(nn.Module):
  """Blocks and, except in the last stage, a merging of 2x2 pixels."""

  def __init__(self, blocks, channels, merge):
    super().__init__()
    self.blocks = nn.ModuleList(blocks)
    self.downsample = Bottleneck(channels, merge, merge, 2) if merge else None

  def forward(self, x, draw):
    for block in self.blocks:
      x = block(x, draw)
    return x if self.downsample is None else self.downsample(x)


class TinyViT(nn.Module):
  """TinyViT-11M; smaller ones by `widths` and `depths`."""

  def __init__(
    self,
    num_classes: int,
    widths=(64, 128, 256, 448),
    depths=(2, 2, 6, 2),
    form: str = 'padded',
  ):
    super().__init__()
    self.num_drop_paths = depths[0] - 1 + 2 * sum(depths[1:])
    self.patch_embed = nn.Module()
    self.patch_embed.seq = nn.Sequential(
      ConvNorm(3, widths[0] // 2, 3, 2),
      nn.GELU(),
      ConvNorm(widths[0] // 2, widths[0], 3, 2),
    )
    rates = iter(torch.linspace(0, MOST_DROPPED, sum(depths)).tolist())
    stages = []
    for index, (width, depth) in enumerate(zip(widths, depths, strict=True)):
      blocks = [
        Block(width, WINDOWS[index], next(rates), form)
        if index
        else MBConv(width, next(rates))
        for _ in range(depth)
      ]
      stages.append(Stage(blocks, width, (*widths[1:], 0)[index]))
    self.layers = nn.ModuleList(stages)
    self.norm_head = nn.LayerNorm(widths[-1])
    self.head = nn.Linear(widths[-1], num_classes)

  def forward(self, x: torch.Tensor, noise=None) -> torch.Tensor:
    """Map images f[B, 3, H, W] to logits f[B, C].

    Args:
      x: images.
      noise: uniform draws f[K, B], one per dropped path; drawn if not given.
    """
    if self.training and noise is None:
      shape = self.num_drop_paths, len(x)
      noise = torch.rand(shape, device=x.device)
    draws = iter(noise) if self.training else None
    x = self.patch_embed.seq(x)
    for stage in self.layers:
      x = stage(x, lambda: None if draws is None else next(draws))
    return self.head(self.norm_head(x.mean((2, 3))))


def _drop(x, noise, rate):
  """Drop the paths of some examples and scale up the others."""
  if noise is None:
    return x
  keep = 1 - rate
  return x * (noise + keep).floor_().view(-1, 1, 1, 1).to(x.dtype) / keep
