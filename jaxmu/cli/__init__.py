"""The command `jaxmu`, which runs the commands of this project.

  jaxmu run --config=msg_resnet      the same as python -m jaxmu.main ...
  jaxmu audit --scores=FILE          the same as python -m jaxmu.attack ...

Only the chosen command is imported, so that help is fast.
"""

import argparse
import ast
import contextlib
import importlib.util
import inspect
import os
import re
import runpy
import select
import signal
import sys
import types
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, NoReturn, TextIO

import jaxmu
from jaxmu import terms
from jaxmu.cli import signals


class Command(NamedTuple):
  """A command.

  Attributes:
    module: what `python -m` runs.
    help: a line of help.
    kept: what is kept when it is interrupted; '' for nothing.
  """

  module: str
  help: str
  kept: str = ''


COMMANDS = {
  'run': Command(
    'jaxmu.main',
    'train, unlearn, attack and report',
    'finished models are kept',
  ),
  'search': Command(
    'jaxmu.search',
    'search hyper-parameters of methods',
    'finished trials are kept',
  ),
  'sweep': Command(
    'jaxmu.sweep', 'plan and run a whole benchmark', 'finished work is kept'
  ),
  'store': Command('jaxmu.store', 'list, check or prune stored work'),
  'audit': Command('jaxmu.attack', 'attack stored scores from any framework'),
  'rank': Command(
    'jaxmu.rank', 'rank the methods of several jobs, or of a sweep'
  ),
  'reproduce': Command(
    'jaxmu.reproduce',
    'compare published numbers with another run',
    'finished models are kept',
  ),
  'prepare': Command(
    'jaxmu.prepare', 'prepare a data set', 'finished downloads are kept'
  ),
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
    hint = terms.nearest(name, COMMANDS)
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
  signals.watch(COMMANDS[name].kept)
  sys.argv = [module, *rest]
  runpy.run_module(module, run_name='__main__', alter_sys=True)
  return 0


def usage() -> str:
  """Return the help of `jaxmu`."""
  lines = [f'  {name:9} {one.help}' for name, one in COMMANDS.items()]
  return '\n'.join(
    [
      'usage: jaxmu COMMAND [ARGUMENT ...]',
      '',
      *lines,
      '',
      'jaxmu COMMAND --help describes a command.',
    ]
  )


def literal(text: str) -> Any:
  """Return the value of a Python literal, and any other text unchanged.

  A number in it must be decimal, as everywhere on a command line: `1_0` and
  `0x10` stay text.

  Example:
    >>> literal('[1, 2]'), literal('abc'), literal('{[]: 1}'), literal('1_0')
    ([1, 2], 'abc', '{[]: 1}', '1_0')
  """
  try:
    tree = ast.parse(text.strip(), mode='eval')
    value = ast.literal_eval(tree)
  except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
    return text
  decimal = all(map(_DECIMAL.fullmatch, _numbers(tree, text.strip())))
  return value if decimal else text


_DECIMAL = re.compile('[0-9.]+([eE][+-]?[0-9]+)?')


def _numbers(tree: ast.AST, text: str) -> Iterator[str]:
  """Yield the source of each number in a literal; none has a sign."""
  for node in ast.walk(tree):
    value = getattr(node, 'value', None)
    if isinstance(value, int | float | complex) and not isinstance(value, bool):
      yield ast.get_source_segment(text, node) or ''


def whole(text: str) -> int:
  """Return a whole number, as `type` of an option.

  Raises:
    argparse.ArgumentTypeError: the text is none.
  """
  return _number(text, int, 'whole number')


def real(text: str) -> float:
  """Return a number, as `type` of an option; see `whole`."""
  return _number(text, float, 'number')


def _number(text: str, kind: type, name: str) -> Any:
  try:
    return terms.number(text, kind)
  except ValueError:
    raise argparse.ArgumentTypeError(f'{text!r}; give a {name}') from None


class Parser(argparse.ArgumentParser):
  """Parses the arguments of a command; a mistake gives one line with a hint."""

  def __init__(self, module: str, description: str, epilog: str = ''):
    super().__init__(
      prog=f'python -m {module}',
      description=description,
      epilog=epilog,
      formatter_class=argparse.RawDescriptionHelpFormatter,
      allow_abbrev=False,
    )

  def parse_args(  # type: ignore[override]
    self, args: Sequence[str] | None = None, namespace: Any = None
  ) -> argparse.Namespace:
    """Parse all arguments; see `error`."""
    chosen, rest = self.parse_known_args(args, namespace)
    if rest:
      self.unknown(rest[0])
    return chosen

  def unknown(self, word: str, more: Sequence[str] = ()) -> NoReturn:
    """End with a line that names an unknown option and the nearest one.

    Args:
      word: the option.
      more: options that this parser does not know itself.

    Raises:
      SystemExit: always.
    """
    known = [o for action in self._actions for o in action.option_strings]
    hint = terms.nearest(word.partition('=')[0], [*known, *more])
    self.error(f'unknown option {word!r}; {hint}'.rstrip('; '))

  def error(self, message: str) -> NoReturn:
    """End with one line.

    Raises:
      SystemExit: always.
    """
    sys.exit(f'error: {message}; see {self.prog} --help')


class _CallableModule(types.ModuleType):
  """A module that is callable as a function; see `make_callable`."""

  _function: Callable[[], Callable[..., Any]]

  def __call__(self, *args: Any, **kwargs: Any) -> Any:
    return self._function()(*args, **kwargs)

  @property
  def __signature__(self) -> inspect.Signature:
    return inspect.signature(self._function())


def make_callable(
  name: str, function: Callable[[], Callable[..., Any]]
) -> None:
  """Make a module callable as a function.

  `jaxmu.search('msg')` is then the function also after `import jaxmu.search`,
  which replaces the function of this name by the module.

  Args:
    name: of the module.
    function: imports and returns the function, when it is first called.
  """
  module = sys.modules[name]
  module.__class__ = _CallableModule
  module._function = function  # type: ignore[attr-defined]


def _watch_signals() -> None:
  """End at signals as `signals` does, if this process is a command."""
  main = getattr(sys.modules['__main__'], '__spec__', None)
  for one in COMMANDS.values():
    if main and main.name == one.module:
      signals.watch(one.kept)
  if main and main.name == 'jaxmu.__main__':
    signals.watch('')


_watch_signals()  # the imports of a command take seconds


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
  """End bad input with one line, and print each warning as one.

  Raises:
    SystemExit: with the message of a ValueError, OSError or ImportError; with
      141 and no message where what reads the output has ended, as `head` does;
      or, where another program calls a command, with 130 after SIGINT.
  """
  _watch_signals()
  with warnings.catch_warnings():
    warnings.showwarning = lambda message, *_: warn(str(message))
    try:
      yield
      sys.stdout.flush()
    except OSError as error:
      if isinstance(error, BrokenPipeError) and _has_no_reader(sys.stdout):
        # Python writes what is left when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
      from jaxmu import files  # imports NumPy

      sys.exit(f'error: {_line(files.explain(error))}')
    except (ValueError, ImportError) as error:
      sys.exit(f'error: {_line(error)}')
    except KeyboardInterrupt:
      print(signals.line(signal.SIGINT), file=sys.stderr)
      sys.exit(128 + signal.SIGINT)


def _has_no_reader(stream: TextIO) -> bool:
  """Return whether the other end of a pipe is closed."""
  pipe = select.poll()
  pipe.register(stream.fileno(), 0)
  return any(event & select.POLLERR for _, event in pipe.poll(0))


def warn(text: str) -> None:
  """Print a warning as one line on standard error."""
  print(f'Warning: {_line(text)}', file=sys.stderr)


def _line(text: Any) -> str:
  return ' '.join(str(text).split())
