"""The command `jaxmu`, which runs the commands of this project.

  jaxmu run --config=msg_resnet      the same as python -m jaxmu.main ...
  jaxmu audit --scores=FILE          the same as python -m jaxmu.attack ...

Only the chosen command is imported, so that help is fast.
"""

import difflib
import importlib.util
import os
import runpy
import sys
from collections.abc import Sequence
from typing import NamedTuple

import jaxmu


class Command(NamedTuple):
  """A command: the module that `python -m` runs, and a line of help."""

  module: str
  help: str


COMMANDS = {
  'run': Command('jaxmu.main', 'train, unlearn, attack and report'),
  'search': Command('jaxmu.search', 'search hyper-parameters of methods'),
  'audit': Command('jaxmu.attack', 'attack stored scores of any models'),
  'rank': Command('jaxmu.rank', 'rank the methods of several jobs'),
  'prepare': Command('jaxmu.prepare', 'prepare a data set'),
  'unlearn': Command('jaxmu.unlearn', 'delete examples from one trained model'),
}


def main(argv: Sequence[str] | None = None) -> int:
  """Run a command as its module would run under `python -m`.

  Args:
    argv: name of the command and its arguments; None for those of the process.

  Returns:
    The exit status where no command was started; a command exits by itself.
  """
  given = sys.argv[1:] if argv is None else list(argv)
  name, *rest = given or ['--help']
  if name in ('-h', '--help', 'help'):
    print(usage())
    return 0
  if name == '--version':
    print(jaxmu.__version__)
    return 0
  if name not in COMMANDS:
    near = difflib.get_close_matches(name, COMMANDS, n=1)
    hint = f'did you mean {near[0]!r}? ' if near else ''
    print(
      f'error: unknown command {name!r}; {hint}choose one of '
      f'{", ".join(COMMANDS)}',
      file=sys.stderr,
    )
    return 2
  module = COMMANDS[name].module
  if importlib.util.find_spec(module) is None:
    print(f'error: {module} is not part of this version', file=sys.stderr)
    return 2
  if os.getcwd() not in sys.path and '' not in sys.path:
    # For plug-ins, as under `python -m`; last, so that nothing is shadowed.
    sys.path.append(os.getcwd())
  sys.argv = [module, *rest]
  runpy.run_module(module, run_name='__main__', alter_sys=True)
  return 0


def usage() -> str:
  """Return the help of `jaxmu`."""
  lines = [f'  {name:8} {one.help}' for name, one in COMMANDS.items()]
  return '\n'.join(
    [
      'usage: jaxmu COMMAND [ARGUMENT ...]',
      '',
      *lines,
      '',
      'jaxmu COMMAND --help describes a command.',
    ]
  )
