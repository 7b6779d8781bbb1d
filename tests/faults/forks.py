"""Run commands of jaxmu in forked children of a process that is ready.

An import of JAX takes seconds and a fork milliseconds. `python -m
tests.faults.forks` imports all commands, but starts no backend of JAX and so no
thread of it; then it runs each request that it reads in a forked child.

  request    argv, environment, seconds and memory allowed, and a fault, as one
             line of JSON; several commands of one request run together
  answer     exit code, output, seconds and memory of each, as one line of JSON
"""

import contextlib
import dataclasses
import gc
import importlib
import importlib.util
import json
import os
import pathlib
import resource
import select
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jaxmu import cli

ROOT = pathlib.Path(__file__).parents[2]
SECONDS = 300.0
GIGABYTES = 6.0

# Commands and what they import late, but for what starts a backend.
_IMPORTED = (
  *(f'jaxmu.{name}' for name in ('main', 'attack', 'prepare', 'rank')),
  *(f'jaxmu.{name}' for name in ('unlearn', 'store', 'search', 'sweep')),
  *(
    'jaxmu.api',
    'jaxmu.api.request',
    'jaxmu.study.run',
    'jaxmu.study.forecast',
  ),
  *('jaxmu.study.shelves', 'jaxmu.sweeps.pruning', 'jaxmu.sweeps.engine'),
  *('jaxmu.tuning.driver', 'jaxmu.data.official', 'jaxmu.report.html'),
  *('orbax.checkpoint', 'matplotlib.pyplot', 'sklearn.datasets', 'PIL.Image'),
)


@dataclasses.dataclass(frozen=True)
class Call:
  """A command to run.

  Attributes:
    module: whose `main` runs, as 'jaxmu.main'.
    argv: its arguments.
    fault: for `hooks.install`; empty for none.
    seconds: after which it counts as hanging and is killed.
    kill_after: seconds of processor time after which it is killed on purpose;
      0 for never. Unlike the time of the clock, they do not depend on what else
      the machine does.
    signal: the signal of `kill_after`.
    delay: seconds to wait before it starts.
    patches: names of functions, as 'module:name', to replace by one that
      returns the text.
  """

  module: str
  argv: tuple[str, ...]
  environment: Mapping[str, str] = dataclasses.field(default_factory=dict)
  cwd: str = str(ROOT)
  fault: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  seconds: float = SECONDS
  kill_after: float = 0.0
  signal: int = int(signal.SIGKILL)
  delay: float = 0.0
  patches: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Ended:
  """How a command ended.

  Attributes:
    code: exit code; the negative number of a signal.
    output: standard output and standard error.
    seconds: from start to end.
    processor: seconds of processor time.
    gigabytes: largest memory use.
    hung: whether it was killed because its time was over.
    killed: whether it was killed on purpose.
  """

  code: int
  output: str
  seconds: float
  processor: float
  gigabytes: float
  hung: bool
  killed: bool

  @property
  def last(self) -> str:
    """The last line of the output."""
    return ([''] + self.output.strip().splitlines())[-1]


class Server:
  """The process; one request at a time."""

  def __init__(self, folder: pathlib.Path, environment: Mapping[str, str]):
    folder.mkdir(parents=True, exist_ok=True)
    self._log = (folder / 'server.log').open('w')
    self._process = subprocess.Popen(
      [sys.executable, '-m', 'tests.faults.forks', str(folder / 'output')],
      cwd=ROOT,
      env={**os.environ, 'PYTHONPATH': str(ROOT), **environment},
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      stderr=self._log,
      text=True,
    )

  def run(self, *calls: Call) -> list[Ended]:
    """Run commands at the same time."""
    assert self._process.stdin and self._process.stdout
    request = json.dumps([dataclasses.asdict(call) for call in calls])
    self._process.stdin.write(f'{request}\n')
    self._process.stdin.flush()
    answer = self._process.stdout.readline()
    if not answer:
      raise RuntimeError(f'the server has ended, see {self._log.name}')
    return [Ended(**one) for one in json.loads(answer)]

  def close(self) -> None:
    """End the process."""
    assert self._process.stdin
    self._process.stdin.close()
    self._process.wait(timeout=60)
    self._log.close()


@contextlib.contextmanager
def serve(
  folder: pathlib.Path, environment: Mapping[str, str]
) -> Iterator[Server]:
  """Start a server and end it with the block."""
  server = Server(folder, environment)
  try:
    yield server
  finally:
    server.close()


def _child(call: Call, output: str) -> None:
  """Run a command as `python -m` would; never returns."""
  code = 1
  try:
    # A new session would have the usual priority, whatever this process has.
    os.setpgid(0, 0)
    # Shells start programs in the background with SIGINT ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    time.sleep(call.delay)
    os.environ.update(call.environment)
    os.chdir(call.cwd)
    sys.argv = [call.module, *call.argv]
    # A command ends at signals if it is the program of the process.
    sys.modules['__main__'].__spec__ = importlib.util.find_spec(call.module)
    cli._watch_signals()
    most = int(4 * GIGABYTES * 1e9)  # addresses, of which JAX takes many
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    for place, text in call.patches.items():
      module, _, name = place.partition(':')
      setattr(
        importlib.import_module(module), name, lambda *_, _t=text, **__: _t
      )
    module = importlib.import_module(call.module)
    if call.fault:
      from tests.faults import hooks

      hooks.install(call.fault)
    module.main(list(call.argv))
    code = 0
  except SystemExit as end:
    code = end.code if isinstance(end.code, int) else int(end.code is not None)
    if isinstance(end.code, str):
      print(end.code, file=sys.stderr)
  except BaseException:
    traceback.print_exc()
  finally:
    with contextlib.suppress(BaseException):
      sys.stdout.flush()
      sys.stderr.flush()
    os._exit(code)


def _processor_seconds(pid: int) -> float:
  """Return the processor time of a process that may have ended."""
  fields = pathlib.Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2]
  user, system = fields.split()[11:13]
  return (int(user) + int(system)) / os.sysconf('SC_CLK_TCK')


def _run(calls: Sequence[Call], output: str) -> list[Ended]:
  """Run commands in children at the same time."""
  started = time.monotonic()
  running, ended = {}, {}
  for index, call in enumerate(calls):
    pid = os.fork()
    if not pid:
      _child(call, f'{output}.{index}')
    running[pid] = index
  doomed: dict[int, str] = {}
  while running:
    pid, status, usage = os.wait4(-1, os.WNOHANG)
    now = time.monotonic() - started
    if pid:
      index = running.pop(pid)
      text = pathlib.Path(f'{output}.{index}').read_text(errors='replace')
      ended[index] = Ended(
        os.waitstatus_to_exitcode(status),
        text,
        now,
        usage.ru_utime + usage.ru_stime,
        usage.ru_maxrss / 1e6,
        doomed.get(index) == 'hung',
        doomed.get(index) == 'killed',
      )
      continue
    for pid, index in running.items():
      call = calls[index]
      due = call.kill_after and index not in doomed
      if due and _processor_seconds(pid) > call.kill_after:
        doomed[index] = 'killed'
        os.kill(pid, call.signal)
      elif now > call.seconds and doomed.get(index) != 'hung':
        doomed[index] = 'hung'
        os.kill(pid, signal.SIGKILL)
    time.sleep(0.005)
  return [ended[index] for index in range(len(calls))]


def _keep_all_programs() -> None:
  """Keep programs that compile fast too: a job of seconds has many."""
  from jaxmu.study import execution

  open_cache = execution.open_program_cache

  def open_all():
    least = 'jax_persistent_cache_min_compile_time_secs'
    return {**open_cache(), least: 0.0}

  execution.open_program_cache = open_all


def _serve(output: str) -> None:
  answers = os.fdopen(os.dup(1), 'w')
  os.dup2(2, 1)  # nothing but answers goes to the pipe
  for name in _IMPORTED:
    importlib.import_module(name)
  _keep_all_programs()
  # A collection in a child would copy the memory of all that was imported.
  gc.collect()
  gc.freeze()
  while select.select([sys.stdin], [], []) and (line := sys.stdin.readline()):
    calls = [Call(**one) for one in json.loads(line)]
    ended = _run(calls, output)
    answers.write(json.dumps([dataclasses.asdict(one) for one in ended]) + '\n')
    answers.flush()


if __name__ == '__main__':
  _serve(sys.argv[1])
