"""Edits of weights by path: which tensors there are and what to do to them."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxmu.core.types import Array, Params
from jaxmu.models import Model, torch_names


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


def under(path: str, prefixes: Sequence[str]) -> bool:
  """Whether a path lies in one of the modules named by prefixes."""
  return any(f'{path}/'.startswith(f'{prefix}/') for prefix in prefixes)


def tensors(model: Model) -> tuple[torch_names.Leaf, ...]:
  """Describe the parameters in the order of `to_list`."""
  return torch_names.parameters(model)


def our_layout(tensor: torch_names.Leaf, value: Array) -> Array:
  """Turn one entry of `to_list` back into our layout."""
  return torch_names.our_layout(tensor, value)


def to_list(model: Model, params: Params) -> list[Array]:
  """List parameters in torch's order, each in torch's layout.

  Entries of equal value are ranked by their place in this list.
  """
  found = by_path(params)
  return [
    torch_names.torch_layout(leaf, found[leaf.path])
    for leaf in torch_names.parameters(model)
  ]


def to_tree(model: Model, values: Sequence[Array], params: Params) -> Params:
  """Invert `to_list`; `params` gives the structure."""
  leaves = torch_names.parameters(model)
  found = {
    leaf.path: torch_names.our_layout(leaf, value)
    for leaf, value in zip(leaves, values, strict=True)
  }
  return edit(lambda path, _: found[path], params)


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
