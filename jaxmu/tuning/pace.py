"""Progress of a search: of the method being searched, and of all methods."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from jaxmu.report import progress, results

INTERVAL = 60.0  # seconds between lines where there is no terminal


class Pace:
  """Shows trials done, the best norm so far, trials per minute and time left.

  Finalists on further initialisations count as trials. The time left of the
  whole search follows from the trials trained so far, compilation included;
  trials that are read from the store take no time.

  Args:
    bars: where to show it.
    trials: how many each method has, by name.
    what: the norm is called.
    clock: a monotonic clock in seconds.
  """

  def __init__(
    self,
    bars: progress.Progress,
    trials: Mapping[str, int],
    what: str = 'norm',
    clock: Callable[[], float] = time.monotonic,
  ):
    self._bars, self._trials, self._clock = bars, dict(trials), clock
    self._what = what
    self._stage: progress.Stage | None = None
    self._finished = 0  # trials of finished methods
    self._done = self._trained = self._all_trained = 0
    self._seconds = 0.0  # of finished methods
    self._begin = 0.0
    self._best = np.inf

  @contextlib.contextmanager
  def method(self, name: str) -> Iterator[None]:
    """Show the search of one method during a block."""
    self._begin, self._best = self._clock(), np.inf
    self._done = self._trained = 0
    total = self._trials[name]
    try:
      with self._bars.stage(f'search {name}', total, unit='trials') as stage:
        self._stage = stage
        stage.note('compiling')
        yield
    finally:  # also of a method without a setting to choose
      self._finished += total
      self._all_trained += self._trained
      self._seconds += self._clock() - self._begin

  def advance(self, count: int, *, stored: bool, best: float = np.inf) -> None:
    """Count trials of the current method.

    Args:
      count: how many are done.
      stored: they were read, not trained.
      best: their smallest norm.
    """
    assert self._stage is not None, 'no method'
    self._best = min(self._best, best)
    self._done += count
    self._trained += 0 if stored else count
    self._stage.note(self.note())
    self._stage.advance(count)

  def note(self) -> str:
    """Return what is shown beside the number of trials."""
    spent = self._clock() - self._begin
    parts = []
    if np.isfinite(self._best):
      parts.append(f'best {self._what} {self._best:.4f}')
    if self._trained:
      parts.append(f'{60 * self._trained / max(spent, 1e-9):.0f} trials/min')
    if len(self._trials) > 1:
      done, total = self._finished + self._done, sum(self._trials.values())
      parts.append(
        f'all {len(self._trials)} methods: {done:,} of {total:,} trials'
      )
      trained = self._all_trained + self._trained
      if trained:
        each = (self._seconds + spent) / trained
        left = results.format_duration(each * max(total - done, 0))
        parts.append(f'about {left} left')
    return ', '.join(parts)
