"""Fresh weights, drawn leaf by leaf under the name of each leaf."""

import math

import jax.numpy as jnp

from jaxmu.core.draws import Draws
from jaxmu.core.types import Array, Params
from jaxmu.models import Model
from jaxmu.ops import surgery


def symmetric(draws: Draws, path: str, like: Array, bound: float) -> Array:
  """Draw from U(-bound, bound) with the shape and dtype of `like`."""
  unit = draws.uniform(f'fresh/{path}', like.shape, like.dtype)
  return bound * (2 * unit - 1)


def fan_in(kernel: Array) -> int:
  """Inputs of one output of a kernel, (height, width, in, out) or (in, out)."""
  return math.prod(kernel.shape[:-1])


def fan_out(kernel: Array) -> int:
  """Outputs times taps of a convolution kernel, torch's convention."""
  height, width, _, out = kernel.shape
  return height * width * out


def torch_default(
  draws: Draws, params: Params, prefixes: tuple[str, ...]
) -> Params:
  """Renew kernels and biases of some layers as torch initialises them.

  Both kernel and bias are drawn from U(-1, 1) / sqrt(fan in).
  """
  known = surgery.by_path(params)

  def renew(path, leaf):
    if not surgery.under(path, prefixes):
      return leaf
    kernel = known[path.rsplit('/', 1)[0] + '/kernel']
    return symmetric(draws, path, leaf, 1 / math.sqrt(fan_in(kernel)))

  return surgery.edit(renew, params)


def scratch(draws: Draws, model: Model, params: Params) -> Params:
  """Renew all layers as EU-k does before it retrains them.

  Convolutions from U(-b, b), b = sqrt(6 / fan out); linear kernels
  Xavier-uniform, b = sqrt(6 / (in + out)), with zero bias; BatchNorm scale one
  and shift zero. Layer norms and attention biases keep their values.
  """
  kinds = {layer.path: layer.kind for layer in model.layers}

  def renew(path, leaf):
    layer, name = path.rsplit('/', 1)
    kind = kinds[layer]
    if kind in ('conv', 'depthwise'):
      return symmetric(draws, path, leaf, math.sqrt(6 / fan_out(leaf)))
    if kind == 'linear' and name == 'kernel':
      return symmetric(draws, path, leaf, math.sqrt(6 / sum(leaf.shape)))
    if kind in ('linear', 'batch_norm'):
      return (jnp.ones_like if name == 'scale' else jnp.zeros_like)(leaf)
    return leaf

  return surgery.edit(renew, params)
