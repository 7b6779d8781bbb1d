"""How our methods replay the recorded runs of the reference.

One recipe per method of the reference: our name, the names of its
hyper-parameters, and the use of its draws.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxmu.method import Method
from tests.golden import neggrad, orders, passes, rules
from tests.golden.replay import Recording

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
    settings: further hyper-parameters of ours, from a recording's metadata.
    labels: recorded snapshots by ours ('init', 'epoch<e>'), beyond the
      ends of epochs.
    forwards: training-mode forward passes in order of time, from a recording
      and prepared hyper-parameters; they drop paths in a transformer.
    part: the function that `init` spends its time in, where `extras` looks at
      its result.
    unused: names of the reference's that stand in its files without effect
      and without counterpart.
    steps: losses and rates of the steps of an epoch, from prepared
      hyper-parameters, info and epoch.
    own: the method itself, where it is none of the package's.
  """

  method: str
  names: Mapping[str, str]
  draws: Callable[[Recording], orders.Draws]
  settings: Callable[[Mapping[str, Any]], Mapping[str, Any]] = lambda _: {}
  labels: Mapping[str, str] = {}
  forwards: Callable[[Recording, Any], list[passes.Pass]] = passes.passes_over(
    'retain'
  )
  part: str = ''
  unused: tuple[str, ...] = ()
  steps: Callable[[Any, Any, int], Steps] = _every_loss
  own: Method | None = None


def hyper_parameters(recording: Recording, recipe: Recipe) -> dict[str, Any]:
  """Translate recorded hyper-parameters; unknown names raise a KeyError."""
  flat = dict(_flatten(recording.meta['hyper_parameters']))
  values = {
    recipe.names[name]: value
    for name, value in flat.items()
    if name not in recipe.unused
  }
  return {**values, **recipe.settings(recording.meta)}


def _flatten(tree: Mapping[str, Any], prefix: str = ''):
  for name, value in tree.items():
    if name in ('scheduler', 'criterion', 'type') or value is None:
      continue
    if isinstance(value, Mapping):
      yield from _flatten(value, f'{prefix}{name}.')
    else:
      yield prefix + name, value


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


def _room_for_snapshots(meta: Mapping[str, Any]) -> dict[str, Any]:
  return {'snapshots': meta['hyper_parameters']['sgda_num_epochs']}


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


def noise(recording: Recording, recipe: Recipe, hparams: Any) -> orders.Draws:
  """Return the drop-path draws of a whole run."""
  paths = recording.model.num_drop_paths
  if not paths:
    return {}
  forwards = recipe.forwards(recording, hparams)
  return passes.drop_paths(recording, forwards, paths)


RECIPES: dict[str, Recipe] = {
  'R': Recipe('retrain', STANDARD, orders.retain),
  'O': Recipe(
    'original', STANDARD, orders.train, forwards=passes.passes_over('train')
  ),
  'FT': Recipe('ft', STANDARD, orders.retain),
  'GA': Recipe(
    'ga', STANDARD, orders.forget, forwards=passes.passes_over('forget')
  ),
  'NegGrad': Recipe(
    'neggrad',
    STANDARD,
    orders.train,
    forwards=passes.passes_over('train'),
    own=neggrad.METHOD,
  ),
  'NGPlus': Recipe(
    'neggrad_plus',
    {**STANDARD, 'alpha': 'alpha', 'weight_decay': 'anchor'},
    orders.neggrad_plus,
    forwards=passes.no_passes,
  ),
  'MSG': Recipe(
    'msg',
    {**STANDARD, 'init_rate': 'reinit_fraction'},
    orders.msg,
    labels={'surgery': 'init'},
    forwards=passes.msg_passes,
    part='gradient_difference',
  ),
  'CT': Recipe('ct', STANDARD, orders.retain, labels={'opt0': 'init'}),
  'SRL': Recipe(
    'srl', STANDARD, orders.train, forwards=passes.passes_over('train')
  ),
  'SalUN': Recipe(
    'salun',
    {**STANDARD, 'threshold': 'mask_fraction'},
    orders.salun,
    forwards=passes.passes_over('train'),
    part='saliency',
  ),
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
    orders.scrub,
    settings=_room_for_snapshots,
    steps=_scrub_steps,
    unused=('batch_size',),
    forwards=passes.scrub_passes,
  ),
  'BT': Recipe(
    'bt',
    {**STANDARD, 'kl_temperature': 'temperature'},
    orders.bt,
    forwards=passes.passes_over('train'),
  ),
  'FF': Recipe(
    'ff',
    {'batch_size': 'batch_size', 'alpha': 'alpha'},
    orders.ff,
    forwards=passes.no_passes,
    part='fisher',
  ),
  'IU': Recipe(
    'iu',
    {**EPOCHS, 'alpha': 'alpha'},
    orders.none,
    settings=lambda meta: {'num_samples': meta['K']} if 'K' in meta else {},
    forwards=passes.no_passes,
    part='influence',
  ),
  'CFk': Recipe('cfk', LAST_BLOCKS, orders.retain, forwards=passes.no_passes),
  'EUk': Recipe(
    'euk',
    {**LAST_BLOCKS, 'training_epoch_factor': 'training_epoch_factor'},
    orders.fresh_retain,
    labels={'surgery': 'init'},
    forwards=passes.no_passes,
  ),
  'FCS': Recipe(
    'fcs',
    {
      **STANDARD,
      **_sgd('retain'),
      **_sgd('forget'),
      'temperature': 'temperature',
      'eta_min': 'floor_rate',
    },
    orders.fcs,
    forwards=passes.fcs_passes,
    part='flatten',
  ),
  'CFW': Recipe(
    'cfw',
    {
      **STANDARD,
      'start_confuser_std': 'first_noise',
      'final_confuser_std': 'second_noise',
      'class_weight': 'class_weight',
    },
    orders.cfw,
    labels={'noise0': 'init'},
  ),
  'PRMQ': Recipe(
    'prmq',
    {**STANDARD, 'prune_amount': 'prune_fraction'},
    orders.fresh_retain,
    labels={'surgery': 'init'},
    steps=_prmq_steps,
    forwards=passes.prmq_passes,
  ),
  'KDE': Recipe(
    'kde',
    {
      **STANDARD,
      **_sgd('retain'),
      'temperature': 'temperature',
      'retain_num_epochs': 'retain_num_epochs',
    },
    orders.kde,
    steps=_kde_steps,
    forwards=passes.kde_passes,
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
    orders.rni,
  ),
}
