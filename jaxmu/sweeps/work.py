"""Perform the units of a sweep by the stages of jobs and of searches.

Units of one study share its opened job, which is closed when a unit of another
study comes. Everything is stored by address, so a unit that is finished is only
looked up.
"""

import contextlib
import dataclasses
import pathlib
import time
from types import TracebackType

from jaxmu import files, methods, terms
from jaxmu.population import Layout, Predictor
from jaxmu.report import progress
from jaxmu.study import job as job_lib
from jaxmu.study import planner, publish, run, stages, store, tuned
from jaxmu.sweeps import engine, leaderboard, status
from jaxmu.sweeps.design import Study, Sweep
from jaxmu.sweeps.graph import BASELINES, Graph, Unit
from jaxmu.sweeps.status import repeat
from jaxmu.tuning import driver, opening


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
    run_units: the engine.

  Returns:
    Reason and repeating command of each unit that failed, by name.

  Raises:
    ValueError: the folder cannot be written, or another sweep runs in it.
  """
  with progress.Progress() as bars, Worker(sweep, command, bars) as work:
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


class Worker:
  """Performs units; a context manager, which holds the sweep's folder.

  Args:
    sweep: the sweep.
    command: the command line of the user.
    bars: where to show progress.
  """

  def __init__(self, sweep: Sweep, command: str, bars: progress.Progress):
    self._sweep, self._command, self._bars = sweep, command, bars
    self._studies = {study.name: study for study in sweep.studies}
    self._lock = contextlib.ExitStack()
    self._current: _Search | _Table | None = None
    self._done: set[str] = set()
    self._closed: dict[str, Exception] = {}

  def __enter__(self) -> 'Worker':
    store.check_workdir(self._sweep.workdir)
    self._sweep.workdir.mkdir(parents=True, exist_ok=True)
    try:
      self._lock.enter_context(
        files.lock(self._sweep.workdir / status.LOCK, wait=False)
      )
    except BlockingIOError:
      raise ValueError(
        f'config.workdir = {files.shown(self._sweep.workdir)!r} is in use by '
        'another sweep; wait for it to end (--status shows how far it is), or '
        'choose another folder with --workdir=PATH'
      ) from None
    files.refresh(self._sweep.workdir, send=True)
    status.forget_running(self._sweep.workdir)
    return self

  def __exit__(
    self,
    kind: type[BaseException] | None,
    error: BaseException | None,
    trace: TracebackType | None,
  ) -> None:
    self._close()
    self._lock.close()

  def __call__(self, unit: Unit) -> None:
    """Perform a unit, and record its state for `--status`.

    Raises:
      Exception: whatever makes it impossible.
    """
    begin = time.time()
    record = status.Record('running', status.key(self._studies, unit))
    self._write(unit, record)
    try:
      self._perform(unit)
    except Exception as error:
      failed = record._replace(
        state='failed',
        reason=engine.reason(error),
        command=repeat(self._command, unit.name),
      )
      self._bars.line(f'{unit.name} failed: {failed.reason}')
      with contextlib.suppress(OSError):  # the reason may be a full disk
        self._write(unit, failed)
      raise
    seconds = round(time.time() - begin, 3)
    self._write(unit, record._replace(state='done', seconds=seconds))
    self._done.add(unit.name)

  def _write(self, unit: Unit, record: status.Record) -> None:
    status.write(self._sweep.workdir, unit, record)

  def _perform(self, unit: Unit) -> None:
    if unit.kind == 'table':
      self._close()
      for path in leaderboard.write(self._sweep, self._command):
        self._bars.line(f'{files.shown(path)} written')
    else:
      self._open(self._studies[unit.owner]).perform(unit)

  def _open(self, study: Study) -> '_Search | _Table':
    if study.name in self._closed:
      raise self._closed[study.name]
    if self._current is None or self._current.study is not study:
      self._close()
      self._bars.line(f'\n{study.name}')
      try:
        if study.searches:
          self._current = _Search(study, self._bars)
        else:
          self._current = _Table(study, self._done, self._command, self._bars)
      except Exception as error:
        self._closed[study.name] = error
        raise
    return self._current

  def _close(self) -> None:
    if self._current is not None:
      self._current.close()
      self._current = None


class _Open:
  """A study that is being worked on; its work directory is held."""

  def __init__(self, study: Study, bars: progress.Progress):
    self.study, self._bars = study, bars
    self._stack = contextlib.ExitStack()
    folder = files.workdir(study.settings.workdir)
    self._stack.enter_context(store.hold_workdir(folder))

  def close(self) -> None:
    """Release the work directory."""
    self._stack.close()


class _Search(_Open):
  """The searches of a study."""

  def __init__(self, study: Study, bars: progress.Progress):
    super().__init__(study, bars)
    try:
      self._opened = opening.open_search(study.settings, bars.line)
      job = self._opened.job
      store.check_space(job.folder, planner.bytes_to_write(self._opened.steps))
    except BaseException:
      self.close()
      raise

  def perform(self, unit: Unit) -> None:
    """Train a baseline, or search a method."""
    job = self._opened.job
    if unit.kind in BASELINES:
      driver.train_baseline(job, BASELINES[unit.kind], self._bars)
      return
    finished, path = self._finished(unit.label)
    files.refresh(path.parent)
    if not finished.missing() and path.is_file():
      if finished.info()['sha256'] == files.sha256(path):
        self._bars.line(f'{unit.label}: setting in {files.shown(path)}')
        return
    settings = self.study.settings
    (found,) = driver.search_methods(
      settings, self._opened, self._bars, [unit.label]
    )
    finished.save(0, info={'sha256': files.sha256(found.path)})

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
    self, study: Study, done: set[str], command: str, bars: progress.Progress
  ):
    super().__init__(study, bars)
    self._done, self._command = done, command
    self._predictors: dict[Layout, Predictor] = {}
    self._faults: dict[str, Exception] = {}
    try:
      ready = [name for name in study.methods if self._is_ready(name)]
      # Without a searched method, the originals are trained all the same.
      settings = study.ready(ready) if ready else study.settings
      self._job = job_lib.open_job(settings)
      steps = planner.plan_steps(self._job)
      store.check_space(self._job.folder, planner.bytes_to_write(steps))
      for name in self._job.populations:
        try:
          run.check_population(self._job, name)
        except Exception as error:
          self._faults[name] = error
      work = planner.training_work(steps)
      self._job = planner.choose_plan(self._job, work, bars.line)
    except BaseException:
      self.close()
      raise

  def _is_ready(self, method: str) -> bool:
    """Return whether the search of a method, if there is one, succeeded."""
    if self.study.search is None:
      return True
    name = f'{self.study.cell.name}/{self.study.search.name}/search/{method}'
    return name in self._done

  def perform(self, unit: Unit) -> None:
    """Train a population, predict with it, or write the report."""
    name = BASELINES.get(unit.kind, unit.label)
    if unit.kind == 'report':
      self._report(unit)
    elif name in self._faults:
      raise self._faults[name]
    elif unit.kind == 'predictions':
      stages.predict(self._job, name, self._bars, self._predictors)
    else:
      run.train(self._job, name, self._bars)

  def _report(self, unit: Unit) -> None:
    there = [
      name.rpartition('/')[2]
      for name in (*unit.needs, *unit.uses)
      if name in self._done
    ]
    job = self._job
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
    if publish.is_current(job):
      self._bars.line('report: up to date')
      return
    self._bars.line('report: evaluating and drawing')
    publish.publish(job, self._command)
