"""Networks of other frameworks behind one signature.

  init(rngs, images)                     -> {'params', 'batch_stats'}
  run(variables, images, train=, key=)   -> what the network returns, its stats

`LinenNetwork` holds a Flax linen module, `NnxNetwork` makes a Flax NNX module,
`PureNetwork` holds two functions. An adapter is frozen, hashable and without
arrays; what methods need of a network is in `jaxmu.models.custom`.
"""

import abc
import contextlib
import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import flax.errors
import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
from flax import nnx

from jaxmu.types import Array, Key, Params, Variables

# Arguments and fields that select train mode, and the value that selects it.
MODES = {
  'train': True,
  'training': True,
  'is_training': True,
  'deterministic': False,
  'use_running_average': False,
}
# Usual names of arrays in pure functions, and Flax's names.
_SPELLINGS = {
  'w': 'kernel',
  'W': 'kernel',
  'weight': 'kernel',
  'weights': 'kernel',
  'b': 'bias',
  'beta': 'bias',
  'offset': 'bias',
  'g': 'scale',
  'gamma': 'scale',
  'running_mean': 'mean',
  'running_var': 'var',
}
_COLLECTIONS = ('params', 'batch_stats')


class NeedsKey(Exception):
  """The network draws random numbers but has no key for them."""


class ChangesState(Exception):
  """The network updates its statistics in evaluation mode."""


class KeepsState(Exception):
  """The network keeps state that is neither parameters nor statistics."""


class PureModel(NamedTuple):
  """A network as a pair of pure functions.

  Attributes:
    init: `init(key) -> params`, a nested dict (or list, or tuple) of arrays;
      or `init(key) -> {'params': params, 'batch_stats': stats}`.
    apply: `apply(params, images) -> logits`, f[B, H, W, channels] to f[B, C].
      An argument called `train` receives the mode. With statistics its first
      argument is both collections, and with `train=True` it returns `(logits,
      stats)`.

  Example:
    >>> import jax.numpy as jnp
    >>> from jaxmu import models
    >>> def init(key):
    ...   return {'head': {'kernel': jnp.zeros((3, 10)), 'bias': jnp.zeros(10)}}
    >>> def apply(params, images):
    ...   head = params['head']
    ...   return images.mean((1, 2)) @ head['kernel'] + head['bias']
    >>> net = models.PureModel(init, apply)
    >>> model = models.build(net, num_classes=10, image_shape=(8, 8, 3))
    >>> model.blocks.classifier
    ('head',)
  """

  init: Callable[[Key], Any]
  apply: Callable[..., Any]


class Network(abc.ABC):
  """The interface of every adapter.

  Attributes:
    mode: the argument or field that selects train mode, one of `MODES`; None
      if there is none.
  """

  mode: str | None

  @property
  @abc.abstractmethod
  def name(self) -> str:
    """Name of the class or function, for messages."""

  @property
  def has_mode(self) -> bool:
    """Whether train mode can be selected."""
    return self.mode is not None

  def in_mode(self, train: bool) -> dict[str, Any]:
    """Return the argument that selects the mode, if there is one."""
    return {self.mode: MODES[self.mode] == train} if self.mode else {}

  @abc.abstractmethod
  def init(self, rngs: Mapping[str, Key], images: Array) -> Variables:
    """Draw variables.

    Args:
      rngs: {'params': key}.
      images: f[B, H, W, channels], of which only the shape counts.

    Raises:
      KeepsState: there is state other than parameters and statistics.
    """

  @abc.abstractmethod
  def run(
    self, variables: Variables, images: Array, *, train: bool, key: Key | None
  ) -> tuple[Any, Params]:
    """Return what the network returns, and its statistics after this batch.

    Raises:
      NeedsKey: it draws and `key` is None.
      ChangesState: statistics change although `train` is False.
    """


@dataclasses.dataclass(frozen=True)
class LinenNetwork(Network):
  """A Flax linen module.

  Attributes:
    module: maps images to logits.
    mode: the argument of `__call__` or the field that selects train mode, one
      of `MODES`; None if there is none.
  """

  module: nn.Module
  mode: str | None

  @classmethod
  def of(cls, module: nn.Module) -> 'LinenNetwork':
    """Find the argument or field that selects train mode.

    Raises:
      ValueError: the module has attributes that cannot be hashed.
    """
    try:
      hash(module)
    except TypeError as error:
      raise ValueError(
        f'{type(module).__name__} has attributes that cannot be hashed; give '
        'tuples for lists and functions or numbers for arrays'
      ) from error
    fields = [f.name for f in dataclasses.fields(module)]  # type: ignore
    return cls(module, _mode_among([*_arguments(type(module)), *fields]))

  @property
  def name(self) -> str:
    """Name of the module's class."""
    return type(self.module).__name__

  def init(self, rngs: Mapping[str, Key], images: Array) -> Variables:
    """See `Network.init`."""
    module, options = self._with_mode(False)
    with _scope_errors():
      variables = module.init(dict(rngs), images, **options)
    _refuse_others(variables)
    return {'params': {}, 'batch_stats': {}, **variables}

  def run(
    self, variables: Variables, images: Array, *, train: bool, key: Key | None
  ) -> tuple[Any, Params]:
    """See `Network.run`."""
    module, options = self._with_mode(train)
    if key is not None:
      options['rngs'] = {'dropout': key}
    with _scope_errors():
      if not train:
        result = module.apply(variables, images, **options)
        return result, variables['batch_stats']
      result, changed = module.apply(
        variables, images, mutable=['batch_stats'], **options
      )
    return result, {'batch_stats': {}, **changed}['batch_stats']

  def _with_mode(self, train: bool) -> tuple[nn.Module, dict[str, Any]]:
    value = self.in_mode(train)
    if not value or self.mode in _arguments(type(self.module)):
      return self.module, value
    return self.module.clone(**value), {}


@contextlib.contextmanager
def _scope_errors() -> Iterator[None]:
  """Turn the errors of linen's scopes into those of `Network`."""
  try:
    yield
  except flax.errors.InvalidRngError as error:
    raise NeedsKey from error
  except flax.errors.ModifyScopeVariableError as error:
    raise ChangesState from error


def _refuse_others(variables: Mapping[str, Any]) -> None:
  others = sorted(set(variables) - set(_COLLECTIONS))
  if others:
    raise KeepsState(others[0])


@dataclasses.dataclass(frozen=True)
class NnxNetwork(Network):
  """A Flax NNX module, built whenever the network is traced.

  Attributes:
    make: the class, or a function, that takes `rngs`.
    options: further arguments of `make`, as pairs.
    mode: the argument of `__call__` that selects train mode, or None. The
      module's own `train()` and `eval()` are called in any case.
  """

  make: Callable[..., nnx.Module]
  options: tuple[tuple[str, Any], ...]
  mode: str | None

  @classmethod
  def of(
    cls, make: Callable[..., nnx.Module], options: Mapping[str, Any]
  ) -> 'NnxNetwork':
    """Find the argument or field that selects train mode.

    Raises:
      ValueError: `make` does not return an NNX module, or an option cannot be
        hashed.
    """
    network = cls(make, tuple(sorted(options.items())), None)
    try:
      hash(network)
    except TypeError as error:
      raise ValueError(
        f'the options of {network.name} cannot be hashed; give tuples for lists'
      ) from error
    try:
      made = nnx.eval_shape(lambda: network._make(jax.random.key(0)))
    except Exception as error:
      first = str(error).strip().partition('\n')[0]
      raise ValueError(
        f'{network.name} cannot be built: {type(error).__name__}: {first}'
      ) from error
    if not isinstance(made, nnx.Module):
      raise ValueError(
        f'{network.name} takes rngs and does not return an nnx.Module'
      )
    mode = _mode_among([*_arguments(type(made))])
    return dataclasses.replace(network, mode=mode)

  @property
  def name(self) -> str:
    """Name of the class or function."""
    return getattr(self.make, '__name__', type(self.make).__name__)

  @property
  def has_mode(self) -> bool:
    """True: every NNX module has `train()` and `eval()`."""
    return True

  def init(self, rngs: Mapping[str, Key], images: Array) -> Variables:
    """See `Network.init`."""
    del images
    _, params, stats, _, others = _split(self._make(rngs['params']))
    for _, variable in nnx.to_flat_state(others):
      raise KeepsState(type(variable).__name__)
    return {
      'params': _with_names(nnx.to_pure_dict(params)),
      'batch_stats': _with_names(nnx.to_pure_dict(stats)),
    }

  def run(
    self, variables: Variables, images: Array, *, train: bool, key: Key | None
  ) -> tuple[Any, Params]:
    """See `Network.run`."""
    structure, params, stats, streams = _structure(self)
    streams = _seeded(streams, jax.random.key(0) if key is None else key)
    stats = _replaced(stats, variables['batch_stats'])
    # The module shares its variables with these states: keep their values.
    before = jax.tree.leaves(streams), jax.tree.leaves(stats)
    module = nnx.merge(
      structure, _replaced(params, variables['params']), stats, streams
    )
    (module.train if train else module.eval)()
    result = module(images, **self.in_mode(train))
    _, _, after, drawn, _ = _split(module)
    if key is None and not _same_objects(before[0], jax.tree.leaves(drawn)):
      raise NeedsKey
    if not train and not _same_objects(before[1], jax.tree.leaves(after)):
      raise ChangesState
    return result, _with_names(nnx.to_pure_dict(after))

  def _make(self, key: Key) -> nnx.Module:
    return self.make(rngs=nnx.Rngs(key), **dict(self.options))


@functools.lru_cache(maxsize=64)
def _structure(network: NnxNetwork) -> tuple[Any, Any, Any, Any]:
  """Return structure, parameters, statistics and streams, shapes only."""
  made = nnx.eval_shape(lambda: network._make(jax.random.key(0)))
  return _split(made)[:4]


def _split(module: nnx.Module) -> tuple[Any, Any, Any, Any, Any]:
  """Return structure, parameters, statistics, random streams, other state."""
  parts: Any = nnx.split(module, nnx.Param, nnx.BatchStat, nnx.RngState, ...)
  return parts


def _with_names(tree: Any) -> Any:
  """Turn the numbers of a list's entries into names."""
  if not isinstance(tree, Mapping):
    return tree
  return {str(name): _with_names(value) for name, value in tree.items()}


def _replaced(shapes: Any, values: Params) -> Any:
  """Put arrays into a state of shapes."""

  def put(path, variable):
    value = values
    for name in path:
      value = value[str(name)]
    return variable.replace(value)

  return nnx.map_state(put, shapes)


def _seeded(shapes: Any, key: Key) -> Any:
  """Start every random stream from its own key, at its first draw."""
  number = 0

  def put(path, variable):
    nonlocal number
    number += 1
    if isinstance(variable, nnx.RngKey):
      return variable.replace(jax.random.fold_in(key, number))
    return variable.replace(jnp.zeros((), jnp.uint32))

  return nnx.map_state(put, shapes)


def _same_objects(before: list[Any], after: list[Any]) -> bool:
  """Whether nothing was written to the variables that held these arrays."""
  return all(a is b for a, b in zip(before, after, strict=True))


@dataclasses.dataclass(frozen=True)
class PureNetwork(Network):
  """Two functions; their tree becomes nested dicts with Flax's names.

  Attributes:
    pure: the functions.
    mode: the argument of `apply` that selects train mode, or None.
  """

  pure: PureModel
  mode: str | None

  @classmethod
  def of(cls, pure: PureModel) -> 'PureNetwork':
    """Find the argument or field that selects train mode."""
    return cls(pure, _mode_among([*inspect.signature(pure.apply).parameters]))

  @property
  def name(self) -> str:
    """Name of the function that is applied."""
    return getattr(self.pure.apply, '__name__', 'apply')

  def init(self, rngs: Mapping[str, Key], images: Array) -> Variables:
    """See `Network.init`."""
    del images
    tree = jax.tree.map(jnp.asarray, self.pure.init(rngs['params']))
    parts = tree if _has_collections(tree) else {'params': tree}
    _refuse_others(parts)
    return {name: _to_dict(parts.get(name, {})) for name in _COLLECTIONS}

  def run(
    self, variables: Variables, images: Array, *, train: bool, key: Key | None
  ) -> tuple[Any, Params]:
    """See `Network.run`."""
    del key
    shapes = _pure_shapes(self)
    if _has_collections(shapes):
      tree = {
        name: _from_dict(shapes[name], variables[name]) for name in shapes
      }
    else:
      tree = _from_dict(shapes, variables['params'])
    result = self.pure.apply(tree, images, **self.in_mode(train))
    if not train or not variables['batch_stats']:
      return result, variables['batch_stats']
    if not isinstance(result, tuple) or len(result) != 2:
      raise ValueError(
        f'{self.name} has batch_stats, so that with {self.mode}='
        f'{MODES[str(self.mode)]} it must return (logits, batch_stats)'
      )
    logits, stats = result
    return logits, _to_dict(stats)


@functools.lru_cache(maxsize=64)
def _pure_shapes(network: PureNetwork) -> Any:
  return jax.eval_shape(network.pure.init, jax.random.key(0))


def _has_collections(tree: Any) -> bool:
  return isinstance(tree, Mapping) and 'params' in tree


def _to_dict(tree: Any) -> Params:
  """Turn a tree of dicts, lists and tuples into nested dicts, renamed."""
  flat = {tuple(path): leaf for path, leaf in _named_leaves(tree)}
  return flax.traverse_util.unflatten_dict(flat)


def _from_dict(shapes: Any, values: Params) -> Any:
  """Invert `_to_dict`."""
  flat = flax.traverse_util.flatten_dict(values)
  leaves = [flat[tuple(path)] for path, _ in _named_leaves(shapes)]
  return jax.tree.unflatten(jax.tree.structure(shapes), leaves)


def _named_leaves(tree: Any) -> list[tuple[list[str], Any]]:
  """List the leaves with their paths in Flax's spelling."""
  leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
  plain = [[_component(part) for part in path] for path, _ in leaves]
  taken = {tuple(path) for path in plain}
  renamed = []
  for path, (_, leaf) in zip(plain, leaves, strict=True):
    if not path:
      raise ValueError(
        'the parameters are a single array; give a dict of layers, e.g. '
        "{'head': {'kernel': ..., 'bias': ...}}"
      )
    last = path[-1]
    if last in ('0', '1') and len(path) > 1:  # a pair (weights, bias)
      last = 'kernel' if len(leaf.shape) > 1 else 'bias'
    other = [*path[:-1], _SPELLINGS.get(last, last)]
    renamed.append((path if tuple(other) in taken else other, leaf))
  if len({tuple(path) for path, _ in renamed}) < len(renamed):
    return [(p, leaf) for p, (_, leaf) in zip(plain, leaves, strict=True)]
  return renamed


def _component(part: Any) -> str:
  for attribute in ('key', 'idx', 'name'):
    if hasattr(part, attribute):
      return str(getattr(part, attribute))
  return str(part)


def _arguments(cls: type) -> list[str]:
  return list(inspect.signature(cls.__call__).parameters)


def _mode_among(names: list[str]) -> str | None:
  return next((name for name in names if name in MODES), None)
