"""The meaning of a number of a report: an entry of the glossary."""

import dataclasses

BENCHMARK = 'Cadet et al. 2024, arXiv 2410.01276'
PROJECT = 'this project'

UNITS = ('', 'fraction', 'ratio', 'times', 'seconds', 'count', 'nats')
DIRECTIONS = ('higher', 'lower', 'retrained', 'half', 'one', 'zero', 'none')


@dataclasses.dataclass(frozen=True)
class Term:
  """The meaning of one number.

  Attributes:
    title: short name, for headings and columns.
    sentence: one sentence that explains it, with a full stop. In
      the terms of an attack, '{attack}' stands for the attack as the subject
      of a sentence.
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
