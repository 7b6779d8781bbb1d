"""The state of a sweep, also from another process while it runs.

  WORKDIR/state/UNIT.json          of a unit that a process performs as a whole
  WORKDIR/state/UNIT.part-K.json   of a part, where processes share the sweep
  WORKDIR/state/UNIT.part-K.lock   held while a process performs the part
  WORKDIR/.sweep.lock              held while a sweep runs

A record counts only for the settings it was written for: after a change of the
configuration, a unit is missing until it was made, or found in the store. What
was running when its process was killed is missing; in an object store, it shows
as running until the next start.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import shlex
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from jaxmu import __version__, files, methods, remote, terms
from jaxmu.report import results
from jaxmu.study import store
from jaxmu.sweeps import plan
from jaxmu.sweeps.design import Study, Sweep
from jaxmu.sweeps.graph import BASELINES, Graph, Unit

LOCK = '.sweep.lock'
FOLDER = 'state'
STATES = ('done', 'running', 'failed', 'missing')
_KINDS = (*BASELINES, 'search', 'unlearned', 'predictions', 'report')


class Record(NamedTuple):
  """The state of a unit, or of a part of it.

  Attributes:
    state: 'done', 'running' or 'failed'.
    key: digest of the settings that it is the state of.
    reason: why it failed.
    command: the command that repeats it.
    seconds: how long it took.
    outputs: SHA-256 of the files that it has written for users.
  """

  state: str
  key: str = ''
  reason: str = ''
  command: str = ''
  seconds: float = 0.0
  outputs: Mapping[str, str] = types.MappingProxyType({})


@dataclasses.dataclass
class State:
  """The state of a unit, from the records of its parts.

  Attributes:
    parts: how many it has.
    done, running: its parts.
    failed: records of parts that failed.
    seconds: time of what is done.
  """

  parts: int
  done: set[int] = dataclasses.field(default_factory=set)
  running: set[int] = dataclasses.field(default_factory=set)
  failed: dict[int, Record] = dataclasses.field(default_factory=dict)
  seconds: float = 0.0

  @property
  def name(self) -> str:
    """'done', 'running', 'failed' or 'missing'."""
    if len(self.done) == self.parts:
      return 'done'
    if self.running:
      return 'running'
    return 'failed' if self.failed else 'missing'

  @property
  def left(self) -> float:
    """The fraction that is still to be done."""
    return 1 - len(self.done) / self.parts

  def add(self, parts: Iterable[int], record: Record, runs: bool) -> None:
    """Add a record of some parts; `runs` says whether its process lives."""
    if record.state == 'done':
      self.done.update(parts)
      self.seconds += record.seconds
    elif record.state == 'running' and runs:
      self.running.update(parts)
    elif record.state == 'failed':
      self.failed.update(dict.fromkeys(parts, record))


def repeat(command: str, name: str) -> str:
  """Return the command that performs one unit again; '' without a command.

  Example:
    >>> repeat(
    ...   'python -m jaxmu.sweep deep_unlearn --share 1/4', 'digits_tiny/main')
    'python -m jaxmu.sweep deep_unlearn --only=digits_tiny/main'
  """
  words, rest = [], shlex.split(command)
  while rest:
    word = rest.pop(0)
    if word in ('--only', '--share'):  # the value is the next word
      del rest[:1]
    elif not word.startswith(('--only=', '--share=')):
      words.append(word)
  return shlex.join([*words, f'--only={name}']) if words else ''


class Keys:
  """Digests of the settings that units depend on; see `Record.key`."""

  def __init__(self, sweep: Sweep):
    self._studies = {study.name: study for study in sweep.studies}
    self._digests: dict[tuple[str, str], str] = {}

  def __call__(self, unit: Unit) -> str:
    """Return the digest of a unit."""
    if unit.kind == 'table':
      return files.digest(__version__, unit.uses)
    study = self._studies[unit.owner]
    whole = unit.kind == 'report'
    inputs = [self._once(study, 'base', _base), unit.models]
    if whole:
      inputs.append(self._once(study, 'shown', _shown))
      if study.earlier:
        earlier = self._once(study, 'earlier', _earlier, study.methods)
        inputs.append(earlier)
    if unit.label in study.methods:
      inputs.append(
        self._once(study, f'method {unit.label}', _method, unit.label)
      )
    if whole or unit.label in study.methods:
      if study.searches or study.search is not None:
        inputs.append(self._once(study, 'search', _search))
    return files.digest(__version__, unit.kind, *inputs)

  def _once(self, study: Study, what: str, make: Any, *args: Any) -> str:
    place = study.name, what
    if place not in self._digests:
      self._digests[place] = files.digest(make(study, *args))
    return self._digests[place]


_SHOWN = ('attack', 'metrics')


def _base(study: Study) -> list[Any]:
  settings = dataclasses.asdict(study.settings)
  for name in ('workdir', 'run', 'search', 'search_space', 'search_grid'):
    settings.pop(name)
  for name in ('unlearners', *_SHOWN):
    settings.pop(name)
  return [settings, study.settings.run.shard]


def _shown(study: Study) -> list[Any]:
  settings = dataclasses.asdict(study.settings)
  return [settings[name] for name in (*_SHOWN, 'unlearners')]


def _method(study: Study, name: str) -> list[Any]:
  one = study.unlearner(name)
  code = methods.METHODS.fingerprint(one.method)
  return [dataclasses.asdict(one), code, *_earlier(study, [name])]


def _earlier(study: Study, names: Iterable[str]) -> list[Any]:
  """Return the settings of methods that an earlier search has found."""
  found = study.earlier
  return [[name, found[name].hparams] for name in names if name in found]


def _search(study: Study) -> list[Any]:
  chosen = study.settings
  spaces = repr((chosen.search_space, chosen.search_grid))
  return [dataclasses.asdict(chosen.search), spaces]


def _place(
  workdir: pathlib.Path, name: str, part: int | None, suffix: str = 'json'
) -> pathlib.Path:
  number = '' if part is None else f'.part-{part}'
  return workdir / FOLDER / f'{name}{number}.{suffix}'


def write(
  workdir: pathlib.Path, unit: Unit, record: Record, part: int | None = None
) -> None:
  """Write the state of a unit, or of a part of it."""
  content = {**record._asdict(), 'outputs': dict(record.outputs)}
  text = json.dumps(content, indent=1)
  files.write_text(_place(workdir, unit.name, part), text + '\n')


def stored(
  workdir: pathlib.Path,
) -> Iterator[tuple[str, int | None, pathlib.Path]]:
  """Yield unit, part (None for a whole unit) and file of each record."""
  root = workdir / FOLDER
  for folder, _, names in os.walk(root):
    parent = pathlib.Path(folder)
    for name in names:
      if name.endswith('.json'):
        stem, _, part = name.removesuffix('.json').partition('.part-')
        number = int(part) if part.isdecimal() else None
        unit = (parent / stem).relative_to(root).as_posix()
        yield unit, number, parent / name


def read(
  workdir: pathlib.Path, unit: Unit, part: int | None = None
) -> Record | None:
  """Read the state of a unit, or of a part; None where there is none."""
  return _read(_place(workdir, unit.name, part))


def _read(path: pathlib.Path) -> Record | None:
  try:
    record = Record(**files.read_json(path))
    sound = (
      record.state in STATES
      and isinstance(record.seconds, int | float)
      and isinstance(record.outputs, dict | types.MappingProxyType)
      and all(isinstance(text, str) for text in record[1:4])
    )
    return record if sound else None
  except (OSError, ValueError, TypeError):
    return None


def forget(workdir: pathlib.Path, unit: Unit) -> None:
  """Remove the records of a unit that is not in the store after all."""
  for part in (None, *range(unit.tasks)):
    path = _place(workdir, unit.name, part)
    if path.exists():
      files.remove(path)


def checksums(
  workdir: pathlib.Path, paths: Iterable[pathlib.Path]
) -> dict[str, str]:
  """Return the SHA-256 of files by their place in the folder of a sweep."""
  return {
    path.relative_to(workdir).as_posix(): files.sha256(path) for path in paths
  }


def forget_running(workdir: pathlib.Path, shared: bool) -> None:
  """Remove the records of what ran when a process was killed.

  Args:
    workdir: of the sweep, which this process holds.
    shared: keep records of parts, which other processes may perform.
  """
  for _, part, path in stored(workdir):
    record = None if shared and part is not None else _read(path)
    if record is not None and record.state == 'running':
      files.remove(path)


def forget_incomplete(sweep: Sweep, graph: Graph) -> None:
  """Remove the records of what used less than there will be.

  A report has the methods that succeeded, and the leaderboard the reports that
  were there. They are made again once the others are there too.

  Args:
    sweep: the sweep, which this process holds.
    graph: all of its units.
  """
  known = survey(sweep, graph, Keys(sweep))
  for unit in graph:
    if any(known[name].left for name in unit.uses):
      forget(sweep.workdir, unit)
      known[unit.name] = State(unit.tasks)


@contextlib.contextmanager
def claimed(
  workdir: pathlib.Path, unit: Unit, parts: Iterable[int]
) -> Iterator[list[int]]:
  """Keep other processes from performing parts of a unit.

  Yields:
    The parts that no other process performs.
  """
  with contextlib.ExitStack() as stack:
    own = []
    for part in parts:
      path = _place(workdir, unit.name, part, 'lock')
      path.parent.mkdir(parents=True, exist_ok=True)
      with contextlib.suppress(BlockingIOError):
        stack.enter_context(files.lock(path, wait=False))
        own.append(part)
    yield own


def survey(
  sweep: Sweep,
  graph: Graph,
  keys: Keys,
  known: Mapping[str, State] = types.MappingProxyType({}),
) -> dict[str, State]:
  """Return the state of each unit by its name; changes nothing.

  Args:
    sweep: the sweep.
    graph: its units.
    keys: of this sweep.
    known: an earlier survey, whose finished units are taken as they are.
  """
  runs = files.is_locked(sweep.workdir / LOCK)
  there: dict[str, list[int | None]] = {}
  for name, part, _ in stored(sweep.workdir):
    there.setdefault(name, []).append(part)
  out = {}
  # Locks of other machines are not visible in an object store.
  anywhere = bool(remote.url(sweep.workdir))
  for unit in graph:
    there_now = there.get(unit.name, [])
    if there_now and unit.name in known and not known[unit.name].left:
      out[unit.name] = known[unit.name]
      continue
    out[unit.name] = state = State(unit.tasks)
    key = keys(unit) if there_now else ''
    for part in there_now:
      record = read(sweep.workdir, unit, part)
      if record is None or record.key != key:
        continue
      if not _are_there(sweep.workdir, record.outputs):
        continue
      parts = range(unit.tasks) if part is None else [part]
      lives = anywhere or (
        runs
        and (
          part is None
          or record.state != 'running'
          or files.is_locked(_place(sweep.workdir, unit.name, part, 'lock'))
        )
      )
      state.add([p for p in parts if p < unit.tasks], record, lives)
    for part in state.done:
      state.failed.pop(part, None)
  return out


def _are_there(workdir: pathlib.Path, outputs: Mapping[str, str]) -> bool:
  return all(
    (workdir / name).is_file() and files.sha256(workdir / name) == checksum
    for name, checksum in outputs.items()
  )


def text(sweep: Sweep, graph: Graph) -> str:
  """Describe the state of a sweep: cells and studies × stages, and failures."""
  store.check_folder(sweep.workdir)
  files.refresh(sweep.workdir)
  known = survey(sweep, graph, Keys(sweep))
  runs = files.is_locked(sweep.workdir / LOCK)
  rows = []
  for study in sweep.studies:
    own = [u for u in graph if u.owner == study.name]
    cells = [
      _summary([known[u.name] for u in own if u.kind == kind])
      for kind in _KINDS
    ]
    if own:
      rows.append([study.name, *cells])
  head = ['cell and study', *_KINDS]
  lines = terms.columns([head, *rows])
  named = {s: [n for n in known if known[n].name == s] for s in STATES}
  lines += [
    '',
    f'{len(named["done"])} of {len(graph)} units done; '
    + ('a sweep is running' if runs else 'no sweep is running')
    + f' in {files.shown(sweep.workdir)}'
    + (' on this machine' if remote.url(sweep.workdir) else ''),
    *_left(sweep, graph, known),
    *(f'running  {name}{_parts(known[name])}' for name in named['running']),
  ]
  failed = {
    n: next(iter(s.failed.values())) for n, s in known.items() if s.failed
  }
  reasons = {n: (r.reason, r.command) for n, r in failed.items()}
  return '\n'.join([*lines, *failures(reasons)])


def _left(sweep: Sweep, graph: Graph, known: Mapping[str, State]) -> list[str]:
  """Return a line with the time left, if a speed is known."""
  work = plan.work(sweep, graph)
  done = {n for n, s in known.items() if s.name == 'done' and work[n]}
  seconds = sum(known[name].seconds for name in done)
  left = sum(work[name] * state.left for name, state in known.items())
  if not seconds or not left:
    return []
  rate = seconds / sum(work[name] for name in done)
  time = results.format_duration(left * rate)
  return [f'about {time} left for one process at the speed so far']


def _parts(state: State) -> str:
  if state.parts == 1 or not state.done:
    return ''
  return f', {len(state.done)} of {state.parts} parts done'


def _summary(found: Sequence[State]) -> str:
  """Return the states of the units of one stage in a few words."""
  if not found:
    return '-'
  counts = {s: sum(one.name == s for one in found) for s in STATES}
  first = [state for state in STATES if counts[state]]
  if len(first) > 1:
    return ', '.join(f'{counts[state]} {state}' for state in first)
  done = sum(len(one.done) for one in found)
  if first[0] == 'done' or not done:
    return first[0]
  return f'{first[0]}, {done}/{sum(one.parts for one in found)}'


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
    lines += [f'failed   {", ".join(names)}', f'         {reason}']
    if command:
      lines.append(f'         {repeat(command, one)}')
  return lines
