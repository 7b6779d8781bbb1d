"""The operations of compiled programs, read from their text."""

import re

from jaxmu.study.compiled import INSTRUCTION, parse

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
  for name, lines in parse(text)[1].items():
    if name.startswith('fused_computation'):  # it only describes a fusion
      continue
    for match in filter(None, map(INSTRUCTION.match, lines)):
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


def _operations(text: str) -> set[str]:
  found = filter(None, map(INSTRUCTION.match, text.splitlines()))
  names = {match['operation'] for match in found}
  return {re.sub('-(start|done|update)$', '', one) for one in names}
