"""What all configurations share: the fields of a job and the named scales.

A configuration is chosen as `FILE:SCALE` or `FILE:SCALE,paper`. A scale is a
data set, at the paper's full setting unless it is `digits`, optionally with
`-ulira` for the study with 64 splits x 10 forget sets. `digits`, the default,
is small enough for a laptop and needs no download. `paper` makes methods follow
the work they come from where the benchmark's code departs from it; see
docs/methods.md.
"""

from typing import Any

from ml_collections import config_dict

from configs import digits
from jaxmu import methods

# Epochs and batch size of the benchmark (arXiv 2410.01276), per data set.
_RECIPES = {
  'cifar10': (182, 256),
  'cifar100': (182, 256),
  'fashion_mnist': (50, 256),
  'mnist': (50, 256),
  'utkface': (50, 128),
}
_ULIRA_EPOCHS = 91

# Sizes of the networks at laptop scale.
_SMALL = {
  'resnet18': {'width': 8},
  'vit11m': {'widths': (32, 32, 64, 64), 'depths': (1, 1, 2, 1)},
}


def base(name: str, model: str, scale: str = '') -> config_dict.ConfigDict:
  """Return the fields of a job, without its unlearning method.

  Args:
    name: of the configuration, part of the default work directory.
    model: architecture.
    scale: see the module's docstring; '' for 'digits'.
  """
  scale, _ = _parts(scale)
  data, _, study = scale.partition('-')
  config = config_dict.ConfigDict()
  config.workdir = f'workdir/{name}_{scale}'
  config.seed = 0
  config.seed_mode = 'independent'

  config.data = {'name': data, 'folder': ''}
  config.model = {'name': model, 'options': {}, 'precision': 'float32'}
  config.splits = {
    'design': 'audit',
    'num_splits': 16,
    'forget_sets': 2,
    'forget_fraction': 0.1,
    'pool': 0,
    'seeds': 1,
    'forget': 'random',
    'seed': 0,
  }
  config.train = {
    'learning_rate': 0.1,
    'momentum': 0.9,
    'weight_decay': 5e-4,
    'num_epochs': 182,
    'batch_size': 256,
  }
  config.unlearn = {'method': '', 'hparams': {}}
  config.compare = {}
  config.attack = {
    'variance': 'shrink',
    'mode': 'logo',
    'leave_out': 'pair',
    'location': 'mean',
    'which': '',
  }
  config.metrics = ()
  config.curve = {'every': 0}
  config.timing = {'repeats': 3}
  config.run = {
    'devices': 0,
    'chunk': 0,
    'memory': 0.0,
    'shard': 8,
    'verify': True,
  }
  if data == 'digits':
    _digits(config)
  else:
    _paper(config, data, study)
  return config


def _parts(scale: str) -> tuple[str, str]:
  """Divide a scale into its name and the fidelity of the methods."""
  name, comma, suffix = scale.partition(',')
  if comma and suffix != 'paper':
    raise ValueError(
      f"scale {scale!r} ends in {suffix!r}; the only suffix is ',paper'"
    )
  name = name or 'digits'
  data, _, study = name.partition('-')
  if data not in ('digits', *_RECIPES) or study not in ('', 'ulira'):
    raise ValueError(
      f'unknown scale {name!r}; choose one of digits, '
      f'{", ".join(_RECIPES)}, or one of these with -ulira'
    )
  return name, suffix or 'reference'


def unlearn(config: config_dict.ConfigDict, method: str, scale: str) -> None:
  """Choose the unlearning method, with the hyper-parameters of the scale."""
  config.unlearn.method = method
  config.unlearn.hparams = _hparams(config, method, scale)


def compare(config: config_dict.ConfigDict, method: str, scale: str) -> None:
  """Add a further method, with the hyper-parameters of the scale."""
  config.compare[method] = _hparams(config, method, scale)


def is_small(config: config_dict.ConfigDict) -> bool:
  """Whether the job is at laptop scale."""
  return config.data.name == 'digits'


def _hparams(
  config: config_dict.ConfigDict, method: str, scale: str
) -> dict[str, Any]:
  """Return all hyper-parameters: defaults, but for what digits need."""
  defaults = methods.hparams_for(method, _parts(scale)[1])
  if not is_small(config):
    return defaults
  return {**defaults, **digits.SETTINGS[method]}


def _digits(config: config_dict.ConfigDict) -> None:
  config.seed = config.splits.seed = 1
  config.splits.pool = 1280
  config.train.num_epochs = 12
  config.train.batch_size = 64
  config.train.learning_rate = 0.05
  config.model.options = _SMALL[config.model.name]


def _paper(config: config_dict.ConfigDict, data: str, study: str) -> None:
  config.train.num_epochs, config.train.batch_size = _RECIPES[data]
  if study:
    config.splits.num_splits, config.splits.forget_sets = 64, 10
    config.train.num_epochs = _ULIRA_EPOCHS
  else:
    config.splits.design, config.splits.seeds = 'main', 10
    config.splits.num_splits = config.splits.forget_sets = 1
