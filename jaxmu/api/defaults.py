"""Default settings for a data set, a model and a method.

They are the settings of a job, see `jaxmu.study.recipes`.
"""

from typing import Any

from jaxmu import hparams as hp
from jaxmu.api import inputs
from jaxmu.method import Method
from jaxmu.study import recipes

# Up to this many training examples, the settings of the digits are used.
SMALL = 10_000
_NETWORKS = ('resnet18', 'vit11m')


def is_small(data: inputs.Data) -> bool:
  """Return whether a data set takes the settings of the digits."""
  return data.num_dev <= SMALL


def scale_of(data: inputs.Data) -> str:
  """Return the name of the scale whose settings a data set takes."""
  if data.name in recipes.DATA:
    return data.name
  return 'digits' if is_small(data) else 'cifar10'


def for_training(
  data: inputs.Data, model: str
) -> tuple[dict[str, Any], dict[str, Any]]:
  """Return hyper-parameters of training and options of the model.

  Args:
    data: the data set.
    model: name of a built-in model; '' for any other.
  """
  known = model in _NETWORKS
  config = recipes.job_config(
    'ft', model=model if known else 'resnet18', scale=scale_of(data)
  )
  options = config['model']['options'] if known else {}
  return dict(config['train']), dict(options)


def for_method(method: Method, data: inputs.Data) -> dict[str, Any]:
  """Return all hyper-parameters of an unlearning method."""
  chosen = hp.defaults(method.Hparams)
  return {**chosen, **method.card.digits} if is_small(data) else chosen
