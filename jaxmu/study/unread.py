"""Fields of a job that have no effect, because of its other fields."""

from collections.abc import Sequence

from jaxmu import hparams as hp
from jaxmu import methods
from jaxmu.attacks import registry
from jaxmu.study.settings import Settings, Unlearner

_ULIRA = ('variance', 'mode', 'location')


def lines(settings: Settings, given: Sequence[str]) -> list[str]:
  """Return a line for each given field that has no effect.

  Args:
    settings: checked settings.
    given: dotted names of the fields that the user has set, as on the command
      line: 'config.splits.seed'.
  """
  reasons = fields(settings)
  return [
    f'--{name} has no effect: {reasons[name]}'
    for name in dict.fromkeys(given)
    if name in reasons
  ]


def fields(settings: Settings) -> dict[str, str]:
  """Return the fields without effect by their dotted names, with the reasons.

  Example:
    >>> from jaxmu.study import recipes
    >>> from jaxmu.study.settings import from_config
    >>> config = recipes.job_config('ft', scale='mnist')
    >>> fields(from_config(config))['config.splits.num_splits']
    "design 'main' has one fixed split"
  """
  found = _splits(settings)
  chosen = settings.splits
  if settings.originals.checkpoints and not settings.retrained.train:
    found['config.curve.every'] = 'no original or retrained model is trained'
  if chosen.forget.startswith(('class:', 'file:')):
    found['config.splits.forget_fraction'] = (
      f'splits.forget={chosen.forget} names the examples'
    )
  if settings.attack.names and 'ulira' not in _attacks(settings):
    for name in _ULIRA:
      found[f'config.attack.{name}'] = (
        f'U-LiRA alone reads it, and attack.which={settings.attack.which}'
      )
  for place, one in zip(_places(settings), settings.unlearners, strict=True):
    found |= {f'{place}.{name}': why for name, why in _dead(one).items()}
  return found


def _splits(settings: Settings) -> dict[str, str]:
  design = settings.splits.design
  names, reason = (), ''
  if design == 'main':
    names = ('num_splits', 'forget_sets', 'seed')
    reason = "design 'main' has one fixed split"
  if design == 'reference':
    names = ('seed',)
    reason = "design 'reference' has the fixed splits of the benchmark"
  return {f'config.splits.{name}': reason for name in names}


def _attacks(settings: Settings) -> list[str]:
  return [one.name for one in registry.resolve_all(settings.attack.names)]


def _places(settings: Settings) -> list[str]:
  others = [one.method for one in settings.unlearners[1:]]
  return [
    'config.unlearn.hparams',
    *(f'config.compare.{method}' for method in others),
  ]


def _dead(one: Unlearner) -> dict[str, str]:
  """Return the hyper-parameters of a method without effect, with reasons."""
  cls = methods.get(one.method).Hparams
  reasons = {field.name: hp.meta(field)['dead'] for field in hp.declared(cls)}
  return {name: why for name, why in reasons.items() if why}
