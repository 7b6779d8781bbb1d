"""PyTorch checkpoints in and out: `.safetensors`, or `.pth` by way of torch.

  variables = torch_files.load(model, 'original.pth')
  torch_files.save(model, variables, 'unlearned.safetensors')

and the same for several files as the members of a population. Logits are those
of PyTorch to float32 rounding. Both packages are optional and are imported when
a file asks for them: `pip install 'jaxmu[torch]'`.
"""

import importlib
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmu import files
from jaxmu.models import interface, pytorch_names
from jaxmu.types import Variables

PathLike = str | os.PathLike[str]

_TORCH = ('.pth', '.pt', '.ckpt', '.bin')
_SAFE = '.safetensors'
# Where training scripts keep the weights beside optimisers and counters.
_WRAPPINGS = ('state_dict', 'model_state_dict', 'model', 'net', 'weights')
# What DataParallel, torch.compile and Lightning put before every name.
_PREFIXES = ('module.', '_orig_mod.', 'model.')
# Buffers that hold no weights: a counter, and index tables of TinyViT.
_IGNORED = ('num_batches_tracked', 'attention_bias_idxs')


def read(path: PathLike) -> dict[str, np.ndarray]:
  """Read the weights of a file, without wrapping and prefixes.

  Args:
    path: a safetensors file, or one of `torch.save` with a state dict: bare,
      under a key such as 'state_dict', with or without names that begin with
      'module.'. Pickled code is never run.

  Returns:
    Arrays by state-dict name; float32, or float64 when x64 is enabled.

  Raises:
    FileNotFoundError: no such file.
    ImportError: torch or safetensors is needed and not installed.
    ValueError: another kind of file, or no state dict inside.
  """
  path = pathlib.Path(path)
  _check_suffix(path)
  if not path.is_file():
    raise FileNotFoundError(f'no file {str(path)!r}; give a checkpoint')
  state = _read_safe(path) if path.suffix == _SAFE else _read_torch(path)
  state = _without_prefixes(state)
  dtype = np.dtype(jnp.result_type(float))
  return {
    name: np.asarray(value, dtype)
    for name, value in state.items()
    if not name.endswith(_IGNORED)
  }


def load(model: interface.Model, path: PathLike) -> Variables:
  """Read one member.

  Args:
    model: the architecture the weights belong to, e.g. 'resnet18' as in
      torchvision or 'vit11m'.
    path: see `read`.

  Returns:
    `{'params', 'batch_stats'}`.

  Raises:
    ValueError: tensors are missing, left over or of another shape, among them
      those of a classifier with another number of classes; and see `read`.
  """
  state = read(path)
  try:
    _check_axes(model, state)
    variables = pytorch_names.from_torch(model, state)
  except ValueError as error:
    raise ValueError(f'{path}: {error}') from error
  _check_shapes(model, variables, str(path))
  return variables


def load_population(
  model: interface.Model, paths: Sequence[PathLike]
) -> Variables:
  """Read several files as members 0, 1, ... of a population.

  Returns:
    Variables with leaves [P, ...] on the host.

  Raises:
    ValueError: there are no files; and see `load`.
  """
  if not paths:
    raise ValueError('no files; give one per member')
  members = [jax.tree.map(np.asarray, load(model, path)) for path in paths]
  return jax.tree.map(lambda *leaves: np.stack(leaves), *members)


def save(model: interface.Model, variables: Variables, path: PathLike) -> None:
  """Write one member as a state dict that `load_state_dict` takes.

  Args:
    model: the architecture.
    variables: `{'params', 'batch_stats'}`.
    path: ends in '.safetensors', or '.pth' and the like, which needs torch.

  Raises:
    ImportError: torch or safetensors is needed and not installed.
    ValueError: another ending, or variables of another model.
  """
  path = pathlib.Path(path)
  _check_suffix(path)
  state = {  # transposed views would be written in the wrong order
    name: np.ascontiguousarray(value)
    for name, value in pytorch_names.to_torch(model, variables).items()
  }
  if path.suffix == _SAFE:
    files.write_bytes(path, _package('safetensors.numpy').save(state))
    return
  torch = _package('torch')
  tensors = {name: torch.tensor(value) for name, value in state.items()}
  with files.replacing(path) as file:
    torch.save(tensors, file)


def save_population(
  model: interface.Model, variables: Variables, paths: Sequence[PathLike]
) -> None:
  """Write the members of a population, one file each.

  Args:
    model: the architecture.
    variables: leaves [P, ...].
    paths: P files, see `save`.

  Raises:
    ValueError: not as many files as members; and see `save`.
  """
  size = jax.tree.leaves(variables)[0].shape[0]
  if len(paths) != size:
    raise ValueError(f'{size} members and {len(paths)} files; give one each')
  host = jax.tree.map(np.asarray, variables)
  for member, path in enumerate(paths):
    save(model, jax.tree.map(lambda x: x[member], host), path)  # noqa: B023


def _without_prefixes(state: dict[str, Any]) -> dict[str, Any]:
  for prefix in _PREFIXES:
    if state and all(name.startswith(prefix) for name in state):
      return _without_prefixes(
        {name.removeprefix(prefix): value for name, value in state.items()}
      )
  return state


def _check_suffix(path: pathlib.Path) -> None:
  if path.suffix not in (_SAFE, *_TORCH):
    raise ValueError(
      f'{str(path)!r} ends in {path.suffix!r}; known endings are '
      + ', '.join((_SAFE, *_TORCH))
    )


def _package(name: str) -> Any:
  # By name, for type checkers must pass where neither package is installed.
  try:
    return importlib.import_module(name)
  except ImportError as error:
    package = name.partition('.')[0]
    raise ImportError(
      f"this file needs {package}: pip install {package}, or 'jaxmu[torch]'; "
      'safetensors files need no torch'
    ) from error


def _read_safe(path: pathlib.Path) -> dict[str, np.ndarray]:
  safetensors = _package('safetensors')
  try:
    return dict(_package('safetensors.numpy').load_file(path))
  except safetensors.SafetensorError as error:
    raise ValueError(
      f'{path} cannot be read as safetensors ({error}); write it again'
    ) from error


def _read_torch(path: pathlib.Path) -> dict[str, np.ndarray]:
  torch = _package('torch')
  try:
    found = torch.load(path, map_location='cpu', weights_only=True)
  except Exception as error:  # torch has no type of its own for such files
    raise ValueError(
      f'{path} does not hold plain tensors; write it again with '
      f'torch.save(model.state_dict(), path) ({type(error).__name__})'
    ) from error
  state = _unwrap(found, torch.Tensor, path)
  return {
    name: value.detach().to(torch.float64).numpy()
    for name, value in state.items()
  }


def _unwrap(found: Any, tensor: type, path: pathlib.Path) -> dict[str, Any]:
  """Find the state dict in what a file holds."""
  candidates = [found]
  if isinstance(found, Mapping):
    candidates += [found[key] for key in _WRAPPINGS if key in found]
  for state in candidates:
    if isinstance(state, Mapping) and state:
      if all(isinstance(value, tensor) for value in state.values()):
        return dict(state)
  holds = type(found).__name__
  if isinstance(found, Mapping):
    holds = f'entries {list(map(str, found))[:5]}'
  raise ValueError(
    f'{path} has no state dict: it holds {holds}; expected tensors by name, '
    f'or these under one of {", ".join(_WRAPPINGS)}'
  )


def _check_axes(model: interface.Model, state: dict[str, np.ndarray]) -> None:
  for leaf in pytorch_names.leaves(model):
    found = state.get(leaf.torch)
    if found is None or leaf.axes is None or found.ndim == len(leaf.axes):
      continue
    raise ValueError(
      f'{leaf.torch} has {found.ndim} axes, not {len(leaf.axes)}; give '
      'weights of this architecture'
    )


def _check_shapes(
  model: interface.Model, variables: Variables, path: str
) -> None:
  """Refuse weights of a wider, narrower or otherwise different network."""
  expected = pytorch_names.to_torch(model, _blank(model))
  found = pytorch_names.to_torch(model, variables)
  wrong = [
    name for name, value in found.items() if value.shape != expected[name].shape
  ]
  if not wrong:
    return
  head = {
    leaf.torch: leaf.path
    for leaf in pytorch_names.parameters(model)
    if leaf.path.startswith(tuple(f'{p}/' for p in model.blocks.classifier))
  }
  if set(wrong) <= set(head):
    raise ValueError(
      f'{path} has {found[wrong[0]].shape[0]} classes, the model '
      f'{model.num_classes}; build the model with that num_classes'
    )
  shapes = [
    f'{name} {found[name].shape}, not {expected[name].shape}'
    for name in wrong[:3]
  ]
  raise ValueError(
    f'{path} has {len(wrong)} tensors of another shape: {"; ".join(shapes)}; '
    'build the model with the width, classes and stem of the weights'
  )


def _blank(model: interface.Model) -> Variables:
  """Make variables of the right shapes; no shape depends on the images'."""
  shapes = jax.eval_shape(
    lambda key: interface.init(model, key, (32, 32, 3)), jax.random.key(0)
  )
  # Broadcast from one number, so that this costs no memory.
  return jax.tree.map(
    lambda x: np.broadcast_to(np.zeros((), x.dtype), x.shape), shapes
  )
