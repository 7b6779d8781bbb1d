"""Train, unlearn, attack and report: `python -m jaxmu.main --config=NAME`.

  --config=NAME[:SCALE]            msg_resnet, ct_tinyvit:cifar10, benchmark
  --config=unlearn:METHOD,MODEL,SCALE    in any order; plug-ins as my_method.py
  --config=FILE.py[:ARGUMENT]      a file with a function get_config
  --config.SECTION.FIELD=VALUE     change a field of the configuration
  --workdir=DIR                    the folder to write to
  --compare=METHOD,METHOD          further methods to compare
  --plan                           print stages, models, time, memory and disk;
                                   trains no model, but measures a few steps,
                                   which may take minutes
  --plan --quick                   measure nothing; times are known if they were
                                   measured before
  --plan --for=v5e:2x2             compile the programs for TPUs or GPUs that
                                   this machine need not have, and print the
                                   estimates of the compiler

A scale is digits (the default), mnist, fashion_mnist, cifar10, cifar100 or
utkface; the suffix -ulira selects 64 splits and 10 forget sets, and the suffix
,paper selects methods as in their original papers.
"""

import pathlib
import shlex
import sys
import textwrap
from collections.abc import Callable, Sequence
from typing import Any

from jaxmu import cli


def main(argv: Sequence[str]) -> None:
  """Run the job that the arguments describe.

  Args:
    argv: arguments without the name of the program.

  Raises:
    SystemExit: with a line that says what is wrong and what to do.
  """

  def run_job(chosen: Any, request: Any) -> None:
    # Imported late: the number of devices must be set before JAX starts.
    from jaxmu.study import forecast, job, planner, run, store

    for field in request.fields:
      if field.startswith('config.search.'):
        cli.warn(f'--{field} has no effect: python -m jaxmu.search reads it')
    name = request.machine
    machine = _other_machine(name, request.plan) if name else None
    if not request.plan:
      line = shlex.join(['python', '-m', 'jaxmu.main', *argv])
      run.run(chosen, command=line)
      return
    store.check_workdir(chosen.workdir)
    opened = job.open_job(chosen)
    run.check_job(opened, planner.plan_steps(opened))
    if machine:
      print(forecast.plan_text(opened, machine, tell=print))
    else:
      print(planner.plan_text(opened, tell=print, quick=request.quick))

  command(argv, __doc__ or '', run_job, more=('for', 'quick'))


def _other_machine(name: str, plan: bool) -> Any:
  """Return the machine of --for, and set JAX up to compile for it.

  Raises:
    ValueError: the machine is unknown, or --plan is missing.
    ImportError: the machine's compiler is not installed.
  """
  import jax

  from jaxmu import platforms

  if not plan:
    raise ValueError(f'--for={name} describes a plan; add --plan')
  # libtpu must not look for a TPU, and programs for it cannot be read from the
  # cache.
  jax.config.update('jax_platforms', 'cpu')
  jax.config.update('jax_enable_compilation_cache', False)
  return platforms.machine(name)


def command(
  argv: Sequence[str],
  description: str,
  run: Callable[[Any, Any], None],
  more: Sequence[str] = (),
) -> None:
  """Run a command whose arguments describe a job.

  Args:
    argv: arguments without the name of the program.
    description: the help, which the names of configurations follow.
    run: receives the checked settings and the `arguments.Request`.
    more: flags of this command besides `arguments.FLAGS`.

  Raises:
    SystemExit: with a line that says what is wrong and what to do.
  """
  if {'-h', '--help', '--helpfull'} & set(argv):
    print(_help(description))
    return
  with cli.one_line_errors():
    run(*start(argv, more))


def start(argv: Sequence[str], more: Sequence[str] = ()) -> tuple[Any, Any]:
  """Parse arguments and start JAX.

  Returns:
    The checked settings of the job, and the `arguments.Request`.

  Raises:
    ValueError: an argument is wrong; the message says what to do.
  """
  print('starting JAX', flush=True)
  # Imported late: help needs no JAX.
  from absl import logging

  from jaxmu.cli import arguments

  logging.set_verbosity(logging.WARNING)
  request = arguments.read(argv, more)
  for note in request.notes:
    print(note)
  set_up_jax(request.config)
  # Imported late: the number of devices must be set before JAX starts.
  from jaxmu.study import settings, unread

  chosen = settings.from_config(request.config)
  for line in unread.lines(chosen, request.fields):
    cli.warn(line)
  return chosen, request


def set_up_jax(config: dict[str, Any]) -> None:
  """Choose the number of CPU devices and keep compiled programs.

  Args:
    config: fields of a job.
  """
  import jax

  from jaxmu.study import execution

  # Wrong values are reported later, with those of all other settings.
  run = config.get('run')
  wanted = run.get('devices', 0) if isinstance(run, dict) else 0
  given = isinstance(wanted, int) and 0 < wanted <= execution.MOST_DEVICES
  devices = wanted if given else execution.cores()
  jax.config.update('jax_num_cpu_devices', devices)
  for name, value in execution.open_program_cache().items():
    jax.config.update(name, value)


def _help(description: str) -> str:
  names = textwrap.fill(', '.join(configuration_names()), 78)
  return f'{description}\nThe names:\n\n{names}'


def configuration_names() -> list[str]:
  """Return `jaxmu.study.recipes.names()`, without an import of JAX."""
  folder = pathlib.Path(__file__).parent / 'methods'
  known = sorted(path.stem for path in folder.glob('[!_]*.py'))
  pairs = [
    f'{method}_{model}'
    for method in known
    if method != 'baselines'
    for model in ('resnet', 'tinyvit')
  ]
  return ['benchmark', 'unlearn', *pairs]


if __name__ == '__main__':
  main(sys.argv[1:])
