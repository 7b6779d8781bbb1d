"""Contract checks for the authors of methods, attacks, metrics and models.

    from jaxmu import testing

    testing.check_method('my_method.py')
    testing.check_attack('my_package.my_attack')
    testing.check_metric(METRIC)
    testing.check_model('my_net.py:Net', image_shape=(32, 32, 3))

A check takes a name, an import path, a file, a module or the object, see
`jaxmu.plugins`. It returns nothing if all rules hold and raises one
`ContractError` otherwise, with a line for each broken rule: its name, what was
observed, and what to do. The built-in entries pass the same checks. A rule that
does not apply is named in `Card.exempt`, with the reason.

Each check is imported when it is first used: attacks are checked without jax.
"""

import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from jaxmu import plugins

if TYPE_CHECKING:
  from jaxmu.testing.attacks import ATTACK_RULES as ATTACK_RULES
  from jaxmu.testing.attacks import check_attack as check_attack
  from jaxmu.testing.methods import METHOD_RULES as METHOD_RULES
  from jaxmu.testing.methods import check_method as check_method
  from jaxmu.testing.metrics import METRIC_RULES as METRIC_RULES
  from jaxmu.testing.metrics import check_metric as check_metric
  from jaxmu.testing.models import MODEL_RULES as MODEL_RULES
  from jaxmu.testing.models import check_model as check_model

__all__ = [
  'ATTACK_RULES',
  'METHOD_RULES',
  'METRIC_RULES',
  'MODEL_RULES',
  'ContractError',
  'Fault',
  'check_attack',
  'check_method',
  'check_metric',
  'check_model',
]


def __getattr__(name: str) -> Any:
  if name not in __all__:
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  kind = name.removeprefix('check_').removesuffix('_RULES').lower()
  module = importlib.import_module(f'{__name__}.{kind}s')
  value = getattr(module, name)
  globals()[name] = value
  return value


def __dir__() -> list[str]:
  return sorted({*globals(), *__all__})


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


# Rules that the later ones rely on, which compare arrays or numbers.
_DECISIVE = ('card', 'logits', 'result_is_like_the_start')


def enforce(
  kind: str,
  entry: Any,
  contract: Mapping[str, Rule[Any]],
  rules: Sequence[str] | None = None,
  *,
  subject: Any = None,
) -> None:
  """Apply the rules of a contract, except those that the entry's card exempts.

  After a rule that raised, and after a broken decisive one, the later rules are
  not applied.

  Args:
    kind: 'method', 'attack', 'metric' or 'model'.
    entry: the plug-in with its name and card, or only its name.
    contract: the rules by name, in the order in which they are applied.
    rules: names of the rules to apply; None for all.
    subject: what a rule is given; the entry if None.

  Raises:
    ValueError: a rule that does not exist is named.
    ContractError: rules are broken.
  """
  exempt = {} if isinstance(entry, str) else entry.card.exempt
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
      for observed, remedy in contract[rule](
        entry if subject is None else subject
      ):
        faults.append(Fault(rule, observed, remedy))
    except Exception as error:
      cause = error
      text = f'it ends in {plugins.reason(error)}.'
      faults.append(Fault(rule, text, 'Its traceback is above.'))
      break
    if len(faults) > before and rule in _DECISIVE:
      break
  if faults:
    name = entry if isinstance(entry, str) else entry.name
    raise ContractError(kind, name, faults) from cause
