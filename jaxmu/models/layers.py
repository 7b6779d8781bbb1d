"""Linen layers with PyTorch's shapes, initialisation and statistics.

Conv, ConvNorm, Linear    products; `conv` holds their formulations
BatchNorm, LayerNorm      normalisation, with PyTorch's running variance
max_pool, gelu            functions whose gradients are cheap on CPU
live_taps                 kernel taps that influence an output

A 3x3 kernel on a 1x1 map uses only its centre; the other eight taps multiply
zeros. Such taps are dead: their gradient is exactly zero, and only weight
decay, noise and re-initialisation change them. In ResNet-18 on 32x32 images
they are 62% of all weights.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxmu import platforms
from jaxmu.models import interface
from jaxmu.models.conv import choose, parts
from jaxmu.models.conv import depthwise as depthwise_lib
from jaxmu.types import Array, Key

EPSILON = 1e-5  # of BatchNorm and LayerNorm
MOMENTUM = 0.1  # weight of a new batch in BatchNorm's statistics

# From here on, numbers of a batch are summed in slices: XLA's sums over columns
# read an array from memory several times.
_SLICED = 2**21

Shape = Sequence[int]


def parameter_dtype() -> jnp.dtype:
  """Return the dtype of new parameters: float64 under x64, else float32."""
  return jax.dtypes.canonicalize_dtype(float)


def kaiming_normal_fan_out(key: Key, shape: Shape, dtype: Any) -> Array:
  """Draw a kernel f[h, w, C, K] from N(0, 2 / (K h w)), not truncated."""
  fan_out = shape[0] * shape[1] * shape[3]
  return math.sqrt(2 / fan_out) * jax.random.normal(key, shape, dtype)


def uniform_fan_in(fan_in: int) -> nn.initializers.Initializer:
  """Return an initialiser that draws from U(-1, 1) / sqrt(fan_in)."""
  bound = 1 / math.sqrt(fan_in)

  def init(key, shape, dtype):
    return jax.random.uniform(key, shape, dtype, -bound, bound)

  return init


def normal(deviation: float) -> nn.initializers.Initializer:
  """Return an initialiser that draws from N(0, deviation^2), not truncated."""

  def init(key, shape, dtype):
    return deviation * jax.random.normal(key, shape, dtype)

  return init


def kernel_uniform_fan_in(key: Key, shape: Shape, dtype: Any) -> Array:
  """Draw a kernel f[h, w, C, K] from U(-1, 1) / sqrt(h w C)."""
  return uniform_fan_in(math.prod(shape[:3]))(key, shape, dtype)


class Conv(nn.Module):
  """Convolution without bias; parameter `kernel` f[size, size, C, K].

  Attributes:
    features: output channels K.
    size: height and width of the kernel.
    stride: step of the window.
    padding: zeros on each side.
    impl: formulation, see `jaxmu.models.conv.choose`.
    input_grad: False for the first layer of a network.
    depthwise: each channel on its own; `kernel` is f[size, size, 1, K].
    kernel_init: initialiser of the kernel.
    dtype: dtype of the computation; None for that of the parameters.
  """

  features: int
  size: int
  stride: int = 1
  padding: int = 0
  impl: str = 'auto'
  input_grad: bool = True
  depthwise: bool = False
  kernel_init: nn.initializers.Initializer = kaiming_normal_fan_out
  dtype: str | None = None

  @nn.compact
  def __call__(self, x: Array) -> Array:  # f[B, H, W, C] -> f[B, Ho, Wo, K]
    """Convolve."""
    channels = 1 if self.depthwise else x.shape[3]
    shape = (self.size, self.size, channels, self.features)
    kernel = self.param('kernel', self.kernel_init, shape, parameter_dtype())
    dtype = kernel.dtype if self.dtype is None else self.dtype
    x, kernel = x.astype(dtype), kernel.astype(dtype)
    conv = functools.partial(choose.conv, input_grad=self.input_grad)
    if self.depthwise:
      conv = depthwise_lib.depthwise
    return conv(
      x, kernel, stride=self.stride, padding=self.padding, impl=self.impl
    )


class ConvNorm(nn.Module):
  """Convolution `conv` padded to keep its map, then BatchNorm `bn`.

  Attributes:
    features: output channels K.
    size: height and width of the kernel.
    stride: step of the window.
    impl: formulation, see `jaxmu.models.conv.choose`.
    input_grad: False for the first layer of a network.
    depthwise: each channel on its own.
    scale_init: initialiser of BatchNorm's scale.
    dtype: dtype of the computation; None for that of the parameters.
  """

  features: int
  size: int = 1
  stride: int = 1
  impl: str = 'auto'
  input_grad: bool = True
  depthwise: bool = False
  scale_init: nn.initializers.Initializer = nn.initializers.ones_init()
  dtype: str | None = None

  @nn.compact
  def __call__(self, x: Array, *, train: bool) -> Array:
    """Map f[B, H, W, C] to f[B, H / stride, W / stride, K]."""
    x = Conv(
      self.features,
      self.size,
      self.stride,
      self.size // 2,
      impl=self.impl,
      input_grad=self.input_grad,
      depthwise=self.depthwise,
      kernel_init=kernel_uniform_fan_in,
      dtype=self.dtype,
      name='conv',
    )(x)
    return BatchNorm(self.scale_init, name='bn')(x, train=train)


class Linear(nn.Module):
  """Affine map; parameters `kernel` f[in, out] and `bias` f[out].

  Attributes:
    features: size of the output.
    kernel_init: initialiser of the kernel; None for U(-1, 1) / sqrt(in), from
      which the bias is drawn too; with any other initialiser the bias starts at
      zero.
    dtype: dtype of the computation; None for that of the parameters.
  """

  features: int
  kernel_init: nn.initializers.Initializer | None = None
  dtype: str | None = None

  @nn.compact
  def __call__(self, x: Array) -> Array:  # f[..., in] -> f[..., out]
    """Map the last axis."""
    init = self.kernel_init or uniform_fan_in(x.shape[-1])
    bias_init = nn.initializers.zeros if self.kernel_init else init
    dtype = parameter_dtype()
    kernel = self.param('kernel', init, (x.shape[-1], self.features), dtype)
    bias = self.param('bias', bias_init, (self.features,), dtype)
    dtype = kernel.dtype if self.dtype is None else self.dtype
    y = parts.product(x.astype(dtype), kernel.astype(dtype))
    return y + bias.astype(dtype).reshape((1,) * (x.ndim - 1) + (-1,))


class LayerNorm(nn.Module):
  """Normalise each vector; parameters `scale`, `bias` f[C], epsilon 1e-5."""

  @nn.compact
  def __call__(self, x: Array) -> Array:  # f[..., C] -> f[..., C]
    """Normalise the last axis, in the precision of the parameters."""
    shape, dtype = (x.shape[-1],), parameter_dtype()
    scale = self.param('scale', nn.initializers.ones, shape, dtype)
    bias = self.param('bias', nn.initializers.zeros, shape, dtype)
    wide = x.astype(scale.dtype)
    centred = wide - wide.mean(-1, keepdims=True)
    var = (centred * centred).mean(-1, keepdims=True)
    over = (1,) * (x.ndim - 1) + (-1,)
    y = centred * lax.rsqrt(var + EPSILON) * scale.reshape(over)
    return (y + bias.reshape(over)).astype(x.dtype)


class BatchNorm(nn.Module):
  """Normalise each channel over batch and space, as PyTorch does.

  The batch is normalised with its biased variance; the running variance takes
  the unbiased one, n / (n - 1), which shows on small last batches. (Flax's
  layer keeps the biased one.) Parameters `scale`, `bias` f[C]; batch statistics
  `mean`, `var` f[C].

  Attributes:
    scale_init: initialiser of the scale, one by default.
  """

  scale_init: nn.initializers.Initializer = nn.initializers.ones_init()

  @nn.compact
  def __call__(self, x: Array, *, train: bool) -> Array:  # f[B, H, W, C]
    """Normalise with batch statistics (train) or running ones (eval)."""
    dtype = parameter_dtype()
    shape = (x.shape[-1],)
    scale = self.param('scale', self.scale_init, shape, dtype)
    bias = self.param('bias', nn.initializers.zeros, shape, dtype)
    mean = self.variable('batch_stats', 'mean', jnp.zeros, shape, dtype)
    var = self.variable('batch_stats', 'var', jnp.ones, shape, dtype)
    if not train:
      factor = scale * lax.rsqrt(var.value + EPSILON)
      return _affine(x, factor, bias - mean.value * factor)
    y, batch_mean, batch_var = batch_norm(x, scale, bias)
    if not self.is_initializing():
      count = x.size // x.shape[-1]
      unbiased = batch_var * (count / (count - 1))
      mean.value = (1 - MOMENTUM) * mean.value + MOMENTUM * batch_mean
      var.value = (1 - MOMENTUM) * var.value + MOMENTUM * unbiased
    return y


def batch_norm(
  x: Array,  # f[..., C]
  scale: Array,  # f[C]
  bias: Array,  # f[C]
) -> tuple[Array, Array, Array]:
  """Normalise by batch statistics.

  Args:
    x: values, f[..., C]; statistics are taken over all axes but the last, in
      the precision of `scale`.
    scale: f[C].
    bias: f[C].

  Returns:
    Normalised values f[..., C], batch mean f[C] and biased batch variance
    f[C]; the statistics carry no gradient of their own.

  Raises:
    ValueError: if there is only one value per channel.
  """
  count = x.size // x.shape[-1]
  if count < 2:
    raise ValueError(
      f'BatchNorm in train mode got {count} value per channel (input of shape '
      f'{x.shape}), whose variance is undefined; use a batch size that leaves '
      'no last batch of one example, larger images, or eval mode'
    )
  y, mean, var = _batch_norm(x, scale, bias)
  return y, lax.stop_gradient(mean), lax.stop_gradient(var)


@jax.custom_vjp
def _batch_norm(x, scale, bias):
  return _batch_norm_forward(x, scale, bias)[0]


def _batch_norm_forward(x, scale, bias):
  mean, var = _statistics(x, scale.dtype)
  inverse = lax.rsqrt(var + EPSILON)
  factor = scale * inverse
  y = _affine(x, factor, bias - mean * factor)
  return (y, mean, var), (x, scale, mean, inverse)


def _statistics(x, dtype):
  """Return the mean and variance f[C], combined from slices of the batch."""

  def of_slice(x):
    over = tuple(range(x.ndim - 1))
    wide = x.astype(dtype)
    mean = wide.mean(over)
    centred = wide - _spread(mean, x)
    return mean, (centred * centred).mean(over)

  slices = _slices(x)
  if slices.shape[0] == 1:
    return of_slice(x)
  means, variances = lax.map(of_slice, slices)
  mean = means.mean(0)
  return mean, variances.mean(0) + ((means - mean[None]) ** 2).mean(0)


def _slices(x):
  """Split f[B, ...] as f[n, B / n, ...] if it is far larger than the cache."""
  most = x.shape[0]
  if x.size >= _SLICED:
    most = parts.images_per_slice(x.shape)
  return parts.split_batch(x, most)


def _batch_norm_backward(saved, slopes):
  x, scale, mean, inverse = saved
  over = tuple(range(x.ndim - 1))

  def normal(x):
    return (x.astype(scale.dtype) - _spread(mean, x)) * _spread(inverse, x)

  def sums(x, dy):
    dy = dy.astype(scale.dtype)
    return jnp.stack([(dy * normal(x)).sum(over), dy.sum(over)])

  dscale, dbias = parts.sum_over(sums, _slices(x), _slices(slopes[0]))
  dy = slopes[0].astype(scale.dtype)
  count = x.size // x.shape[-1]
  means = _spread(dbias / count, x), _spread(dscale / count, x)
  shift = dy - means[0] - normal(x) * means[1]
  dx = shift * _spread(scale * inverse, x)
  return dx.astype(x.dtype), dscale, dbias


_batch_norm.defvjp(_batch_norm_forward, _batch_norm_backward)


def _spread(channel: Array, like: Array) -> Array:
  return channel.reshape((1,) * (like.ndim - 1) + (-1,))


def _affine(x: Array, factor: Array, offset: Array) -> Array:
  wide = x.astype(factor.dtype)
  return (wide * _spread(factor, x) + _spread(offset, x)).astype(x.dtype)


def max_pool(x: Array) -> Array:  # f[B, H, W, C] -> f[B, H / 2, W / 2, C]
  """Take the maximum of each 3x3 window at stride 2, padded by -inf.

  Among equal values the gradient goes to the first in row-major order of the
  window, as in PyTorch. XLA's gradient (select-and-scatter) is fast on a TPU,
  but takes longer on a CPU than the first stage of ResNet-18. Elsewhere than on
  a TPU the forward pass stores which of the nine taps is the largest; the
  gradient gathers, for each of the four kinds of pixels (even or odd row and
  column), from the windows that hold it.

  Args:
    x: maps of even height and width, f[B, H, W, C].

  Returns:
    f[B, H / 2, W / 2, C].

  Raises:
    ValueError: if height or width is odd.
  """
  _, height, width, _ = x.shape
  if height % 2 or width % 2:
    raise ValueError(
      f'max_pool halves its maps, got {height}x{width}; use images whose '
      'side is a multiple of 4'
    )
  if platforms.name() == 'tpu':
    sides = ((0, 0), (1, 0), (1, 0), (0, 0))
    return lax.reduce_window(
      x, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), sides
    )
  return _max_pool(x)


@jax.custom_vjp
def _max_pool(x):
  return _max_pool_forward(x)[0]


def _max_pool_forward(x):
  batch, height, width, channels = x.shape
  # Windows start at -1 and end before H: only the low side is padded.
  lowest = jnp.array(-jnp.inf, x.dtype)
  low = (1, 0, 0)
  padded = lax.pad(x, lowest, ((0, 0, 0), low, low, (0, 0, 0)))
  maximum = jnp.full((batch, height // 2, width // 2, channels), lowest)
  largest = jnp.zeros(maximum.shape, jnp.int8)
  for tap in range(9):
    row, column = divmod(tap, 3)
    view = padded[
      :, row : row + height - 1 : 2, column : column + width - 1 : 2
    ]
    largest = jnp.where(view > maximum, jnp.int8(tap), largest)
    maximum = jnp.maximum(view, maximum)
  return maximum, largest


def _max_pool_backward(largest, dy):
  batch, rows, columns, channels = dy.shape
  side = ((0, 0, 0), (0, 1, 0), (0, 1, 0), (0, 0, 0))
  zero = jnp.zeros((), dy.dtype)
  # Padded once and kept: a pad fused into the selections below would test
  # every element for being outside.
  largest = lax.pad(largest, jnp.int8(-1), side)
  dy = lax.pad(dy, zero, side)
  largest, dy = lax.optimization_barrier((largest, dy))

  def slopes_of(tap, down, right):
    """Gradients of the windows `down` and `right` whose maximum is at `tap`."""
    here = (
      slice(None),
      slice(down, down + rows),
      slice(right, right + columns),
    )
    return jnp.where(largest[here] == tap, dy[here], zero)

  even_even = slopes_of(4, 0, 0)
  even_odd = slopes_of(5, 0, 0) + slopes_of(3, 0, 1)
  odd_even = slopes_of(7, 0, 0) + slopes_of(1, 1, 0)
  odd_odd = (
    slopes_of(8, 0, 0)
    + slopes_of(6, 0, 1)
    + slopes_of(2, 1, 0)
    + slopes_of(0, 1, 1)
  )
  even_even, even_odd, odd_even, odd_odd = lax.optimization_barrier(
    (even_even, even_odd, odd_even, odd_odd)
  )
  even = jnp.stack((even_even, even_odd), axis=3)
  odd = jnp.stack((odd_even, odd_odd), axis=3)
  dx = jnp.stack((even, odd), axis=2)  # f[B, H / 2, 2, W / 2, 2, C]
  return (dx.reshape(batch, 2 * rows, 2 * columns, channels),)


_max_pool.defvjp(_max_pool_forward, _max_pool_backward)


@jax.custom_vjp
def gelu(x: Array) -> Array:
  """Return x times the standard normal distribution function at x.

  Equal to `jax.nn.gelu(x, approximate=False)`, with a gradient that keeps only
  the input and takes two thirds of the time on CPU. Source: Hendrycks and
  Gimpel 2016, arXiv 1606.08415.

  Args:
    x: values of any shape.

  Returns:
    Values of the same shape and dtype.
  """
  return x * _distribution(x)


def _distribution(x: Array) -> Array:
  return 0.5 * (1 + lax.erf(x * math.sqrt(0.5)))


def _gelu_forward(x):
  return gelu(x), x


def _gelu_backward(x, dy):
  density = jnp.exp(-0.5 * x * x) * (1 / math.sqrt(2 * math.pi))
  return (dy * (_distribution(x) + x * density),)


gelu.defvjp(_gelu_forward, _gelu_backward)


@functools.cache
def live_taps(
  model: interface.Model, image_shape: tuple[int, int, int]
) -> dict[str, np.ndarray]:
  """Return for each kernel which taps meet a pixel for some output.

  Args:
    model: the architecture; convolutions other than `Conv` are left out.
    image_shape: (H, W, 3).

  Returns:
    bool[h, w] by path in `params`; the result is cached, do not change it.
  """
  live = {}

  def watch(call, args, kwargs, context):
    module = context.module
    if isinstance(module, Conv) and context.method_name == '__call__':
      height, width = args[0].shape[1:3]
      window = module.size, module.stride, module.padding
      rows, columns = _live_taps(height, *window), _live_taps(width, *window)
      path = '/'.join((*module.path, 'kernel'))
      live[path] = rows[:, None] & columns[None, :]
    return call(*args, **kwargs)

  def forward(key):
    return model.init(
      {'params': key}, jnp.zeros((1, *image_shape)), train=False
    )

  with nn.intercept_methods(watch):
    jax.eval_shape(forward, jax.random.key(0))
  return live


def _live_taps(length: int, size: int, stride: int, padding: int) -> np.ndarray:
  """Return for each tap of one axis whether it is live, bool[size]."""
  taps = parts.live_taps(length, size, stride, padding)
  return np.isin(np.arange(size), taps)
