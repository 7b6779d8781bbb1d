"""What a contract check says about a plug-in that breaks it."""

from collections.abc import Sequence
from typing import NamedTuple


class Fault(NamedTuple):
  """A broken rule.

  Attributes:
    rule: its name.
    found: what was observed, a sentence.
    remedy: what to do, a sentence.
  """

  rule: str
  found: str
  remedy: str


class ContractError(AssertionError):
  """A plug-in breaks rules of its contract.

  Attributes:
    faults: the broken rules.
  """

  def __init__(self, kind: str, name: str, faults: Sequence[Fault]):
    lines = [f'{kind} {name!r} breaks {len(faults)} of the rules for {kind}s:']
    lines += [f'  {f.rule}: {f.found} {f.remedy}' for f in faults]
    super().__init__('\n'.join(lines))
    self.faults = tuple(faults)
