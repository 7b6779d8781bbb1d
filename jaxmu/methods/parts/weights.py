"""Weights by path: edits, layouts, dead weights, fresh values.

A path names a tensor, such as 'layer1_0/conv1/kernel'. Lists of tensors are in
torch's order and layout, which breaks ties. Dead weights only multiply padding;
see `jaxmu.models.layers`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmu.draws import Draws
from jaxmu.models import Model, layers, pytorch_names
from jaxmu.types import Array, Params, Task


def path_of(path: tuple) -> str:
  """Return a tree path as 'layer1_0/conv1/kernel'."""
  return jax.tree_util.keystr(path, simple=True, separator='/')


def is_conv(leaf: Any) -> bool:
  """Whether a parameter is a convolution kernel (height, width, in, out)."""
  return len(leaf.shape) == 4


def edit(fn: Callable[[str, Array], Array], params: Params) -> Params:
  """Apply `fn(path, leaf) -> leaf` to every parameter."""
  return jax.tree_util.tree_map_with_path(
    lambda path, leaf: fn(path_of(path), leaf), params
  )


def conv_kernels(params: Params) -> dict[str, Array]:
  """Return the convolution kernels by path."""
  return {k: leaf for k, leaf in by_path(params).items() if is_conv(leaf)}


def is_under(path: str, prefixes: Sequence[str]) -> bool:
  """Whether a path is in one of the modules named by prefixes."""
  return any(f'{path}/'.startswith(f'{prefix}/') for prefix in prefixes)


def to_list(model: Model, params: Params) -> list[Array]:
  """List parameters in torch's order, each in torch's layout.

  Entries of equal value are ranked by their place in this list.
  """
  known = by_path(params)
  return [
    pytorch_names.torch_layout(leaf, known[leaf.path])
    for leaf in pytorch_names.parameters(model)
  ]


def to_tree(model: Model, values: Sequence[Array], params: Params) -> Params:
  """Invert `to_list`; `params` gives the structure."""
  leaves = pytorch_names.parameters(model)
  ours = {
    leaf.path: pytorch_names.our_layout(leaf, value)
    for leaf, value in zip(leaves, values, strict=True)
  }
  return edit(lambda path, _: ours[path], params)


def by_path(params: Params) -> dict[str, Array]:
  """Return all parameters by path."""
  leaves = jax.tree_util.tree_leaves_with_path(params)
  return {path_of(path): leaf for path, leaf in leaves}


def torch_layout(kernel: Array) -> Array:
  """Turn a kernel HWIO into torch's OIHW, whose flat index breaks ties."""
  return jnp.transpose(kernel, (3, 2, 0, 1))


def flax_layout(kernel: Array) -> Array:
  """Turn a kernel OIHW back into HWIO."""
  return jnp.transpose(kernel, (2, 3, 1, 0))


def live_weights(task: Task, params: Params) -> Params:
  """Return which parameters are live, a tree of bool that broadcasts.

  Kernels of convolutions give bool[h, w, 1, 1], all others a single True of
  their rank.
  """
  kernels = layers.live_taps(task.model, task.dataset.image_shape)

  def mark(path, leaf):
    if path in kernels:
      return jnp.asarray(kernels[path][:, :, None, None])
    return jnp.ones((1,) * len(leaf.shape), bool)

  return edit(mark, params)


def count_dead(task: Task, params: Params) -> dict[str, int]:
  """Count the weights that only multiply padding, for each such kernel."""
  kernels = layers.live_taps(task.model, task.dataset.image_shape)
  shapes = {k: leaf.shape for k, leaf in by_path(params).items()}
  return {
    path: int(np.sum(~alive)) * shapes[path][2] * shapes[path][3]
    for path, alive in kernels.items()
  }


def count_chosen_dead(chosen: Params, live: Params) -> Array:
  """Count the dead weights among chosen ones, i32[].

  Args:
    chosen: tree of bool.
    live: what `live_weights` returned, whole or the leaves of `chosen`.
  """
  counts = jax.tree.map(
    lambda on, alive: jnp.sum(on & ~alive, dtype=jnp.int32), chosen, live
  )
  return sum(jax.tree.leaves(counts), jnp.zeros((), jnp.int32))


def fresh_symmetric(
  draws: Draws, params: Params, bounds: Mapping[str, float]
) -> dict[str, Array]:
  """Draw from U(-b, b) with the shapes of some parameters.

  Args:
    draws: where 'fresh' is drawn.
    params: give shapes and dtype.
    bounds: b by path.
  """
  known = by_path(params)
  shapes = {path: known[path].shape for path in bounds}
  dtype = next(iter(known.values())).dtype
  units = draws.uniforms('fresh', shapes, dtype)
  return {path: bounds[path] * (2 * unit - 1) for path, unit in units.items()}


def fresh_fan_in(kernel: Array) -> int:
  """Return the fan in of a kernel, (height, width, in, out) or (in, out)."""
  return math.prod(kernel.shape[:-1])


def fresh_fan_out(kernel: Array) -> int:
  """Return the fan out of a convolution kernel: output channels times taps."""
  height, width, _, out = kernel.shape
  return height * width * out


def fresh_torch_default(
  draws: Draws, params: Params, prefixes: tuple[str, ...]
) -> Params:
  """Draw kernels and biases of some layers again, as torch initialises them.

  Both kernel and bias are drawn from U(-1, 1) / sqrt(fan in).
  """
  known = by_path(params)
  bounds = {
    path: 1 / math.sqrt(fresh_fan_in(known[path.rsplit('/', 1)[0] + '/kernel']))
    for path in known
    if is_under(path, prefixes)
  }
  drawn = fresh_symmetric(draws, params, bounds)
  return edit(lambda path, leaf: drawn.get(path, leaf), params)


def fresh_scratch(draws: Draws, model: Model, params: Params) -> Params:
  """Draw all layers again, as EU-k does before it retrains them.

  Convolutions from U(-b, b), b = sqrt(6 / fan out); linear kernels
  Xavier-uniform, b = sqrt(6 / (in + out)), with zero bias; BatchNorm scale one
  and shift zero. Layer norms and attention biases keep their values.
  """
  kinds = {layer.path: layer.kind for layer in model.layers}
  bounds = {}
  for path, leaf in by_path(params).items():
    if path.endswith('/kernel'):
      fan = fresh_fan_out(leaf) if is_conv(leaf) else sum(leaf.shape)
      bounds[path] = math.sqrt(6 / fan)
  drawn = fresh_symmetric(draws, params, bounds)

  def renew(path, leaf):
    if path in drawn:
      return drawn[path]
    layer, _, name = path.rpartition('/')
    if kinds[layer] in ('linear', 'batch_norm'):
      return (jnp.ones_like if name == 'scale' else jnp.zeros_like)(leaf)
    return leaf

  return edit(renew, params)
