"""What a claim is: a statement, and a function from cells to findings."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence

from jaxmu.claims.cells import CannotAnswer, Cell
from jaxmu.claims.evidence import Evidence, Number

ALL = 'all cells'
REPORTED, NOT_RUN = 'reported', 'not run'


@dataclasses.dataclass(frozen=True)
class Finding:
  """What one cell says of a claim.

  Attributes:
    cell: name of the cell, or `ALL`.
    statistic: the main number, in words.
    number: its value with its 95% interval, NaN where it has none.
    evidence: for and against the statement; None where it names no threshold.
    sentence: what was found, with the numbers.
    numbers: further numbers by name.
  """

  cell: str
  statistic: str
  number: Number
  evidence: Evidence | None
  sentence: str
  numbers: Mapping[str, float] = dataclasses.field(default_factory=dict)

  @property
  def verdict(self) -> str:
    """'holds', 'does not hold', 'undecided', or 'reported'."""
    return self.evidence.verdict if self.evidence else REPORTED


@dataclasses.dataclass(frozen=True)
class NotRun:
  """Why a cell does not answer a claim."""

  cell: str
  reason: str


Answers = list[Finding | NotRun]


@dataclasses.dataclass(frozen=True)
class Claim:
  """A claim about the benchmark.

  Attributes:
    number: its place in the list.
    title: the claim.
    statement: what is tested.
    needs: what a cell needs to answer it.
    answer: the findings of all cells.
  """

  number: int
  title: str
  statement: str
  needs: str
  answer: Callable[[Sequence[Cell]], Answers]


def per_cell(
  test: Callable[[Cell], Finding],
) -> Callable[[Sequence[Cell]], Answers]:
  """Return a function that tests every cell by itself."""

  @functools.wraps(test)
  def answer(cells: Sequence[Cell]) -> Answers:
    found: Answers = []
    for cell in cells:
      try:
        found.append(test(cell))
      except CannotAnswer as error:
        found.append(NotRun(cell.name, str(error)))
    return found

  return answer
