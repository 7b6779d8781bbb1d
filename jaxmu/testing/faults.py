"""How contract checks run their rules and report what is broken."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeVar

T = TypeVar('T')

# What was observed, and what to do: two sentences.
Findings = Iterator[tuple[str, str]]
Rule = Callable[[T], Findings]


class Fault(NamedTuple):
  """A broken rule.

  Attributes:
    rule: its name.
    observed: what was observed, a sentence.
    remedy: what to do, a sentence.
  """

  rule: str
  observed: str
  remedy: str


class ContractError(AssertionError):
  """A plug-in breaks rules of its contract.

  Attributes:
    faults: the broken rules.
  """

  def __init__(self, kind: str, name: str, faults: Sequence[Fault]):
    rules = len({fault.rule for fault in faults})
    count = f'{rules} rules' if rules > 1 else 'a rule'
    lines = [f'{kind} {name!r} breaks {count} for {kind}s:']
    lines += [f'  {f.rule}: {f.observed} {f.remedy}' for f in faults]
    super().__init__('\n'.join(lines))
    self.faults = tuple(faults)


def enforce(
  kind: str,
  name: str,
  contract: Mapping[str, Rule[T]],
  subject: T,
  *,
  rules: Sequence[str] | None = None,
  exempt: Mapping[str, str] | None = None,
  decisive: Sequence[str] = (),
) -> None:
  """Apply the rules of a contract.

  Args:
    kind: 'method', 'attack', 'metric' or 'model'.
    name: of the plug-in.
    contract: the rules by name, in the order in which they are applied.
    subject: what a rule is given.
    rules: names of the rules to apply; None for all.
    exempt: rules that do not apply, with reasons.
    decisive: rules that the later ones rely on; if one of them is broken, the
      later ones are not applied. The same holds after a rule that raised.

  Raises:
    ValueError: a rule that does not exist is named.
    ContractError: rules are broken.
  """
  exempt = exempt or {}
  unknown = {*(rules or ()), *exempt} - {*contract}
  if unknown:
    raise ValueError(
      f'no rules {sorted(unknown)} for {kind}s; rules are {", ".join(contract)}'
    )
  faults = [
    Fault(
      rule,
      f'card.exempt names {rule} without a reason.',
      'Say in a few words why the rule does not apply.',
    )
    for rule, reason in exempt.items()
    if not reason.strip()
  ]
  cause = None
  for rule in contract if rules is None else rules:
    if rule in exempt:
      continue
    before = len(faults)
    try:
      for observed, remedy in contract[rule](subject):
        faults.append(Fault(rule, observed, remedy))
    except Exception as error:
      cause = error
      text = ' '.join(str(error).split()) or 'no message'
      faults.append(
        Fault(
          rule,
          f'it ends in {type(error).__name__}: {text}.',
          'Its traceback is above.',
        )
      )
      break
    if len(faults) > before and rule in decisive:
      break
  if faults:
    raise ContractError(kind, name, faults) from cause
