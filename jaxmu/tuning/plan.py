"""The cost of a search: described before it trains, shown while it trains."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from jaxmu import files, methods
from jaxmu import hparams as hp
from jaxmu.report import progress, results
from jaxmu.study import planner
from jaxmu.study.settings import Settings, Unlearner
from jaxmu.tuning import opening, spaces

INTERVAL = 60.0  # seconds between lines where there is no terminal


def text(settings: Settings) -> str:
  """Describe a search; trains nothing.

  Raises:
    ValueError: the search cannot be made.
  """
  lines: list[str] = []
  opened = opening.open_search(settings, lines.append, probe=False)
  lines += _baselines(opened) if opened.steps else []
  wanted = opening.targets(settings)
  for one, space in zip(wanted, opened.spaces, strict=True):
    lines += _method(settings, one, space)
  lines.append(f'work           {opened.work:.3g} forward passes of one image')
  speed = planner.FORWARDS * planner.images_per_second(opened.job)
  if speed:
    seconds = opened.work / speed
    lines.append(
      f'time           about {planner.duration(seconds)} at '
      f'{speed:,.0f} forward passes/s, measured in training on this '
      'machine; without compilation'
    )
  else:
    lines.append(
      'time           not known: python -m jaxmu.main --plan with the same '
      'configuration measures the speed of this machine'
    )
  lines.append(
    f'disk           {planner.bytes_to_write(opened.steps):,} bytes of models '
    f'and a few kB per generation in {files.shown(opened.job.folder)}'
  )
  return '\n'.join(lines)


def _baselines(opened: opening.Opened) -> list[str]:
  counts = [f'{s.models} {s.stage.split()[-1]}' for s in opened.steps]
  left = sum(step.missing for step in opened.steps)
  return [f'baselines      {", ".join(counts)}; {left} still to train']


def _method(
  settings: Settings, one: Unlearner, space: spaces.Space
) -> list[str]:
  search, planned = settings.search, opening.budget(settings, space)
  how = 'all of a grid' if space.is_grid else search.sampler
  judged = (
    f'the best {planned.finalists} judged on {search.judges} others'
    if search.judges
    else 'the best value wins'
  )
  count = min(programs(one, space), planned.models)
  return [
    f'{methods.get(one.method).name:<15}{planned.trials} trials: '
    f'{planned.per_study} for each of {search.initialisations} '
    f'initialisations, {how}; {judged}: {planned.models} models, '
    f'{count} program{"s" * (count != 1)}',
    *(f'{"":<15}  {n} in {_words(kind)}' for n, kind in space.searched.items()),
  ]


def programs(one: Unlearner, space: spaces.Space) -> int:
  """Return how many programs a search compiles: one per static choice."""
  count = 1
  for field in hp.declared(methods.get(one.method).Hparams):
    kind = space.searched.get(field.name)
    if hp.is_static(field) and kind is not None:
      count *= spaces.num_values(kind)
  return count


def _words(kind: Any) -> str:
  if hasattr(kind, 'choices'):
    return f'{list(kind.choices)}'
  return f'[{kind.low:g}, {kind.high:g}]' + (
    ', logarithmic' if kind.log else ''
  )


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
