"""Settings that suit a data set, a model and a method.

The same values as those of the command: `jaxmu.study.recipes` holds them.
"""

import importlib
import types
from collections.abc import Sequence
from typing import Any

from jaxmu import hparams as hp
from jaxmu import methods
from jaxmu.api import inputs
from jaxmu.data import catalog
from jaxmu.method import Method

# Up to this many training examples, networks and runs of the digits' size.
SMALL = 10_000
_NETWORKS = ('resnet18', 'vit11m')


def is_small(data: inputs.Data) -> bool:
  """Whether a data set takes the settings of the digits."""
  return data.num_dev <= SMALL


def scale_of(data: inputs.Data) -> str:
  """Return the name of the scale whose settings a data set takes."""
  if data.name in catalog.CATALOG:
    return data.name
  return 'digits' if is_small(data) else 'cifar10'


def job_config(
  method: str, *, model: str, scale: str, compare: Sequence[str] = ()
) -> dict[str, Any]:
  """Return the fields of a job as nested plain dicts."""
  try:
    recipes = importlib.import_module('jaxmu.study.recipes')
  except ImportError:
    return _from_checkout(method, model, scale, compare)
  return recipes.job_config(method, model=model, scale=scale, compare=compare)


def _from_checkout(
  method: str, model: str, scale: str, compare: Sequence[str]
) -> dict[str, Any]:
  common = importlib.import_module('configs.common')
  name = model if model in _NETWORKS else 'resnet18'
  config = common.base(f'{method}_{model}', name, scale)
  config.model.name = model
  if name != model:
    config.model.options = {}
  common.unlearn(config, method, scale)
  for other in compare:
    common.compare(config, other, scale)
  return config.to_dict()


def for_training(
  data: inputs.Data, model: str
) -> tuple[dict[str, Any], dict[str, Any]]:
  """Return hyper-parameters of training and options of the model.

  Args:
    data: the data set.
    model: name of a built-in model; '' for any other.
  """
  known = model if model in _NETWORKS else 'resnet18'
  config = job_config('ft', model=known, scale=scale_of(data))
  options = config['model']['options'] if known == model else {}
  return dict(config['train']), dict(options)


def for_method(method: Method, data: inputs.Data) -> dict[str, Any]:
  """Return all hyper-parameters of an unlearning method."""
  chosen = hp.defaults(method.Hparams)
  return {**chosen, **_digits(method)} if is_small(data) else chosen


def _digits(method: Method) -> dict[str, Any]:
  card: Any = method.card
  if hasattr(card, 'digits'):
    return dict(card.digits)
  digits = importlib.import_module('configs.digits')
  return dict(digits.SETTINGS.get(method.name, {}))


def resolve_method(spec: Any) -> Method:
  """Return a method by name, path, module or object.

  Raises:
    ValueError: there is no such method.
  """
  if isinstance(spec, Method):
    return spec
  if isinstance(spec, types.ModuleType) and hasattr(spec, 'METHOD'):
    return spec.METHOD
  get: Any = methods.get
  return get(spec)
