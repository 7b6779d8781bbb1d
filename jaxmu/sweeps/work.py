"""Perform the units of a sweep by the stages of jobs and of searches.

Units of one study share its opened job, which is closed when a unit of another
study comes. Everything is stored by address, so a unit that is finished is only
looked up.
"""

import contextlib
import dataclasses
import pathlib
import time
from collections.abc import Collection, Iterator, Sequence
from types import TracebackType

from jaxmu import files, methods, terms
from jaxmu.population import Layout, Predictor, Trainer, replicate
from jaxmu.report import progress
from jaxmu.study import job as job_lib
from jaxmu.study import planner, publish, run, stages, store, tuned
from jaxmu.sweeps import engine, leaderboard, status
from jaxmu.sweeps import graph as graph_lib
from jaxmu.sweeps.design import Study, Sweep
from jaxmu.sweeps.graph import BASELINES, Graph, Unit
from jaxmu.sweeps.status import repeat
from jaxmu.tuning import driver, opening
from jaxmu.types import Task


def perform_all(
  sweep: Sweep,
  graph: Graph,
  command: str,
  run_units: engine.Engine = engine.local,
) -> dict[str, tuple[str, str]]:
  """Perform all units of a sweep and print what failed.

  Args:
    sweep: the sweep.
    graph: its units, or some of them with what they need.
    command: the command line of the user.
    run_units: the engine; all but `engine.local` admit other processes.

  Returns:
    Reason and repeating command of each unit that failed, by name.

  Raises:
    ValueError: the folder cannot be written, or another sweep runs in it.
  """
  shared = run_units is not engine.local
  with (
    progress.Progress() as bars,
    Worker(sweep, graph, command, bars, shared=shared) as work,
  ):
    failed, blocked = run_units(graph, work)
    done = len(graph) - len(failed) - len(blocked)
    bars.line(f'\n{done} of {terms.count(len(graph), "unit")} done')
    commands = {n: (why, repeat(command, n)) for n, why in failed.items()}
    for line in status.failures(commands):
      bars.line(line)
    if blocked:
      count = terms.count(len(blocked), 'unit')
      bars.line(f'{count} not run, because of these')
  return commands


# Studies that a process of several keeps open. It gets their units by turns;
# the programs of a study that was closed are traced again.
_OPEN = 2

_REFRESH = 10.0  # seconds between reads of the state from an object store


class Worker:
  """Performs units; a context manager, which holds the sweep's folder.

  Args:
    sweep: the sweep.
    graph: its units.
    command: the command line of the user.
    bars: where to show progress.
    shared: admit other processes, which perform other parts.
  """

  def __init__(
    self,
    sweep: Sweep,
    graph: Graph,
    command: str,
    bars: progress.Progress,
    *,
    shared: bool = False,
  ):
    self._sweep, self._graph = sweep, graph
    self._every = graph  # also those that are not chosen, once it is entered
    self._command, self._bars = command, bars
    self._shared = shared
    self._studies = {study.name: study for study in sweep.studies}
    self._keys = status.Keys(sweep)
    self._lock = contextlib.ExitStack()
    self._opened: dict[str, _Search | _Table] = {}  # the last used one last
    self._states: dict[str, status.State] = {}
    self._done: set[str] = set()
    self._closed: dict[str, Exception] = {}
    self._refreshed = -float('inf')

  def __enter__(self) -> 'Worker':
    store.check_workdir(self._sweep.workdir)
    store.make_workdir(self._sweep.workdir)
    try:
      self._lock.enter_context(
        files.lock(
          self._sweep.workdir / status.LOCK, wait=False, shared=self._shared
        )
      )
    except BlockingIOError:
      raise ValueError(
        f'config.workdir = {files.shown(self._sweep.workdir)!r} is in use by '
        'another sweep; wait for it to end (--status shows how far it is), '
        'choose another folder with --workdir=PATH, or start all processes '
        'with --share=INDEX/COUNT'
      ) from None
    files.refresh(self._sweep.workdir, send=True)
    status.forget_running(self._sweep.workdir, self._shared)
    self._every = graph_lib.build(self._sweep)
    status.forget_incomplete(self._sweep, self._every)
    return self

  def __exit__(
    self,
    kind: type[BaseException] | None,
    error: BaseException | None,
    trace: TracebackType | None,
  ) -> None:
    self._close()
    self._lock.close()

  def tell(self, line: str) -> None:
    """Print a line."""
    self._bars.line(line)

  def survey(self) -> dict[str, status.State]:
    """Return the state of every unit by its name."""
    if time.monotonic() > self._refreshed + _REFRESH:
      files.refresh(self._sweep.workdir)
      self._refreshed = time.monotonic()
    self._states = status.survey(
      self._sweep, self._graph, self._keys, self._states
    )
    self._done = {n for n, state in self._states.items() if not state.left}
    return self._states

  def claimed(
    self, unit: Unit, parts: Sequence[int]
  ) -> contextlib.AbstractContextManager[list[int]]:
    """Keep other processes from parts; gives those that none performs."""
    return status.claimed(self._sweep.workdir, unit, parts)

  def __call__(self, unit: Unit, parts: Sequence[int] | None = None) -> None:
    """Perform a unit or some parts, and record the state for `--status`.

    Raises:
      Exception: whatever makes it impossible.
    """
    begin = time.monotonic()
    record = status.Record('running', self._keys(unit))
    try:
      self._write(unit, parts, record)
      outputs = self._perform(unit, parts)
      seconds = (time.monotonic() - begin) / len(parts or [0])
      done = record._replace(
        state='done',
        seconds=round(seconds, 3),
        outputs=status.checksums(self._sweep.workdir, outputs),
      )
      self._write(unit, parts, done)
      if self._shared:  # another process may have failed, and gone on without
        for user in self._every:
          if unit.name in user.uses:
            status.forget(self._sweep.workdir, user)
    except engine.NotReady as error:
      for name in (unit.name, *error.units):
        status.forget(self._sweep.workdir, self._graph.units[name])
      raise
    except Exception as error:
      failed = record._replace(
        state='failed',
        reason=engine.reason(error),
        command=repeat(self._command, unit.name),
      )
      self._bars.line(f'{unit.name} failed: {failed.reason}')
      with contextlib.suppress(OSError):  # the reason may be a full disk
        self._write(unit, parts, failed)
      raise
    if parts is None:
      self._done.add(unit.name)

  def _write(
    self, unit: Unit, parts: Sequence[int] | None, record: status.Record
  ) -> None:
    for part in [None] if parts is None else parts:
      status.write(self._sweep.workdir, unit, record, part)

  def _perform(
    self, unit: Unit, parts: Sequence[int] | None
  ) -> list[pathlib.Path]:
    """Perform a unit; return the files that it has written for users."""
    if unit.kind != 'table':
      return self._open(self._studies[unit.owner]).perform(unit, parts)
    self._close()
    paths = leaderboard.write(self._sweep, self._command)
    for path in paths:
      self._bars.line(f'{files.shown(path)} written')
    return paths

  def _open(self, study: Study) -> '_Search | _Table':
    if study.name in self._closed:
      raise self._closed[study.name]
    current = self._opened.pop(study.name, None)
    if current is None or not current.serves(study, self._done):
      if current is not None:
        current.close()
      most = _OPEN if self._shared else 1
      while len(self._opened) >= most:
        self._opened.pop(next(iter(self._opened))).close()
      self._bars.line(f'\n{study.name}')
      try:
        current = self._new(study)
      except Exception as error:
        self._closed[study.name] = error
        raise
    self._opened[study.name] = current
    return current

  def _new(self, study: Study) -> '_Search | _Table':
    if study.searches:
      return _Search(study, self._bars, self._shared)
    others = [one for one in self._opened.values() if isinstance(one, _Table)]
    return _Table(
      study, self._done, self._command, self._bars, self._shared, others
    )

  def _close(self) -> None:
    for one in self._opened.values():
      one.close()
    self._opened.clear()


class _Open:
  """A study that is being worked on; its work directory is held."""

  def __init__(self, study: Study, bars: progress.Progress, shared: bool):
    self.study, self._bars, self._shared = study, bars, shared
    self._verified: set[str] = set()
    self._stack = contextlib.ExitStack()
    folder = files.workdir(study.settings.workdir)
    self._stack.enter_context(store.hold_workdir(folder, shared=shared))

  def serves(self, study: Study, done: Collection[str]) -> bool:
    """Return whether it can perform units of a study, as it was opened."""
    del done
    return self.study is study

  @contextlib.contextmanager
  def _probing(self) -> Iterator[None]:
    """Let one process at a time measure the machine, if several share it."""
    if not self._shared:
      yield
      return
    folder = files.cache_dir()
    folder.mkdir(parents=True, exist_ok=True)
    with files.lock(folder / '.probing.lock'):
      yield

  def _check_stored(self, job: job_lib.Job, unit: Unit) -> None:
    """Check that the models and predictions a unit needs are in the store.

    Checksums are compared once, then sizes.

    Raises:
      engine.NotReady: some are not, although a record says so.
    """
    lost = []
    for name in unit.needs:
      _, _, kind, *label = name.split('/')
      if kind == 'search':  # of another job; see `_ready`
        continue
      population = job.populations[BASELINES.get(kind) or label[0]]
      both = population.scores, population.models
      verify = job.settings.run.verify and name not in self._verified
      if both[kind != 'predictions'].missing(verify=verify):
        lost.append(name)
      self._verified.add(name)
    if lost:
      raise engine.NotReady(lost)

  def close(self) -> None:
    """Release the work directory."""
    self._stack.close()


class _Search(_Open):
  """The searches of a study."""

  def __init__(self, study: Study, bars: progress.Progress, shared: bool):
    super().__init__(study, bars, shared)
    try:
      with self._probing():
        self._opened = opening.open_search(study.settings, bars.line)
      job = self._opened.job
      store.check_space(job.folder, planner.bytes_to_write(self._opened.steps))
    except BaseException:
      self.close()
      raise

  def perform(
    self, unit: Unit, parts: Sequence[int] | None
  ) -> list[pathlib.Path]:
    """Train a baseline, or search a method."""
    job = self._opened.job
    if unit.kind in BASELINES:
      driver.train_baseline(job, BASELINES[unit.kind], self._bars, parts)
      return []
    self._check_stored(job, unit)
    finished, path = self._finished(unit.label)
    files.refresh(path.parent)
    if not finished.missing() and path.is_file():
      if finished.info()['sha256'] == files.sha256(path):
        self._bars.line(f'{unit.label}: setting in {files.shown(path)}')
        return [path]
    settings = self.study.settings
    (found,) = driver.search_methods(
      settings, self._opened, self._bars, [unit.label]
    )
    finished.save(0, info={'sha256': files.sha256(found.path)})
    return [found.path]

  def _finished(self, method: str) -> tuple[store.Shelf, pathlib.Path]:
    """Return the record of a finished search, and its settings file."""
    settings, job = self.study.settings, self._opened.job
    position = self.study.methods.index(method)
    one = self.study.unlearner(method)
    address = job_lib.address(
      'search',
      {name: p.digest for name, p in job.populations.items()},
      methods.METHODS.fingerprint(one.method),
      dict(one.hparams),
      dataclasses.asdict(settings.search),
      repr(self._opened.spaces[position]),
    )
    path = tuned.folder(job.folder, method) / tuned.NAME
    return job.shelf('searched', method, address), path


class _Table(_Open):
  """The job of a table."""

  def __init__(
    self,
    study: Study,
    done: Collection[str],
    command: str,
    bars: progress.Progress,
    shared: bool,
    others: Sequence['_Table'],
  ):
    super().__init__(study, bars, shared)
    self._command = command
    self._predictors: dict[Layout, Predictor] = {}
    self._trainers: dict[str, Trainer] = {}
    self._checked: dict[str, Exception | None] = {}
    self._ready = ready = _ready(study, done)
    try:
      # Without a searched method, the originals are trained all the same.
      settings = study.ready(ready) if ready else study.settings
      self._job = job_lib.open_job(settings)
      steps = planner.plan_steps(self._job)
      store.check_space(self._job.folder, planner.bytes_to_write(steps))
      # By all of the work, so that each process and restart chooses the same.
      work = sum(
        population.members.size * self._job.counted_cost(name)
        for name, population in self._job.populations.items()
      )
      with self._probing():
        self._job = planner.choose_plan(self._job, work, bars.line)
      # All trainers read one copy of the data, so that they can be kept.
      self._job = dataclasses.replace(self._job, task=self._placed(others))
    except BaseException:
      self.close()
      raise

  def _placed(self, others: Sequence['_Table']) -> Task:
    """Return the task with its data on the devices, copied once."""
    job = self._job
    for one in (other._job for other in others):
      same = one.source.fingerprint == job.source.fingerprint
      if same and one.layout.devices == job.layout.devices:
        return dataclasses.replace(job.task, dataset=one.task.dataset)
    return replicate(job.task, job.layout)

  def serves(self, study: Study, done: Collection[str]) -> bool:
    """Return whether it can perform units of a study, as it was opened."""
    return self.study is study and self._ready == _ready(study, done)

  def perform(
    self, unit: Unit, parts: Sequence[int] | None
  ) -> list[pathlib.Path]:
    """Train a population, predict with it, or write the report."""
    name = BASELINES.get(unit.kind, unit.label)
    job, bars = self._job, self._bars
    if unit.kind == 'report':
      self._check_stored(job, unit)
      return self._report()
    if name not in (*methods.BASELINES, *self._ready):
      raise engine.NotReady([_search_unit(self.study, name)])
    self._check(name)
    self._check_stored(job, unit)
    self._check_space(unit, job.populations[name], parts)
    if unit.kind == 'predictions':
      stages.predict(job, name, bars, self._predictors, parts)
    else:
      trainer = self._trainer(name)
      run.train(job, name, trainer, bars, parts, timed=not self._shared)
    return []

  def _check_space(
    self,
    unit: Unit,
    population: job_lib.Population,
    parts: Sequence[int] | None,
  ) -> None:
    """Check that the disk has room for a unit before it is computed.

    Raises:
      ValueError: there is not enough; other programs may have written to it.
    """
    job = self._job
    if unit.kind == 'predictions':
      shelf = population.scores
      each = len(job.source.label) * planner.SCORE_BYTES
    else:
      shelf, each = population.models, stages.bytes_per_model(job)
    missing = shelf.missing(verify=False, among=parts)
    store.check_space(job.folder, population.count(missing) * each)

  def _trainer(self, name: str) -> Trainer:
    if name not in self._trainers:
      if not self._shared:  # else the report measures run times
        self._trainers.clear()
      self._trainers[name] = stages.trainer(self._job, name)
    return self._trainers[name]

  def _check(self, name: str) -> None:
    """Check that a population can be trained, once."""
    if name not in self._checked:
      try:
        run.check_population(self._job, name)
        self._checked[name] = None
      except Exception as error:
        self._checked[name] = error
    fault = self._checked[name]
    if fault is not None:
      raise fault

  def _report(self) -> list[pathlib.Path]:
    job = self._job
    there = [
      name
      for name, population in job.populations.items()
      if name in (*methods.BASELINES, *self._ready)
      and not population.scores.missing(verify=False)
    ]
    populations = {n: p for n, p in job.populations.items() if n in there}
    unlearners = tuple(
      one
      for one in job.settings.unlearners
      if methods.get(one.method).name in there
    )
    if not unlearners:
      raise ValueError('no method has predictions, so there is no report')
    settings = dataclasses.replace(job.settings, unlearners=unlearners)
    job = dataclasses.replace(job, settings=settings, populations=populations)
    for name in populations:  # in one process, if several have trained them
      if stages.timing_shelf(job, name).missing():
        stages.measure_time(job, name, self._trainer(name), self._bars)
    if publish.is_current(job):
      self._bars.line('report: up to date')
    else:
      self._bars.line('report: evaluating and drawing')
      publish.publish(job, self._command)
    written = publish.report_shelf(job).info()['files']
    return [job.folder / name for name in written]


def _ready(study: Study, done: Collection[str]) -> tuple[str, ...]:
  """Return the methods whose search, if there is one, succeeded."""
  if study.search is None:
    return study.methods
  return tuple(
    name
    for name in study.methods
    if name in study.earlier or _search_unit(study, name) in done
  )


def _search_unit(study: Study, method: str) -> str:
  """Return the name of the unit that searches a method for a table."""
  assert study.search is not None
  return f'{study.cell.name}/{study.search.name}/search/{method}'
