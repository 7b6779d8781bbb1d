"""When memory runs out: half the chunk, the same work again.

The work that failed is started anew, because its state was given away to the
program that failed; nothing that was finished is lost.
"""

from collections.abc import Callable
from typing import Protocol, TypeVar

import jax

from jaxmu import population

T = TypeVar('T')

_SIGNS = ('RESOURCE_EXHAUSTED', 'OUT_OF_MEMORY', 'Out of memory')


class TooLarge(Exception):
  """A program needs more memory than it may take; it was not started."""


class Narrowable(Protocol):
  """A compiled program that can be made anew for smaller chunks."""

  layout: population.Layout

  def narrow(self) -> None:
    """Halve the chunk and forget what was compiled."""
    ...


def ran_out(error: BaseException) -> bool:
  """Whether an error means that memory ran out."""
  if isinstance(error, TooLarge | MemoryError):
    return True
  text = str(error)
  return isinstance(error, jax.errors.JaxRuntimeError) and any(
    sign in text for sign in _SIGNS
  )


def attempt(
  work: Callable[[], T],
  program: Narrowable,
  *,
  on_smaller: Callable[[int], None] = lambda chunk: None,
) -> T:
  """Do work, with half the chunk as often as memory runs out.

  Args:
    work: uses `program` and may be started again.
    program: what is made smaller.
    on_smaller: called with the new chunk before each new start.

  Raises:
    ValueError: memory ran out at a chunk of 1; the message says what helps.
  """
  while True:
    try:
      return work()
    except Exception as error:
      if not ran_out(error):
        raise
      if program.layout.chunk == 1:
        raise ValueError(_remedy(program.layout, error)) from error
    # Outside the handler, whose traceback would keep the arrays alive.
    program.narrow()
    on_smaller(program.layout.chunk)


def _remedy(layout: population.Layout, error: Exception) -> str:
  cause = str(error).strip().split('\n')[0][:200]
  return (
    f'memory ran out with one model at a time on {layout.devices} device(s) '
    f'({cause}); hold fewer models at once (config.run.shard), use smaller '
    'batches (batch_size) or a smaller model, or allow more memory '
    '(config.run.memory)'
  )
