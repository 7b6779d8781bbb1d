"""TinyViT-11M (Wu et al. 2022, arXiv 2207.10666), randomly initialised.

A convolutional stage and three stages of window attention, for images of 32, 64
or 224 pixels; the number of parameters does not depend on their size.

Attention works in windows. At the lower and right border of a map, windows are
filled up with zero tokens that are not masked: after LayerNorm they are keys
and values like any other, and on small images they are nearly all tokens. The
pad-free form computes real tokens only and is exact: all pads of a window
share one key `k0` and value `v0`, so that for a real query `q` they act as a
single key with logit `q k0 + logsumexp of their biases`.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxmu.models import interface, layers
from jaxmu.models.conv import choose
from jaxmu.types import Array

HEAD = 32  # channels of an attention head
FORMS = ('padfree', 'padded')
_WIDTHS = (64, 128, 256, 448)
_DEPTHS = (2, 2, 6, 2)
_WINDOWS = (0, 7, 14, 7)  # the first stage has no attention
_MOST_DROPPED = 0.1


class Attention(nn.Module):
  """LayerNorm, multi-head attention in windows, projection.

  Parameters besides those of `norm`, `qkv` and `proj`: `attention_biases`
  f[heads, window^2], one for each distance (rows, columns) of two tokens.

  Attributes:
    heads: number of heads of 32 channels each.
    window: height and width of a window.
    form: 'padfree' or 'padded', with equal results.
    dtype: dtype of the computation; None for that of the parameters.
  """

  heads: int
  window: int
  form: str = 'padfree'
  dtype: str | None = None

  @nn.compact
  def __call__(self, x: Array) -> Array:  # f[B, H, W, C] -> f[B, H, W, C]
    """Attend within each window."""
    channels = x.shape[3]
    table = self.param(
      'attention_biases',
      nn.initializers.zeros,
      (self.heads, self.window**2),
      layers.parameter_dtype(),
    )
    norm = layers.LayerNorm(name='norm')
    weights = layers.normal(0.02)
    qkv = layers.Linear(3 * channels, weights, self.dtype, name='qkv')
    proj = layers.Linear(channels, weights, self.dtype, name='proj')
    height, width = x.shape[1:3]
    if self.form == 'padded':
      bottom, right = -height % self.window, -width % self.window
      x = jnp.pad(x, ((0, 0), (0, bottom), (0, right), (0, 0)))
    pad = qkv(norm(jnp.zeros((channels,), x.dtype)))
    y = _windows(qkv(norm(x)), pad, table, self.window)
    return proj(y)[:, :height, :width]


def _windows(qkv: Array, pad: Array, table: Array, window: int) -> Array:
  """Attend in all windows of a map f[B, H, W, 3 C].

  Windows of one size are handled together; a map has up to four sizes, those
  of its inside, right border, lower border and corner.
  """
  height, width = qkv.shape[1:3]
  rows = []
  for top, bottom in _parts(height, window):
    row = [
      _attend(qkv[:, top:bottom, left:right], pad, table, window)
      for left, right in _parts(width, window)
    ]
    rows.append(row[0] if len(row) == 1 else jnp.concatenate(row, axis=2))
  return rows[0] if len(rows) == 1 else jnp.concatenate(rows, axis=1)


def _parts(size: int, window: int) -> list[tuple[int, int]]:
  """Cut an axis into its whole windows and the rest."""
  whole = size - size % window
  return [(a, b) for a, b in ((0, whole), (whole, size)) if a < b]


def _attend(qkv: Array, pad: Array, table: Array, window: int) -> Array:
  """Attend in windows f[B, m h, n w, 3 C] of h x w real tokens each."""
  batch, height, width, channels = qkv.shape
  h, w = min(height, window), min(width, window)
  m, n, heads = height // h, width // w, table.shape[0]
  qkv = qkv.reshape(batch, m, h, n, w, heads, 3 * HEAD)
  qkv = qkv.transpose(0, 1, 3, 5, 2, 4, 6)  # f[B, m, n, heads, h, w, 3 * 32]
  qkv = qkv.reshape(batch * m * n, heads, h * w, 3 * HEAD)
  q, k, v = jnp.split(qkv, 3, axis=-1)
  bias = _bias(table, h, w, window)
  if bias.shape[2] > h * w:
    _, k0, v0 = jnp.split(pad.reshape(1, heads, 1, 3 * HEAD), 3, axis=-1)
    like = (*k.shape[:2], 1, HEAD)
    k = jnp.concatenate((k, jnp.broadcast_to(k0, like)), axis=2)
    v = jnp.concatenate((v, jnp.broadcast_to(v0, like)), axis=2)
  logits = jnp.einsum('ahic,ahjc->ahij', q * HEAD**-0.5, k)
  weights = jax.nn.softmax(logits.astype(table.dtype) + bias[None], axis=-1)
  y = jnp.einsum('ahij,ahjc->ahic', weights.astype(v.dtype), v)
  y = y.reshape(batch, m, n, heads, h, w, HEAD)
  y = y.transpose(0, 1, 4, 2, 5, 3, 6)
  return y.reshape(batch, height, width, heads * HEAD)


def _bias(table: Array, h: int, w: int, window: int) -> Array:
  """Return the biases f[heads, h w, h w], and one more key for the pads."""
  places = np.indices((window, window)).reshape(2, -1).T
  real = (places[:, 0] < h) & (places[:, 1] < w)
  gap = np.abs(places[real][:, None] - places[None])
  index = gap[..., 0] * window + gap[..., 1]  # i[h w, window^2]
  bias = table[:, index[:, real]]
  if real.all():
    return bias
  pads = jax.nn.logsumexp(table[:, index[:, ~real]], axis=-1, keepdims=True)
  return jnp.concatenate((bias, pads), axis=-1)


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
  """Two 3x3 convolutions of stride 2, f[B, H, W, 3] to f[B, H/4, W/4, C]."""

  width: int
  conv: str
  dtype: str | None

  @nn.compact
  def __call__(self, images: Array, *, train: bool) -> Array:
    """Embed images."""
    options = {'impl': self.conv, 'dtype': self.dtype}
    x = layers.ConvNorm(
      self.width // 2, 3, 2, input_grad=False, name='conv1', **options
    )(images, train=train)
    return layers.ConvNorm(self.width, 3, 2, name='conv2', **options)(
      layers.gelu(x), train=train
    )


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
      layers.gelu(y), train=train
    )
    y = layers.ConvNorm(
      width, scale_init=nn.initializers.zeros, name='conv3', **options
    )(layers.gelu(y), train=train)
    return layers.gelu(x + _keep(y, noise, self.rate))


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
    )(layers.gelu(x), train=train)
    return layers.ConvNorm(self.width, name='conv3', **options)(
      layers.gelu(x), train=train
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
    x = lax.optimization_barrier(layers.gelu(x))
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
    attend = Attention(
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
  """Blocks of one resolution, and the merging that ends all but the last.

  Attributes:
    window: height and width of a window; 0 for convolutional blocks.
    rates: probability of each block to drop a path.
    merge: channels after merging; 0 to keep the map.
    conv: see `TinyViT`.
    form: one of `FORMS`.
    dtype: see `TinyViT`.
  """

  window: int
  rates: tuple[float, ...]
  merge: int
  conv: str
  form: str
  dtype: str | None

  @nn.compact
  def __call__(
    self, x: Array, draw: Callable[[], Array | None], *, train: bool
  ) -> Array:
    """Map f[B, H, W, C] to the next stage's input.

    Args:
      x: f[B, H, W, C].
      draw: called for the next drop-path draws f[B]; returns None in eval mode.
      train: mode of BatchNorm.
    """
    for number, rate in enumerate(self.rates):
      name = f'block{number}'
      if not self.window:
        block = MBConv(rate, self.conv, self.dtype, name=name)
        x = block(x, draw() if rate else None, train=train)
      else:
        block = Block(
          x.shape[3] // HEAD,
          self.window,
          rate,
          self.conv,
          self.form,
          self.dtype,
          name=name,
        )
        x = block(x, (draw(), draw()), train=train)
    if not self.merge:
      return x
    merge = PatchMerging(self.merge, self.conv, self.dtype, name='downsample')
    return merge(x, train=train)


class TinyViT(nn.Module):
  """TinyViT-11M; smaller ones by `widths` and `depths`.

  Attributes:
    num_classes: number of logits C.
    widths: channels of the four stages; the last three multiples of 32, the
      channels of an attention head.
    depths: blocks of the four stages.
    conv: formulation of all convolutions, see `jaxmu.models.conv.choose`.
    padfree_attention: False computes the padding of windows like any other
      token, with the same result.
    dtype: dtype of convolutions and matrix products, e.g. 'bfloat16'; None for
      that of the parameters.
  """

  card = interface.Card(
    title='TinyViT-11M',
    source='Wu et al. 2022, arXiv 2207.10666',
    images='multiples of 32',
    note='10.5 million parameters',
  )

  num_classes: int
  widths: tuple[int, ...] = _WIDTHS
  depths: tuple[int, ...] = _DEPTHS
  conv: str = 'auto'
  padfree_attention: bool = True
  dtype: str | None = None

  def __post_init__(self):
    interface.check_positive('num_classes', self.num_classes, least=2)
    choose.check_impl(self.conv)
    interface.check_dtype(self.dtype)
    # Configurations hold lists, which cannot be hashed.
    for name in ('widths', 'depths'):
      values = getattr(self, name)
      if isinstance(values, list):
        object.__setattr__(self, name, tuple(values))
    _check_sizes(self.widths, self.depths)
    if not isinstance(self.padfree_attention, bool):
      raise ValueError(
        f'padfree_attention must be True or False, got '
        f'{self.padfree_attention!r}'
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
      drop_path: uniform draws f[K, B], K = 21, in network order: one for the
        second convolutional block, then two (attention, MLP) for each later
        block.
    """
    if images.shape[1] % 32 or images.shape[2] % 32:
      raise ValueError(
        f'vit11m reads images whose sides are multiples of 32, got '
        f'{images.shape[1]}x{images.shape[2]}; resize them'
      )
    draws = iter(drop_path if train and drop_path is not None else ())

    def draw():
      return next(draws, None)

    form = FORMS[0 if self.padfree_attention else 1]
    embed = PatchEmbed(
      self.widths[0], self.conv, self.dtype, name='patch_embed'
    )
    x = embed(images, train=train)
    merges = (*self.widths[1:], 0)
    for index, rates in enumerate(_rates(self.depths)):
      stage = Stage(
        _WINDOWS[index],
        rates,
        merges[index],
        self.conv,
        form,
        self.dtype,
        name=f'stage{index}',
      )
      x = stage(x, draw, train=train)
    x = layers.LayerNorm(name='norm_head')(x.mean((1, 2)))
    return layers.Linear(self.num_classes, layers.normal(0.02), name='head')(x)

  @property
  def num_drop_paths(self) -> int:
    """21: no draw for the first block, one for the second, two for others."""
    return self.depths[0] - 1 + 2 * sum(self.depths[1:])

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
    listed = [
      *_conv_norm('patch_embed/conv1', 'patch_embed.seq.0', 'conv'),
      *_conv_norm('patch_embed/conv2', 'patch_embed.seq.2', 'conv'),
    ]
    for index, depth in enumerate(self.depths):
      for number in range(depth):
        path = f'stage{index}/block{number}'
        torch = f'layers.{index}.blocks.{number}'
        listed += (_block_layers if index else _bottleneck)(path, torch)
      if index < len(self.depths) - 1:
        listed += _bottleneck(
          f'stage{index}/downsample', f'layers.{index}.downsample'
        )
    return (
      *listed,
      interface.Layer('norm_head', 'norm_head', 'layer_norm'),
      interface.Layer('head', 'head', 'linear'),
    )


def _check_sizes(widths: tuple[int, ...], depths: tuple[int, ...]) -> None:
  """Raise a ValueError unless there are four valid stages."""
  for name, values in (('widths', widths), ('depths', depths)):
    if not isinstance(values, tuple) or len(values) != len(_WINDOWS):
      raise ValueError(f'{name} must be four positive numbers, got {values!r}')
    for value in values:
      interface.check_positive(f'each of {name}', value)
  if widths[0] % 2 or any(width % HEAD for width in widths[1:]):
    raise ValueError(
      f'widths = {widths}: the first must be even and the others multiples of '
      f'{HEAD}, the channels of a head'
    )


def _rates(depths: tuple[int, ...]) -> list[tuple[float, ...]]:
  """Return drop rates that grow linearly over blocks, a tuple per stage."""
  last = sum(depths) - 1
  blocks = iter(range(last + 1))
  return [
    tuple(_MOST_DROPPED * next(blocks) / last for _ in range(depth))
    for depth in depths
  ]


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
