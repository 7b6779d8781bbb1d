"""Original models that are read from files instead of being trained.

`config.originals.checkpoints` names the file of every original. It has one of
these forms, or several separated by commas:

  path/to/original.pth            a file, or the folder of a checkpoint
  seed*.safetensors               a pattern; numbers sort as numbers
  runs/{seed}/split{split}.pth    a name for each seed and split, from 0

A job has one original per split and seed, the splits of seed 0 first. Each must
have been trained on the retained and the forgotten examples of its split, with
the normalisation of jaxmu's data set, which cannot be checked from a file.
"""

import glob
import pathlib
import re
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from jaxmu import files, terms
from jaxmu.models import checkpoints
from jaxmu.study.store import Name
from jaxmu.types import Variables

_FIELD = 'config.originals.checkpoints'


def find(
  chosen: Sequence[str], members: Sequence[Name]
) -> tuple[pathlib.Path, ...]:
  """Return the file of every original.

  Args:
    chosen: paths and patterns.
    members: names of the originals: seed, split, forget set.

  Raises:
    ValueError: a file is missing or named twice, or the number of files is not
      the number of originals.
  """
  paths = [path for entry in chosen for path in expand(entry, members)]
  named = ', '.join(chosen)
  for path in paths:
    if not path.exists():
      raise ValueError(
        f'{_FIELD} = {named!r}: no file {str(path)!r} (looked in '
        f'{pathlib.Path.cwd()}); name files that exist'
      )
  repeated = [path for path in paths if paths.count(path) > 1]
  if repeated:
    raise ValueError(
      f'{_FIELD} = {named!r} names {str(repeated[0])!r} more than once; each '
      'original has its own training set and needs a file of its own (use '
      '{seed} and {split})'
    )
  if len(paths) != len(members):
    seeds, splits = ({name[i] for name in members} for i in (0, 1))
    raise ValueError(
      f'{_FIELD} = {named!r} names {terms.count(len(paths), "file")}, and '
      f'this design needs {len(members)}, one for each of '
      f'{terms.count(len(splits), "split")} and '
      f'{terms.count(len(seeds), "initialisation")}; name as many, or change '
      "config.splits (design='main' has one split)"
    )
  return tuple(paths)


def read(
  model: Any, paths: Sequence[pathlib.Path], like: Variables
) -> Variables:
  """Read models from files.

  Args:
    model: the architecture, see `jaxmu.models`.
    paths: one per member.
    like: shapes and dtypes of one model.

  Returns:
    Variables with leaves [P, ...] on the host.

  Raises:
    ValueError: a file cannot be read or is of another model; the message names
      the file.
  """
  try:
    variables = checkpoints.read_population(model, list(paths))
  except (OSError, ImportError, ValueError) as error:
    raise ValueError(f'{_FIELD}: {error}') from error
  expected, got = _names(like), _names(variables)
  if expected != got:
    differ = ', '.join(sorted(expected ^ got)[:3])
    raise ValueError(
      f'{_FIELD}: {paths[0]} and the model differ in the arrays they have '
      f'({differ}); choose config.model as it was when the file was written'
    )

  def convert(path: Any, leaf: Any, one: Any) -> np.ndarray:
    if leaf.shape != (len(paths), *one.shape):
      raise ValueError(
        f'{_FIELD}: {jax.tree_util.keystr(path)} of {paths[0]} has shape '
        f'{tuple(leaf.shape[1:])}, the model needs {tuple(one.shape)}; choose '
        'config.model.options as they were when the files were written'
      )
    return np.asarray(leaf, one.dtype)

  return jax.tree_util.tree_map_with_path(convert, variables, like)


def _names(tree: Any) -> set[str]:
  leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
  return {jax.tree_util.keystr(path) for path, _ in leaves}


def all_finite(variables: Variables) -> np.ndarray:
  """Return whether all weights of each member are finite, bool[P]."""
  leaves = [
    np.isfinite(leaf).reshape(len(leaf), -1).all(axis=1)
    for leaf in map(np.asarray, jax.tree.leaves(variables))
  ]
  return np.all(leaves, axis=0)


def expand(
  entry: str, members: Sequence[Name] = (), field: str = _FIELD
) -> list[pathlib.Path]:
  """Return the files of a path or pattern.

  Args:
    entry: as in the module's docstring.
    members: names of the originals, for patterns with {seed} or {split}.
    field: what an error calls it.

  Raises:
    ValueError: a pattern matches no file.
  """
  path = files.path(entry)
  if '{seed}' in entry or '{split}' in entry:
    return [
      pathlib.Path(
        str(path).replace('{seed}', str(seed)).replace('{split}', str(split))
      )
      for seed, split, _ in members
    ]
  if path.exists() or not glob.has_magic(entry):
    return [path]
  paths = sorted(map(pathlib.Path, glob.glob(str(path))), key=_natural)
  if not paths:
    raise ValueError(
      f'{field} = {entry!r} matches no file (looked in {pathlib.Path.cwd()})'
    )
  return paths


def _natural(path: pathlib.Path) -> list[tuple[bool, int, str]]:
  """Return a sort key that puts seed10 after seed9."""
  parts = re.split(r'(\d+)', str(path))
  return [(p.isdecimal(), int(p) if p.isdecimal() else 0, p) for p in parts]
