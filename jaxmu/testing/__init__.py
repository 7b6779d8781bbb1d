"""Contract checks for the authors of methods, attacks, metrics and models.

    from jaxmu import testing

    testing.check_method('my_method.py')
    testing.check_attack('my_package.my_attack')
    testing.check_metric(METRIC)
    testing.check_model('my_net.py:Net', image_shape=(32, 32, 3))

A check takes a name, an import path, a file, a module or the object, see
`jaxmu.plugins`. It returns nothing if all rules hold and raises one
`ContractError` otherwise, with a line for each broken rule: its name, what was
observed, and what to do. The built-in entries pass the same checks. A rule that
does not apply is named in `Card.exempt`, with the reason.

Each check is imported when it is first used: attacks are checked without jax.
"""

import importlib
from typing import TYPE_CHECKING, Any

from jaxmu.testing.faults import ContractError, Fault

if TYPE_CHECKING:
  from jaxmu.testing.attacks import ATTACK_RULES as ATTACK_RULES
  from jaxmu.testing.attacks import check_attack as check_attack
  from jaxmu.testing.methods import METHOD_RULES as METHOD_RULES
  from jaxmu.testing.methods import check_method as check_method
  from jaxmu.testing.metrics import METRIC_RULES as METRIC_RULES
  from jaxmu.testing.metrics import check_metric as check_metric
  from jaxmu.testing.models import MODEL_RULES as MODEL_RULES
  from jaxmu.testing.models import check_model as check_model

__all__ = [
  'ATTACK_RULES',
  'METHOD_RULES',
  'METRIC_RULES',
  'MODEL_RULES',
  'ContractError',
  'Fault',
  'check_attack',
  'check_method',
  'check_metric',
  'check_model',
]


def __getattr__(name: str) -> Any:
  if name not in __all__:
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  kind = name.removeprefix('check_').removesuffix('_RULES').lower()
  module = importlib.import_module(f'{__name__}.{kind}s')
  value = getattr(module, name)
  globals()[name] = value
  return value


def __dir__() -> list[str]:
  return sorted({*globals(), *__all__})
