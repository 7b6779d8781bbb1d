"""Engines: functions that run the units of a graph.

An engine takes the graph, what performs a unit, and where to print. It performs
each unit after those that it needs or uses. A unit that fails does not stop
those that do not need it.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol

from jaxmu import plugins
from jaxmu.sweeps.graph import Graph, Unit

Perform = Callable[[Unit], None]


class Outcome(NamedTuple):
  """What an engine did.

  Attributes:
    failed: why units failed, by name.
    blocked: units that were not tried, because they need one of these.
  """

  failed: dict[str, str]
  blocked: list[str]


class Engine(Protocol):
  """Performs all units of a graph."""

  def __call__(self, graph: Graph, perform: Perform) -> Outcome:
    """Return what failed."""
    ...


def local(graph: Graph, perform: Perform) -> Outcome:
  """Perform all units in this process, one after the other.

  Args:
    graph: the units.
    perform: makes one of them, or raises.

  Example:
    >>> units = [Unit('a', 'search'), Unit('b', 'report', needs=('a',))]
    >>> local(Graph(units), lambda unit: None)
    Outcome(failed={}, blocked=[])
  """
  failed: dict[str, str] = {}
  blocked: dict[str, None] = {}
  for unit in graph:
    if any(name in failed or name in blocked for name in unit.needs):
      blocked[unit.name] = None
      continue
    try:
      perform(unit)
    except Exception as error:  # whatever a plug-in or the machine raises
      failed[unit.name] = reason(error)
  return Outcome(failed, list(blocked))


def reason(error: Exception) -> str:
  """Return why a unit failed, in one line."""
  text = str(error) if isinstance(error, ValueError | OSError) else ''
  return ' '.join(text.split()) or plugins.reason(error)
