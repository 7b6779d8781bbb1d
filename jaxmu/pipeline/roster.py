"""Who is in a population: seeds x splits x forget sets, and their keys.

A member is known by its name (seed, split, forget set), never by its position:
the keys of its draws follow from the name alone.
"""

from typing import NamedTuple

import jax
import numpy as np

from jaxmu.core.draws import derive
from jaxmu.core.types import Key, Split
from jaxmu.data import splits as splits_lib


class Roster(NamedTuple):
  """The members of a population, in order; all i32[P].

  `forget_set` is -1 where a member serves all forget sets of its split, as the
  original models do. `row` is the member's row in the design; with forget set
  -1, the row of the split's first forget set.
  """

  seed: np.ndarray
  split: np.ndarray
  forget_set: np.ndarray
  row: np.ndarray

  @property
  def size(self) -> int:
    """Number of members P."""
    return len(self.seed)


def everyone(design: splits_lib.Design, seeds: int) -> Roster:
  """Return one member per seed and row of the design: retrained, unlearned."""
  rows = len(design.split)
  row = np.tile(np.arange(rows), seeds)
  seed = np.repeat(np.arange(seeds), rows)
  return Roster(seed, design.split[row], design.forget_set[row], row)


def per_split(design: splits_lib.Design, seeds: int) -> Roster:
  """Return one member per seed and split: the originals.

  Unlike the reference, which trains the same original anew for every forget
  set of a split, one original serves them all; it does not depend on them.
  """
  _, first = np.unique(design.split, return_index=True)
  row = np.tile(first, seeds)
  seed = np.repeat(np.arange(seeds), len(first))
  return Roster(seed, design.split[row], np.full(len(row), -1), row)


def originals_of(members: Roster, originals: Roster) -> np.ndarray:
  """Return the position of each member's original, i32[P]."""
  names = zip(originals.seed, originals.split, strict=True)
  position = {name: index for index, name in enumerate(names)}
  wanted = zip(members.seed, members.split, strict=True)
  return np.array([position[name] for name in wanted], np.int32)


def index_sets(design: splits_lib.Design, members: Roster) -> Split:
  """Return the index sets of each member, leaves i32[P, ...]."""
  val = np.tile(design.val, (members.size, 1))
  return Split(design.retain[members.row], design.forget[members.row], val)


def weight_keys(root: Key, members: Roster, shared: bool) -> Key:
  """Return the keys of the initial weights, [P]; equal for O and R.

  Args:
    root: key of the job.
    members: who.
    shared: give all splits of a seed the same weights, as the reference does.
  """
  split = np.zeros_like(members.split) if shared else members.split
  return jax.vmap(
    lambda seed, split: derive(root, 'weights', seed, 'split', split)
  )(members.seed, split)


def draw_keys(root: Key, name: str, members: Roster, shared: bool) -> Key:
  """Return the keys of everything drawn while training, [P].

  Args:
    root: key of the job.
    name: of the population, e.g. 'original' or 'msg'.
    members: who.
    shared: give all members the same draws, as the reference does.
  """
  zero = np.zeros_like(members.seed)
  seed, split, forget_set = (
    (zero, zero, zero)
    if shared
    else (members.seed, members.split, members.forget_set + 1)
  )
  return jax.vmap(
    lambda seed, split, forget: derive(
      root, name, 'seed', seed, 'split', split, 'forget_set', forget
    )
  )(seed, split, forget_set)
