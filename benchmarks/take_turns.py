"""Several programs in turn on the same cores.

Every backend has its own processes and waits on a pipe while another one runs.
In a round each backend runs twice, and the second turn counts, so that other
load on the machine affects all equally. A method of a backend is called by
name: `call` returns its result, `rounds` times it.
"""

import contextlib
import multiprocessing
import os
import statistics
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

PAUSE = 0.2  # seconds between turns, for threads that spin before they sleep


def columns(
  speed: str,
  amount: float,
  spent: Sequence[float],
  ours: Sequence[float],
  *,
  decimals: int = 0,
) -> dict[str, str]:
  """Return the columns of a backend's speed, and of its ratio to ours.

  Args:
    speed: name of the column of the speed.
    amount: what is done in a turn.
    spent: seconds of the turns of the backend.
    ours: seconds of the turns of jaxmu; the ratios are empty for these.
    decimals: digits after the point of the speed.
  """
  found = spread([amount / s for s in spent])
  times = ratios(spent, ours)
  parts = {
    'speed_up': times.median,
    'ratio_low': times.low,
    'ratio_high': times.high,
  }
  return {
    speed: f'{found.median:.{decimals}f}',
    'low': f'{found.low:.{decimals}f}',
    'high': f'{found.high:.{decimals}f}',
    **{n: '' if spent is ours else f'{x:.2f}' for n, x in parts.items()},
  }


class Backend:
  """One backend: a few processes, each with an object that `make` built there.

  Attributes:
    name: as it stands in tables.
  """

  def __init__(
    self,
    name: str,
    make: Callable[..., Any],
    options: Sequence[dict[str, Any]],
    environment: dict[str, str] | None = None,
  ):
    self.name = name
    context = multiprocessing.get_context('spawn')
    self._pipes, self._processes = [], []
    before = dict(os.environ)
    os.environ.update(environment or {})  # new processes inherit it
    for one in options:
      ours, theirs = context.Pipe()
      process = context.Process(
        target=_serve, args=(theirs, make, one), daemon=True
      )
      process.start()
      theirs.close()
      self._pipes.append(ours)
      self._processes.append(process)
    os.environ.clear()
    os.environ.update(before)
    try:
      self._receive()
    except RuntimeError:
      self.close()
      raise

  def call(self, method: str, *args: Any) -> list[Any]:
    """Call a method in every process and return the results."""
    return [result for _, result in self._ask(method, args)]

  def seconds(self, method: str, *args: Any) -> float:
    """Call a method in all processes at once and time the slowest."""
    return max(seconds for seconds, _ in self._ask(method, args))

  def close(self) -> None:
    """End the processes."""
    for pipe, process in zip(self._pipes, self._processes, strict=True):
      with contextlib.suppress(OSError):  # it may have died
        pipe.send(None)
      process.join()

  def __enter__(self) -> 'Backend':
    return self

  def __exit__(self, *_: Any) -> None:
    self.close()

  def _ask(self, method: str, args: tuple) -> list[tuple[float, Any]]:
    for pipe in self._pipes:
      pipe.send((method, args))
    return self._receive()

  def _receive(self) -> list[tuple[float, Any]]:
    try:
      answers = [pipe.recv() for pipe in self._pipes]
    except EOFError as error:
      raise RuntimeError(
        f'{self.name}: a process died; out of memory?'
      ) from error
    for answer in answers:
      if isinstance(answer, str):
        raise RuntimeError(f'{self.name} failed:\n{answer}')
    return answers


def _serve(pipe: Any, make: Callable[..., Any], options: dict) -> None:
  try:
    made = make(**options)
    pipe.send((0.0, None))
    while (message := pipe.recv()) is not None:
      method, args = message
      begin = time.perf_counter()
      result = getattr(made, method)(*args)
      pipe.send((time.perf_counter() - begin, result))
  except Exception:
    pipe.send(traceback.format_exc())


def rounds(
  backends: Sequence[Backend], method: str, count: int, *args: Any
) -> dict[str, list[float]]:
  """Run the backends in turn, `count` times.

  Each turn is taken twice, and the second one counts: memory that a process has
  given back while others ran must be got from the system again, which happens
  once in training and can take longer than a short turn.

  Returns:
    Seconds of each turn that counts, by backend.
  """
  seconds: dict[str, list[float]] = {backend.name: [] for backend in backends}
  for _ in range(count):
    for backend in backends:
      time.sleep(PAUSE)
      backend.seconds(method, *args)
      seconds[backend.name].append(backend.seconds(method, *args))
  return seconds


class Spread(NamedTuple):
  """Median, lowest and highest of some numbers."""

  median: float
  low: float
  high: float

  def __str__(self) -> str:
    return f'{self.median:.4g} [{self.low:.4g}, {self.high:.4g}]'


def spread(values: Sequence[float]) -> Spread:
  """Summarise numbers."""
  return Spread(statistics.median(values), min(values), max(values))


def ratios(slow: Sequence[float], fast: Sequence[float]) -> Spread:
  """Compare two backends round by round: how many times as fast the second is.

  Turns that were not taken in the same rounds are compared with the median.
  """
  if len(slow) != len(fast):
    fast = [statistics.median(fast)] * len(slow)
  return spread([a / b for a, b in zip(slow, fast, strict=True)])
