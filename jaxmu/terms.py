"""What a number of a report means: the entry of a metric in the glossary."""

import dataclasses

BENCHMARK = 'Cadet et al. 2024, arXiv 2410.01276'
PROJECT = 'this project'

UNITS = ('', 'fraction', 'ratio', 'times', 'seconds', 'count', 'nats')
DIRECTIONS = ('higher', 'lower', 'retrained', 'half', 'one', 'zero', 'none')


@dataclasses.dataclass(frozen=True)
class Term:
  """The meaning of one number.

  Attributes:
    title: a few words, for headings and columns.
    sentence: one sentence for a reader who is new to it, with a full stop. In
      the terms of an attack, '{attack}' stands for the attack as the subject
      of a sentence.
    unit: one of `UNITS`.
    better: which values are better, one of `DIRECTIONS`: 'retrained', 'half',
      'one' and 'zero' mean the closer to that value the better.
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
