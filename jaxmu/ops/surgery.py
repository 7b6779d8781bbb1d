"""Edits of weights by path: which tensors there are and what to do to them."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxmu.core.types import Array, Params


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
  leaves = jax.tree_util.tree_leaves_with_path(params)
  return {path_of(path): leaf for path, leaf in leaves if is_conv(leaf)}


def torch_layout(kernel: Array) -> Array:
  """Turn a kernel HWIO into torch's OIHW, whose flat index breaks ties."""
  return jnp.transpose(kernel, (3, 2, 0, 1))


def flax_layout(kernel: Array) -> Array:
  """Turn a kernel OIHW back into HWIO."""
  return jnp.transpose(kernel, (2, 3, 1, 0))
