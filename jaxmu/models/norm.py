"""BatchNorm with PyTorch's semantics, and its own gradient.

The batch is normalised with its biased variance; the running variance takes
the unbiased one, n / (n - 1), which shows on small last batches. Unlike Flax's
layer, whose running variance is the biased one.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from jaxmu.core.types import Array

EPSILON = 1e-5
MOMENTUM = 0.1


class BatchNorm(nn.Module):
  """Normalise each channel over batch and space.

  Parameters `scale`, `bias` f[C]; batch statistics `mean`, `var` f[C].

  Attributes:
    scale_init: initialiser of the scale, one by default.
  """

  scale_init: nn.initializers.Initializer = nn.initializers.ones_init()

  @nn.compact
  def __call__(self, x: Array, *, train: bool) -> Array:  # f[B, H, W, C]
    """Normalise with batch statistics (train) or running ones (eval)."""
    dtype = jax.dtypes.canonicalize_dtype(float)
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
  return _forward(x, scale, bias)[0]


def _forward(x, scale, bias):
  over = tuple(range(x.ndim - 1))
  wide = x.astype(scale.dtype)
  mean = wide.mean(over)
  centred = wide - _spread(mean, x)
  var = (centred * centred).mean(over)
  inverse = lax.rsqrt(var + EPSILON)
  factor = scale * inverse
  y = _affine(x, factor, bias - mean * factor)
  return (y, mean, var), (x, scale, mean, inverse)


def _backward(saved, slopes):
  x, scale, mean, inverse = saved
  dy = slopes[0].astype(scale.dtype)
  over = tuple(range(x.ndim - 1))
  count = x.size // x.shape[-1]
  wide = x.astype(scale.dtype)
  normal = (wide - _spread(mean, x)) * _spread(inverse, x)
  dbias = dy.sum(over)
  dscale = (dy * normal).sum(over)
  shift = dy - _spread(dbias / count, x) - normal * _spread(dscale / count, x)
  dx = shift * _spread(scale * inverse, x)
  return dx.astype(x.dtype), dscale, dbias


_batch_norm.defvjp(_forward, _backward)


def _spread(channel: Array, like: Array) -> Array:
  return channel.reshape((1,) * (like.ndim - 1) + (-1,))


def _affine(x: Array, factor: Array, offset: Array) -> Array:
  wide = x.astype(factor.dtype)
  return (wide * _spread(factor, x) + _spread(offset, x)).astype(x.dtype)
