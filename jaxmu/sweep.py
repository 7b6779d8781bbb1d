"""Plan and run a whole benchmark: `python -m jaxmu.sweep --config=NAME`.

  --config=deep_unlearn[:SCALE]    digits (the default), laptop, paper, or
                                   reference, which has the benchmark's own
                                   rules
  --config=FILE.py[:ARGUMENT]      a file with a function get_config, such as
                                   configs/deep_unlearn.py
  --config.data=NAME,NAME          data sets; also .models, .methods, .studies
                                   (search, main, ulira), .ulira_data,
                                   .ulira_models and .ulira_methods
  --config.settings=DIR            take settings that an earlier search has
                                   found from the folder of a sweep or of
                                   published results, or by the name of those in
                                   the package (laptop); search the others
  --config.all.FIELD=VALUE         change a field of all jobs, such as
                                   --config.all.run.shard=16
  --config.STUDY.FIELD=VALUE       change a field of the jobs of a study: main,
                                   ulira, search (for main) or ulira_search
  --workdir=DIR                    the folder to write to
  --plan                           print models, work, device hours and disk;
                                   train nothing
  --status                         print what is done, running, failed and
                                   missing, also while a sweep runs
  --only=NAME                      run a cell, a study (CELL/STUDY) or a unit
                                   alone, with what it needs
  --share=INDEX/COUNT              be one of several processes that divide the
                                   work, on one machine or many; auto in a Slurm
                                   array, an indexed job or a TPU slice
  --engine=ray                     run on a Ray cluster: RAY_ADDRESS, or else
                                   this machine
  --resources=cpu=1,gpu=1          what Ray reserves for each process

Each cell, a data set and a model, has one job per study, in
WORKDIR/DATA_MODEL/STUDY. The methods of a table have the settings that the
search of its cell has chosen. A sweep that is interrupted continues when it is
started again. What fails does not stop the rest; it is listed at the end with
the command that repeats it, and the exit code is 1.
"""

import shlex
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from jaxmu import cli, terms
from jaxmu import main as job_command


def _function() -> Callable[..., Any]:
  from jaxmu.api import sweep

  return sweep


# `jaxmu.sweep()` is `jaxmu.api.sweep` also after `import jaxmu.sweep`.
cli.make_callable(__name__, _function)

NAMED = 'deep_unlearn'
FLAGS = (
  *('config', 'workdir', 'only', 'plan', 'status'),
  *('share', 'engine', 'resources'),
)


class Request(NamedTuple):
  """The content of a command line.

  Attributes:
    config: fields of the sweep, not checked yet.
    plan: whether to only print the plan.
    status: whether to only print the state.
    only: which units, with what they need; '' for all.
    share: which of several processes, '' if there are no others.
    engine: 'local' or 'ray'.
    resources: what Ray reserves for each process; '' to choose.
  """

  config: dict[str, Any]
  plan: bool
  status: bool
  only: str
  share: str
  engine: str
  resources: str


def main(argv: Sequence[str]) -> None:
  """Run the sweep that the arguments describe.

  Args:
    argv: arguments without the name of the program.

  Raises:
    SystemExit: with a line that says what is wrong and what to do.
  """
  if {'-h', '--help', '--helpfull'} & set(argv):
    print(__doc__)
    return
  with cli.one_line_errors():
    _run(argv)


def read(argv: Sequence[str]) -> Request:
  """Parse the arguments of a sweep.

  Raises:
    ValueError: a flag, configuration or field is unknown, or a value has the
      wrong type; the message names the argument and the remedy.
  """
  # Imported late: help needs no JAX.
  from jaxmu.cli import arguments
  from jaxmu.sweeps import design

  given = list(arguments.split(argv))
  named = [one.value() for one in given if one.name == 'config']
  if len(named) != 1:
    both = ' and '.join(map(repr, named))
    raise ValueError(
      (f'two configurations, {both}; ' if named else 'no configuration; ')
      + f'give one as --config={NAMED}:digits or --config=FILE.py'
    )
  config = design.complete(_load(named[0]))
  flags: dict[str, Any] = {}
  for one in given:
    section, _, field = one.name.removeprefix('config.').partition('.')
    if one.name in ('plan', 'status'):
      flags[one.name] = one.switch()
    elif one.name in FLAGS:
      flags[one.name] = one.value()
    elif not one.name.startswith('config.'):
      known = [f'--{flag}' for flag in FLAGS]
      raise ValueError(
        f'unknown flag --{one.name}; '
        f'{terms.nearest(f"--{one.name}", known)}choose one of '
        f'{", ".join(known)}, or a field as --config.data=NAME,NAME or '
        '--config.main.splits.seeds=5'
      )
    elif section in design.SECTIONS and field:
      config[section][field] = _typed(config, section, field, one)
    elif section in design.SECTIONS:
      raise ValueError(
        f'{one}: config.{section} has fields of jobs; give one, as '
        f'--config.{section}.seed=VALUE'
      )
    elif field or section not in design.FIELDS:
      raise ValueError(
        f'{one}: no field {one.name.removeprefix("config.")!r}; '
        f'{terms.choices(section, design.FIELDS)}, and give fields of jobs as '
        f'--config.all.{field or "seed"}=VALUE'
      )
    else:
      config[section] = one.value()
  config['workdir'] = flags.get('workdir', config['workdir'])
  return Request(
    config,
    flags.get('plan', False),
    flags.get('status', False),
    flags.get('only', ''),
    flags.get('share', ''),
    flags.get('engine', 'local'),
    flags.get('resources', ''),
  )


def _load(spec: str) -> dict[str, Any]:
  from jaxmu import files
  from jaxmu.cli import arguments
  from jaxmu.study import recipes
  from jaxmu.sweeps import design

  place, colon, argument = spec.partition(':')
  known = (NAMED, f'configs/{NAMED}.py')
  if place == NAMED or place == known[1] and not files.path(place).is_file():
    return design.deep_unlearn(argument)
  if recipes.named(place):
    raise ValueError(
      f'{spec!r} is the configuration of a job, not of a sweep; run it with '
      'python -m jaxmu.main'
    )
  if not place.endswith('.py'):
    raise ValueError(
      f'no sweep {place!r}; {terms.nearest(place, [NAMED])}give {NAMED}:SCALE '
      'or a file that ends in .py'
    )
  return arguments.from_file(place, (argument,) if colon else ())


def _typed(config: dict[str, Any], section: str, field: str, one: Any) -> Any:
  """Return the value of a field of jobs in the type of the field."""
  from jaxmu.cli import arguments
  from jaxmu.study import recipes
  from jaxmu.sweeps import design

  # A job without the sweep's own fields, which are checked later. Types do not
  # depend on the data, and every study has a method here.
  own = {'data': 'digits', 'ulira_data': 'digits', 'settings': ''}
  full = design.complete({**config, **own, 'ulira_methods': config['methods']})
  cell = design.Cell(full['data'][0], full['models'][0])
  kind = 'main' if section == 'all' else section
  job = design.job_config(
    {**full, **dict.fromkeys((*design.SECTIONS, 'cells'), {})}, cell, kind
  )
  arguments.set_field(job, f'config.{field}', one.text, shown=one.name)
  place, key = recipes.locate(job, field)
  return place[key]


def _run(argv: Sequence[str]) -> None:
  print('starting JAX', flush=True)
  from absl import logging

  logging.set_verbosity(logging.WARNING)
  request = read(argv)
  config, only = request.config, request.only
  if only and request.plan:
    raise ValueError(
      f'--only={only} --plan: a plan is that of the whole sweep; drop --only'
    )
  if request.plan and request.status:
    raise ValueError('--plan --status: give one of them')
  on_ray = request.engine == 'ray'
  if request.engine not in ('local', 'ray'):
    raise ValueError(f'--engine={request.engine}: choose local or ray')
  if on_ray and request.share:
    raise ValueError(
      f'--engine=ray --share={request.share}: Ray divides the work by itself; '
      'drop --share'
    )
  if request.resources and not on_ray:
    raise ValueError(f'--resources={request.resources} needs --engine=ray')
  _start_jax(config, request.status or on_ray)
  # Imported late: the number of devices must be set before JAX starts.
  from jaxmu.sweeps import design, engine, graph, plan, status, work

  one = engine.parse_share(request.share) if request.share else None
  sweep = design.from_config(config)
  units = graph.build(sweep)
  if only:
    units = units.select(only)
  if request.plan:
    print(plan.text(sweep, units))
  elif request.status:
    print(status.text(sweep, units))
  else:
    line = shlex.join(['python', '-m', 'jaxmu.sweep', *argv])
    run_units = engine.local
    if one:
      run_units = engine.Shared(one)
    elif on_ray:
      from jaxmu.sweeps import ray_engine

      run_units = ray_engine.Cluster(
        config, line, request.resources, _start_jax
      )
    if work.perform_all(sweep, units, line, run_units):
      sys.exit(1)


def _start_jax(config: dict[str, Any], cpu: bool, devices: int = 0) -> None:
  """Start JAX for a sweep.

  Args:
    config: of the sweep.
    cpu: leave other devices to the processes that use them.
    devices: how many to use on a CPU if the sweep does not say; 0 for all.
  """
  import jax

  if cpu:
    jax.config.update('jax_platforms', 'cpu')
  devices = config['all'].get('run.devices', 0) or devices
  job_command.set_up_jax({'run': {'devices': devices}})


if __name__ == '__main__':
  main(sys.argv[1:])
