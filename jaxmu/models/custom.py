"""A custom network as a model that every method works on.

  model = custom.wrap(MyNet(), num_classes=10, image_shape=(32, 32, 3))

A network is a Flax linen module, a Flax NNX class or a `PureModel`. Layers and
their kinds are inferred from the parameter tree, and blocks from the order of
the forward pass. The network is only traced with shapes, not run.
"""

import contextlib
import dataclasses
import functools
import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import flax.linen as nn
import flax.traverse_util
import jax
import jax.extend.core
import jax.numpy as jnp
from flax import nnx

from jaxmu.models import adapters, interface
from jaxmu.models.pytorch_names import Leaf
from jaxmu.types import Array, Key, Variables

_DROPOUT_DRAWS = 2  # uniforms that make one key of dropout
_WITH_KERNEL = ('conv', 'depthwise', 'linear')
# Operations that pass an array on unchanged; using the result uses the array.
_VIEWS = (
  'broadcast_in_dim',
  'convert_element_type',
  'copy',
  'reshape',
  'squeeze',
  'transpose',
)
# The position of an array in its layer, independent of the order of use.
_WITHIN = ('kernel', 'scale', 'bias', 'mean', 'var')

ImageShape = tuple[int, int, int]
Shapes = dict[str, dict[str, jax.ShapeDtypeStruct]]  # by collection and path


@dataclasses.dataclass(frozen=True)
class CustomModel:
  """A network described for methods; made by `wrap`.

  Attributes:
    network: the network.
    num_classes: number of logits C.
    image_shape: (H, W, channels) of the images that it was read with.
    leaves: all arrays of the variables, in the order of the forward pass.
    layers: all layers with parameters, in the same order.
    blocks: parts from stem to head.
    num_drop_paths: 2 if the network draws for dropout in train mode, else 0.
  """

  network: adapters.Network
  num_classes: int
  image_shape: ImageShape
  leaves: tuple[Leaf, ...] = ()
  layers: tuple[interface.Layer, ...] = ()
  blocks: interface.Blocks = interface.Blocks((), (), (), (), ())
  num_drop_paths: int = 0

  def init(
    self, rngs: Mapping[str, Key], images: Array, *, train: bool = False
  ) -> Variables:
    """Draw variables, see `interface.init`; without BatchNorm stats are {}."""
    del train
    return self.network.init(rngs, images)

  def apply(
    self,
    variables: Variables,
    images: Array,  # f[B, H, W, channels]
    *,
    train: bool,
    mutable: Any = False,
    drop_path: Array | None = None,  # f[2, B]
  ) -> Any:
    """Run the network, see `interface.apply`.

    `drop_path` makes the key of dropout; without it nothing may be drawn.
    """
    key = None
    if train and drop_path is not None:
      key = _key_of(drop_path)
    result, stats = self.network.run(variables, images, train=train, key=key)
    logits = jnp.asarray(result).astype(images.dtype)
    return (logits, {'batch_stats': stats}) if mutable else logits


def wrap(
  network: Any,
  *,
  num_classes: int,
  image_shape: ImageShape,
  blocks: interface.Blocks | None = None,
  options: Mapping[str, Any] | None = None,
) -> CustomModel:
  """Make a model of a network that maps images to logits.

  Train mode of a linen module is selected by an argument of `__call__` or a
  field named `train`, `training`, `is_training`, `deterministic` or
  `use_running_average`; a network without BatchNorm and dropout needs none. For
  an NNX module, its `train()` and `eval()` are called.

  Args:
    network: maps f[B, H, W, channels] to f[B, C]. A linen module or its class,
      an NNX class, a `PureModel`, or a function that returns one of these. A
      class or function that takes `num_classes` receives it.
    num_classes: C.
    image_shape: (H, W, channels).
    blocks: parts from stem to head, prefixes of parameter paths. By default
      every top-level module with a kernel begins a part, in the order of the
      forward pass: the first is the stem, those after it are the blocks, and
      the last linear layer is the classifier.
    options: further arguments of the class or function, e.g. {'width': 64}.

  Returns:
    A model for `Task.model`; models of equal networks are equal.

  Raises:
    ValueError: not a network, an unknown option, unhashable attributes, an
      error in the network, a result that is not logits of this shape, BatchNorm
      or dropout without a train mode, state that is not `batch_stats`, draws
      other than dropout's, no linear classifier, or blocks that name no
      parameter.
  """
  # Configurations hold lists, which cannot be hashed.
  hashable = {
    name: tuple(value) if isinstance(value, list) else value
    for name, value in (options or {}).items()
  }
  adapter = _adapter(network, num_classes, hashable)
  height, width, channels = image_shape
  model = CustomModel(adapter, num_classes, (height, width, channels))
  flat = _shapes(model)
  leaves = _leaves(flat, channels)
  kinds = {_layer_of(leaf): leaf.kind for leaf in leaves}
  layers = tuple(
    interface.Layer(path, _torch_name(path, kind), kind)
    for path, kind in kinds.items()
  )
  model = dataclasses.replace(
    model, leaves=leaves, layers=layers, blocks=blocks or _blocks(layers)
  )
  _check_blocks(model, flat)
  return _check_train_mode(model, flat)


def check_is_network(network: Any) -> None:
  """Raise a ValueError unless an object is something that `wrap` accepts."""
  if isinstance(network, nnx.Module):
    raise ValueError(
      f'{_name(network)} is an instance of an NNX module, which holds arrays; '
      'give the class, or a function that takes rngs and returns one'
    )
  if inspect.isclass(network):
    good = issubclass(network, nn.Module | nnx.Module)
  else:
    good = isinstance(network, nn.Module) or _is_pair(network)
  if good or _is_factory(network):
    return
  raise ValueError(
    f'{_name(network)} is not a network; give a Flax linen module, a Flax NNX '
    'class, models.PureModel(init, apply), or a function that returns one'
  )


def _name(network: Any) -> str:
  return getattr(network, '__name__', type(network).__name__)


def _is_factory(network: Any) -> bool:
  return inspect.isfunction(network) or isinstance(network, functools.partial)


def _is_pair(network: Any) -> bool:
  return (
    isinstance(network, tuple)
    and len(network) == 2
    and all(callable(part) for part in network)
  )


def _adapter(
  network: Any, num_classes: int, options: dict[str, Any]
) -> adapters.Network:
  """Build networks from classes and functions; return an adapter."""
  check_is_network(network)
  if inspect.isclass(network) or _is_factory(network):
    names = accepted(network)
    check_options(_name(network), options, names)
    if 'num_classes' in names:
      options = {'num_classes': num_classes, **options}
    if 'rngs' in names:
      make: Any = network
      return adapters.NnxNetwork.of(make, options)
    try:
      made = network(**options)
    except Exception as error:
      raise ValueError(
        f'{_name(network)} cannot be built: {type(error).__name__}: '
        f'{_first_line(error)}'
      ) from error
    if inspect.isclass(made) or _is_factory(made):
      return _adapter(made, num_classes, {})
    network, options = made, {}
    check_is_network(network)
  if options:
    raise ValueError(
      f'{_name(network)} is already built and takes no options '
      f'{sorted(options)}; give its class'
    )
  if isinstance(network, nn.Module):
    return adapters.LinenNetwork.of(network)
  return adapters.PureNetwork.of(adapters.PureModel(*network))


def accepted(make: Any) -> list[str]:
  """Return the names of the arguments of a class or function."""
  # The metaclass of NNX hides the arguments of a class.
  hidden = inspect.isclass(make) and issubclass(make, nnx.Module)
  names = inspect.signature(make.__init__ if hidden else make).parameters
  return [name for name in names if name not in ('self', 'parent', 'name')]


def check_options(
  title: str, options: Mapping[str, Any], names: list[str]
) -> None:
  """Raise a ValueError unless all options are among accepted names."""
  known = [n for n in names if n not in ('num_classes', 'rngs')]
  for option in options:
    if option not in known:
      raise ValueError(
        f'{title} has no option {option!r}; it has: '
        + (', '.join(known) or 'none')
      )


def _key_of(uniforms: Array) -> Key:
  """Make a key from the first column of uniform draws f[K, B]."""
  key = jax.random.key(0)
  for number in uniforms[:, 0]:
    bits = (number.astype(jnp.float32) * 2**24).astype(jnp.uint32)
    key = jax.random.fold_in(key, bits)
  return key


def _shapes(model: CustomModel) -> Shapes:
  """Return shapes by collection and path, in the order of the forward pass."""
  network = model.network
  in_order: dict[str, list[str]] = {}

  def start(key):
    images = jnp.zeros((1, *model.image_shape))
    variables = model.init({'params': key}, images)
    # Inside a trace the dict keeps the order of calls; outside it is sorted.
    for name, tree in variables.items():
      in_order[name] = list(flax.traverse_util.flatten_dict(tree, sep='/'))
    return variables

  with _one_line(model):
    variables = jax.eval_shape(start, jax.random.key(0))
  _check_logits(model, variables)
  flat: dict[str, dict[str, Any]] = {
    name: flax.traverse_util.flatten_dict(variables[name], sep='/')
    for name in variables
  }
  if not isinstance(network, adapters.LinenNetwork):
    in_order = _order_of_use(model, variables)
  return {
    name: {path: flat[name][path] for path in in_order[name]} for name in flat
  }


@contextlib.contextmanager
def _one_line(model: CustomModel) -> Iterator[None]:
  """Turn errors of tracing a network into one line."""
  name = model.network.name
  try:
    yield
  except (adapters.NeedsKey, adapters.ChangesState) as error:
    raise ValueError(
      f'{name} draws random numbers or updates statistics in evaluation mode; '
      f'give its __call__ one of the arguments {", ".join(adapters.MODES)} and '
      'pass it on'
    ) from error
  except adapters.KeepsState as error:
    raise ValueError(
      f'{name} keeps {str(error)!r} beside params and batch_stats, which '
      'methods would not keep; leave it out'
    ) from error
  except NameError as error:
    if 'axis name' not in str(error):
      raise _broken(model, error) from error
    raise ValueError(
      f'{name} names an axis ({error}); drop axis_name: each member of a '
      'population is one model on one device'
    ) from error
  except Exception as error:
    raise _broken(model, error) from error


def _broken(model: CustomModel, error: Exception) -> ValueError:
  return ValueError(
    f'{model.network.name} fails on images f[B, '
    f'{", ".join(map(str, model.image_shape))}]: {type(error).__name__}: '
    f'{_first_line(error)}'
  )


def _first_line(error: Exception) -> str:
  return str(error).strip().partition('\n')[0]


def _check_logits(model: CustomModel, variables: Any) -> None:
  """Raise ValueError unless the network returns f[B, C]."""
  batch = 2
  images = jax.ShapeDtypeStruct(
    (batch, *model.image_shape), jnp.result_type(float)
  )

  def run(variables, images):
    return model.network.run(variables, images, train=False, key=None)[0]

  with _one_line(model):
    logits = jax.eval_shape(run, variables, images)
  name, shape = model.network.name, (batch, model.num_classes)
  if not hasattr(logits, 'shape'):
    raise ValueError(
      f'{name} returns a {type(logits).__name__}; return the logits alone, '
      f'f[B, {model.num_classes}]'
    )
  if logits.shape != shape:
    raise ValueError(
      f'{name} maps images {images.shape} to {logits.shape}, not to {shape}; '
      f'give it {model.num_classes} outputs, or num_classes and image_shape '
      'that fit'
    )


def _leaves(flat: Shapes, channels: int) -> tuple[Leaf, ...]:
  """Describe all arrays, grouped by layer."""
  layers: dict[str, list[tuple[str, str, Any]]] = {}
  for collection in ('params', 'batch_stats'):
    for path, shape in flat[collection].items():
      layer, _, name = path.rpartition('/')
      layers.setdefault(layer, []).append((collection, name, shape))
  leaves = []
  for layer, arrays in layers.items():
    kind = _kind(arrays, channels)
    for collection, name, shape in arrays:
      path = f'{layer}/{name}' if layer else name
      torch = f'{_torch_name(layer, kind)}.{name}'.lstrip('.')
      axes = _axes(name, kind, len(shape.shape))
      leaves.append(Leaf(collection, path, torch, kind, axes))
  return tuple(leaves)


def _kind(arrays: list[tuple[str, str, Any]], channels: int) -> str:
  """Infer the kind of a layer from its arrays."""
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
  return tuple(reversed(range(rank)))  # includes the heads of Flax's attention


def _torch_name(path: str, kind: str) -> str:
  # Methods recognise BatchNorm by these two letters, as the reference does.
  name = path.replace('/', '.')
  return f'{name}.bn' if kind == 'batch_norm' else name.replace('bn', 'b_n')


def _layer_of(leaf: Leaf) -> str:
  return leaf.path.rpartition('/')[0]


def _top(path: str) -> str:
  """The top-level module of a layer; entries of lists count as modules."""
  first, *rest = path.split('/')
  return f'{first}/{rest[0]}' if rest and rest[0].isdigit() else first


def _blocks(layers: tuple[interface.Layer, ...]) -> interface.Blocks:
  """Begin a part at each top-level module that has a kernel."""
  kernels = [layer for layer in layers if layer.kind in _WITH_KERNEL]
  if not kernels:
    return interface.Blocks((), (), (), (), ())
  classifier = kernels[-1].path
  starts = {_top(layer.path) for layer in kernels}
  parts: list[list[str]] = []
  for layer in layers:
    top = _top(layer.path)
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
  alone = first.kind == 'conv' and first.path == _top(first.path)
  return interface.Blocks(
    stem=stem,
    body=tuple(body),
    neck=(),
    classifier=(classifier,),
    stem_conv=(first.path,) if alone else (),
  )


def _check_blocks(model: CustomModel, flat: Shapes) -> None:
  """Refuse blocks that match no parameter, and a head that is not linear."""
  blocks = model.blocks
  paths = [layer.path for layer in model.layers]
  tops = sorted({_top(path) for path in paths})
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
        f'{model.num_classes} outputs (kernel f[in, {model.num_classes}]); '
        'name that layer in blocks.classifier (top-level modules: '
        f'{", ".join(tops)})'
      )


def _check_train_mode(model: CustomModel, flat: Shapes) -> CustomModel:
  """Find out whether train mode draws for dropout; refuse other draws."""
  name = model.network.name
  if flat['batch_stats'] and not model.network.has_mode:
    raise ValueError(
      f'{name} has BatchNorm but no train mode; give its __call__ one of the '
      f'arguments {", ".join(adapters.MODES)}'
    )
  images = jax.ShapeDtypeStruct((2, *model.image_shape), jnp.result_type(float))
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

  key = jax.random.key(0)
  if not _needs_key(model, run, key, images, None):
    return model
  if _needs_key(model, run, key, images, uniforms):
    raise ValueError(
      f"{name} draws from a stream that is not 'dropout'; rename the stream"
    )
  return dataclasses.replace(model, num_drop_paths=_DROPOUT_DRAWS)


def _needs_key(model: CustomModel, run: Any, *arguments: Any) -> bool:
  """Whether a run in train mode needs a key that it does not have."""
  with _one_line(model):
    try:
      jax.eval_shape(run, *arguments)
    except adapters.NeedsKey:
      return True
  return False


def _order_of_use(model: Any, variables: Variables) -> dict[str, list[str]]:
  """List the paths of each collection in the order of their first use.

  The arrays of a layer stay together: kernel or scale, bias, statistics.
  Arrays that are never used come last.

  Args:
    model: has `image_shape` and `apply`; it is traced, not run.
    variables: arrays or shapes.
  """
  flat = {
    name: flax.traverse_util.flatten_dict(tree, sep='/')
    for name, tree in variables.items()
  }
  images = jnp.zeros((2, *model.image_shape))

  def run(flat):
    nested = {
      name: flax.traverse_util.unflatten_dict(part, sep='/')
      for name, part in flat.items()
    }
    return model.apply(nested, images, train=False)

  jaxpr = jax.make_jaxpr(run)(flat).jaxpr
  places = [
    (part[0].key, part[1].key)
    for part, _ in jax.tree_util.tree_leaves_with_path(flat)
  ]
  inputs = dict(zip(jaxpr.invars, range(len(places)), strict=True))
  used: list[int] = []
  _visit(jaxpr, inputs, used)
  layers: list[str] = []
  for index in (*used, *range(len(places))):
    layer = places[index][1].rpartition('/')[0]
    if layer not in layers:
      layers.append(layer)
  return {
    name: sorted(part, key=lambda path: _place(path, layers))
    for name, part in flat.items()
  }


def _place(path: str, layers: list[str]) -> tuple[int, int, str]:
  layer, _, name = path.rpartition('/')
  within = _WITHIN.index(name) if name in _WITHIN else len(_WITHIN)
  return layers.index(layer), within, name


def _visit(jaxpr: Any, inputs: dict[Any, int], used: list[int]) -> None:
  """Append to `used` the inputs of a program in order of first use.

  Args:
    jaxpr: the program.
    inputs: which of its variables hold which input; views are added.
    used: numbers of the inputs that were used so far.
  """
  for equation in jaxpr.eqns:
    known = [
      None if isinstance(v, jax.extend.core.Literal) else inputs.get(v)
      for v in equation.invars
    ]
    inner = _program_of(equation)
    if inner is not None:
      below = {
        variable: number
        for variable, number in zip(inner.invars, known, strict=True)
        if number is not None
      }
      _visit(inner, below, used)
      for outer, variable in zip(equation.outvars, inner.outvars, strict=True):
        if isinstance(variable, jax.extend.core.Literal):
          continue
        if variable in below:
          inputs[outer] = below[variable]
    elif equation.primitive.name in _VIEWS and known[0] is not None:
      inputs[equation.outvars[0]] = known[0]
    else:
      for number in known:
        if number is not None and number not in used:
          used.append(number)


def _program_of(equation: Any) -> Any:
  """Return the program inside an operation that is a plain call."""
  programs = [
    getattr(value, 'jaxpr', value)
    for value in equation.params.values()
    if hasattr(getattr(value, 'jaxpr', value), 'eqns')
  ]
  if len(programs) != 1 or len(programs[0].invars) != len(equation.invars):
    return None
  same = len(programs[0].outvars) == len(equation.outvars)
  return programs[0] if same else None
