"""Linen layers with PyTorch's shapes and initialisation."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from jaxmu.core.types import Array, Key
from jaxmu.models import conv, conv_depthwise, norm, product


def kaiming_normal_fan_out(key: Key, shape, dtype) -> Array:
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


def kernel_uniform_fan_in(key: Key, shape, dtype) -> Array:
  """Draw a kernel f[h, w, C, K] from U(-1, 1) / sqrt(h w C)."""
  return uniform_fan_in(math.prod(shape[:3]))(key, shape, dtype)


class Conv(nn.Module):
  """Convolution without bias; parameter `kernel` f[size, size, C, K].

  Attributes:
    features: output channels K.
    size: height and width of the kernel.
    stride: step of the window.
    padding: zeros on each side.
    impl: formulation, see `jaxmu.models.conv`.
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
    if self.depthwise:
      return conv_depthwise.depthwise(
        x,
        kernel,
        stride=self.stride,
        padding=self.padding,
        impl=self.impl,
      )
    return conv.conv(
      x,
      kernel,
      stride=self.stride,
      padding=self.padding,
      impl=self.impl,
      input_grad=self.input_grad,
    )


class ConvNorm(nn.Module):
  """Convolution `conv` padded to keep its map, then BatchNorm `bn`.

  Attributes:
    features: output channels K.
    size: height and width of the kernel.
    stride: step of the window.
    impl: formulation, see `jaxmu.models.conv`.
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
    return norm.BatchNorm(self.scale_init, name='bn')(x, train=train)


class Linear(nn.Module):
  """Affine map; parameters `kernel` f[in, out] and `bias` f[out].

  Attributes:
    features: size of the output.
    kernel_init: initialiser of the kernel; None for U(-1, 1) / sqrt(in), of
      which the bias is drawn as well; with another one it starts at zero.
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
    y = product.product(x.astype(dtype), kernel.astype(dtype))
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
    y = centred * lax.rsqrt(var + 1e-5) * scale.reshape(over)
    return (y + bias.reshape(over)).astype(x.dtype)


def parameter_dtype() -> jnp.dtype:
  """Return the dtype of new parameters: float64 under x64, else float32."""
  return jax.dtypes.canonicalize_dtype(float)
