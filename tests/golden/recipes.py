"""How the recorded runs of each method are fed to ours.

One recipe per method of the reference: our name, the names of its
hyper-parameters, and where its draws go.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxmu import models
from jaxmu.core.types import Variables
from jaxmu.models import torch_names
from tests.golden import replay, rules
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


Steps = tuple[np.ndarray, np.ndarray]  # losses and learning rates


def _every_loss(hparams: Any, info: Any, epoch: int) -> Steps:
  """Take every loss of an epoch as that of a step."""
  del hparams, epoch
  losses = np.asarray(info['loss'])
  return losses, np.broadcast_to(info['learning_rate'], losses.shape)


class Recipe(NamedTuple):
  """How to replay one method.

  Attributes:
    method: our name.
    names: the reference's hyper-parameter names to ours.
    draws: from a recording to draws by path.
    labels: recorded snapshots by ours ('init', 'epoch<e>'), beyond the
      ends of epochs.
    unused: names of the reference's that stand in its files without effect
      and without counterpart.
    steps: losses and rates of the steps of an epoch, from prepared
      hyper-parameters, info and epoch.
  """

  method: str
  names: Mapping[str, str]
  draws: Callable[[Recording], Draws]
  labels: Mapping[str, str] = {}
  unused: tuple[str, ...] = ()
  steps: Callable[[Any, Any, int], Steps] = _every_loss


def hyper_parameters(recording: Recording, recipe: Recipe) -> dict[str, Any]:
  """Translate recorded hyper-parameters; unknown names are an error."""
  flat = dict(_flatten(recording.meta['hyper_parameters']))
  values = {
    recipe.names[name]: value
    for name, value in flat.items()
    if name not in recipe.unused
  }
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


def _salun(recording: Recording) -> Draws:
  mask = _order(recording.arrays['pre_ids0'], 'forget')
  return {**_train(recording), 'init/forget': mask}


def _scrub(recording: Recording) -> Draws:
  ids = recording.arrays['step_ids0']
  retain = ids[(ids.max(axis=1) < rules.FIRST['forget'])]
  return {'epoch/retain': _passes(retain)}


def _bt(recording: Recording) -> Draws:
  return {**_train(recording), 'init/noisy': noisy_teacher(recording)}


def noisy_teacher(recording: Recording) -> Variables:
  """Return the recorded run's teacher of random weights."""
  model = models.build('resnet18', num_classes=rules.CLASSES)
  state = rules.noisy_state_dict(
    model, replay.shapes('resnet18'), recording.meta['set']
  )
  return torch_names.from_torch(model, state)


def _fresh(recording: Recording) -> Draws:
  fresh = _tensor_draws(recording, 'uniform')
  return {f'init/fresh/{path}': value for path, value in fresh.items()}


def _fresh_retain(recording: Recording) -> Draws:
  return {**_retain(recording), **_fresh(recording)}


def _ff(recording: Recording) -> Draws:
  noise = _tensor_draws(recording, 'normal')
  return {f'init/noise/{path}': value for path, value in noise.items()}


def _fcs(recording: Recording) -> Draws:
  hparams = recording.meta['hyper_parameters']
  forget = -(-rules.SIZES['forget'] // hparams['batch_size'])
  retain = -(-rules.SIZES['retain'] // hparams['batch_size'])
  first, second = (recording.arrays[f'step_ids{i}'] for i in (0, 1))
  starts = range(forget, len(first), forget + retain)
  contrast = [slice(i, i + forget) for i in starts]
  repair = [slice(i + forget, i + forget + retain) for i in starts]
  return {
    'init/forget': _order(first[:forget], 'forget'),
    'epoch/contrast/forget': _stack(first, contrast, 'forget'),
    'epoch/contrast/retain': _stack(second, contrast, 'retain'),
    'epoch/retain': _stack(first, repair, 'retain'),
  }


def _stack(rows: np.ndarray, slices: list[slice], part: str) -> np.ndarray:
  return np.stack([_order(rows[one], part) for one in slices])


def _cfw(recording: Recording) -> Draws:
  orders = _retain(recording)
  first = _tensor_draws(recording, 'normal')
  second = _tensor_draws(recording, 'normal', counts=(1,))
  draws = {f'init/noise/{path}': value for path, value in first.items()}
  for path, value in second.items():
    every = np.zeros((len(orders['epoch/retain']), *value.shape))
    every[-1] = value
    draws[f'epoch/noise/{path}'] = every
  return {**orders, **draws}


def _kde(recording: Recording) -> Draws:
  ids = recording.arrays['step_ids0']
  val = ids.max(axis=1) >= rules.FIRST['val']
  retain = _passes(ids[~val])
  warm_up = int(recording.meta['hyper_parameters']['num_epochs'])
  unused = np.repeat(retain[:1], warm_up, axis=0)
  fresh = _fresh(recording)
  return {'epoch/retain': np.concatenate([unused, retain]), **fresh}


def _first(hparams: Any, info: Any, epoch: int, count: int) -> Steps:
  losses, rates = _every_loss(hparams, info, epoch)
  return losses[:count], rates[:count]


def _kde_steps(hparams: Any, info: Any, epoch: int) -> Steps:
  part = 'val' if epoch < int(hparams.num_epochs) else 'retain'
  count = -(-rules.SIZES[part] // hparams.batch_size)
  return _first(hparams, info, epoch, count)


def _prmq_steps(hparams: Any, info: Any, epoch: int) -> Steps:
  steps = -(-rules.SIZES['retain'] // hparams.batch_size)
  count = min(steps, int(hparams.num_steps) - epoch * steps)
  return _first(hparams, info, epoch, count)


def _scrub_steps(hparams: Any, info: Any, epoch: int) -> Steps:
  losses = np.asarray(info['loss'])
  if epoch < int(hparams.num_ascents):
    losses = np.concatenate([info['forget_loss'], losses])
  return losses, np.broadcast_to(info['learning_rate'], losses.shape)


def _rni(recording: Recording) -> Draws:
  """Place each recorded noise at the epoch in which its tensor is chosen.

  A draw for a tensor that was trained before is not used, by the reference as
  by us; it stands in the list all the same.
  """
  orders = _retain(recording)
  count = len(orders['epoch/retain'])
  noise = _tensor_draws(recording, 'normal')
  draws = {
    f'epoch/noise/{path}': np.broadcast_to(value, (count, *value.shape))
    for path, value in noise.items()
  }
  return {**orders, **draws, **_fresh(recording)}


def _none(recording: Recording) -> Draws:
  del recording
  return {}


def _sgd(prefix: str) -> dict[str, str]:
  """Map another optimiser's names, e.g. retain_optimizer.learning_rate."""
  names = ('learning_rate', 'momentum', 'weight_decay')
  return {f'{prefix}_optimizer.{name}': f'{prefix}_{name}' for name in names}


LAST_BLOCKS = {
  **EPOCHS,
  'num_blocks': 'num_blocks',
  'learning_rate': 'learning_rate',
  'sgda_learning_rate': 'sgda_learning_rate',
  'sgda_decay_rate': 'decay_rate',
  'sgda_weight_decay': 'pull',
  'momentum': 'momentum',
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
  'SRL': Recipe('srl', STANDARD, _train),
  'SalUN': Recipe('salun', {**STANDARD, 'threshold': 'mask_fraction'}, _salun),
  'SCRUB': Recipe(
    'scrub',
    {
      'gamma': 'gamma',
      'alpha': 'alpha',
      'beta': 'beta',
      'smoothing': 'smoothing',
      'msteps': 'num_ascents',
      'kd_T': 'temperature',
      'sgda_num_epochs': 'num_epochs',
      'sgda_learning_rate': 'learning_rate',
      'sgda_weight_decay': 'weight_decay',
      'sgda_momentum': 'momentum',
      'retain_batch_size': 'retain_batch_size',
      'forget_batch_size': 'forget_batch_size',
      'lr_decay_rate': 'decay_rate',
    },
    _scrub,
    steps=_scrub_steps,
    unused=('batch_size',),
  ),
  'BT': Recipe('bt', {**STANDARD, 'kl_temperature': 'temperature'}, _bt),
  'FF': Recipe('ff', {'batch_size': 'batch_size', 'alpha': 'alpha'}, _ff),
  'IU': Recipe('iu', {**EPOCHS, 'alpha': 'alpha'}, _none),
  'CFk': Recipe('cfk', LAST_BLOCKS, _retain),
  'EUk': Recipe('euk', LAST_BLOCKS, _fresh_retain, labels={'surgery': 'init'}),
  'FCS': Recipe(
    'fcs',
    {
      **STANDARD,
      **_sgd('retain'),
      **_sgd('forget'),
      'temperature': 'temperature',
      'eta_min': 'floor_rate',
    },
    _fcs,
  ),
  'CFW': Recipe(
    'cfw',
    {
      **STANDARD,
      'start_confuser_std': 'first_noise',
      'final_confuser_std': 'second_noise',
      'class_weight': 'class_weight',
    },
    _cfw,
    labels={'noise0': 'init'},
  ),
  'PRMQ': Recipe(
    'prmq',
    {**STANDARD, 'prune_amount': 'prune_fraction'},
    _fresh_retain,
    labels={'surgery': 'init'},
    steps=_prmq_steps,
  ),
  'KDE': Recipe(
    'kde',
    {
      **STANDARD,
      **_sgd('retain'),
      'temperature': 'temperature',
      'retain_num_epochs': 'retain_num_epochs',
    },
    _kde,
    steps=_kde_steps,
  ),
  'RNI': Recipe(
    'rni',
    {
      **STANDARD,
      **_sgd('fine'),
      'fine_num_epochs': 'fine_num_epochs',
      'reset_num_epochs': 'reset_num_epochs',
      'noise_ratio': 'noise_fraction',
      'origin_noise': 'noise',
    },
    _rni,
  ),
}
