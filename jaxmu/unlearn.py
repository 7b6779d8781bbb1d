"""Delete training examples from one trained model.

    python -m jaxmu.unlearn --checkpoint=net.safetensors --data=cifar10 \\
      --forget=ids.txt --method=ct --out=unlearned

reads the checkpoint, unlearns the examples that `ids.txt` names (one index of
the training part per line), and writes the unlearned checkpoint in the form of
the original, the settings, and a report of what was checked and what could not
be checked.

The module is callable, so that `jaxmu.unlearn('msg', original)` is the function
`jaxmu.api.unlearn` also after `import jaxmu.unlearn`.
"""

import argparse
import ast
import inspect
import os
import sys
import types
from collections.abc import Sequence
from typing import Any

_USAGE = 'python -m jaxmu.unlearn'


class _Callable(types.ModuleType):
  """This module, callable as the function of the same name."""

  def __call__(self, *args: Any, **kwargs: Any) -> Any:
    from jaxmu.api import unlearn

    return unlearn(*args, **kwargs)

  @property
  def __signature__(self) -> inspect.Signature:
    from jaxmu.api import unlearn

    return inspect.signature(unlearn)


sys.modules[__name__].__class__ = _Callable


class _Parser(argparse.ArgumentParser):
  """Reports errors in one line."""

  def error(self, message: str) -> Any:
    sys.exit(f'error: {message}; see {_USAGE} --help')


def parse(argv: Sequence[str]) -> tuple[argparse.Namespace, dict[str, Any]]:
  """Return the options of the command and the method's hyper-parameters.

  Args:
    argv: the words after the command.

  Raises:
    SystemExit: an option is unknown or missing; the message names it.
  """
  parser = _Parser(
    prog=_USAGE,
    description='Delete training examples from one trained model.',
    epilog='--hparams.NAME=VALUE sets a hyper-parameter of the method, and '
    '--model_options.NAME=VALUE an option of the model.',
    allow_abbrev=False,
  )
  needed = dict(required=True, metavar='FILE')
  parser.add_argument('--checkpoint', help='the trained model', **needed)  # type: ignore[arg-type]
  parser.add_argument('--forget', help='indices, one per line', **needed)  # type: ignore[arg-type]
  parser.add_argument(
    '--out', required=True, metavar='DIR', help='folder to write'
  )
  parser.add_argument('--data', default='digits', help='name or folder')
  parser.add_argument('--data_dir', help='folder of prepared data sets')
  parser.add_argument('--method', default='ft', help='see jaxmu.METHODS')
  parser.add_argument('--model', default='resnet18', help='see jaxmu.MODELS')
  parser.add_argument('--val', help='indices that were not trained on')
  parser.add_argument('--seed', type=int, default=0)
  chosen, rest = parser.parse_known_args(argv)
  nested: dict[str, dict[str, Any]] = {'hparams': {}, 'model_options': {}}
  for word in rest:
    section, _, tail = word.removeprefix('--').partition('.')
    name, equals, value = tail.partition('=')
    if not word.startswith('--') or section not in nested or not equals:
      parser.error(f'unknown option {word!r}{_hint(parser, word)}')
    nested[section][name] = _value(value)
  chosen.model_options = nested['model_options']
  return chosen, nested['hparams']


def _hint(parser: argparse.ArgumentParser, word: str) -> str:
  import difflib

  known = [o for action in parser._actions for o in action.option_strings]
  known += ['--hparams.NAME=VALUE', '--model_options.NAME=VALUE']
  name = word.partition('=')[0]
  if '.' in name:  # only the section matters
    name = f'{name.partition(".")[0]}.NAME=VALUE'
  near = difflib.get_close_matches(name, known, n=1)
  return f', did you mean {near[0]}?' if near else ''


def _value(text: str) -> Any:
  """Return the value of a Python literal, and any other text unchanged."""
  try:
    return ast.literal_eval(text)
  except (ValueError, SyntaxError):
    return text


def main(argv: Sequence[str] | None = None) -> None:
  """Answer a deletion request; see the module's docstring."""
  chosen, hparams = parse(sys.argv[1:] if argv is None else argv)
  from jaxmu.api import inputs, request

  try:
    # A folder that cannot be written must not cost the unlearned model.
    if os.path.exists(os.path.expanduser(chosen.checkpoint)):
      request.make_folder(chosen.out, chosen.checkpoint)
    data = inputs.load_data(chosen.data, data_dir=chosen.data_dir)
    deletion = request.delete(
      chosen.method,
      chosen.checkpoint,
      data=data,
      forget=chosen.forget,
      model=chosen.model,
      model_options=chosen.model_options,
      val=chosen.val,
      seed=chosen.seed,
      **hparams,
    )
    folder = deletion.save(chosen.out, like=chosen.checkpoint)
  except (ValueError, OSError, ImportError) as error:
    sys.exit(f'error: {error}')
  print(deletion)
  print(f'\n{folder / "report.md"} lists what could not be checked.')


if __name__ == '__main__':
  main()
