"""Your own linen classifier as a model that every method works on.

  model = own.wrap(MyNet(), num_classes=10, image_shape=(32, 32, 3))

Layers and their kinds are read off the parameter tree, and blocks off the order
in which the network calls its top-level modules. Nothing is run: shapes are
enough.
"""

import dataclasses
import inspect
from collections.abc import Mapping
from typing import Any

import flax.errors
import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp

from jaxmu.models import interface
from jaxmu.models.pytorch_names import Leaf
from jaxmu.types import Array, Variables

# Ways to ask for train mode, with the value that does.
MODES = {
  'train': True,
  'training': True,
  'is_training': True,
  'deterministic': False,
  'use_running_average': False,
}
_DROPOUT_DRAWS = 2  # uniforms that one key of dropout is made of


@dataclasses.dataclass(frozen=True)
class CustomModel:
  """A linen module with what methods must know about it; made by `wrap`.

  Attributes:
    module: the network.
    num_classes: number of logits C.
    mode: name of the argument or field of the module that switches between
      training and evaluation, one of `MODES`; None if there is none.
    leaves: all arrays of the variables, in the order of the forward pass.
    layers: all layers with parameters, in the same order.
    blocks: parts from stem to head.
    num_drop_paths: 2 if the network draws for dropout in train mode, else 0.
  """

  module: nn.Module
  num_classes: int
  mode: str | None
  leaves: tuple[Leaf, ...] = ()
  layers: tuple[interface.Layer, ...] = ()
  blocks: interface.Blocks = interface.Blocks((), (), (), (), ())
  num_drop_paths: int = 0

  def init(self, rngs: Any, images: Array, *, train: bool = False) -> Variables:
    """Draw variables, see `interface.init`; without BatchNorm stats are {}."""
    module, options = self._in_mode(train)
    found = module.init(rngs, images, **options)
    return {'batch_stats': {}, **found}

  def apply(
    self,
    variables: Variables,
    images: Array,
    *,
    train: bool,
    mutable: Any = False,
    drop_path: Array | None = None,
  ) -> Any:
    """Run the network, see `interface.apply`.

    `drop_path` f[2, B] makes the key of dropout; without it nothing may be
    drawn.
    """
    module, options = self._in_mode(train)
    if train and drop_path is not None:
      options['rngs'] = {'dropout': _key_of(drop_path)}
    result = module.apply(variables, images, mutable=mutable, **options)
    if not mutable:
      return jnp.asarray(result).astype(images.dtype)
    logits, changed = result
    return logits.astype(images.dtype), {'batch_stats': {}, **changed}

  def _in_mode(self, train: bool) -> tuple[nn.Module, dict[str, Any]]:
    if self.mode is None:
      return self.module, {}
    value: dict[str, Any] = {self.mode: MODES[self.mode] == train}
    if self.mode in _arguments(self.module):
      return self.module, value
    return self.module.clone(**value), {}


def wrap(
  module: nn.Module,
  *,
  num_classes: int,
  image_shape: tuple[int, int, int],
  blocks: interface.Blocks | None = None,
) -> CustomModel:
  """Make a model of a linen module that maps images to logits.

  Train mode is asked for by the argument of `__call__` or the field of the
  module that is called `train`, `training`, `is_training`, `deterministic` or
  `use_running_average`; a network without BatchNorm and dropout needs none.

  Args:
    module: maps f[B, H, W, channels] to f[B, C]; its attributes are hashable.
    num_classes: C.
    image_shape: (H, W, channels).
    blocks: parts from stem to head, prefixes of parameter paths. By default
      every top-level module with a kernel begins a part, in the order of the
      forward pass: the first is the stem, those after it are the blocks, and
      the last linear layer is the classifier.

  Returns:
    A model for `Task.model`, equal to any other of the same module.

  Raises:
    TypeError: not a linen module.
    ValueError: unhashable attributes, logits of another shape, BatchNorm or
      dropout without a train mode, state that is not `batch_stats`, draws other
      than dropout's, no linear classifier, or blocks that name no parameter.
  """
  if not isinstance(module, nn.Module):
    raise TypeError(
      f'{type(module).__name__} is not a linen module; give an instance of a '
      'flax.linen.Module (for nnx there is flax.nnx.bridge.to_linen)'
    )
  try:
    hash(module)
  except TypeError as error:
    raise ValueError(
      f'{type(module).__name__} has attributes that cannot be hashed; give '
      'tuples for lists and functions or numbers for arrays'
    ) from error
  model = CustomModel(module, num_classes, _mode_of(module))
  flat = _shapes(model, image_shape)
  leaves = _leaves(flat, image_shape)
  found = {_layer_of(leaf): leaf.kind for leaf in leaves}
  layers = tuple(
    interface.Layer(path, _torch_name(path, kind), kind)
    for path, kind in found.items()
  )
  model = dataclasses.replace(
    model, leaves=leaves, layers=layers, blocks=blocks or _blocks(layers)
  )
  _check_blocks(model, flat)
  return _check_train_mode(model, flat, image_shape)


def _arguments(module: nn.Module) -> Mapping[str, inspect.Parameter]:
  return inspect.signature(type(module).__call__).parameters


def _mode_of(module: nn.Module) -> str | None:
  fields = [field.name for field in dataclasses.fields(module)]  # type: ignore
  names = [*_arguments(module), *fields]
  return next((name for name in names if name in MODES), None)


def _key_of(uniforms: Array) -> jax.Array:
  """Make a key of the first column of uniform draws f[K, B]."""
  key = jax.random.key(0)
  for number in uniforms[:, 0]:
    bits = (number.astype(jnp.float32) * 2**24).astype(jnp.uint32)
    key = jax.random.fold_in(key, bits)
  return key


def _shapes(
  model: CustomModel, image_shape: tuple[int, int, int]
) -> dict[str, dict[str, Any]]:
  """Return shapes by collection and path, in the order of the forward pass."""
  order: dict[str, list[str]] = {}

  def start(key):
    images = jnp.zeros((1, *image_shape))
    variables = model.init({'params': key}, images)
    # The dict of a trace keeps the order of calls; what leaves it is sorted.
    for name, tree in variables.items():
      order[name] = list(flax.traverse_util.flatten_dict(tree, sep='/'))
    return variables, model.apply(variables, images, train=False)

  try:
    variables, logits = jax.eval_shape(start, jax.random.key(0))
  except (
    flax.errors.InvalidRngError,
    flax.errors.ModifyScopeVariableError,
  ) as error:
    raise ValueError(
      f'{type(model.module).__name__} draws random numbers or updates '
      'statistics in evaluation mode; give its __call__ one of the arguments '
      f'{", ".join(MODES)} and pass it on'
    ) from error
  others = sorted(set(variables) - {'params', 'batch_stats'})
  if others:
    raise ValueError(
      f'the network keeps {others[0]!r} beside params and batch_stats, which '
      'no method would carry along; leave it out'
    )
  if logits.shape != (1, model.num_classes):
    raise ValueError(
      f'the network maps images [1, {image_shape}] to {logits.shape}, not to '
      f'(1, {model.num_classes}); give its number of classes and image_shape'
    )
  found = {}
  for name, paths in order.items():
    flat = flax.traverse_util.flatten_dict(variables[name], sep='/')
    found[name] = {path: flat[path] for path in paths}
  return found


def _leaves(
  flat: dict[str, dict[str, Any]], image_shape: tuple[int, int, int]
) -> tuple[Leaf, ...]:
  """Describe all arrays, those of one layer together."""
  layers: dict[str, list[tuple[str, str, Any]]] = {}
  for collection in ('params', 'batch_stats'):
    for path, shape in flat[collection].items():
      layer, _, name = path.rpartition('/')
      layers.setdefault(layer, []).append((collection, name, shape))
  leaves = []
  for layer, arrays in layers.items():
    kind = _kind(arrays, image_shape[2])
    for collection, name, shape in arrays:
      path = f'{layer}/{name}' if layer else name
      torch = f'{_torch_name(layer, kind)}.{name}'.lstrip('.')
      axes = _axes(name, kind, len(shape.shape))
      leaves.append(Leaf(collection, path, torch, kind, axes))
  return tuple(leaves)


def _kind(arrays: list[tuple[str, str, Any]], channels: int) -> str:
  """Tell the kind of a layer by its arrays."""
  shapes = {name: shape.shape for _, name, shape in arrays}
  if any(collection == 'batch_stats' for collection, _, _ in arrays):
    return 'batch_norm'
  if 'kernel' in shapes:
    kernel = shapes['kernel']
    if len(kernel) == 4:
      depthwise = kernel[2] == 1 and kernel[3] > 1 and channels > 1
      return 'depthwise' if depthwise else 'conv'
    return 'linear' if len(kernel) in (2, 3) else 'other'
  return 'layer_norm' if 'scale' in shapes else 'other'


def _axes(name: str, kind: str, rank: int) -> tuple[int, ...] | None:
  if name != 'kernel' or kind == 'other':
    return None
  if kind in ('conv', 'depthwise'):
    return (3, 2, 0, 1)
  return tuple(reversed(range(rank)))  # also the heads of linen's attention


def _torch_name(path: str, kind: str) -> str:
  # A method knows BatchNorm by these two letters, as the reference does.
  name = path.replace('/', '.')
  return f'{name}.bn' if kind == 'batch_norm' else name.replace('bn', 'b_n')


def _layer_of(leaf: Leaf) -> str:
  return leaf.path.rpartition('/')[0]


def _blocks(layers: tuple[interface.Layer, ...]) -> interface.Blocks:
  """Cut a network where a top-level module with a kernel begins."""
  kernels = [layer for layer in layers if layer.kind in _WITH_KERNEL]
  if not kernels:
    return interface.Blocks((), (), (), (), ())
  classifier = kernels[-1].path
  starts = {layer.path.partition('/')[0] for layer in kernels}
  parts: list[list[str]] = []
  for layer in layers:
    top = layer.path.partition('/')[0]
    if not top or layer.path == classifier:
      continue
    if top in (name for part in parts for name in part):
      continue
    if top in starts and any(starts & set(part) for part in parts):
      parts.append([top])
    elif parts:
      parts[-1].append(top)
    else:
      parts.append([top])
  stem, *body = [tuple(part) for part in parts] or [()]
  first = kernels[0]
  alone = first.kind == 'conv' and '/' not in first.path
  return interface.Blocks(
    stem=stem,
    body=tuple(body),
    neck=(),
    classifier=(classifier,),
    stem_conv=(first.path,) if alone else (),
  )


_WITH_KERNEL = ('conv', 'depthwise', 'linear')


def _check_blocks(model: CustomModel, flat: dict[str, dict[str, Any]]) -> None:
  """Refuse blocks that name nothing, and a head that is not linear."""
  blocks = model.blocks
  paths = [layer.path for layer in model.layers]
  tops = sorted({path.partition('/')[0] for path in paths})
  body = [prefix for block in blocks.body for prefix in block]
  for prefix in (*blocks.stem, *body, *blocks.neck, *blocks.stem_conv):
    if not any(f'{path}/'.startswith(f'{prefix}/') for path in paths):
      raise ValueError(
        f'blocks name {prefix!r}, but the top-level modules are: '
        + ', '.join(tops)
      )
  for path in blocks.classifier or ('',):
    kernel = flat['params'].get(f'{path}/kernel')
    if kernel is None or kernel.shape[1:] != (model.num_classes,):
      raise ValueError(
        f'the classifier {path!r} is not a linear layer of '
        f'{model.num_classes} outputs; name that layer in blocks.classifier '
        f'(top-level modules: {", ".join(tops)})'
      )


def _check_train_mode(
  model: CustomModel,
  flat: dict[str, dict[str, Any]],
  image_shape: tuple[int, int, int],
) -> CustomModel:
  """Find out whether train mode draws for dropout; refuse what cannot work."""
  name = type(model.module).__name__
  if flat['batch_stats'] and model.mode is None:
    raise ValueError(
      f'{name} has BatchNorm but no train mode; give its __call__ one of the '
      f'arguments {", ".join(MODES)}'
    )
  images = jax.ShapeDtypeStruct((2, *image_shape), jnp.result_type(float))
  uniforms = jax.ShapeDtypeStruct((_DROPOUT_DRAWS, 2), jnp.result_type(float))

  def run(key, images, drop_path):
    variables = model.init({'params': key}, images)
    return model.apply(
      variables,
      images,
      train=True,
      mutable=['batch_stats'],
      drop_path=drop_path,
    )

  try:
    jax.eval_shape(run, jax.random.key(0), images, None)
    return model
  except flax.errors.InvalidRngError:
    pass
  try:
    jax.eval_shape(run, jax.random.key(0), images, uniforms)
  except flax.errors.InvalidRngError as error:
    raise ValueError(
      f"{name} draws from a stream that is not 'dropout'; rename the stream"
    ) from error
  return dataclasses.replace(model, num_drop_paths=_DROPOUT_DRAWS)
