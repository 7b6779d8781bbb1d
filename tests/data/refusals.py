"""Check how a function refuses bad input, over many cases at once."""

import re
from collections.abc import Callable, Iterable
from typing import Any


def unclear(
  call: Callable[[Any], Any], cases: Iterable[tuple[Any, str]]
) -> list[str]:
  """Return the cases that are not refused in one line with the reason.

  Args:
    call: takes a case and should raise ValueError.
    cases: each with a regular expression that the message has to match.
  """
  wrong = []
  for case, message in cases:
    try:
      call(case)
      wrong.append(f'{case!r:.60} is accepted')
    except ValueError as error:
      text = str(error)
      if '\n' in text or not re.search(message, text):
        wrong.append(f'{case!r:.60}: {text}')
  return wrong
