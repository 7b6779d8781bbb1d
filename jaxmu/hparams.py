"""Hyper-parameters: declaration, checks, and stacking over members.

A *leaf* is an array that may differ per member of a population and never costs
a compilation; a *static* decides a shape or a Python branch; a *derived* leaf
is computed on the host from the others before a run starts, since float32 would
round it. The method's file declares the default, valid range and search space
of each, and why it is dead where the reference samples a value and ignores it:

  @struct.dataclass
  class Hparams:
    learning_rate: Array = leaf(1e-3, valid=POSITIVE, search=RATE)
    num_epochs: Array = leaf(3, valid=COUNT, search=EPOCHS)
    batch_size: int = static(64, valid=COUNT, search=BATCH)
"""

import collections
import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax import struct


@dataclasses.dataclass(frozen=True)
class Interval:
  """Allowed values; open ends are excluded from the interval."""

  low: float = -math.inf
  high: float = math.inf
  low_open: bool = False
  high_open: bool = False

  def __contains__(self, value: float) -> bool:
    above = value > self.low if self.low_open else value >= self.low
    below = value < self.high if self.high_open else value <= self.high
    return above and below

  def __str__(self) -> str:
    left, right = '(['[not self.low_open], ')]'[not self.high_open]
    return f'{left}{self.low:.12g}, {self.high:.12g}{right}'


@dataclasses.dataclass(frozen=True)
class Uniform:
  """Search uniformly between two values; integers if both ends are."""

  low: float
  high: float


@dataclasses.dataclass(frozen=True)
class LogUniform:
  """Search uniformly in the logarithm between two values."""

  low: float
  high: float


@dataclasses.dataclass(frozen=True)
class Choice:
  """Search among listed values."""

  values: tuple[Any, ...]


@dataclasses.dataclass(frozen=True)
class EpochBudget:
  """Search integers from 1 to a fifth of the training epochs (rounded up).

  With `real`, search real numbers in the same range. Source: the benchmark's
  time budget of 20% of retraining.
  """

  real: bool = False


@dataclasses.dataclass(frozen=True)
class MostEpochs:
  """Hold at the largest number of epochs that a search tries.

  For statics that reserve room for something per epoch.
  """


NON_NEGATIVE = Interval(0.0)
POSITIVE = Interval(0.0, low_open=True)
FRACTION = Interval(0.0, 1.0)
# Beyond any use; larger numbers are typing errors, and most would not fit into
# int32 or into memory.
COUNT = Interval(0, 10_000_000)
AT_LEAST_ONE = Interval(1, 10_000_000)
ANY = Interval()

MOST_SEED = 2**32 - 1  # jax.random.key truncates to 32 bits
# Larger numbers would take years or exceed the memory; the limits catch typing
# errors before anything is allocated.
FEW = Interval(1, 10_000)
MOST_MEMBERS = 100_000

# The search spaces that the benchmark shares between methods.
RATE = LogUniform(1e-5, 1e-1)
UNIT = Uniform(0.0, 1.0)
EPOCHS = EpochBudget()
BATCH = Choice((64, 128, 256))
TEMPERATURE = Uniform(0.0, 5.0)


def leaf(
  default: Any, *, valid: Interval = ANY, search: Any = None, dead: str = ''
) -> Any:
  """Declare a value that may differ per member without a new compilation.

  Args:
    default: the reference's default; an int makes an int32 leaf, else float.
      A tuple makes an array [len]; a single number then stands for all of it.
    valid: the range outside which a run is refused before it starts.
    search: the benchmark's search space, None if the value is held fixed.
    dead: why the value has no effect, where the reference samples it anyway;
      the contract test checks the claim.
  """
  meta = dict(valid=valid, search=search, dead=dead, default=default)
  return struct.field(
    default_factory=lambda: _as_leaf(default), metadata={'hparam': meta}
  )


def static(
  default: Any,
  *,
  valid: Interval | tuple[Any, ...] = ANY,
  search: Any = None,
  dead: str = '',
) -> Any:
  """Declare a value that decides a shape or a branch; see `leaf`.

  Here `valid` may also be the tuple of allowed values.
  """
  meta = dict(valid=valid, search=search, dead=dead, default=default)
  return struct.field(
    pytree_node=False, default=default, metadata={'hparam': meta}
  )


def derived() -> Any:
  """Declare integers that a method's `prepare` computes exactly on the host."""
  return struct.field(default=None, metadata={'derived': True})


def _as_leaf(value: Any) -> np.ndarray:
  # A Python scalar is weakly typed and would be traced again beside an array.
  # Host float64 keeps a fraction exact until `prepare` has used it.
  integer = isinstance(value, int | np.integer)
  return np.asarray(value, np.int32 if integer else np.float64)


def declared(cls: type) -> list[dataclasses.Field[Any]]:
  """Return the fields a user may set: leaves and statics, not derived ones."""
  return [f for f in dataclasses.fields(cls) if 'hparam' in f.metadata]


def meta(field: dataclasses.Field[Any]) -> dict[str, Any]:
  """Return what `leaf` or `static` declared for a field."""
  return field.metadata['hparam']


def is_static(field: dataclasses.Field[Any]) -> bool:
  """Return whether a field was declared with `static`."""
  return not field.metadata.get('pytree_node', True)


def defaults(cls: type) -> dict[str, Any]:
  """Return the defaults of a hyper-parameter class as Python values."""
  return {f.name: meta(f)['default'] for f in declared(cls)}


def from_config(cls: type, values: Mapping[str, Any], where: str = '') -> Any:
  """Build hyper-parameters from plain values, checking names, types, ranges.

  Args:
    cls: a class whose fields are declared with `leaf` and `static`.
    values: names to numbers (or strings, for static choices); missing ones keep
      their defaults.
    where: prefix of the names in error messages, such as 'config.unlearn.'.

  Returns:
    An instance of `cls` whose leaves are scalar host arrays.

  Raises:
    ValueError: an unknown name, a value of the wrong type or out of range; the
      message names the value and what is allowed.
  """
  fields = {f.name: f for f in declared(cls)}
  for name in values:
    if name not in fields:
      raise ValueError(
        f'{where}{name} is unknown; choose from: {", ".join(fields)}'
      )
  checked = {k: _check(fields[k], v, where) for k, v in values.items()}
  return cls(**checked)


def _check(field: dataclasses.Field[Any], value: Any, where: str) -> Any:
  info = meta(field)
  valid, default = info['valid'], info['default']
  if isinstance(default, tuple):
    return _check_list(field, value, where)
  fault = _fault(value, valid, default)
  if fault:
    raise ValueError(f'{where}{field.name} = {value!r}; {fault}')
  if isinstance(default, bool | str) or isinstance(valid, tuple):
    return value
  value = int(value) if isinstance(default, int) else float(value)
  if is_static(field):
    return value
  if isinstance(value, int) and abs(value) >= 2**31:
    raise ValueError(
      f'{where}{field.name} = {value!r}; give a number below 2**31 (int32)'
    )
  return _as_leaf(value)


_LARGEST, _SMALLEST = (
  float(getattr(np.finfo(np.float32), end)) for end in ('max', 'tiny')
)


def _fault(value: Any, valid: Interval | tuple[Any, ...], default: Any) -> str:
  if isinstance(valid, tuple):
    return '' if value in valid else f'choose one of {list(valid)}'
  if isinstance(default, bool | str):
    kind = type(default).__name__
    return '' if isinstance(value, type(default)) else f'give a {kind}'
  number = isinstance(value, int | float | np.number)
  if not number or isinstance(value, bool) or value != value:
    return 'give a finite number'
  if abs(value) > _LARGEST:
    return f'give a finite number, of at most {_LARGEST:.2g} (float32)'
  if value and abs(value) < _SMALLEST:
    return f'float32 makes it 0; give 0 or at least {_SMALLEST:.2g}'
  if isinstance(default, int) and not float(value).is_integer():
    return 'give a whole number'
  return '' if float(value) in valid else f'give a value in {valid}'


def _check_list(
  field: dataclasses.Field[Any], value: Any, where: str
) -> np.ndarray:
  size = len(meta(field)['default'])
  one_by_one = value if isinstance(value, list | tuple) else [value]
  whole = f'{where}{field.name} = {value!r}'
  if not 1 <= len(one_by_one) <= size:
    raise ValueError(
      f'{whole}; give 1 to {size} numbers; the last one is repeated'
    )
  for number in one_by_one:
    fault = _fault(number, meta(field)['valid'], 0.0)
    if fault:
      raise ValueError(f'{whole}; {fault} in each place')
  repeats = [one_by_one[-1]] * (size - len(one_by_one))
  return np.asarray([*one_by_one, *repeats], np.float64)


def check_whole(
  name: str, value: Any, least: int = 0, most: int = MOST_SEED
) -> int:
  """Return a whole number after checking its type and range.

  Raises:
    ValueError: it is not a whole number, or out of range.

  Example:
    >>> check_whole('seed', 7)
    7
  """
  whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
  if not whole or not least <= value <= most:
    raise ValueError(
      f'{name} = {value!r}; give a whole number from {least} to {most}'
    )
  return int(value)


def stack(members: Sequence[Any]) -> Any:
  """Stack hyper-parameters of several members along a new leading axis.

  Raises:
    ValueError: members differ in a static value; group them first.
  """
  first = members[0]
  for other in members[1:]:
    for field in dataclasses.fields(first):
      a, b = getattr(first, field.name), getattr(other, field.name)
      if is_static(field) and a != b:
        raise ValueError(
          f'members differ in the static {field.name} ({a!r} and {b!r}); '
          'group them with `group_by_static` and run one group at a time'
        )
  return jax.tree.map(lambda *leaves: np.stack(leaves), *members)


def group_by_static(members: Sequence[Any]) -> dict[tuple[Any, ...], list[int]]:
  """Group members that one compiled program can serve.

  Returns:
    A dict from static values to the indices of the members that share them.
  """
  groups = collections.defaultdict(list)
  for index, member in enumerate(members):
    values = tuple(
      getattr(member, f.name)
      for f in dataclasses.fields(member)
      if is_static(f)
    )
    groups[values].append(index)
  return dict(groups)
