"""Search spaces: which hyper-parameters are searched, and among which values.

Each method declares the spaces of the benchmark beside its hyper-parameters
(`jaxmu.hparams`). `config.search.space` replaces them, hyper-parameter by
hyper-parameter:

  learning_rate='log(1e-4, 1e-1)'    uniform in the logarithm
  alpha='uniform(0, 1)'              uniform
  batch_size=(64, 128)               one of these
  momentum=0.9                       held fixed

A name holds for all methods that declare it; `METHOD.NAME` for one method. With
a grid, only the values that are held fixed apply.
"""

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import optuna
from optuna import distributions

from jaxmu import hparams as hp
from jaxmu import terms

Categorical = distributions.CategoricalDistribution

# The share of the epochs of training that unlearning may take.
BUDGET = 0.2
# Of a grid; more would be a typing error.
MOST_TRIALS = 10_000
_FORM = re.compile(r'^(log|uniform)\(([^,]+),([^,]+)\)$')
_HELP = (
  "give 'log(LOW, HIGH)', 'uniform(LOW, HIGH)', a list of values, or a number "
  'to hold it fixed'
)


class NoSetting(ValueError):
  """No setting of a space can be chosen."""


class Space(NamedTuple):
  """The hyper-parameters of a method, divided by whether they are searched.

  Attributes:
    searched: distributions by name, in the order of declaration.
    fixed: values of all others.
    is_grid: all combinations are tried.
  """

  searched: dict[str, distributions.BaseDistribution]
  fixed: dict[str, Any]
  is_grid: bool = False

  @property
  def num_combinations(self) -> int:
    """Number of combinations of a grid."""
    return math.prod(map(num_values, self.searched.values()))

  def combinations(self) -> list[dict[str, Any]]:
    """Return all combinations of a grid as settings.

    Example:
      >>> kind = distributions.CategoricalDistribution((0.1, 0.2))
      >>> Space({'alpha': kind}, {'beta': 2.0}).combinations()
      [{'beta': 2.0, 'alpha': 0.1}, {'beta': 2.0, 'alpha': 0.2}]
    """
    lists = [
      kind.choices  # type: ignore[attr-defined]
      for kind in self.searched.values()
    ]
    return [
      {**self.fixed, **dict(zip(self.searched, chosen, strict=True))}
      for chosen in itertools.product(*lists)
    ]

  def nearest(self, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the setting of the space that is nearest to given values.

    Values beyond an interval become its end; a value that is not in a list
    becomes the first of the list.

    Args:
      values: of all searched hyper-parameters.

    Example:
      >>> space = Space({'num_epochs': distributions.IntDistribution(1, 3)}, {})
      >>> space.nearest({'num_epochs': 5})
      {'num_epochs': 3}
    """
    return {
      **self.fixed,
      **{n: _nearest(kind, values[n]) for n, kind in self.searched.items()},
    }

  def suggest(self, trial: optuna.Trial) -> dict[str, Any]:
    """Return all hyper-parameters of a trial, drawn in the order of names."""
    drawn = {}
    for name, kind in self.searched.items():
      match kind:
        case distributions.FloatDistribution():
          drawn[name] = trial.suggest_float(
            name, kind.low, kind.high, log=kind.log
          )
        case distributions.IntDistribution():
          drawn[name] = trial.suggest_int(
            name, kind.low, kind.high, log=kind.log
          )
        case distributions.CategoricalDistribution():
          drawn[name] = trial.suggest_categorical(name, kind.choices)
    return {**self.fixed, **drawn}


def _nearest(kind: distributions.BaseDistribution, value: Any) -> Any:
  if isinstance(value, list | tuple):  # a value per epoch
    return [_nearest(kind, one) for one in value]
  if isinstance(kind, Categorical):
    return value if value in kind.choices else kind.choices[0]
  low, high = kind.low, kind.high  # type: ignore[attr-defined]
  return min(max(value, low), high)


def num_values(kind: distributions.BaseDistribution) -> int:
  """Return how many values a list or an interval of whole numbers has."""
  if isinstance(kind, Categorical):
    return len(kind.choices)
  return kind.high - kind.low + 1  # type: ignore[attr-defined]


def mean(kind: distributions.BaseDistribution) -> float:
  """Return the mean of a distribution of numbers.

  Example:
    >>> mean(distributions.IntDistribution(1, 4))
    2.5
  """
  match kind:
    case distributions.CategoricalDistribution():
      return sum(kind.choices) / len(kind.choices)  # type: ignore[arg-type]
    case distributions.FloatDistribution(low=low, high=high, log=log) | (
      distributions.IntDistribution(low=low, high=high, log=log)
    ):
      if log and low < high:
        return (high - low) / math.log(high / low)
      return (low + high) / 2
  raise TypeError(f'{kind} has no mean')


def most_epochs(train_epochs: int) -> int:
  """Return the largest number of epochs that a search tries.

  It is a fifth of the epochs of training, rounded up (arXiv 2410.01276).

  Example:
    >>> most_epochs(182), most_epochs(12)
    (37, 3)
  """
  return math.ceil(BUDGET * train_epochs)


def of_method(
  cls: type,
  fixed: Mapping[str, Any],
  *,
  train_epochs: int,
  changes: Mapping[str, Any] | None = None,
  dead: bool = False,
) -> Space:
  """Return the search space of a method.

  Args:
    cls: its class of hyper-parameters.
    fixed: values of hyper-parameters that are not searched; what is not named
      has its default.
    train_epochs: epochs of training, which bound those of unlearning.
    changes: spaces that replace declared ones, see above; a `jaxmu.hparams`
      space is accepted too.
    dead: search hyper-parameters without any effect too, as the reference does.

  Raises:
    ValueError: an unknown name, or a space that cannot be read or holds values
      out of range; or nothing is left to search.

  Example:
    >>> from jaxmu import methods
    >>> space = of_method(
    ...   methods.get('ga').Hparams, {}, train_epochs=12,
    ...   changes={'batch_size': 64},
    ... )
    >>> list(space.searched), space.fixed['momentum']
    (['learning_rate', 'weight_decay', 'num_epochs'], 0.9)
  """
  changes = dict(changes or {})
  for name in changes:
    check_name(name, cls, 'config.search.space')
  values = {**hp.defaults(cls), **fixed}
  searched = {}
  most = most_epochs(train_epochs)
  for field in hp.declared(cls):
    info = hp.meta(field)
    space = info['search']
    if info['dead'] and not dead:
      space = None
    if field.name in changes:
      space = read(changes[field.name], f'config.search.space.{field.name}')
      if not _is_space(space):
        values[field.name], space = space, None
    if isinstance(space, hp.MostEpochs):
      values[field.name] = max(most, values[field.name])
    elif space is not None:
      for end in _ends(space, most, info['default']):
        hp.from_config(cls, {field.name: end}, 'config.search.space.')
      searched[field.name] = _distribution(space, most, info['default'])
  hp.from_config(cls, values, 'config.search.space.')
  fixed_values = {k: v for k, v in values.items() if k not in searched}
  return Space(searched, fixed_values)


def of_grid(
  cls: type, fixed: Mapping[str, Any], grid: Mapping[str, Any]
) -> Space:
  """Return the space of a grid: lists of values, all others held fixed.

  Args:
    cls: class of the hyper-parameters.
    fixed: values of those that the grid does not name; what neither names has
      its default.
    grid: a list of values, or one value, by hyper-parameter.

  Raises:
    ValueError: an unknown name, an empty list, a value that is given twice or
      is out of range.
  """
  where = 'config.search.grid'
  searched = {}
  for name, given in grid.items():
    check_name(name, cls, where)
    values = tuple(given) if isinstance(given, list | tuple) else (given,)
    if not values:
      raise ValueError(f'{where}.{name} = (); give at least one value')
    _check_distinct(values, f'{where}.{name}')
    for value in values:
      hp.from_config(cls, {name: value}, f'{where}.')
    searched[name] = distributions.CategoricalDistribution(values)
  count = Space(searched, {}).num_combinations
  if count > MOST_TRIALS:
    raise ValueError(
      f'{where} has {count:,} combinations; give at most {MOST_TRIALS:,}'
    )
  held = {**hp.defaults(cls), **fixed}
  fixed_values = {k: v for k, v in held.items() if k not in searched}
  return Space(searched, fixed_values, is_grid=True)


def held(cls: type, changes: Mapping[str, Any]) -> dict[str, Any]:
  """Return the values that `config.search.space` holds fixed.

  Raises:
    ValueError: a space that cannot be read, or a value out of range.

  Example:
    >>> from jaxmu import methods
    >>> given = {'batch_size': 64, 'learning_rate': 'log(1e-4, 1e-1)'}
    >>> held(methods.get('ga').Hparams, given)
    {'batch_size': 64}
  """
  where = 'config.search.space'
  kinds = {n: read(value, f'{where}.{n}') for n, value in changes.items()}
  fixed = {n: kind for n, kind in kinds.items() if not _is_space(kind)}
  hp.from_config(cls, fixed, f'{where}.')
  return fixed


def for_method(
  given: Mapping[str, Any],
  method: str,
  classes: Mapping[str, type],
  where: str,
) -> dict[str, Any]:
  """Return what is given for one method of a job, by hyper-parameter.

  Args:
    given: values by hyper-parameter, for every method that declares it; and
      mappings of such values by method, which take precedence.
    method: name of the method.
    classes: class of the hyper-parameters of each method of the job, by name.
    where: the field, for error messages.

  Raises:
    ValueError: no method of the job declares a name, or a method is not in it.

  Example:
    >>> from jaxmu import methods
    >>> classes = {name: methods.get(name).Hparams for name in ('ff', 'ft')}
    >>> given = {'batch_size': 64, 'ff': {'alpha': 'log(1e-9, 1)'}}
    >>> for_method(given, 'ff', classes, 'space')
    {'batch_size': 64, 'alpha': 'log(1e-9, 1)'}
    >>> for_method(given, 'ft', classes, 'space')
    {'batch_size': 64}
  """
  declared = {
    name: [field.name for field in hp.declared(cls)]
    for name, cls in classes.items()
  }
  known = sorted({name for names in declared.values() for name in names})
  for name, value in given.items():
    if isinstance(value, Mapping):
      if name not in classes:
        raise ValueError(
          f'{where}.{name}: the job has no method {name!r}; '
          f'{terms.choices(name, sorted(classes))}'
        )
    elif name not in known:
      raise ValueError(
        f'{where}.{name} is unknown; {terms.choices(name, known)}'
      )
  own = given.get(method, {})
  for name in own:
    check_name(name, classes[method], f'{where}.{method}')
  return {
    **{name: given[name] for name in given if name in declared[method]},
    **own,
  }


def check_name(name: str, cls: type, where: str) -> None:
  """Check that a class of hyper-parameters declares a name.

  Raises:
    ValueError: it does not; the message suggests the nearest names.
  """
  names = [field.name for field in hp.declared(cls)]
  if name not in names:
    raise ValueError(
      f'{where}.{name} is unknown; {terms.nearest(name, names)}choose from: '
      f'{", ".join(names)}'
    )


def read(value: Any, where: str) -> Any:
  """Return a space of `jaxmu.hparams`, or the value to hold fixed.

  Args:
    value: see the module's docstring.
    where: the field, for error messages.

  Raises:
    ValueError: a text that is no space, an empty list or interval, or a value
      that is listed twice.

  Example:
    >>> read('log(1e-4, 1e-1)', 'learning_rate')
    LogUniform(low=0.0001, high=0.1)
  """
  if isinstance(value, list | tuple):
    if not value:
      raise ValueError(f'{where} = {value!r}; {_HELP}')
    _check_distinct(value, where)
    return hp.Choice(tuple(value))
  if not isinstance(value, str):
    return value
  form = _FORM.match(value.replace(' ', ''))
  if not form:
    if any(mark in value for mark in '(,'):
      raise ValueError(f'{where} = {value!r}; {_HELP}')
    return value
  try:
    low, high = (_number(text) for text in form.groups()[1:])
  except ValueError:
    raise ValueError(f'{where} = {value!r}; {_HELP}') from None
  if not low < high or (form[1] == 'log' and low <= 0):
    raise ValueError(
      f'{where} = {value!r}; the first number must be below the second'
      + (', and positive' if form[1] == 'log' else '')
    )
  return (hp.LogUniform if form[1] == 'log' else hp.Uniform)(low, high)


def _check_distinct(values: Sequence[Any], where: str) -> None:
  for position, value in enumerate(values):
    if value in values[:position]:
      raise ValueError(
        f'{where} = {values!r} repeats {value!r}; give every value once'
      )


def _number(text: str) -> int | float:
  try:
    return terms.number(text, int)
  except ValueError:
    return terms.number(text, float)


def _is_space(value: Any) -> bool:
  kinds = hp.Uniform | hp.LogUniform | hp.Choice | hp.EpochBudget
  return isinstance(value, kinds | hp.MostEpochs)


def _distribution(
  space: Any, most: int, default: Any
) -> distributions.BaseDistribution:
  """Return a space in the type of its hyper-parameter."""
  real = not isinstance(default, int)
  match space:
    case hp.EpochBudget(real=True):
      return distributions.FloatDistribution(1.0, float(most))
    case hp.EpochBudget():
      return distributions.IntDistribution(1, most)
    case hp.Uniform(low, high) | hp.LogUniform(low, high):
      log = isinstance(space, hp.LogUniform)
      if real:
        return distributions.FloatDistribution(float(low), float(high), log=log)
      return distributions.IntDistribution(int(low), int(high), log=log)
  return distributions.CategoricalDistribution(space.values)


def _ends(space: Any, most: int, default: Any) -> list[Any]:
  """Return the values of a space that are checked for their type and range."""
  match space:
    case hp.Choice(values):
      return list(values)
    case hp.EpochBudget():
      return [1, most]
  if space.low == 0 and not isinstance(default, int):
    # The benchmark draws temperatures from [0, 5]; 0 itself is never drawn.
    return [space.high / 2, space.high]
  return [space.low, space.high]
