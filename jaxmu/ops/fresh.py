"""Fresh weights in place of trained ones."""

import math
from collections.abc import Mapping

import jax.numpy as jnp

from jaxmu.core.draws import Draws
from jaxmu.core.types import Array, Params
from jaxmu.models import Model
from jaxmu.ops import surgery


def symmetric(
  draws: Draws, params: Params, bounds: Mapping[str, float]
) -> dict[str, Array]:
  """Draw from U(-b, b) with the shapes of some parameters.

  Args:
    draws: where 'fresh' is drawn.
    params: give shapes and dtype.
    bounds: b by path.
  """
  known = surgery.by_path(params)
  shapes = {path: known[path].shape for path in bounds}
  dtype = next(iter(known.values())).dtype
  units = draws.uniforms('fresh', shapes, dtype)
  return {path: bounds[path] * (2 * unit - 1) for path, unit in units.items()}


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
  bounds = {
    path: 1 / math.sqrt(fan_in(known[path.rsplit('/', 1)[0] + '/kernel']))
    for path in known
    if surgery.under(path, prefixes)
  }
  drawn = symmetric(draws, params, bounds)
  return surgery.edit(lambda path, leaf: drawn.get(path, leaf), params)


def scratch(draws: Draws, model: Model, params: Params) -> Params:
  """Renew all layers as EU-k does before it retrains them.

  Convolutions from U(-b, b), b = sqrt(6 / fan out); linear kernels
  Xavier-uniform, b = sqrt(6 / (in + out)), with zero bias; BatchNorm scale one
  and shift zero. Layer norms and attention biases keep their values.
  """
  kinds = {layer.path: layer.kind for layer in model.layers}
  bounds = {}
  for path, leaf in surgery.by_path(params).items():
    if path.endswith('/kernel'):
      fan = fan_out(leaf) if surgery.is_conv(leaf) else sum(leaf.shape)
      bounds[path] = math.sqrt(6 / fan)
  drawn = symmetric(draws, params, bounds)

  def renew(path, leaf):
    if path in drawn:
      return drawn[path]
    layer, _, name = path.rpartition('/')
    if kinds[layer] in ('linear', 'batch_norm'):
      return (jnp.ones_like if name == 'scale' else jnp.zeros_like)(leaf)
    return leaf

  return surgery.edit(renew, params)
