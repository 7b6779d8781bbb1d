"""Terms of reports, roles of examples, words of messages, numbers in text."""

import dataclasses
import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

_N = TypeVar('_N', int, float)

BENCHMARK = 'Cadet et al. 2024, arXiv 2410.01276'
PROJECT = 'this project'

UNITS = ('', 'fraction', 'ratio', 'times', 'seconds', 'count', 'nats')
DIRECTIONS = ('higher', 'lower', 'retrained', 'half', 'one', 'zero', 'none')

# The role of an example in the training of a model: the codes of every `state`
# array [P, N]. They are written into files of scores, so they never change.
RETAINED = 0  # trained on, and kept
FORGOTTEN = 1  # trained on, and to be unlearned
NEVER_SEEN = 2  # in the pool, but not in this model's training set
EXCLUDED = 3  # in no set: validation, test


@dataclasses.dataclass(frozen=True)
class Term:
  """The meaning of one number.

  Attributes:
    title: short name, for headings and columns.
    sentence: one sentence that explains it, with a full stop. In the terms of
      an attack, '{attack}' stands for the attack as the subject of a sentence.
    unit: one of `UNITS`.
    better: which values are better, one of `DIRECTIONS`: 'retrained', 'half',
      'one' and 'zero' mean that closer to that value is better.
    source: where the definition comes from.

  Raises:
    ValueError: a unit or direction that does not exist.
  """

  title: str
  sentence: str
  unit: str = ''
  better: str = 'none'
  source: str = PROJECT

  def __post_init__(self) -> None:
    for name, allowed in (('unit', UNITS), ('better', DIRECTIONS)):
      value = getattr(self, name)
      if value not in allowed:
        raise ValueError(
          f'{name} of the term {self.title!r} is {value!r}; choose one of '
          f'{", ".join(map(repr, allowed))}'
        )


def readable_bytes(count: float) -> str:
  """Return bytes in decimal units.

  Example:
    >>> readable_bytes(17), readable_bytes(1_500_000)
    ('17 B', '1.5 MB')
  """
  for unit in ('B', 'kB', 'MB', 'GB'):
    if count < 1000:
      return f'{count:.0f} {unit}' if unit == 'B' else f'{count:.1f} {unit}'
    count /= 1000
  return f'{count:.1f} TB'


def count(number: int, noun: str, plural: str = '') -> str:
  """Return a number with its noun.

  Example:
    >>> count(1, 'file'), count(1200, 'file'), count(2, 'index', 'indices')
    ('1 file', '1,200 files', '2 indices')
  """
  return f'{number:,} {noun if number == 1 else plural or noun + "s"}'


def dotted(
  values: Mapping[str, Any], prefix: str = ''
) -> Iterator[tuple[str, Any]]:
  """Yield the values of nested mappings with their dotted names.

  Example:
    >>> dict(dotted({'seed': 3, 'run': {'chunk': 1, 'more': {}}}))
    {'seed': 3, 'run.chunk': 1}
  """
  for name, value in values.items():
    if isinstance(value, Mapping):
      yield from dotted(value, f'{prefix}{name}.')
    else:
      yield f'{prefix}{name}', value


def number(text: str, kind: Callable[[str], _N]) -> _N:
  """Return the number that a user has written.

  Unlike `int` and `float`, it takes decimal digits of ASCII alone: '1_0' and
  digits of other scripts are refused.

  Args:
    text: such as '10', '1e-3' or, for float, 'inf'.
    kind: int or float.

  Raises:
    ValueError: it is no such number.

  Example:
    >>> number('10', int), number('1e-3', float)
    (10, 0.001)
  """
  if '_' in text or not text.isascii():
    raise ValueError(f'{text!r} is not a decimal number')
  return kind(text)


def nearest(name: object, known: Iterable[str]) -> str:
  """Return 'did you mean ...? ' for the known name nearest to a wrong one.

  Besides similar spellings in any case, it suggests names that contain the
  wrong one (`epochs` for `num_epochs`) or that it abbreviates (`lr` for
  `learning_rate`).

  Returns:
    '' if none is near.

  Example:
    >>> nearest('FT', ['ct', 'ft'])
    "did you mean 'ft'? "
  """
  name, by_case = str(name).lower(), {one.lower(): one for one in known}
  initials = [
    one for one in by_case if name == ''.join(w[:1] for w in one.split('_'))
  ]
  close = difflib.get_close_matches(name, by_case, n=1)
  inside = [one for one in by_case if len(name) > 2 and name in one]
  similar = [*initials, *close, *inside]
  return f'did you mean {by_case[similar[0]]!r}? ' if similar else ''


def choices(name: str, known: Iterable[str]) -> str:
  """Return the remedy for a wrong name: the nearest known one, and all."""
  known = list(known)
  return f'{nearest(name, known)}choose from {", ".join(known)}'


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
  """Return rows as lines with aligned columns.

  Example:
    >>> columns([['stage', 'size'], ['models', '1.5 MB']])
    ['stage   size', 'models  1.5 MB']
  """
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  return [
    '  '.join(
      cell.ljust(width) for cell, width in zip(row, widths, strict=True)
    ).rstrip()
    for row in rows
  ]
