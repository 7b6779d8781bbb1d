"""Hyper-parameters of each member of a population.

A number applies to all members. A list with one value per member applies value
by value; with any other list, all members are trained with every value. Leaves
differ within one compiled program; each value of a static needs another.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxmu import hparams as hp
from jaxmu.api.printing import settings
from jaxmu.terms import choices

Values = dict[str, Any]


class MemberHparams(NamedTuple):
  """Hyper-parameters of P members.

  Attributes:
    hparams: plain values of each, P dicts.
    base: i64[P], the member of the population before each was repeated.
    variant: the values that are tried on all members as text, P strings; '' if
      members have one value each.
  """

  hparams: list[Values]
  base: np.ndarray
  variant: list[str]


def expand(
  cls: type,
  defaults: Mapping[str, Any],
  given: Mapping[str, Any],
  size: int,
  *,
  every_value: bool = False,
) -> MemberHparams:
  """Return the hyper-parameters of each member.

  Args:
    cls: class of the hyper-parameters.
    defaults: a value for each of them.
    given: values of the user, single ones or lists of equal length.
    size: number of members before they are repeated.
    every_value: train all members with every value, also where there are as
      many values as members.

  Raises:
    ValueError: an unknown name, a value out of range, an empty list or lists of
      different lengths; the message names it.

  Example:
    >>> from jaxmu import methods
    >>> Hparams = methods.get('ga').Hparams
    >>> given = {'learning_rate': [0.1, 0.2]}
    >>> expand(Hparams, {}, given, size=3).variant[2:4]
    ['learning_rate=0.1', 'learning_rate=0.2']
    >>> expand(Hparams, {}, given, size=2).hparams
    [{'learning_rate': 0.1}, {'learning_rate': 0.2}]
  """
  fields = {field.name: field for field in hp.declared(cls)}
  for name in given:
    if name not in fields:
      raise ValueError(
        f'hyper-parameter {name!r} is unknown; {choices(name, fields)}'
      )
  lists = {
    name: [_plain(v) for v in value]
    for name, value in given.items()
    if _is_list(value, hp.meta(fields[name])['default'])
  }
  single = {k: _plain(v) for k, v in given.items() if k not in lists}
  _check_lengths(lists)
  common = in_order(cls, {**defaults, **single, **lists})
  count = len(next(iter(lists.values()), [None]))
  if not lists or (count == size and not every_value):
    chosen = [
      {**common, **{k: values[p] for k, values in lists.items()}}
      for p in range(size)
    ]
    _check(cls, chosen)
    return MemberHparams(chosen, np.arange(size), [''] * size)
  each = [
    {name: values[v] for name, values in lists.items()} for v in range(count)
  ]
  _check(cls, [{**common, **values} for values in each])
  return MemberHparams(
    [{**common, **values} for values in each for _ in range(size)],
    np.tile(np.arange(size), count),
    [settings(values) for values in each for _ in range(size)],
  )


def in_order(cls: type, values: Mapping[str, Any]) -> Values:
  """Return values in the order in which a method declares them."""
  names = [field.name for field in hp.declared(cls)]
  return {name: values[name] for name in names if name in values}


def _check(cls: type, members: Sequence[Values]) -> None:
  for values in members:
    hp.from_config(cls, values)


def _check_lengths(lists: Mapping[str, Sequence[Any]]) -> None:
  lengths = {name: len(values) for name, values in lists.items()}
  empty = [name for name, length in lengths.items() if not length]
  if empty:
    raise ValueError(f'{empty[0]} = []; give at least one value')
  if len(set(lengths.values())) > 1:
    sizes = ', '.join(f'{name} has {n} values' for name, n in lengths.items())
    raise ValueError(
      f'{sizes}; lists are read side by side, so give all the same length'
    )


def _is_list(value: Any, default: Any) -> bool:
  """Return whether a value is a list of several values."""
  if isinstance(value, np.ndarray) or hasattr(value, '__jax_array__'):
    return np.ndim(value) > isinstance(default, tuple)
  if not isinstance(value, list | tuple | range):
    return np.ndim(value) > isinstance(default, tuple)
  if not isinstance(default, tuple):
    return True
  return bool(value) and isinstance(value[0], list | tuple | np.ndarray)


def _plain(value: Any) -> Any:
  """Return NumPy and JAX scalars and arrays as Python numbers and lists."""
  if isinstance(value, tuple):
    return [_plain(v) for v in value]
  return value.tolist() if hasattr(value, 'tolist') else value
