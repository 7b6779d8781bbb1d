"""The cost of a compiled program, from its text and the compiler.

Nothing runs. Cycles are estimates that the TPU compiler writes beside each
instruction, from its model of the hardware; other compilers write none.
"""

import re
from typing import Any, NamedTuple


class Cost(NamedTuple):
  """The cost of one call of a program on each device.

  Attributes:
    flops: floating-point operations, where each loop is counted once.
    bytes: memory read and written, where each loop is counted once.
    cycles: estimated by the compiler, with all rounds of all loops and the
      most expensive branch of every conditional; 0 if it estimates none.
  """

  flops: float
  bytes: float
  cycles: float


def cost(program: Any) -> Cost:
  """Return the cost of a compiled program."""
  account = program.cost_analysis() or {}
  return Cost(
    float(account.get('flops', 0.0)),
    float(account.get('bytes accessed', 0.0)),
    cycles(program.as_text()),
  )


# One instruction in the text of a program.
INSTRUCTION = re.compile(
  r'\s+(?:ROOT )?%?(?P<name>[\w.\-]+) = (?P<type>\(.*?\)|\S+) '
  r'(?P<operation>[a-z][\w\-]*)\('
)


def cycles(text: str) -> float:
  """Return the estimated cycles of a compiled program, 0 without estimates.

  Raises:
    ValueError: the number of rounds of a loop is not known.
  """
  entry, computations = parse(text)
  known: dict[str, float] = {}

  def total(name: str) -> float:
    if name not in known:
      known[name] = sum(map(one, computations[name]))
    return known[name]

  def one(line: str) -> float:
    own = re.search(r'"estimated_cycles":"(\d+)"', line)
    if own:
      return float(own[1])
    match = INSTRUCTION.match(line)
    operation = match['operation'] if match else ''
    if operation == 'while':
      return _rounds(line, computations) * total(_called(line, 'body')[0])
    if operation == 'conditional':
      return max(map(total, _branches(line)))
    if operation == 'call':
      return sum(map(total, _called(line, 'to_apply')))
    return 0.0

  return total(entry) if 'estimated_cycles' in text else 0.0


def parse(text: str) -> tuple[str, dict[str, list[str]]]:
  """Return the name of the first computation, and the lines of each."""
  entry, lines = '', {}
  current: list[str] = []
  for line in text.splitlines():
    head = re.match(r'(ENTRY )?%?([\w.\-]+) \(.*\) -> .*\{\s*$', line)
    if head:
      current = lines[head[2]] = []
      entry = head[2] if head[1] else entry
    elif line.startswith(' '):
      current.append(line)
  return entry, lines


def _called(line: str, role: str) -> list[str]:
  return re.findall(rf'\b{role}=%?([\w.\-]+)', line)


def _branches(line: str) -> list[str]:
  listed = re.search(r'branch_computations=\{([^}]*)\}', line)
  if listed:
    return [one.strip().lstrip('%') for one in listed[1].split(',')]
  return _called(line, '(?:true|false)_computation')


def _rounds(line: str, computations: dict[str, list[str]]) -> int:
  said = re.search(r'"known_trip_count":\{"n":"(\d+)"', line)
  if said:
    return int(said[1])
  # A loop that counts up to a constant.
  condition = computations[_called(line, 'condition')[0]]
  limits = [
    int(limit)
    for one in condition
    for limit in re.findall(r's32\[\]\S* constant\((\d+)\)', one)
  ]
  if len(limits) != 1:
    raise ValueError(f'the rounds of a loop are not known: {line.strip()[:80]}')
  return limits[0]
