"""Engines: functions that run the units of a graph.

An engine takes the graph and an object that performs units, `Work`. It starts
each unit after those that the unit needs or uses. A unit that fails does not
stop those that do not need it.

  local    in this process, one after the other
  shared   in this process and others that are started like it
  Ray      in the processes of a cluster, see `jaxmu.sweeps.ray_engine`

`--share=2/4` starts the second of four processes. Each process prefers parts of
its own, given by the position of their unit and their number. It performs parts
of others only when none of its own is ready, so that a process that never
starts, or is killed, does not stop the rest. Which process performs a part does
not change the part.
"""

import contextlib
import os
import re
import time
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple, Protocol

from jaxmu import files, plugins, terms
from jaxmu.sweeps.graph import Graph, Unit
from jaxmu.sweeps.status import State

AUTO = 'auto'

# Variables with the index of a process and the number of processes.
# JOB_COMPLETIONS is set in launch/kubernetes_jobset.yaml.
_SLURM = ('SLURM_ARRAY_TASK_ID', 'SLURM_ARRAY_TASK_MIN', 'SLURM_ARRAY_TASK_MAX')
_JOBSET = ('JOB_COMPLETION_INDEX', 'JOB_COMPLETIONS')
_TPU = ('TPU_WORKER_ID', 'TPU_WORKER_HOSTNAMES')


class Outcome(NamedTuple):
  """What an engine did.

  Attributes:
    failed: why units failed, by name.
    blocked: units that were not tried, because they need a failed unit.
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
  if isinstance(error, OSError):
    text = files.explain(error)
  else:
    text = str(error) if isinstance(error, ValueError) else ''
  text = ' '.join(text.split()) or plugins.reason(error)
  if files.is_full(error) and files.KEPT not in text:
    text += f'; make room, and {files.KEPT}'
  return text


class Verdict(NamedTuple):
  """Which units are finished, by name.

  Attributes:
    done: all parts are made.
    lost: a part failed.
    blocked: it needs a lost or a blocked unit.
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


class Share(NamedTuple):
  """One of several processes.

  Attributes:
    number: which one, from 0.
    total: how many there are.
  """

  number: int
  total: int

  def owns(self, position: int, part: int) -> bool:
    """Return whether a part of the unit at a position of the graph is its own.

    Example:
      >>> [Share(1, 3).owns(5, part) for part in range(4)]
      [False, False, True, False]
    """
    return (position + part) % self.total == self.number

  def __str__(self) -> str:
    return f'{self.number + 1}/{self.total}'


class Shared:
  """Performs parts of units beside other processes that do the same.

  A process performs its own parts first, in order. When none is ready, it
  performs one of another process, unless that process is at work on it. A part
  that failed in another process is tried once more.

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
        return Outcome(
          failed, [u.name for u in graph if u.name in verdict.blocked]
        )
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


def parse_share(
  text: str, environment: Mapping[str, str] = os.environ
) -> Share:
  """Return the share that a flag names.

  Args:
    text: INDEX/COUNT from 1, or 'auto' for that of a task of a Slurm array, of
      a pod of an indexed Kubernetes job, or of a host of a TPU slice.
    environment: variables of the process.

  Raises:
    ValueError: it names no share, or the process is none of these.

  Example:
    >>> parse_share('2/4')
    Share(number=1, total=4)
    >>> tpu = {'TPU_WORKER_ID': '0', 'TPU_WORKER_HOSTNAMES': 'a,b'}
    >>> parse_share('auto', tpu)
    Share(number=0, total=2)
  """
  if text == AUTO:
    return _detect(environment)
  found = re.fullmatch(r'([0-9]{1,6})/([0-9]{1,6})', text)
  index, count = map(int, found.groups()) if found else (0, 0)
  if not 1 <= index <= count:
    raise ValueError(
      f'--share={text}: give INDEX/COUNT, such as --share=1/4 to --share=4/4 '
      f'for four processes, or --share={AUTO}'
    )
  return Share(index - 1, count)


def _detect(environment: Mapping[str, str]) -> Share:
  def number(name: str) -> int:
    try:
      return terms.number(environment[name], int)
    except ValueError:
      raise ValueError(
        f'--share={AUTO}: {name}={environment[name]!r} is no number; give '
        'INDEX/COUNT'
      ) from None

  if all(name in environment for name in _SLURM):
    index, first, last = map(number, _SLURM)
    step = environment.get('SLURM_ARRAY_TASK_STEP', '1')
    if step != '1':
      raise ValueError(
        f'--share={AUTO}: the array has steps of {step}; submit it with '
        '--array=0-3 for four processes'
      )
    return Share(index - first, last - first + 1)
  if all(name in environment for name in _JOBSET):
    index, count = map(number, _JOBSET)
  elif all(name in environment for name in _TPU):
    index = number(_TPU[0])
    count = len(environment[_TPU[1]].split(','))
  else:
    raise ValueError(
      f'--share={AUTO}: this process is no task of a Slurm array '
      f'({_SLURM[0]}), pod of an indexed job ({" and ".join(_JOBSET)}) or host '
      f'of a TPU slice ({_TPU[0]}); give INDEX/COUNT, such as --share=1/4'
    )
  if not 0 <= index < count:
    raise ValueError(
      f'--share={AUTO}: process {index} of {count}, counted from 0; give '
      'INDEX/COUNT, such as --share=1/4'
    )
  return Share(index, count)
