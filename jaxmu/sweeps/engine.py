"""Engines: functions that run the units of a graph.

An engine takes the graph and what performs its units. It performs each unit
after those that it needs or uses. A unit that fails does not stop those that do
not need it.

  local    in this process, one after the other
  shared   in this process and others that are started like it
  Ray      in the processes of a cluster, see `jaxmu.sweeps.ray_engine`
"""

import contextlib
import time
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple, Protocol

from jaxmu import files, plugins, terms
from jaxmu.sweeps.graph import Graph, Unit
from jaxmu.sweeps.share import Share
from jaxmu.sweeps.status import State

KEPT = 'make room, and start the same command again: finished work is kept'


class Outcome(NamedTuple):
  """What an engine did.

  Attributes:
    failed: why units failed, by name.
    blocked: units that were not tried, because they need one of these.
  """

  failed: dict[str, str]
  blocked: list[str]


class NotReady(Exception):
  """What a unit needs is not in the store, although a record said so.

  Args:
    units: names of the units to make again.
  """

  def __init__(self, units: Collection[str]):
    super().__init__(', '.join(units))
    self.units = units


class Work(Protocol):
  """Performs units, and knows their state."""

  def __call__(self, unit: Unit, parts: Sequence[int] | None = None) -> None:
    """Make a unit, or some parts of it; raises what makes it impossible."""
    ...

  def claimed(
    self, unit: Unit, parts: Sequence[int]
  ) -> contextlib.AbstractContextManager[list[int]]:
    """Keep other processes from parts; gives those that none performs."""
    ...

  def survey(self) -> Mapping[str, State]:
    """Return the state of every unit by its name."""
    ...

  def tell(self, line: str) -> None:
    """Print a line."""
    ...


class Engine(Protocol):
  """Performs all units of a graph."""

  def __call__(self, graph: Graph, work: Work) -> Outcome:
    """Return what failed."""
    ...


def local(graph: Graph, work: Work) -> Outcome:
  """Perform all units in this process, one after the other.

  Args:
    graph: the units.
    work: makes one of them, or raises.
  """
  failed: dict[str, str] = {}
  blocked: list[str] = []
  again = True
  while again:
    again = False
    blocked.clear()
    made = {name for name, state in work.survey().items() if not state.left}
    for unit in graph:
      if unit.name in made or unit.name in failed:
        continue
      if not made.issuperset(unit.needs):
        blocked.append(unit.name)
        continue
      try:
        work(unit)
        made.add(unit.name)
      except NotReady:  # the next pass makes what is not there
        again = True
        break
      except Exception as error:  # whatever a plug-in or the machine raises
        failed[unit.name] = reason(error)
  return Outcome(failed, blocked)


def reason(error: Exception) -> str:
  """Return why a unit failed, in one line."""
  text = str(error) if isinstance(error, ValueError | OSError) else ''
  text = ' '.join(text.split()) or plugins.reason(error)
  if files.is_full(error) and not isinstance(error, ValueError):
    text += f'; {KEPT}'
  return text


class Verdict(NamedTuple):
  """Which units are finished, by name.

  Attributes:
    done: all parts are made.
    lost: a part failed.
    blocked: it needs a unit of these two kinds.
  """

  done: set[str]
  lost: set[str]
  blocked: set[str]

  def is_ready(self, unit: Unit) -> bool:
    """Return whether all that a unit needs and uses is finished."""
    settled = self.done | self.lost | self.blocked
    return self.done.issuperset(unit.needs) and settled.issuperset(unit.uses)


def judge(
  graph: Graph, made: Collection[str], failed: Collection[str]
) -> Verdict:
  """Return which units are finished.

  Args:
    graph: the units.
    made: names of units of which all parts are made.
    failed: names of units of which a part failed.
  """
  verdict = Verdict(set(), set(), set())
  for unit in graph:
    if unit.name in failed:
      verdict.lost.add(unit.name)
    elif (verdict.lost | verdict.blocked).intersection(unit.needs):
      verdict.blocked.add(unit.name)
    elif unit.name in made:
      verdict.done.add(unit.name)
  return verdict


class Shared:
  """Performs parts of units beside other processes that do the same.

  A process performs its own parts first, in order. When none is ready, it
  performs one of another process, unless that is being performed. What another
  process failed to make is tried once more.

  Args:
    share: which of the processes this is.
    pause: seconds between looks at what others have made.
  """

  def __init__(self, share: Share, pause: float = 1.0):
    self._share, self._pause = share, pause

  def __call__(self, graph: Graph, work: Work) -> Outcome:
    """Return what failed, once all units are made or have failed."""
    position = {unit.name: number for number, unit in enumerate(graph)}
    failed: dict[str, str] = {}
    told = -float('inf')
    while True:
      states = work.survey()
      complete = {name for name, state in states.items() if not state.left}
      verdict = judge(graph, complete, failed)
      ready = [
        unit
        for unit in graph
        if unit.name not in verdict.lost and verdict.is_ready(unit)
      ]
      left = [
        (unit, sorted(set(range(unit.tasks)) - states[unit.name].done))
        for unit in ready
        if unit.name not in complete
      ]
      own = [
        (unit, parts)
        for unit, every in left
        if (
          parts := [
            p for p in every if self._share.owns(position[unit.name], p)
          ]
        )
      ]
      # From the end, since the process that owns them begins at the front.
      others = [(unit, every[-1:]) for unit, every in left]
      if self._perform([*own, *others], work, failed):
        continue
      waiting = [
        u.name for u in graph if not any(u.name in names for names in verdict)
      ]
      if not waiting:
        return Outcome(failed, [u.name for u in graph if u.name in verdict[2]])
      if time.monotonic() > told + 60:
        told = time.monotonic()
        count = terms.count(len(waiting), 'unit')
        work.tell(f'waiting for other processes: {count}, {waiting[0]} first')
      time.sleep(self._pause)

  def _perform(
    self,
    candidates: Sequence[tuple[Unit, list[int]]],
    work: Work,
    failed: dict[str, str],
  ) -> bool:
    """Perform the first of some parts that no other process performs."""
    for unit, parts in candidates:
      try:
        with work.claimed(unit, parts) as free:
          if not free:
            continue
          work(unit, free)
      except NotReady:
        pass
      except Exception as error:  # whatever a plug-in or the machine raises
        failed[unit.name] = reason(error)
      return True
    return False
