"""The cost of a compiled program, and the operations in its text.

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


# Communication between devices, and with the host.
_COLLECTIVES = (
  *('all-gather', 'all-reduce', 'all-to-all', 'collective-broadcast'),
  *('collective-permute', 'ragged-all-to-all', 'reduce-scatter'),
)
_HOST = ('infeed', 'outfeed', 'recv', 'send')


def collectives(text: str) -> set[str]:
  """Return the operations by which devices of a program communicate."""
  return _operations(text) & set(_COLLECTIVES)


def host_contacts(text: str) -> set[str]:
  """Return the operations of a compiled program that wait for the host."""
  calls = re.findall(r'custom_call_target="([^"]*callback[^"]*)"', text)
  return _operations(text) & set(_HOST) | set(calls)


def copies(text: str, shape: str) -> list[str]:
  """Return the instructions that make another array of a shape in main memory.

  Args:
    text: of the compiled program.
    shape: as the program writes it, 'u8[60000,32,32,3]'.
  """
  found = []
  for name, lines in _computations(text)[1].items():
    if name.startswith('fused_computation'):  # it only describes a fusion
      continue
    for match in filter(None, map(_INSTRUCTION.match, lines)):
      # S(1) is the fast memory of a TPU, which holds small arrays for a while.
      if (
        match['type'].startswith(shape + '{')
        and 'S(1)' not in match['type']
        and match['operation'] not in _NO_COPY
      ):
        found.append(f'{match["name"]} = {match["operation"]}')
  return found


# Operations that pass an array on without copying it.
_NO_COPY = ('bitcast', 'get-tuple-element', 'parameter')

_INSTRUCTION = re.compile(
  r'\s+(?:ROOT )?%?(?P<name>[\w.\-]+) = (?P<type>\(.*?\)|\S+) '
  r'(?P<operation>[a-z][\w\-]*)\('
)


def _operations(text: str) -> set[str]:
  found = filter(None, map(_INSTRUCTION.match, text.splitlines()))
  names = {match['operation'] for match in found}
  return {re.sub('-(start|done|update)$', '', one) for one in names}


def cycles(text: str) -> float:
  """Return the estimated cycles of a compiled program, 0 without estimates.

  Raises:
    ValueError: the number of rounds of a loop is not known.
  """
  entry, computations = _computations(text)
  known: dict[str, float] = {}

  def total(name: str) -> float:
    if name not in known:
      known[name] = sum(map(one, computations[name]))
    return known[name]

  def one(line: str) -> float:
    own = re.search(r'"estimated_cycles":"(\d+)"', line)
    if own:
      return float(own[1])
    match = _INSTRUCTION.match(line)
    operation = match['operation'] if match else ''
    if operation == 'while':
      return _rounds(line, computations) * total(_called(line, 'body')[0])
    if operation == 'conditional':
      return max(map(total, _branches(line)))
    if operation == 'call':
      return sum(map(total, _called(line, 'to_apply')))
    return 0.0

  return total(entry) if 'estimated_cycles' in text else 0.0


def _computations(text: str) -> tuple[str, dict[str, list[str]]]:
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
