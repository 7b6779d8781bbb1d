"""How the recorded runs of each method are fed to ours.

One recipe per method of the reference: our name, the names of its
hyper-parameters, and where its draws go.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxmu.models import torch_names
from tests.golden import rules
from tests.golden.replay import Recording

Draws = dict[str, Any]

# First global number and size of what is passed over.
PARTS = {
  **{part: (rules.FIRST[part], rules.SIZES[part]) for part in rules.SIZES},
  'train': (0, rules.SIZES['retain'] + rules.SIZES['forget']),
}

EPOCHS = {'num_epochs': 'num_epochs', 'batch_size': 'batch_size'}
SGD = {
  'optimizer.learning_rate': 'learning_rate',
  'optimizer.momentum': 'momentum',
  'optimizer.weight_decay': 'weight_decay',
}
STANDARD = {**EPOCHS, **SGD}


def _all_steps(hparams: Any, epoch: int) -> None:
  del hparams, epoch  # None: every loss of the info is a step


class Recipe(NamedTuple):
  """How to replay one method.

  Attributes:
    method: our name.
    names: the reference's hyper-parameter names to ours.
    draws: from a recording to draws by path.
    labels: recorded snapshots by ours ('init', 'epoch<e>'), beyond the
      ends of epochs.
    inside: recorded snapshots inside an epoch, which the next loss shows.
    before: optimiser steps taken by `init`.
    steps: number of steps of an epoch, where infos are padded.
  """

  method: str
  names: Mapping[str, str]
  draws: Callable[[Recording], Draws]
  labels: Mapping[str, str] = {}
  inside: Callable[[Recording], tuple[str, ...]] = lambda recording: ()
  before: int = 0
  steps: Callable[[Any, int], int | None] = _all_steps


def hyper_parameters(recording: Recording, recipe: Recipe) -> dict[str, Any]:
  """Translate recorded hyper-parameters; unknown names are an error."""
  flat = dict(_flatten(recording.meta['hyper_parameters']))
  values = {recipe.names[name]: value for name, value in flat.items()}
  if 'K' in recording.meta:
    values['num_samples'] = recording.meta['K']
  return values


def _flatten(tree: Mapping[str, Any], prefix: str = ''):
  for name, value in tree.items():
    if name in ('scheduler', 'criterion', 'type') or value is None:
      continue
    if isinstance(value, Mapping):
      yield from _flatten(value, f'{prefix}{name}.')
    else:
      yield prefix + name, value


def _order(rows: np.ndarray, part: str = 'retain') -> np.ndarray:
  """Turn rows of global numbers into an order of positions in a set."""
  first, size = PARTS[part]
  found = rows[rows >= 0] - first
  rest = np.setdiff1d(np.arange(size), found)  # of a pass that was cut short
  return np.concatenate([found, rest]).astype(np.int32)


def _passes(rows: np.ndarray, part: str = 'retain') -> np.ndarray:
  """Cut rows of steps into passes over a set, i32[E, N]."""
  steps = -(-PARTS[part][1] // rows.shape[1])
  starts = range(0, len(rows), steps)
  return np.stack([_order(rows[i : i + steps], part) for i in starts])


def _retain(recording: Recording) -> Draws:
  return {'epoch/retain': _passes(recording.arrays['step_ids0'])}


def _forget(recording: Recording) -> Draws:
  return {'epoch/forget': _passes(recording.arrays['step_ids0'], 'forget')}


def _train(recording: Recording) -> Draws:
  return {'epoch/train': _passes(recording.arrays['step_ids0'], 'train')}


def _tensor_draws(
  recording: Recording, kind: str, counts: tuple[int, ...] = (0,)
) -> dict[str, np.ndarray]:
  """Return the recorded draws of a kind by path of our tensors."""
  leaves = {leaf.torch: leaf for leaf in torch_names.leaves(recording.model)}
  make = {'normal': rules.normal, 'uniform': rules.uniform}[kind]
  found = {}
  for drawn, tensor, count, shape in recording.meta['draws']:
    if drawn == kind and count in counts:
      value = make(recording.tag(kind, tensor, count), tuple(shape))
      leaf = leaves[tensor]
      found[leaf.path] = np.asarray(torch_names.our_layout(leaf, value))
  return found


def _neggrad_plus(recording: Recording) -> Draws:
  rows = recording.arrays['step_ids1']
  steps = len(rows) // len(_retain(recording)['epoch/retain'])
  cycle = -(-rules.SIZES['forget'] // rows.shape[1])
  starts = range(0, len(rows), steps)
  forget = [_order(rows[i : i + cycle], 'forget') for i in starts]
  return {**_retain(recording), 'epoch/forget': np.stack(forget)}


def _msg(recording: Recording) -> Draws:
  arrays = recording.arrays
  forget = arrays['pre_ids0'][1:]
  fresh = _tensor_draws(recording, 'normal')
  return {
    **_retain(recording),
    'init/subset': arrays['subset_perm'].astype(np.int32),
    'init/forget': _order(forget, 'forget'),
    **{f'init/fresh/{path}': value for path, value in fresh.items()},
  }


RECIPES: dict[str, Recipe] = {
  'R': Recipe('retrain', STANDARD, _retain),
  'O': Recipe('original', STANDARD, _train),
  'FT': Recipe('ft', STANDARD, _retain),
  'GA': Recipe('ga', STANDARD, _forget),
  'NGPlus': Recipe(
    'neggrad_plus',
    {**STANDARD, 'alpha': 'alpha', 'weight_decay': 'anchor'},
    _neggrad_plus,
  ),
  'MSG': Recipe(
    'msg',
    {**STANDARD, 'init_rate': 'reinit_fraction'},
    _msg,
    labels={'surgery': 'init'},
  ),
  'CT': Recipe('ct', STANDARD, _retain, labels={'opt0': 'init'}),
}
