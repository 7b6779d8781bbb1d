"""Machine unlearning for image classifiers, in JAX.

    import jaxmu

    data = jaxmu.load_data('digits')
    design = jaxmu.split(data, forget=0.1, splits=16)
    original = jaxmu.train(data, design, model='resnet18')
    unlearned = jaxmu.unlearn('msg', original)
    print(jaxmu.audit(unlearned, against=jaxmu.retrain(original)))

`METHODS`, `ATTACKS`, `METRICS`, `MODELS` and `DATASETS` list the built-in ones.
Names are imported when they are first used, so that `import jaxmu` is fast.
"""

# ruff: noqa: F405  (the names of jaxmu.api)

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  from jaxmu.api import *  # noqa: F403
  from jaxmu.attacks.registry import ATTACKS as ATTACKS
  from jaxmu.data.datasets import DATASETS as DATASETS
  from jaxmu.methods import METHODS as METHODS
  from jaxmu.metrics import METRICS as METRICS
  from jaxmu.models import MODELS as MODELS

__version__ = '0.1.0'

__all__ = [
  'ATTACKS',
  'DATASETS',
  'METHODS',
  'METRICS',
  'MODELS',
  'Audit',
  'Data',
  'Design',
  'JobResult',
  'Models',
  'Predictions',
  'SearchResult',
  'SweepResult',
  'audit',
  'load',
  'load_data',
  'predict',
  'retrain',
  'run',
  'search',
  'split',
  'sweep',
  'train',
  'unlearn',
]

# Where names are defined; the others are in jaxmu.api.
_REGISTRIES = {
  'ATTACKS': 'jaxmu.attacks.registry',
  'DATASETS': 'jaxmu.data.datasets',
  'METHODS': 'jaxmu.methods',
  'METRICS': 'jaxmu.metrics',
  'MODELS': 'jaxmu.models',
}


def __getattr__(name: str) -> Any:
  if name not in __all__:
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  module = importlib.import_module(_REGISTRIES.get(name, 'jaxmu.api'))
  value = getattr(module, name)
  globals()[name] = value
  return value


def __dir__() -> list[str]:
  return sorted({*globals(), *__all__})
