"""Linen layers with PyTorch's shapes and initialisation."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from jaxmu.core.types import Array, Key
from jaxmu.models import conv


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


class Conv(nn.Module):
  """Convolution without bias; parameter `kernel` f[size, size, C, K].

  Attributes:
    features: output channels K.
    size: height and width of the kernel.
    stride: step of the window.
    padding: zeros on each side.
    impl: formulation, see `jaxmu.models.conv`.
    input_grad: False for the first layer of a network.
    dtype: dtype of the computation; None for that of the parameters.
  """

  features: int
  size: int
  stride: int = 1
  padding: int = 0
  impl: str = 'auto'
  input_grad: bool = True
  dtype: str | None = None

  @nn.compact
  def __call__(self, x: Array) -> Array:  # f[B, H, W, C] -> f[B, Ho, Wo, K]
    """Convolve."""
    shape = (self.size, self.size, x.shape[3], self.features)
    kernel = self.param(
      'kernel', kaiming_normal_fan_out, shape, parameter_dtype()
    )
    dtype = kernel.dtype if self.dtype is None else self.dtype
    return conv.conv(
      x.astype(dtype),
      kernel.astype(dtype),
      stride=self.stride,
      padding=self.padding,
      impl=self.impl,
      input_grad=self.input_grad,
    )


class Linear(nn.Module):
  """Affine map; parameters `kernel` f[in, out] and `bias` f[out].

  Attributes:
    features: size of the output.
    dtype: dtype of the computation; None for that of the parameters.
  """

  features: int
  dtype: str | None = None

  @nn.compact
  def __call__(self, x: Array) -> Array:  # f[..., in] -> f[..., out]
    """Map the last axis."""
    init = uniform_fan_in(x.shape[-1])
    dtype = parameter_dtype()
    kernel = self.param('kernel', init, (x.shape[-1], self.features), dtype)
    bias = self.param('bias', init, (self.features,), dtype)
    dtype = kernel.dtype if self.dtype is None else self.dtype
    y = lax.dot_general(
      x.astype(dtype), kernel.astype(dtype), (((x.ndim - 1,), (0,)), ((), ()))
    )
    return y + bias.astype(dtype).reshape((1,) * (x.ndim - 1) + (-1,))


def parameter_dtype() -> jnp.dtype:
  """Return the dtype of new parameters: float64 under x64, else float32."""
  return jax.dtypes.canonicalize_dtype(float)
