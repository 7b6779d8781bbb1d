"""The state of a sweep, also from another process while it runs.

  WORKDIR/state/UNIT.json    the state of a unit, when it last changed
  WORKDIR/.sweep.lock        held while a sweep runs

A record counts only for the settings it was written for: after a change of the
configuration, a unit is missing until it was made, or found in the store. A
unit that was running when its process was killed is missing.
"""

import dataclasses
import json
import pathlib
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jaxmu import __version__, files, methods
from jaxmu.sweeps.design import Study, Sweep
from jaxmu.sweeps.graph import BASELINES, Graph, Unit

LOCK = '.sweep.lock'
STATES = ('done', 'running', 'failed', 'missing')
_KINDS = (*BASELINES, 'search', 'unlearned', 'predictions', 'report')


class Record(NamedTuple):
  """The state of a unit.

  Attributes:
    state: 'done', 'running', 'failed' or 'missing'.
    key: digest of the settings that it is the state of.
    reason: why it failed.
    command: the command that repeats it.
    seconds: how long it took.
  """

  state: str
  key: str = ''
  reason: str = ''
  command: str = ''
  seconds: float = 0.0


def repeat(command: str, name: str) -> str:
  """Return the command that performs one unit again.

  Example:
    >>> repeat('python -m jaxmu.sweep deep_unlearn', 'digits_tiny/main')
    'python -m jaxmu.sweep deep_unlearn --only=digits_tiny/main'
  """
  words = [w for w in shlex.split(command) if not w.startswith('--only=')]
  return shlex.join([*words, f'--only={name}'])


def key(studies: Mapping[str, Study], unit: Unit) -> str:
  """Return a digest of the settings that a unit depends on."""
  if unit.kind == 'table':
    return files.digest(__version__, unit.uses)
  study = studies[unit.owner]
  settings = dataclasses.asdict(study.settings)
  for name in ('workdir', 'run', 'search', 'search_space', 'search_grid'):
    settings.pop(name)
  unlearners = settings.pop('unlearners')
  shown = {name: settings.pop(name) for name in ('attack', 'metrics')}
  inputs: list[Any] = [settings, study.settings.run.shard, unit.models]
  if unit.kind == 'report':
    inputs += [shown, unlearners]
  if unit.label in study.methods:
    one = study.unlearner(unit.label)
    inputs.append(dataclasses.asdict(one))
    inputs.append(methods.METHODS.fingerprint(one.method))
  if unit.kind == 'report' or unit.label in study.methods:
    if study.searches or study.search is not None:
      chosen = study.settings
      inputs.append(dataclasses.asdict(chosen.search))
      inputs.append(repr((chosen.search_space, chosen.search_grid)))
  return files.digest(__version__, unit.kind, *inputs)


def _place(workdir: pathlib.Path, unit: Unit) -> pathlib.Path:
  return workdir / 'state' / f'{unit.name}.json'


def write(workdir: pathlib.Path, unit: Unit, record: Record) -> None:
  """Write the state of a unit."""
  text = json.dumps(record._asdict(), indent=1)
  files.write_text(_place(workdir, unit), text + '\n')


def read(workdir: pathlib.Path, unit: Unit) -> Record:
  """Read the state of a unit; 'missing' where there is none."""
  return _read(_place(workdir, unit))


def _read(path: pathlib.Path) -> Record:
  try:
    record = Record(**json.loads(path.read_text()))
    return record if record.state in STATES else Record('missing')
  except (OSError, ValueError, TypeError):
    return Record('missing')


def forget_running(workdir: pathlib.Path) -> None:
  """Remove the records of units that ran when a process was killed."""
  for path in (workdir / 'state').rglob('*.json'):
    if _read(path).state == 'running':
      files.remove(path)


def states(sweep: Sweep, graph: Graph) -> dict[str, Record]:
  """Return the state of each unit by its name; changes nothing."""
  files.refresh(sweep.workdir)
  studies = {study.name: study for study in sweep.studies}
  runs = files.is_locked(sweep.workdir / LOCK)
  out = {}
  for unit in graph:
    record = read(sweep.workdir, unit)
    stopped = record.state == 'running' and not runs
    if stopped or record.key != key(studies, unit):
      record = Record('missing')
    out[unit.name] = record
  return out


def text(sweep: Sweep, graph: Graph) -> str:
  """Describe the state of a sweep: cells and studies × stages, and failures."""
  known = states(sweep, graph)
  runs = files.is_locked(sweep.workdir / LOCK)
  rows = []
  for study in sweep.studies:
    own = [u for u in graph if u.owner == study.name]
    cells = [
      _summary([known[u.name].state for u in own if u.kind == kind])
      for kind in _KINDS
    ]
    if own:
      rows.append([study.name, *cells])
  head = ['cell and study', *_KINDS]
  widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
  lines = [
    '  '.join(
      cell.ljust(width) for cell, width in zip(row, widths, strict=True)
    ).rstrip()
    for row in (head, *rows)
  ]
  count = {s: [n for n in known if known[n].state == s] for s in STATES}
  lines += [
    '',
    f'{len(count["done"])} of {len(graph)} units done; '
    + ('a sweep is running' if runs else 'no sweep is running')
    + f' in {files.shown(sweep.workdir)}',
    *(f'running  {name}' for name in count['running']),
  ]
  failed = {n: (known[n].reason, known[n].command) for n in count['failed']}
  return '\n'.join([*lines, *failures(failed)])


def _summary(found: Sequence[str]) -> str:
  """Return the states of the units of one stage in a few words."""
  if not found:
    return '-'
  first = [state for state in STATES if state in found]
  if len(first) == 1:
    return first[0]
  return ', '.join(f'{found.count(state)} {state}' for state in first)


def failures(failed: Mapping[str, tuple[str, str]]) -> list[str]:
  """Return one entry per reason: units, reason, and the command to repeat.

  Args:
    failed: reason and command of each failed unit, by its name.
  """
  groups: dict[tuple[str, str], list[str]] = {}
  for name, (reason, _) in failed.items():
    study = '/'.join(name.split('/')[:2])
    groups.setdefault((study, reason), []).append(name)
  lines = []
  for (study, reason), names in groups.items():
    one = names[0] if len(names) == 1 else study
    command = failed[names[0]][1]
    lines += [
      f'failed   {", ".join(names)}',
      f'         {reason}',
      f'         {repeat(command, one)}',
    ]
  return lines
