"""Look into work directories: `python -m jaxmu.store ACTION WORKDIR`.

  list WORKDIR     print what is stored: stages and labels with shards, models,
                   size and age; reports and temporaries
  check WORKDIR    compare every shard with its record and its checksums, and
                   print the damaged ones; the exit code is 1 if there are any
    --quick        compare sizes only
  prune WORKDIR --config=NAME ...
                   print the shards that no configuration refers to, and states
                   of a sweep and temporaries that are of no use
    --config=NAME  a configuration of jaxmu.main, jaxmu.search or jaxmu.sweep
                   with the arguments that follow it, as they were given there;
                   several times for several configurations
    --workdir=DIR  where the configuration ran; WORKDIR by default
    --delete       remove what is printed

WORKDIR is the work directory of a job, of a search or of a sweep, or a folder
that holds several, also in an object store: s3://... or gs://... `list`,
`check` and `prune` without --delete change nothing; the first two also work
while jobs run, from any machine that sees the folder.
What may still be of use stays: all trials of the methods that a configuration
searches, all run times and records of reports (see jaxmu/sweeps/pruning.py).
"""

import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import jaxmu.sweep as sweep
from jaxmu import cli, files, terms
from jaxmu import main as job_command

# The flags of each action.
ACTIONS = {
  'list': (),
  'check': ('quick',),
  'prune': ('delete', 'config', 'workdir', 'compare', 'training'),
}


class _Configuration(NamedTuple):
  """A configuration of the command line.

  Attributes:
    name: as it was given.
    fields: not checked yet.
    sweeps: whether it is that of a sweep.
  """

  name: str
  fields: dict[str, Any]
  sweeps: bool


def main(argv: Sequence[str]) -> None:
  """List, check or prune what a work directory holds.

  Args:
    argv: arguments without the name of the program.

  Raises:
    SystemExit: with a line that says what is wrong and what to do; or with 1,
      if a shard is damaged.
  """
  if {'-h', '--help', '--helpfull'} & set(argv):
    print(__doc__)
    return
  with cli.one_line_errors():
    action, folder, rest = read(argv)
    if action == 'prune':
      _prune(folder, rest)
    elif action == 'check':
      _check(folder, rest)
    else:
      _list(folder, rest)


def read(argv: Sequence[str]) -> tuple[str, str, list[Any]]:
  """Return the action, the folder and the other arguments, checked."""
  from jaxmu.cli import arguments

  action, folder, *rest = [*argv, '', ''][: max(len(argv), 2)]
  if action not in ACTIONS:
    said = f'unknown action {action!r}' if action else 'no action'
    raise ValueError(
      f'{said}; {terms.nearest(action, ACTIONS)}give '
      f'python -m jaxmu.store {"|".join(ACTIONS)} WORKDIR'
    )
  if folder.startswith('-') and action == 'check' and len(rest) == 1:
    folder, rest = rest[0], [folder]  # the flag comes first
  if not folder or folder.startswith('-'):
    raise ValueError(
      f'no work directory; give it after {action}: '
      f'python -m jaxmu.store {action} WORKDIR'
    )
  words = [] if action == 'prune' else [w for w in rest if w[:1] != '-']
  if words:
    raise ValueError(
      f'{action} has no argument {words[0]!r}; give one work directory'
    )
  given = list(arguments.split(rest))
  for one in given:
    known = [f'--{flag}' for flag in ACTIONS[action]]
    fits = one.name in ACTIONS[action] or (
      action == 'prune' and one.name.startswith('config.')
    )
    if not fits:
      raise ValueError(
        f'{action} has no argument {one}; '
        f'{terms.nearest(f"--{one.name}", known)}'
        + (f'choose from {", ".join(known)}' if known else 'it takes WORKDIR')
      )
  return action, folder, given


def _list(folder: str, given: Sequence[Any]) -> None:
  from jaxmu.study import shelves

  del given
  print(shelves.listing(shelves.look(files.workdir(folder))))


def _check(folder: str, given: Sequence[Any]) -> None:
  from jaxmu.report import progress
  from jaxmu.study import shelves

  quick = any(one.switch() for one in given)
  with progress.Progress() as bars:
    view = shelves.look(files.workdir(folder))
    count, damaged = shelves.check(view, bars, verify=not quick)
    number = f'{len(damaged)} of {terms.count(count, "shard")} damaged'
    bars.line(
      f'{number}; the job that made a damaged one makes it again with '
      '--config.run.verify=True'
      if damaged
      else number
    )
  if damaged:
    sys.exit(1)


def _prune(folder: str, given: Sequence[Any]) -> None:
  from jaxmu.study import shelves

  delete = any(one.switch() for one in given if one.name == 'delete')
  chosen = _configurations(folder, given)
  view = shelves.look(files.workdir(folder).resolve())
  shelves.job_folders(view)  # before data sets are opened
  files.refresh(view.workdir)
  _start_jax(chosen)
  # Imported late: the number of devices must be set before JAX starts.
  from jaxmu.report import progress
  from jaxmu.study import settings
  from jaxmu.sweeps import design, pruning

  with progress.Progress() as bars:
    uses = [
      pruning.of_sweep(design.from_config(one.fields), one.name, bars)
      if one.sweeps
      else pruning.of_job(settings.from_config(one.fields), one.name)
      for one in chosen
    ]
  plan = pruning.plan(view, uses)
  for line in plan.lines():
    print(line)
  for doubt in (doubt for use in uses for doubt in use.doubts):
    print(f'kept as a whole: {doubt}')
  summary = plan.summary()
  kept = f'{terms.count(plan.kept, "shelf", "shelves")} kept'
  if not plan.paths:
    print(f'nothing to remove; {kept}')
  elif delete:
    pruning.remove(plan)
    print(f'removed: {summary}; {kept}')
  else:
    print(f'to remove with --delete: {summary}; {kept}')


def _configurations(folder: str, given: Sequence[Any]) -> list[_Configuration]:
  """Return each configuration with the arguments that follow it.

  Arguments before the first configuration belong to it.

  Raises:
    ValueError: there is none, or an argument of one is wrong.
  """
  groups: list[list[Any]] = []
  for one in given:
    if one.name == 'delete':
      continue
    has_one = bool(groups) and any(o.name == 'config' for o in groups[-1])
    if not groups or (one.name == 'config' and has_one):
      groups.append([])
    groups[-1].append(one)
  if not groups or all(one.name != 'config' for one in groups[0]):
    raise ValueError(
      'no configuration, so nothing is known to be of use; give those of all '
      'jobs, searches and sweeps that are to stay, as --config=NAME with their '
      'arguments'
    )
  return [_configuration(folder, group) for group in groups]


def _configuration(folder: str, group: Sequence[Any]) -> _Configuration:
  from jaxmu.cli import arguments

  (spec,) = [one.value() for one in group if one.name == 'config']
  argv = [
    '--config.search.training=true' if one.name == 'training' else str(one)
    for one in group
  ]
  if not {'workdir', 'config.workdir'} & {one.name for one in group}:
    argv.append(f'--workdir={folder}')
  sweeps = is_sweep(spec)
  read = sweep.read if sweeps else arguments.read
  return _Configuration(f'--config={spec}', read(argv).config, sweeps)


def is_sweep(spec: str) -> bool:
  """Return whether a configuration is that of a sweep, not of a job."""
  from jaxmu.cli import arguments
  from jaxmu.sweeps import design

  place, colon, argument = spec.partition(':')
  if not place.endswith('.py') or not files.path(place).is_file():
    return place in (sweep.NAMED, f'configs/{sweep.NAMED}.py')
  fields = arguments.from_file(place, (argument,) if colon else ())
  return set(fields) <= set(design.FIELDS)


def _start_jax(chosen: Sequence[_Configuration]) -> None:
  """Start JAX on the CPU: a running job may need the other devices."""
  import jax

  jax.config.update('jax_platforms', 'cpu')
  wanted = [
    one.fields['all'].get('run.devices', 0)
    if one.sweeps
    else one.fields['run'].get('devices', 0)
    for one in chosen
  ]
  numbers = [number for number in wanted if isinstance(number, int)]
  job_command.set_up_jax({'run': {'devices': max(numbers, default=0)}})


if __name__ == '__main__':
  main(sys.argv[1:])
