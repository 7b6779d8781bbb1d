"""The claims about the benchmark, tested on published tables.

    from jaxmu import claims
    from jaxmu.claims import cells

    found = claims.answers(cells.read('jaxmu/published/laptop'))

Each claim is a function of the tables of all cells. A cell that has what the
claim needs gives a verdict with the numbers behind it: *holds*, *does not
hold*, *undecided*, or *reported* where the claim names no threshold. The other
cells are *not run*, with what they lack.

  evidence      p-values of statements, and how they combine to verdicts
  cells         the tables
  accuracy, rankings, leaks
                the claims
  variants/     methods and a metric that only claims need
"""

import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

from jaxmu import files
from jaxmu.claims import accuracy, cells, leaks, rankings
from jaxmu.claims.cells import Cell
from jaxmu.claims.interface import ALL, NOT_RUN, Claim, Finding, NotRun
from jaxmu.published.computed import Computed
from jaxmu.report import results

CLAIMS: tuple[Claim, ...] = tuple(
  sorted(
    (*accuracy.CLAIMS, *rankings.CLAIMS, *leaks.CLAIMS),
    key=lambda claim: claim.number,
  )
)

STUDY = 'laptop'  # the published study
COLUMNS = (
  *('claim', 'title', 'statement', 'cell', 'verdict', 'statistic', 'value'),
  *('low', 'high', 'p_if_false', 'p_if_true', 'sentence'),
)


def answers(
  given: Sequence[Cell],
) -> Iterator[tuple[Claim, list[Finding | NotRun]]]:
  """Yield every claim with what the cells say of it.

  Args:
    given: of `jaxmu.claims.cells.read`. Without any, a claim has one answer,
      which says what it needs.
  """
  for claim in CLAIMS:
    found = claim.answer(given)
    yield claim, found or [NotRun(ALL, claim.needs)]


def rows(given: Sequence[Cell]) -> list[dict[str, Any]]:
  """Return all answers as rows of a table with the columns `COLUMNS`.

  Example:
    >>> table = rows([])
    >>> len(table), table[0]['verdict']
    (20, 'not run')
  """
  return [_row(claim, one) for claim, found in answers(given) for one in found]


def numbers(root: files.Path) -> Computed:
  """Return the numbers and verdicts of all answers, to publish them.

  Args:
    root: folder of all published results (`jaxmu.published`).

  Returns:
    Rows with the cell as `method`, for several cells their names joined by
    '_', and as `metric` 'claim_N' for the main number, 'claim_N/p_if_false' and
    'claim_N/p_if_true' for its evidence, and 'claim_N/NAME' for further
    numbers; the verdicts of the main numbers; and the titles and statements of
    the claims.
  """
  found: list[results.Row] = []
  verdicts: dict[str, str] = {}
  meanings: dict[str, str] = {}
  for claim, given in answers(cells.read(pathlib.Path(root) / STUDY)):
    for one in given:
      if isinstance(one, NotRun):
        continue
      cell = one.cell.replace(', ', '_').replace(' ', '_')
      name = f'claim_{claim.number}'
      value, low, high = map(float, one.number)
      found.append(results.Row(cell, name, value, low, high))
      verdicts[f'{cell}/{name}'] = one.verdict
      meanings[name] = f'{claim.title} {claim.statement}'
      further = dict(one.numbers)
      if one.evidence:
        p_values = {
          'p_if_false': one.evidence.false,
          'p_if_true': one.evidence.true,
        }
        further = {**p_values, **further}
      found += [
        results.Row(cell, f'{name}/{label}', float(value))
        for label, value in further.items()
      ]
  return Computed(found, verdicts, meanings)


def _row(claim: Claim, one: Finding | NotRun) -> dict[str, Any]:
  common = {
    'claim': claim.number,
    'title': claim.title,
    'statement': claim.statement,
    'cell': one.cell,
  }
  if isinstance(one, NotRun):
    blank = dict.fromkeys(COLUMNS, '')
    sentence = f'It needs {one.reason}.'
    return {**blank, **common, 'verdict': NOT_RUN, 'sentence': sentence}
  number, found = one.number, one.evidence
  return {
    **common,
    'verdict': one.verdict,
    'statistic': one.statistic,
    'value': _cell(number.value),
    'low': _cell(number.low),
    'high': _cell(number.high),
    'p_if_false': _cell(found.false) if found else '',
    'p_if_true': _cell(found.true) if found else '',
    'sentence': one.sentence,
  }


def _cell(value: float) -> str:
  """Return a number with six digits, '' if it is not available."""
  return f'{value:.6g}' if value == value else ''
