"""TinyViT-11M (Wu et al. 2022, arXiv 2207.10666), randomly initialised.

A convolutional stage and three stages of window attention. Built for images of
32, 64 or 224 pixels; the number of parameters does not depend on their size.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from jaxmu.core.types import Array
from jaxmu.models import attention, conv, interface, layers

_WIDTHS = (64, 128, 256, 448)
_DEPTHS = (2, 2, 6, 2)
_HEADS = (0, 4, 8, 14)
_WINDOWS = (0, 7, 14, 7)
_MOST_DROPPED = 0.1


def _gelu(x: Array) -> Array:
  return jax.nn.gelu(x, approximate=False)


def _keep(x: Array, noise: Array | None, rate: float) -> Array:
  """Drop the paths of some examples and scale up the others.

  Args:
    x: f[B, ...].
    noise: uniform draws f[B], or None to keep all paths.
    rate: probability to drop.
  """
  if noise is None:
    return x
  keep = 1 - rate
  mask = jnp.floor(keep + noise).astype(x.dtype)
  return x * mask.reshape((-1,) + (1,) * (x.ndim - 1)) / keep


class PatchEmbed(nn.Module):
  """Two 3x3 convolutions of stride 2, f[B, H, W, 3] to f[B, H/4, W/4, 64]."""

  conv: str
  dtype: str | None

  @nn.compact
  def __call__(self, images: Array, *, train: bool) -> Array:
    """Embed images."""
    options = {'impl': self.conv, 'dtype': self.dtype}
    x = layers.ConvNorm(
      _WIDTHS[0] // 2, 3, 2, input_grad=False, name='conv1', **options
    )(images, train=train)
    x = layers.ConvNorm(_WIDTHS[0], 3, 2, name='conv2', **options)(
      _gelu(x), train=train
    )
    return x


class MBConv(nn.Module):
  """Inverted bottleneck: 1x1 to four times the width, depthwise 3x3, 1x1."""

  rate: float
  conv: str
  dtype: str | None

  @nn.compact
  def __call__(self, x: Array, noise: Array | None, *, train: bool) -> Array:
    """Map f[B, H, W, C] to the same shape."""
    width = x.shape[3]
    options = {'impl': self.conv, 'dtype': self.dtype}
    y = layers.ConvNorm(4 * width, name='conv1', **options)(x, train=train)
    y = layers.ConvNorm(4 * width, 3, depthwise=True, name='conv2', **options)(
      _gelu(y), train=train
    )
    y = layers.ConvNorm(
      width, scale_init=nn.initializers.zeros, name='conv3', **options
    )(_gelu(y), train=train)
    return _gelu(x + _keep(y, noise, self.rate))


class PatchMerging(nn.Module):
  """Halve the map: 1x1, depthwise 3x3 of stride 2, 1x1."""

  width: int
  conv: str
  dtype: str | None

  @nn.compact
  def __call__(self, x: Array, *, train: bool) -> Array:
    """Map f[B, H, W, C] to f[B, H / 2, W / 2, width]."""
    options = {'impl': self.conv, 'dtype': self.dtype}
    x = layers.ConvNorm(self.width, name='conv1', **options)(x, train=train)
    x = layers.ConvNorm(
      self.width, 3, 2, depthwise=True, name='conv2', **options
    )(_gelu(x), train=train)
    return layers.ConvNorm(self.width, name='conv3', **options)(
      _gelu(x), train=train
    )


class Mlp(nn.Module):
  """LayerNorm, linear to four times the width, GELU, linear."""

  dtype: str | None

  @nn.compact
  def __call__(self, x: Array) -> Array:  # f[..., C] -> f[..., C]
    """Map the last axis."""
    width, weights = x.shape[-1], layers.normal(0.02)
    x = layers.LayerNorm(name='norm')(x)
    x = layers.Linear(4 * width, weights, self.dtype, name='fc1')(x)
    x = lax.optimization_barrier(_gelu(x))
    return layers.Linear(width, weights, self.dtype, name='fc2')(x)


class Block(nn.Module):
  """Window attention, depthwise 3x3 convolution, MLP."""

  heads: int
  window: int
  rate: float
  conv: str
  form: str
  dtype: str | None

  @nn.compact
  def __call__(
    self, x: Array, noise: tuple[Array | None, Array | None], *, train: bool
  ) -> Array:
    """Map f[B, H, W, C] to the same shape."""
    attend = attention.Attention(
      self.heads, self.window, self.form, self.dtype, name='attn'
    )
    x = x + _keep(attend(x), noise[0], self.rate)
    x = layers.ConvNorm(
      x.shape[3],
      3,
      depthwise=True,
      impl=self.conv,
      dtype=self.dtype,
      name='local_conv',
    )(x, train=train)
    return x + _keep(Mlp(self.dtype, name='mlp')(x), noise[1], self.rate)


class Stage(nn.Module):
  """Blocks of one resolution, and the merging that ends all but the last."""

  index: int
  conv: str
  form: str
  dtype: str | None

  @nn.compact
  def __call__(self, x: Array, draw, *, train: bool) -> Array:
    """Map f[B, H, W, C] to the next stage's input.

    Args:
      x: f[B, H, W, C].
      draw: called for the next drop-path draws f[B]; returns None in eval mode.
      train: mode of BatchNorm.
    """
    first = sum(_DEPTHS[: self.index])
    for number in range(_DEPTHS[self.index]):
      rate = _MOST_DROPPED * (first + number) / (sum(_DEPTHS) - 1)
      name = f'block{number}'
      if self.index == 0:
        block = MBConv(rate, self.conv, self.dtype, name=name)
        x = block(x, draw() if rate else None, train=train)
      else:
        block = Block(
          _HEADS[self.index],
          _WINDOWS[self.index],
          rate,
          self.conv,
          self.form,
          self.dtype,
          name=name,
        )
        x = block(x, (draw(), draw()), train=train)
    if self.index == len(_DEPTHS) - 1:
      return x
    width = _WIDTHS[self.index + 1]
    merge = PatchMerging(width, self.conv, self.dtype, name='downsample')
    return merge(x, train=train)


class TinyViT(nn.Module):
  """TinyViT-11M.

  Attributes:
    num_classes: number of logits C.
    conv: formulation of all convolutions, see `jaxmu.models.conv`.
    attention: 'padfree' or 'padded', see `jaxmu.models.attention`.
    dtype: dtype of convolutions and matrix products, e.g. 'bfloat16'; None for
      that of the parameters.
  """

  num_classes: int
  conv: str = 'auto'
  attention: str = 'padfree'
  dtype: str | None = None

  def __post_init__(self):
    interface.check_positive('num_classes', self.num_classes, least=2)
    conv.check_impl(self.conv)
    if self.attention not in attention.FORMS:
      raise ValueError(
        f'attention cannot be {self.attention!r}; choose one of: '
        + ', '.join(attention.FORMS)
      )
    super().__post_init__()

  @nn.compact
  def __call__(
    self, images: Array, *, train: bool, drop_path: Array | None = None
  ) -> Array:
    """Map images f[B, H, W, 3] to logits f[B, C].

    Args:
      images: f[B, H, W, 3], H and W multiples of 32.
      train: True for batch statistics and dropped paths.
      drop_path: uniform draws f[21, B], in network order: one for the second
        convolutional block, then two (attention, MLP) for each later block.
    """
    if images.shape[1] % 32 or images.shape[2] % 32:
      raise ValueError(
        f'vit11m reads images whose sides are multiples of 32, got '
        f'{images.shape[1]}x{images.shape[2]}; resize them'
      )
    draws = iter(drop_path if train and drop_path is not None else ())

    def draw():
      return next(draws, None)

    embed = PatchEmbed(self.conv, self.dtype, name='patch_embed')
    x = embed(images, train=train)
    for index in range(len(_DEPTHS)):
      stage = Stage(
        index, self.conv, self.attention, self.dtype, name=f'stage{index}'
      )
      x = stage(x, draw, train=train)
    x = layers.LayerNorm(name='norm_head')(x.mean((1, 2)))
    return layers.Linear(self.num_classes, layers.normal(0.02), name='head')(x)

  @property
  def num_drop_paths(self) -> int:
    """The first block drops nothing, the second one path, the others two."""
    return _DEPTHS[0] - 1 + 2 * sum(_DEPTHS[1:])

  @property
  def blocks(self) -> interface.Blocks:
    """Embedding and convolutional stage, three stages, norm, classifier."""
    return interface.Blocks(
      stem=('patch_embed', 'stage0'),
      body=(('stage1',), ('stage2',), ('stage3',)),
      neck=('norm_head',),
      classifier=('head',),
      stem_conv=(),
    )

  @property
  def layers(self) -> tuple[interface.Layer, ...]:
    """All layers in the reference's order."""
    found = [
      *_conv_norm('patch_embed/conv1', 'patch_embed.seq.0', 'conv'),
      *_conv_norm('patch_embed/conv2', 'patch_embed.seq.2', 'conv'),
    ]
    for index, depth in enumerate(_DEPTHS):
      for number in range(depth):
        path = f'stage{index}/block{number}'
        torch = f'layers.{index}.blocks.{number}'
        found += (_block_layers if index else _bottleneck)(path, torch)
      if index < len(_DEPTHS) - 1:
        found += _bottleneck(
          f'stage{index}/downsample', f'layers.{index}.downsample'
        )
    return (
      *found,
      interface.Layer('norm_head', 'norm_head', 'layer_norm'),
      interface.Layer('head', 'head', 'linear'),
    )


def _conv_norm(path: str, torch: str, kind: str) -> list[interface.Layer]:
  return [
    interface.Layer(f'{path}/conv', f'{torch}.c', kind),
    interface.Layer(f'{path}/bn', f'{torch}.bn', 'batch_norm'),
  ]


def _bottleneck(path: str, torch: str) -> list[interface.Layer]:
  """1x1, depthwise 3x3, 1x1: an MBConv block or a patch merging."""
  return [
    layer
    for name, kind in (
      ('conv1', 'conv'),
      ('conv2', 'depthwise'),
      ('conv3', 'conv'),
    )
    for layer in _conv_norm(f'{path}/{name}', f'{torch}.{name}', kind)
  ]


def _block_layers(path: str, torch: str) -> list[interface.Layer]:
  """Attention, MLP and local convolution, as the reference orders them."""
  biases = f'{torch}.attn.attention_biases'
  parts = [
    ('attn/norm', 'layer_norm'),
    ('attn/qkv', 'linear'),
    ('attn/proj', 'linear'),
    ('mlp/norm', 'layer_norm'),
    ('mlp/fc1', 'linear'),
    ('mlp/fc2', 'linear'),
  ]
  return [
    interface.Layer(f'{path}/attn', biases, 'attention_bias'),
    *(
      interface.Layer(
        f'{path}/{name}', f'{torch}.{name.replace("/", ".")}', kind
      )
      for name, kind in parts
    ),
    *_conv_norm(f'{path}/local_conv', f'{torch}.local_conv', 'depthwise'),
  ]
