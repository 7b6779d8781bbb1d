"""Checkpoints in and out: PyTorch, safetensors, Flax, Orbax and NumPy.

  variables = checkpoints.read(model, 'best.pth.tar')
  checkpoints.write(model, variables, 'unlearned.pth', like='best.pth.tar')

A file is recognised by its content. Its weights may be wrapped (`state_dict`,
`model`, `ema`, ...) and their names prefixed (`module.`, `_orig_mod.`, ...) in
any order. Names are PyTorch's for the built-in models (torchvision's for
ResNet-18), or paths of Flax variables, with or without `params`. PyTorch is
never needed, and pickled code is never run.
"""

import functools
import glob
import os
import pathlib
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from jaxmu import files, terms
from jaxmu.models import checkpoint_files, custom, interface, pytorch_names
from jaxmu.models.pytorch import Stored, Tree, Unreadable
from jaxmu.types import Variables

Path = str | os.PathLike[str]

# Keys under which training scripts store weights; the first that fits is read.
WRAPPERS = (
  'state_dict',
  'model_state_dict',
  'model',
  'net',
  'network',
  'module',
  'weights',
  'variables',
  'state',
  'ema',
  'ema_state_dict',
  'state_dict_ema',
  'model_ema',
)
# Prefixes that DataParallel, torch.compile, Lightning and wrapping modules add.
PREFIXES = ('module', '_orig_mod', 'model', 'net', 'network', 'backbone')
# Buffers that hold no weights: a counter, and index tables of TinyViT.
IGNORED = ('num_batches_tracked', 'attention_bias_idxs')

_FLOATS = tuple(map(np.dtype, ('float32', 'float64', 'float16', jnp.bfloat16)))
_Key = tuple[str, ...]  # path inside the tree of a file


def read(model: interface.Model, path: Path) -> Variables:
  """Read the weights of one model.

  Args:
    model: the architecture that the weights belong to.
    path: a file of `torch.save`, safetensors, Flax msgpack or `.npz`, or a
      folder of Orbax.

  Returns:
    `{'params', 'batch_stats'}` of float32, or float64 when x64 is enabled. A
    warning tells if another precision was converted, and which weights are not
    finite.

  Raises:
    FileNotFoundError: no such file.
    ValueError: another kind of file, or weights that are missing, left over,
      of another shape (also a classifier of another number of classes), or not
      dense floating-point numbers.

  Example:
    >>> import jax
    >>> from jaxmu import models
    >>> from jaxmu.models import checkpoints
    >>> model = models.build('tiny', num_classes=10)
    >>> variables = models.init(model, jax.random.key(0), (32, 32, 3))
    >>> checkpoints.write(model, variables, 'tiny.pth')
    >>> same = checkpoints.read(model, 'tiny.pth')
  """
  place = files.path(path)
  match = _match(model, place, checkpoint_files.read(place))
  return _variables(model, place, match)


def read_population(
  model: interface.Model, paths: str | Sequence[Path]
) -> Variables:
  """Read several files as members 0, 1, ... of a population.

  Args:
    model: the architecture.
    paths: one file per member, or a pattern such as 'runs/seed*.pth', whose
      matches are sorted with numbers in numerical order; a single file is a
      population of one.

  Returns:
    Variables with leaves [P, ...] on the host.

  Raises:
    FileNotFoundError: no file matches.
    ValueError: an empty list; and see `read`.
  """
  members = [
    jax.tree.map(np.asarray, read(model, path)) for path in _files(paths)
  ]
  return jax.tree.map(lambda *leaves: np.stack(leaves), *members)


def write(
  model: interface.Model,
  variables: Variables,
  path: Path,
  like: Path | None = None,
) -> None:
  """Write the weights of one model.

  Args:
    model: the architecture.
    variables: `{'params', 'batch_stats'}` of one member.
    path: the file to write; one that exists is replaced.
    like: a file that `read` accepts, whose kind, names, wrapper and precision
      are used. Its other contents (optimiser, averages of weights, counters of
      epochs) are left out: they belong to the model before unlearning and would
      keep what was unlearned. By default the ending of `path` decides, with
      PyTorch's names in `.pth` and `.safetensors`.

  Raises:
    ValueError: an unknown ending, variables of another model or of several
      members; and see `read` for `like`.
  """
  place = files.path(path)
  flat = _flat(variables)
  expected = _shapes(model)
  _check_variables(flat, expected)
  if like is None:
    contents = _plain_contents(model, flat, checkpoint_files.form_of(place))
  else:
    other = files.path(like)
    match = _match(model, other, checkpoint_files.read(other))
    _check_match(model, other, match)
    contents = _same_contents(flat, match)
  checkpoint_files.write(place, contents)


def _files(paths: str | Sequence[Path]) -> list[Path]:
  if not isinstance(paths, str | os.PathLike):
    if not paths:
      raise ValueError('no files; give one per member')
    return list(paths)
  if files.path(paths).exists():
    return [paths]
  matches = glob.glob(str(files.path(paths)))
  if not matches:
    raise FileNotFoundError(f'no file matches {str(paths)!r}')
  return [*sorted(matches, key=_natural)]


def _natural(name: str) -> list[tuple[int, int, str]]:
  """Sort key that puts seed2 before seed10."""
  parts = re.split(r'(\d+)', name)
  return [(1, int(p), '') if p.isdecimal() else (0, 0, p) for p in parts]


class _Naming(NamedTuple):
  """One way to name the leaves of a model.

  Attributes:
    title: for messages.
    transposed: whether arrays have PyTorch's layout.
    leaves: leaf by dotted name.
  """

  title: str
  transposed: bool
  leaves: dict[str, pytorch_names.Leaf]


class _Match(NamedTuple):
  """How a file names the leaves of a model.

  Attributes:
    contents: of the file.
    wrapper: keys that lead to the weights.
    naming: the naming that fits best.
    keys: place of each leaf in the file, below the wrapper, by its name.
    prefixes: the prefixes removed from the names.
    ignored: places of buffers that hold no weights.
    left_over: places of arrays whose names match no leaf.
    twice: places of further arrays of the same name.
    others: further wrappers that hold weights of this model.
  """

  contents: checkpoint_files.Contents
  wrapper: _Key
  naming: _Naming
  keys: dict[str, _Key]
  prefixes: tuple[str, ...]
  ignored: list[_Key]
  left_over: list[_Key]
  twice: list[_Key]
  others: Sequence[_Key] = ()


def _namings(model: interface.Model) -> list[_Naming]:
  leaves = pytorch_names.leaves(model)
  paths = {leaf.path.replace('/', '.'): leaf for leaf in leaves}
  full = {f'{leaf.collection}.{path}': leaf for path, leaf in paths.items()}
  title = 'paths of Flax variables'
  namings = [
    _Naming(title, False, full),
    _Naming(f'{title} without params and batch_stats', False, paths),
  ]
  # A custom network has no PyTorch counterpart with a known layout.
  if not isinstance(model, custom.CustomModel):
    torch = {leaf.torch: leaf for leaf in leaves}
    namings.insert(0, _Naming('names of PyTorch', True, torch))
  return namings


def _match(
  model: interface.Model,
  path: pathlib.Path,
  contents: checkpoint_files.Contents,
) -> _Match:
  """Choose the wrapper and the naming that fit most leaves.

  Raises:
    ValueError: no tensor has the name of a leaf.
  """
  namings = _namings(model)
  matches = [
    _match_one(contents, wrapper, node, naming)
    for wrapper, node in _wrapped(contents.tree)
    for naming in namings
  ]
  best = max(matches, key=lambda match: len(match.keys), default=None)
  if best is None or not best.keys:
    raise ValueError(_nothing_fits(model, path, contents))
  places = _places(best)
  others = {
    match.wrapper
    for match in matches
    if len(match.keys) == len(best.naming.leaves)
    and places.isdisjoint(_places(match))
  }
  return best._replace(others=sorted(others))


def _places(match: _Match) -> set[_Key]:
  return {(*match.wrapper, *key) for key in match.keys.values()}


def _wrapped(tree: Tree, at: _Key = ()) -> Iterator[tuple[_Key, Any]]:
  """List the parts of a file that may hold weights, outermost first."""
  if not isinstance(tree, Mapping):
    return
  inner = [name for name in WRAPPERS if isinstance(tree.get(name), Mapping)]
  yield at, {name: tree[name] for name in tree if name not in inner}
  for name in inner:
    if len(at) < 4:
      yield from _wrapped(tree[name], (*at, name))
  if inner:  # a module of the network may have the name of a wrapper
    yield at, tree


def _match_one(
  contents: checkpoint_files.Contents,
  wrapper: _Key,
  node: Mapping[str, Any],
  naming: _Naming,
) -> _Match:
  keys: dict[str, _Key] = {}
  prefixes: set[str] = set()
  ignored, unknown, twice = [], [], []
  for key, _ in _arrays(node):
    name = '.'.join(key).replace('/', '.')
    if name.endswith(IGNORED):
      ignored.append(key)
      continue
    known, taken = _strip(name, naming)
    if known is None:
      unknown.append(key)
    elif known in keys:
      twice.append(key)
    else:
      keys[known] = key
      prefixes |= set(taken)
  # Optimisers and counters are in parts that hold no weights.
  parts = {key[0] for key in keys.values()}
  left_over = [
    key
    for key in unknown
    if (len(key) == 1 and not _is_scalar(_get(node, key[:1])))
    or key[0] in parts
  ]
  return _Match(
    contents,
    wrapper,
    naming,
    keys,
    tuple(sorted(prefixes)),
    ignored,
    left_over,
    twice,
  )


def _arrays(tree: Tree, at: _Key = ()) -> Iterator[tuple[_Key, Any]]:
  """List the arrays of a tree with their places."""
  if isinstance(tree, Stored | Unreadable):
    yield at, tree
  elif isinstance(tree, Mapping):
    for name in tree:
      yield from _arrays(tree[name], (*at, str(name)))
  elif isinstance(tree, list | tuple):
    for number, part in enumerate(tree):
      yield from _arrays(part, (*at, str(number)))


def _get(tree: Tree, key: _Key) -> Any:
  for name in key:
    if isinstance(tree, Mapping):
      tree = next(tree[k] for k in tree if str(k) == name)
    else:
      tree = tree[int(name)]
  return tree


def _is_scalar(array: Any) -> bool:
  return isinstance(array, Stored) and array.shape == ()


def _strip(name: str, naming: _Naming) -> tuple[str | None, list[str]]:
  """Remove prefixes from a name until the naming contains it."""
  # States of NNX end in the attribute that holds the array.
  for tail in ('', '.value'):
    short, taken = name.removesuffix(tail), []
    while short not in naming.leaves:
      first, dot, rest = short.partition('.')
      if not dot or first not in PREFIXES:
        break
      taken.append(first)
      short = rest
    else:
      return short, taken
  return None, []


def _nothing_fits(
  model: interface.Model,
  path: pathlib.Path,
  contents: checkpoint_files.Contents,
) -> str:
  names = ['.'.join(key) for key, _ in _arrays(contents.tree)]
  if not names:
    tree = contents.tree
    holds = type(tree).__name__
    if isinstance(tree, Mapping):
      holds = f'entries {list(map(str, tree))[:5]}'
    return (
      f'{path} has no state dict: it holds {holds}; expected tensors by name, '
      f'or these under one of {", ".join(WRAPPERS)}'
    )
  return (
    f'{path} ({contents.form}) holds {terms.count(len(names), "tensor")} named '
    f'like {names[0]!r} and {names[-1]!r}, none of which belongs to this '
    f'model; accepted are {_accepted(model)}; rename them'
  )


def _accepted(model: interface.Model) -> str:
  first = [
    f'{naming.title} ({next(iter(naming.leaves))!r}, ...)'
    for naming in _namings(model)
  ]
  return ', '.join(first)


def _met(match: _Match) -> str:
  """Describe the wrapper and prefixes of a file."""
  said = [match.contents.form, match.naming.title]
  if match.wrapper:
    said.append(f'under {"/".join(match.wrapper)!r}')
  if match.prefixes:
    said.append(f'prefix {", ".join(f"{p}." for p in match.prefixes)}')
  return ', '.join(said)


def _names(match: _Match, keys: Sequence[_Key]) -> str:
  return str(['.'.join((*match.wrapper, *key)) for key in keys[:5]])


def _check_match(
  model: interface.Model, path: pathlib.Path, match: _Match
) -> None:
  """Raise ValueError unless a file holds exactly the weights of a model."""
  met = f'{path} ({_met(match)})'
  if match.twice:
    raise ValueError(
      f'{met} holds two tensors for one weight: {_names(match, match.twice)}; '
      'keep one set of weights'
    )
  missing = sorted(set(match.naming.leaves) - set(match.keys))
  if missing or match.left_over:
    raise ValueError(
      f'{met} holds weights of another model: missing {missing[:5]} '
      f'({len(missing)} in all), unexpected {_names(match, match.left_over)} '
      f'({len(match.left_over)} in all); accepted are {_accepted(model)}; '
      'build the model with the width, depth and stem of the weights'
    )
  node = _get(match.contents.tree, match.wrapper)
  stored_arrays = {name: _get(node, key) for name, key in match.keys.items()}
  for name, array in stored_arrays.items():
    if isinstance(array, Unreadable):
      raise ValueError(
        f'{met}: {name} is {array.reason}; write dense floating-point tensors'
      )
    if array.dtype not in _FLOATS:
      raise ValueError(
        f'{met}: {name} is of dtype {array.dtype} (quantised, not weights?); '
        'write floating-point tensors'
      )
  _check_shapes(model, met, match, stored_arrays)


def _check_shapes(
  model: interface.Model,
  met: str,
  match: _Match,
  stored_arrays: Mapping[str, Stored],
) -> None:
  """Raise ValueError for weights of a network of another size."""
  expected = _shapes(model)
  wrong = []
  for name, leaf in match.naming.leaves.items():
    shape = expected[leaf.collection, leaf.path]
    if match.naming.transposed and leaf.axes is not None:
      shape = tuple(shape[axis] for axis in leaf.axes)
    if stored_arrays[name].shape != shape:
      wrong.append((name, stored_arrays[name].shape, shape))
  if not wrong:
    return
  heads = tuple(f'{path}/' for path in model.blocks.classifier)
  if all(match.naming.leaves[n].path.startswith(heads) for n, _, _ in wrong):
    bias = min((shape for _, shape, _ in wrong), key=len)
    classes = bias[0] if match.naming.transposed else bias[-1]
    raise ValueError(
      f'{met} has {classes} classes, the model has {model.num_classes}; build '
      f'the model with num_classes={classes}'
    )
  shapes = [f'{name} {shape}, not {right}' for name, shape, right in wrong[:3]]
  raise ValueError(
    f'{met} has {terms.count(len(wrong), "tensor")} of another shape: '
    f'{"; ".join(shapes)}; '
    'build the model with the width, depth and stem of the weights'
  )


def _variables(
  model: interface.Model, path: pathlib.Path, match: _Match
) -> Variables:
  """Read the arrays of a match into variables."""
  _check_match(model, path, match)
  if match.others:
    others = ', '.join('/'.join(other) or 'the top' for other in match.others)
    warnings.warn(
      f'{path} holds weights of this model also under {others}; those under '
      f'{"/".join(match.wrapper) or "the top"} are read',
      stacklevel=3,
    )
  node = _get(match.contents.tree, match.wrapper)
  dtype = np.dtype(jnp.result_type(float))
  flat: dict[str, dict[str, Any]] = {'params': {}, 'batch_stats': {}}
  converted, spoilt = set(), {}
  for name, leaf in match.naming.leaves.items():
    array = _load(path, name, _get(node, match.keys[name]))
    if array.dtype != dtype:
      converted.add(str(array.dtype))
    wrong = int((~np.isfinite(array.astype(np.float64))).sum())
    if wrong:
      spoilt[name] = wrong
    value = array.astype(dtype)
    if match.naming.transposed:
      value = pytorch_names.our_layout(leaf, value)
    flat[leaf.collection][leaf.path] = jnp.asarray(value)
  if converted:
    warnings.warn(
      f'{path}: weights of {", ".join(sorted(converted))} were converted to '
      f'{dtype}',
      stacklevel=3,
    )
  if spoilt:
    warnings.warn(
      f'{path}: {terms.count(sum(spoilt.values()), "non-finite weight")}, in '
      f'{", ".join(list(spoilt)[:5])}',
      stacklevel=3,
    )
  return {
    name: flax.traverse_util.unflatten_dict(part, sep='/')
    for name, part in flat.items()
  }


def _load(path: pathlib.Path, name: str, array: Stored) -> np.ndarray:
  try:
    return array.load()
  except Exception as error:  # damaged bytes raise many types
    first = str(error).strip().partition('\n')[0] or type(error).__name__
    raise ValueError(f'{path}: {name} cannot be read: {first}') from error


@functools.lru_cache(maxsize=16)
def _shapes(model: interface.Model) -> dict[tuple[str, str], tuple[int, ...]]:
  """Shapes by collection and path."""
  image_shape = getattr(model, 'image_shape', (32, 32, 3))
  shapes = jax.eval_shape(
    lambda key: interface.init(model, key, image_shape), jax.random.key(0)
  )
  return {key: leaf.shape for key, leaf in _by_path(shapes)}


def _by_path(variables: Variables) -> Iterator[tuple[tuple[str, str], Any]]:
  for collection, part in variables.items():
    flat = flax.traverse_util.flatten_dict(part, sep='/')
    for path, leaf in flat.items():
      yield (collection, path), leaf


def _flat(variables: Variables) -> dict[tuple[str, str], np.ndarray]:
  return {key: np.asarray(leaf) for key, leaf in _by_path(variables)}


def _check_variables(
  flat: Mapping[tuple[str, str], np.ndarray],
  expected: Mapping[tuple[str, str], tuple[int, ...]],
) -> None:
  missing = ['/'.join(key) for key in expected if key not in flat]
  extra = ['/'.join(key) for key in flat if key not in expected]
  if missing or extra:
    raise ValueError(
      f'variables of another model: missing {missing[:5]}, unexpected '
      f'{extra[:5]}; give the model that they were made with'
    )
  for key, array in flat.items():
    if array.shape == expected[key]:
      continue
    several = array.shape[1:] == expected[key]
    remedy = (
      f'; these are {array.shape[0]} members, write each to a separate file'
      if several
      else ''
    )
    raise ValueError(
      f'{"/".join(key)} has shape {array.shape}, not {expected[key]}{remedy}'
    )


def _plain_contents(
  model: interface.Model,
  flat: Mapping[tuple[str, str], np.ndarray],
  form: str,
) -> checkpoint_files.Contents:
  """Name arrays by the convention of a form."""
  naming = _namings(model)[0]
  if form in ('torch', 'safetensors') and naming.transposed:
    return checkpoint_files.Contents(form, _named(flat, naming))
  paths = {'/'.join(key): array for key, array in flat.items()}
  if form in ('msgpack', 'orbax'):
    tree: Tree = flax.traverse_util.unflatten_dict(paths, sep='/')
    return checkpoint_files.Contents(form, tree)
  return checkpoint_files.Contents(form, paths)


def _same_contents(
  flat: Mapping[tuple[str, str], np.ndarray], match: _Match
) -> checkpoint_files.Contents:
  """Replace a file's arrays, in its names and precision."""
  form, tree, note = match.contents
  node = _get(tree, match.wrapper)
  arrays = {
    match.keys[name]: np.array(
      value, _get(node, match.keys[name]).dtype, order='C'
    )
    for name, value in _named(flat, match.naming).items()
  }
  for key in match.ignored:
    if isinstance(_get(node, key), Stored):
      arrays[key] = _get(node, key).load()
  ordered = [key for key, _ in _arrays(node) if key in arrays]
  new: Tree = flax.traverse_util.unflatten_dict(
    {(*match.wrapper, *key): arrays[key] for key in ordered}
  )
  return checkpoint_files.Contents(form, new, note)


def _named(
  flat: Mapping[tuple[str, str], np.ndarray], naming: _Naming
) -> dict[str, np.ndarray]:
  """Return arrays by the names of a naming, in its layout."""
  arrays = {
    name: flat[leaf.collection, leaf.path]
    for name, leaf in naming.leaves.items()
  }
  if not naming.transposed:
    return arrays
  return {
    name: pytorch_names.torch_layout(naming.leaves[name], array)
    for name, array in arrays.items()
  }
