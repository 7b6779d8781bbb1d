"""Find and remove stored work that no configuration refers to.

The references of a configuration are computed addresses; nothing is trained.
The configuration of a job refers also to the searches with the same arguments,
of its methods and of its training recipe. In the work directory of a job or
search that a configuration has, these are kept:

  models, scores      at the addresses of its populations
  search, searched    of the methods that it searches, at any address, because
                      the addresses of trials depend on the trials before
  timing              of its populations, at any address, because the addresses
                      depend on the machine
  report              all, for the same reason

Where an address cannot be computed, everything that it may be is kept: all work
of a study whose job cannot be opened, such as one whose data set is not here,
and all models of a method whose search is not finished.

A sweep covers its own folders CELL/STUDY, also of cells that it no longer has,
and the states of its units. Only shards, these states and temporaries of killed
writers are removed: reports, settings and all other files stay, and so do work
directories for which no configuration is given.
"""

import contextlib
import dataclasses
import pathlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from jaxmu import files, methods, remote, terms
from jaxmu.report import progress
from jaxmu.study import job as job_lib
from jaxmu.study import shelves, store
from jaxmu.study.settings import Settings
from jaxmu.study.shelves import Disk
from jaxmu.sweeps import engine, graph, status
from jaxmu.sweeps.design import SECTIONS, Study, Sweep
from jaxmu.tuning import opening


class Reference(NamedTuple):
  """Shelves to keep; an empty stage, label or address stands for all.

  Attributes:
    job: the work directory of a job or search.
    stage, label, address: of a shelf.
  """

  job: pathlib.Path
  stage: str = ''
  label: str = ''
  address: str = ''


@dataclasses.dataclass
class Use:
  """What a configuration refers to.

  Attributes:
    name: of the configuration, as the user gave it.
    workdir: its work directory, resolved, as all folders here.
    references: the shelves.
    units: units of a sweep by name, with the key of their state; None for a
      job.
    doubts: what is kept because its addresses are not known, and why.
  """

  name: str
  workdir: pathlib.Path
  references: set[Reference]
  units: dict[str, str] | None = None
  doubts: list[str] = dataclasses.field(default_factory=list)

  def keeps(self, shelf: shelves.Stored, *, exactly: bool = False) -> bool:
    """Return whether the configuration refers to a shelf.

    Args:
      shelf: the shelf.
      exactly: by its address, or as part of a job that cannot be opened.
    """
    kind = Reference(shelf.job, shelf.stage, shelf.label)
    wanted = {Reference(shelf.job), kind._replace(address=shelf.address)}
    wanted |= set() if exactly else {kind}
    return not self.references.isdisjoint(wanted)

  def covers(self, job: pathlib.Path) -> bool:
    """Return whether a work directory is one of the configuration."""
    if self.units is not None and job.name in SECTIONS:
      return job.parent.parent == self.workdir
    return any(job == one.job for one in self.references)


def of_job(settings: Settings, name: str) -> Use:
  """Return what the configuration of a job, and of its searches, refers to.

  Args:
    settings: checked settings of the job.
    name: of the configuration, for messages.

  Raises:
    ValueError: the job cannot be opened, for example without its data set.
  """
  use = Use(name, _folder(settings), _job(settings))
  for training in (False, True):
    search = dataclasses.replace(settings.search, training=training)
    # Where it cannot be opened, it has never run.
    with contextlib.suppress(ValueError):
      use.references |= _search(dataclasses.replace(settings, search=search))
  return use


def of_sweep(sweep: Sweep, name: str, bars: progress.Progress) -> Use:
  """Return what the configuration of a sweep refers to.

  Args:
    sweep: the sweep.
    name: of the configuration, for messages.
    bars: where to show progress.
  """
  keys = status.Keys(sweep)
  units = {unit.name: keys(unit) for unit in graph.build(sweep)}
  use = Use(name, sweep.workdir.resolve(), set(), units)
  with bars.stage(f'open {name}', len(sweep.studies), unit='jobs') as stage:
    for study in sweep.studies:
      try:
        if study.searches:
          use.references |= _search(study.settings)
        else:
          use.references |= _table(study)
      except Exception as error:  # whatever a plug-in raises
        use.references.add(Reference(_folder(study.settings)))
        use.doubts.append(f'{study.name}: {engine.reason(error)}')
      stage.advance()
  return use


def _folder(settings: Settings) -> pathlib.Path:
  return files.workdir(settings.workdir).resolve()


def _populations(job: job_lib.Job) -> set[Reference]:
  folder = job.folder.resolve()
  shelved = [
    shelf for p in job.populations.values() for shelf in (p.models, p.scores)
  ]
  return {Reference(folder, s.stage, s.label, s.address) for s in shelved}


def _labels(
  settings: Settings, stages: Iterable[str], labels: Iterable[str]
) -> set[Reference]:
  folder, names = _folder(settings), list(labels)
  return {Reference(folder, stage, name) for stage in stages for name in names}


def _job(settings: Settings) -> set[Reference]:
  job = job_lib.open_job(settings)
  return (
    _populations(job)
    | _labels(settings, ['timing'], job.populations)
    | _labels(settings, ['report'], ['report'])
  )


def _search(settings: Settings) -> set[Reference]:
  names = [methods.get(u.method).name for u in opening.targets(settings)]
  kept = _labels(settings, ['search', 'searched'], names)
  if settings.search.training:  # it has no trained models of its own
    return kept
  job = job_lib.open_job(
    opening.search_settings(settings), opening.search_design
  )
  return kept | _populations(job)


def _table(study: Study) -> set[Reference]:
  ready, unknown = [], []
  for name in study.methods:
    path = study.settings_file(name)
    (ready if path is None or path.is_file() else unknown).append(name)
  kept = _job(study.ready(ready) if ready else study.settings)
  stages = ('models', 'scores', 'timing')
  return kept | _labels(study.settings, stages, unknown)


@dataclasses.dataclass
class Plan:
  """What would be removed.

  Attributes:
    jobs: work directories of jobs and searches that configurations cover.
    others: work directories without a configuration.
    sweeps: folders of sweeps.
    shelves: to which no configuration refers.
    states: files with the state of a unit that no sweep has, or has with other
      settings.
    temporaries: of killed writers.
    kept: number of shelves to which a configuration refers.
    view: where all this is.
  """

  jobs: list[pathlib.Path]
  others: list[pathlib.Path]
  sweeps: list[pathlib.Path]
  shelves: list[shelves.Stored]
  states: list[pathlib.Path]
  temporaries: list[pathlib.Path]
  kept: int
  view: Disk

  @property
  def paths(self) -> list[pathlib.Path]:
    """All that would be removed."""
    folders = [shelf.folder for shelf in self.shelves]
    return folders + self.states + self.temporaries

  def lines(self) -> list[str]:
    """Return a line with size and path for each thing to remove."""
    rows = [[self._bytes([path]), files.shown(path)] for path in self.paths]
    lines = terms.columns(rows) if rows else []
    alone = [
      f'left alone, without a configuration: {files.shown(p)}'
      for p in self.others
    ]
    return lines + alone

  def summary(self) -> str:
    """Return the numbers and the size of what would be removed."""
    parts = [
      terms.count(len(found), *nouns)
      for found, nouns in (
        (self.shelves, ('shelf', 'shelves')),
        (self.states, ('state',)),
        (self.temporaries, ('temporary', 'temporaries')),
      )
      if found
    ]
    return f'{", ".join(parts)}, {self._bytes(self.paths)}'

  def _bytes(self, paths: Sequence[pathlib.Path]) -> str:
    size = sum(sum(self.view.sizes(path)) for path in paths)
    return terms.readable_bytes(size)


def plan(view: Disk, uses: Sequence[Use]) -> Plan:
  """Find what no configuration refers to; changes nothing.

  Args:
    view: of the folder that was given, at or above those of the uses.
    uses: what the configurations refer to.

  Raises:
    ValueError: a configuration is of another folder or refers to nothing in
      it, or a job, search or sweep runs there.
  """
  workdir = view.workdir.resolve()
  for use in uses:
    if not use.workdir.is_relative_to(workdir):
      raise ValueError(
        f'the work directory {files.shown(use.workdir)!r} of {use.name} is not '
        f'in {files.shown(workdir)!r}; give the folder that holds it, or leave '
        '--workdir out'
      )
  folders = shelves.job_folders(view)
  jobs = [job for job in folders if any(use.covers(job) for use in uses)]
  stored = [shelf for job in jobs for shelf in _stored(view, job)]
  for use in uses:
    models = [shelf for shelf in stored if shelf.stage == 'models']
    models = [shelf for shelf in models if use.covers(shelf.job)]
    # Labels say nothing about the arguments.
    if not any(use.keeps(s, exactly=bool(models)) for s in models or stored):
      raise ValueError(
        f'{use.name} refers to nothing in {files.shown(use.workdir)!r}, as if '
        'it had never run there with this version; give it with the arguments '
        'of its run, --workdir=DIR among them, or leave it out'
      )
  kept = [any(use.keeps(shelf) for use in uses) for shelf in stored]
  sweeps = sorted({u.workdir for u in uses if u.units is not None})
  for folder in [*jobs, *sweeps]:
    _refuse_running(folder)
  return Plan(
    jobs=jobs,
    others=[folder for folder in folders if folder not in jobs],
    sweeps=sweeps,
    shelves=[s for s, keep in zip(stored, kept, strict=True) if not keep],
    states=[path for folder in sweeps for path in _states(folder, uses)],
    temporaries=sorted(
      {path for folder in [*jobs, *sweeps] for path in view.leftovers(folder)}
    ),
    kept=sum(kept),
    view=view,
  )


def _stored(view: Disk, job: pathlib.Path) -> list[shelves.Stored]:
  """Return the shelves of a job, also those in the mirror of a store alone."""
  found = {shelf.folder: shelf for shelf in shelves.on_disk(job)}
  return list({**found, **{s.folder: s for s in view.shelves(job)}}.values())


def _states(folder: pathlib.Path, uses: Sequence[Use]) -> list[pathlib.Path]:
  """Return the files with states that count for no sweep."""
  units = {
    item
    for use in uses
    if use.workdir == folder and use.units is not None
    for item in use.units.items()
  }
  return sorted(
    path
    for unit, _, path in status.stored(folder)
    if (unit, _key(path)) not in units
  )


def _key(path: pathlib.Path) -> str | None:
  """Return the key of a state; None if it cannot be read."""
  try:
    return files.read_json(path)['key']
  except (OSError, ValueError, KeyError):
    return None


def _refuse_running(folder: pathlib.Path) -> None:
  """Raise an error if a job, a search or a sweep runs in a folder.

  The sweep of a cell's study is two folders above.
  """
  above = folder.parent.parent
  locks = [
    folder / store.LOCK,
    *(place / status.LOCK for place in (folder, above)),
  ]
  if any(map(files.is_locked, locks)):
    raise ValueError(_in_use(folder))


def _in_use(folder: pathlib.Path) -> str:
  return (
    f'{files.shown(folder)!r} is in use by a running job, search or sweep; '
    'wait for it to end'
  )


def remove(planned: Plan) -> None:
  """Remove what a plan lists, holding the folders.

  Raises:
    ValueError: a job, search or sweep runs there, or something cannot be
      removed.
  """
  locks = [job / store.LOCK for job in planned.jobs]
  locks += [sweep / status.LOCK for sweep in planned.sweeps]
  try:
    with contextlib.ExitStack() as stack:
      for lock in locks:
        lock.parent.mkdir(parents=True, exist_ok=True)  # of a mirror
        try:
          stack.enter_context(files.lock(lock, wait=False))
        except BlockingIOError:
          raise ValueError(_in_use(lock.parent)) from None
      for folder in [*planned.jobs, *planned.sweeps]:
        planned.view.remove_leftovers(folder)
      for shelf in planned.shelves:
        planned.view.remove(shelf)
      for path in planned.states:
        files.remove(path)
  except remote.StoreError:
    raise
  except OSError as error:
    raise ValueError(
      f'{error.filename} cannot be removed or locked ({error.strerror}); make '
      'its folder writable, and start the same command again'
    ) from error
