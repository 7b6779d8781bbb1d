"""Progress of long stages, with an estimate of the time left.

On a terminal each stage has a bar; elsewhere (files, notebooks, logs of CI) it
prints a plain line at intervals, also while nothing is done, as in a
compilation. Each stage ends with one permanent line. The estimate excludes the
time up to the first unit, which includes compilation.

  with progress.Progress() as bars:
    with bars.stage('originals', 16, unit='models') as stage:
      for chunk in chunks:
        train(chunk)
        stage.advance(len(chunk))
"""

import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import TextIO

import rich.console
import rich.progress
import rich.text

from jaxmu.report import results


class Progress:
  """Shows the progress of stages, one after another or nested.

  Args:
    stream: where to write; the standard output by default.
    interval: seconds between plain lines, where the stream is not a terminal.
    clock: a monotonic clock in seconds.
  """

  def __init__(
    self,
    stream: TextIO | None = None,
    *,
    interval: float = 15.0,
    clock: Callable[[], float] = time.monotonic,
  ):
    output: TextIO = sys.stdout if stream is None else stream
    self.clock = clock
    self.interval = interval
    self._console = rich.console.Console(file=output, highlight=False)
    self.bars: rich.progress.Progress | None = None
    if output.isatty() and self._console.is_terminal:
      self.bars = rich.progress.Progress(
        rich.progress.TextColumn('{task.description}', markup=False),
        rich.progress.BarColumn(bar_width=24),
        rich.progress.TextColumn('{task.fields[count]}', markup=False),
        rich.progress.TimeElapsedColumn(),
        rich.progress.TextColumn('{task.fields[left]}', markup=False),
        rich.progress.TextColumn(
          '{task.fields[note]}', style='dim', markup=False
        ),
        console=self._console,
        refresh_per_second=4,
        transient=True,  # each stage prints a final line instead
      )

  def __enter__(self) -> 'Progress':
    return self

  def __exit__(
    self,
    kind: type[BaseException] | None,
    error: BaseException | None,
    trace: TracebackType | None,
  ) -> None:
    if self.bars is not None:
      self.bars.stop()

  def stage(
    self, name: str, total: int, *, unit: str = '', per: int = 1
  ) -> 'Stage':
    """Start a stage.

    Args:
      name: what is being done.
      total: units of work, at least 0.
      unit: what a shown unit is, in the plural.
      per: units of work in a shown unit.

    Returns:
      The stage, a context manager; without `with`, call its `finish`.
    """
    if self.bars is not None:
      self.bars.start()
    return Stage(self, name, total, unit, per)

  def line(self, text: str) -> None:
    """Write a permanent line, above any bars."""
    self._console.print(rich.text.Text(text), soft_wrap=True)
    self._console.file.flush()


class Stage:
  """A running stage. Methods may be called from any thread."""

  def __init__(
    self, progress: Progress, name: str, total: int, unit: str, per: int
  ):
    self._progress = progress
    self._name = name
    self._total = total
    self._per = per
    self._unit = f' {unit}' if unit else ''
    self._done = 0
    self._start = progress.clock()
    self._first: tuple[float, int] | None = None  # time and units then done
    self._last_line = self._start
    self._note = ''
    self._lock = threading.Lock()
    self._finished = False
    self._task: rich.progress.TaskID | None = None
    if progress.bars is not None:
      self._task = progress.bars.add_task(
        name, total=total, count=self._count(), left='', note=''
      )
    else:
      progress.line(f'{name}: {self._count()}')
      self._ended = threading.Event()
      threading.Thread(target=self._beat, daemon=True).start()

  def __enter__(self) -> 'Stage':
    return self

  def __exit__(
    self,
    kind: type[BaseException] | None,
    error: BaseException | None,
    trace: TracebackType | None,
  ) -> None:
    self.finish(stopped=kind is not None)

  def advance(self, units: int = 1) -> None:
    """Count units as done."""
    with self._lock:
      now = self._progress.clock()
      self._done += units
      if self._first is None:
        self._first = (now, self._done)
      bars = self._progress.bars
      if bars is not None and self._task is not None:
        bars.update(
          self._task,
          completed=self._done,
          count=self._count(),
          left=self._left(now),
        )
      else:
        self._line(now)

  def _beat(self) -> None:
    """Print lines while nothing advances."""
    while not self._ended.wait(self._progress.interval):
      with self._lock:
        self._line(self._progress.clock())

  def _line(self, now: float) -> None:
    """Print a line if the last one is old enough."""
    fresh = now - self._last_line < self._progress.interval
    if fresh or self._done >= self._total or self._finished:
      return
    self._last_line = now
    spent = results.format_duration(now - self._start)
    parts = f'{self._name}: {self._count()}', spent, self._left(now), self._note
    self._progress.line(', '.join(part for part in parts if part))

  def note(self, text: str) -> None:
    """Show a few words with the count, such as 'compiling'; '' clears them."""
    self._note = text
    bars = self._progress.bars
    if bars is not None and self._task is not None:
      bars.update(self._task, note=text)

  def finish(self, *, stopped: bool = False) -> None:
    """End the stage with one last line; further calls do nothing."""
    with self._lock:
      if self._finished:
        return
      self._finished = True
      bars = self._progress.bars
      if bars is not None and self._task is not None:
        bars.remove_task(self._task)
      else:
        self._ended.set()
      spent = results.format_duration(self._progress.clock() - self._start)
      if stopped:
        text = f'{self._name}: stopped at {self._count()} after {spent}'
      else:
        done = self._done // self._per
        text = f'{self._name}: {done}{self._units(done)} in {spent}'
      self._progress.line(text)

  def _count(self) -> str:
    done, total = self._done // self._per, self._total // self._per
    return f'{done} of {total}{self._units(total)}'

  def _units(self, number: int) -> str:
    """Return the unit, its first word in the singular for 1."""
    if number != 1:
      return self._unit
    noun, of, rest = self._unit.partition(' of ')
    return noun.removesuffix('s') + of + rest

  def _left(self, now: float) -> str:
    """Return the time left as text, '' while it is unknown."""
    if self._first is None:
      return ''
    since, before = self._first
    if self._done > before:
      seconds, how = (now - since) / (self._done - before), 'about'
    else:  # the first units include compilation, which is not repeated
      seconds, how = (now - self._start) / max(self._done, 1), 'at most'
    left = seconds * max(self._total - self._done, 0)
    return f'{how} {results.format_duration(left)} left'
