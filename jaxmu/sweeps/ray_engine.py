"""Run the parts of a sweep on a Ray cluster.

Every part of a unit is a Ray task, which reserves CPUs, GPUs or TPU chips. The
process of a task stays and performs further parts, so JAX starts once and a
study is opened once per process. Ray places tasks, starts them again when a
process or a machine is lost, and adds machines where it may.

The driver, which runs no part itself, submits a part as soon as all that its
unit needs is made. Parts are kept apart by the same locks as those of
`--share`, so a second driver or a task that Ray believes to be lost does no
harm.
"""

import os
import pathlib
import socket
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from jaxmu import files, terms
from jaxmu.report import progress
from jaxmu.sweeps import design, engine, graph, work
from jaxmu.sweeps.graph import Graph

# Starts JAX: configuration of the sweep, whether on the CPU, and its devices.
Start = Callable[[dict[str, Any], bool, int], None]

_RETRIES = 3  # of a task whose process or machine was lost
_CHIPS_PER_HOST = 4  # of a TPU; a process takes all of them
_ANSWER = 10.0  # seconds in which a cluster answers
_PAUSE = 1.0  # seconds between looks at a part that another process performs


class Cluster:
  """An engine; see the module's docstring.

  Args:
    config: of the sweep.
    command: the command line of the user.
    resources: what a process reserves, such as 'cpu=2,gpu=1'; '' for a GPU, all
      chips of a TPU host, or a CPU, whichever the cluster has first.
    start: starts JAX in a process of the cluster.

  Raises:
    ValueError: Ray is not installed, or `resources` cannot be read.
  """

  def __init__(
    self,
    config: Mapping[str, Any],
    command: str,
    resources: str,
    start: Start,
  ):
    try:
      import ray
    except ImportError:
      raise ValueError(
        "--engine=ray needs Ray; install it with: pip install 'jaxmu[ray]'"
      ) from None
    self._ray: Any = ray
    self._wanted = parse(resources)
    where = files.shown(files.workdir(str(config['workdir'])).absolute())
    self._config = {**config, 'workdir': where}
    self._command, self._start = command, start

  def __call__(self, graph: Graph, work: engine.Work) -> engine.Outcome:
    """Return what failed, once all units are made or have failed."""
    ray = self._ray
    address = os.environ.get('RAY_ADDRESS')
    try:
      if address:
        _check_answer(address)
      ray.init(address=address, log_to_driver=False, configure_logging=False)
    except (ValueError, OSError, RuntimeError) as error:
      if not address:
        raise
      raise ValueError(
        f'RAY_ADDRESS={address}: there is no Ray cluster '
        f'({engine.reason(error)}); start one there, or unset RAY_ADDRESS to '
        'use this machine'
      ) from error
    try:
      wanted = self._wanted or choose(ray.cluster_resources())
      work.tell(f'Ray: {_described(wanted)} per process')
      lacking = exceeding(wanted, ray.cluster_resources())
      if lacking and address:
        work.tell(f'Ray: waiting for a machine with {_described(lacking)}')
      elif lacking:
        raise ValueError(
          f'--resources={_described(lacking)} is more than this machine has; '
          'reserve less, or give the address of a cluster in RAY_ADDRESS'
        )
      task = ray.remote(_perform).options(
        num_cpus=wanted.get('cpu', 0),
        num_gpus=wanted.get('gpu', 0),
        resources={'TPU': wanted['tpu']} if 'tpu' in wanted else None,
        max_retries=_RETRIES,
      )
      sent = _Sent(
        *(self._config, self._command, self._start, wanted, os.getcwd())
      )
      return self._run(graph, work, lambda *part: task.remote(sent, *part))
    finally:
      ray.shutdown()

  def _run(
    self, graph: Graph, work: engine.Work, submit: Callable[..., Any]
  ) -> engine.Outcome:
    failed: dict[str, str] = {}
    states = work.survey()
    left = {u.name: set(range(u.tasks)) - states[u.name].done for u in graph}
    flying: dict[Any, tuple[str, int]] = {}
    submitted: set[str] = set()
    while True:
      made = [name for name, parts in left.items() if not parts]
      verdict = engine.judge(graph, made, failed)
      for unit in graph:
        settled = unit.name in submitted or unit.name in verdict.blocked
        if not settled and verdict.is_ready(unit):
          submitted.add(unit.name)
          for part in sorted(left[unit.name]):
            flying[submit(unit.name, part)] = unit.name, part
      if not flying:
        return engine.Outcome(
          failed, [u.name for u in graph if u.name in verdict.blocked]
        )
      (ready,), _ = self._ray.wait(list(flying), num_returns=1)
      name, part = flying.pop(ready)
      try:
        why = self._ray.get(ready)
      except self._ray.exceptions.RayError as error:
        *_, last = str(error).strip().splitlines() or [type(error).__name__]
        why = f'Ray could not run it: {last.strip()}'
      if why and name not in failed:
        failed[name] = why
        work.tell(f'{name} failed: {why}')
      left[name].discard(part)
      if not left[name] and name not in failed:
        work.tell(
          f'{len(made) + 1} of {terms.count(len(graph), "unit")}: {name}'
        )


def _check_answer(address: str) -> None:
  """Check that something answers, for which Ray itself waits for minutes.

  Raises:
    OSError: nothing does.
  """
  host, _, port = address.removeprefix('ray://').rpartition(':')
  if port.isdecimal():  # else 'auto' or 'local'
    socket.create_connection((host, int(port)), _ANSWER).close()


def parse(text: str) -> dict[str, float]:
  """Return what a process reserves.

  Raises:
    ValueError: a name or number is wrong.

  Example:
    >>> parse('cpu=2,gpu=1')
    {'cpu': 2.0, 'gpu': 1.0}
  """
  found = {}
  for word in filter(None, text.split(',')):
    name, _, number = word.partition('=')
    try:
      if name in found:
        raise ValueError
      found[name] = terms.number(number, float)
      if name not in ('cpu', 'gpu', 'tpu') or not 0 < found[name] < 1e6:
        raise ValueError
    except ValueError:
      raise ValueError(
        f'--resources={text}: {word!r} is not one of cpu=NUMBER, gpu=NUMBER '
        'and tpu=NUMBER, each at most once'
      ) from None
  return found


def choose(cluster: Mapping[str, float]) -> dict[str, float]:
  """Return what a process reserves on a cluster.

  Args:
    cluster: the resources of the cluster by Ray's names.

  Example:
    >>> choose({'CPU': 16, 'GPU': 1}), choose({'CPU': 2})
    ({'cpu': 1, 'gpu': 1}, {'cpu': 1})
  """
  if cluster.get('GPU'):
    return {'cpu': 1, 'gpu': 1}
  if cluster.get('TPU'):
    return {'cpu': 1, 'tpu': _CHIPS_PER_HOST}
  return {'cpu': 1}


def exceeding(
  wanted: Mapping[str, float], cluster: Mapping[str, float]
) -> dict[str, float]:
  """Return what a process reserves and a whole cluster does not have.

  Example:
    >>> exceeding({'cpu': 2.0, 'gpu': 1.0}, {'CPU': 4.0})
    {'gpu': 1.0}
  """
  return {
    name: number
    for name, number in wanted.items()
    if number > cluster.get(name.upper(), 0)
  }


def _described(wanted: Mapping[str, float]) -> str:
  return ', '.join(f'{name}={number:g}' for name, number in wanted.items())


# Of this process, by sweep: what performs its units, and its graph.
_workers: dict[str, tuple[work.Worker, Graph]] = {}


class _Sent(NamedTuple):
  """What a process of the cluster needs to perform units.

  Attributes:
    config: of the sweep.
    command: the command line of the user.
    start: starts JAX.
    wanted: what the process reserves.
    folder: the folder of the driver.
  """

  config: dict[str, Any]
  command: str
  start: Start
  wanted: Mapping[str, float]
  folder: str


def _perform(sent: _Sent, name: str, part: int) -> str:
  """Perform a part in a process of the cluster.

  Returns:
    Why it failed, '' if it did not.
  """
  try:
    worker, units = _worker(sent)
  except Exception as error:  # whatever a configuration makes impossible
    return engine.reason(error)
  unit = units.units[name]
  while True:
    try:
      worker.survey()
      with worker.claimed(unit, [part]) as free:
        if free:
          worker(unit, free)
          return ''
    except engine.NotReady:
      return 'what it needs is no longer in the store; start the sweep again'
    except Exception as error:  # whatever a plug-in or the machine raises
      return engine.reason(error)
    time.sleep(_PAUSE)


def _worker(sent: _Sent) -> tuple[work.Worker, Graph]:
  key = files.digest(repr(sent.config))
  if key not in _workers:
    if pathlib.Path(sent.folder).is_dir():
      os.chdir(sent.folder)  # plug-ins may be named by relative paths
      sys.path.insert(0, sent.folder)
    on_cpu = not {'gpu', 'tpu'}.intersection(sent.wanted)
    sent.start(sent.config, on_cpu, max(1, int(sent.wanted.get('cpu', 1))))
    sweep = design.from_config(sent.config)
    units = graph.build(sweep)
    bars = progress.Progress()
    worker = work.Worker(sweep, units, sent.command, bars, shared=True)
    _workers[key] = worker.__enter__(), units  # held until the process ends
  return _workers[key]
