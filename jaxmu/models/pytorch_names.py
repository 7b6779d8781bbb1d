"""PyTorch's name and layout for every array of a model.

Used by checkpoints, parity tests, and methods that break ties between weights
by their position in PyTorch's flattened tensors.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.traverse_util
import jax.numpy as jnp
import numpy as np

from jaxmu.models import interface
from jaxmu.types import Array, Variables


class Leaf(NamedTuple):
  """One array of the variables.

  Attributes:
    collection: 'params' or 'batch_stats'.
    path: path inside the collection, e.g. 'layer1_0/conv1/kernel'.
    torch: state-dict name, e.g. 'layer1.0.conv1.weight'.
    kind: kind of its layer, see `interface.Layer`.
    axes: transposition from our layout to PyTorch's, or None.
  """

  collection: str
  path: str
  torch: str
  kind: str
  axes: tuple[int, ...] | None


_OIHW = (3, 2, 0, 1)
_MEMBERS = {
  'conv': (('params', 'kernel', '.weight', _OIHW),),
  'depthwise': (('params', 'kernel', '.weight', _OIHW),),
  'linear': (
    ('params', 'kernel', '.weight', (1, 0)),
    ('params', 'bias', '.bias', None),
  ),
  'batch_norm': (
    ('params', 'scale', '.weight', None),
    ('params', 'bias', '.bias', None),
    ('batch_stats', 'mean', '.running_mean', None),
    ('batch_stats', 'var', '.running_var', None),
  ),
  'layer_norm': (
    ('params', 'scale', '.weight', None),
    ('params', 'bias', '.bias', None),
  ),
  'attention_bias': (('params', 'attention_biases', '', None),),
}


def leaves(model: interface.Model) -> tuple[Leaf, ...]:
  """List all leaves in the order of PyTorch's state dict.

  A model may provide the list as `leaves`. `jaxmu.models.custom` does so,
  because custom layers may have other arrays than usual for their kind.
  """
  listed = getattr(model, 'leaves', None)
  if listed is not None:
    return listed
  return tuple(
    Leaf(
      collection,
      f'{layer.path}/{name}',
      layer.torch + suffix,
      layer.kind,
      axes,
    )
    for layer in model.layers
    for collection, name, suffix, axes in _MEMBERS[layer.kind]
  )


def parameters(model: interface.Model) -> tuple[Leaf, ...]:
  """List the trained leaves in PyTorch's parameter order."""
  return tuple(leaf for leaf in leaves(model) if leaf.collection == 'params')


def torch_layout(leaf: Leaf, value: Any) -> Any:
  """Transpose one leaf to PyTorch's layout; flatten it for flat indices."""
  return value if leaf.axes is None else value.transpose(leaf.axes)


def our_layout(leaf: Leaf, value: Any) -> Any:
  """Invert `torch_layout`."""
  if leaf.axes is None:
    return value
  return value.transpose(tuple(int(i) for i in np.argsort(leaf.axes)))


def to_torch(
  model: interface.Model, variables: Variables
) -> dict[str, np.ndarray]:
  """Turn variables of one member into a PyTorch state dict of NumPy arrays.

  Args:
    model: the architecture.
    variables: `{'params', 'batch_stats'}` of one member.

  Returns:
    Arrays in PyTorch's layout by state-dict name, in PyTorch's order.

  Raises:
    ValueError: if the variables belong to another model.
  """
  flat = {
    collection: flax.traverse_util.flatten_dict(variables[collection], sep='/')
    for collection in ('params', 'batch_stats')
  }
  known = leaves(model)
  _compare(
    {f'{leaf.collection}/{leaf.path}' for leaf in known},
    {f'{name}/{path}' for name in flat for path in flat[name]},
    'variables',
  )
  return {
    leaf.torch: np.asarray(
      torch_layout(leaf, np.asarray(flat[leaf.collection][leaf.path]))
    )
    for leaf in known
  }


def from_torch(
  model: interface.Model, state: Mapping[str, np.ndarray]
) -> Variables:
  """Turn a PyTorch state dict of arrays into variables of one member.

  Args:
    model: the architecture.
    state: arrays by name; `num_batches_tracked` entries are ignored. Shapes are
      not checked.

  Returns:
    `{'params', 'batch_stats'}` in the dtypes of the arrays.

  Raises:
    ValueError: if a tensor is missing or left over.
  """
  state = {
    name: value
    for name, value in state.items()
    if not name.endswith('num_batches_tracked')
  }
  known = leaves(model)
  _compare({leaf.torch for leaf in known}, set(state), 'state dict')
  flat: dict[str, dict[str, Array]] = {'params': {}, 'batch_stats': {}}
  for leaf in known:
    value = our_layout(leaf, np.asarray(state[leaf.torch]))
    flat[leaf.collection][leaf.path] = jnp.asarray(value)
  return {
    collection: flax.traverse_util.unflatten_dict(part, sep='/')
    for collection, part in flat.items()
  }


def _compare(expected: set[str], given: set[str], what: str) -> None:
  missing, extra = sorted(expected - given), sorted(given - expected)
  if missing or extra:
    raise ValueError(
      f'{what} of another model: missing {missing[:5]}, unexpected '
      f'{extra[:5]}; build the model with the width, classes and stem that '
      'the weights were made with'
    )
