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
import functools
import sys
from collections.abc import Callable, Sequence
from typing import Any

from jaxmu import cli


def _function() -> Callable[..., Any]:
  from jaxmu.api import unlearn

  return unlearn


cli.make_callable(__name__, _function)


def parse(argv: Sequence[str]) -> tuple[argparse.Namespace, dict[str, Any]]:
  """Return the options of the command and the method's hyper-parameters.

  Args:
    argv: the words after the command.

  Raises:
    SystemExit: an option is unknown or missing; the message names it.
  """
  parser = cli.Parser(
    'jaxmu.unlearn',
    'Delete training examples from one trained model.',
    '--hparams.NAME=VALUE sets a hyper-parameter of the method, and\n'
    '--model_options.NAME=VALUE sets an option of the model.',
  )
  add = functools.partial(parser.add_argument, metavar='FILE')
  named = functools.partial(parser.add_argument, metavar='NAME')
  default = '(default %(default)s)'
  add('--checkpoint', help='the trained model', required=True)
  add(
    '--forget',
    help='indices of the training examples to delete, one per line',
    required=True,
  )
  add('--out', help='folder to write', required=True, metavar='DIR')
  named('--data', help=f'data set or its folder {default}', default='digits')
  add('--data_dir', help='folder of prepared data sets', metavar='DIR')
  named('--method', help=f'see jaxmu.METHODS {default}', default='ft')
  named('--model', help=f'see jaxmu.MODELS {default}', default='resnet18')
  add('--val', help='indices of training examples that were not trained on')
  add(
    '--seed', help=f'seed {default}', type=cli.whole, default=0, metavar='SEED'
  )
  chosen, rest = parser.parse_known_args(argv)
  nested: dict[str, dict[str, Any]] = {'hparams': {}, 'model_options': {}}
  for word in rest:
    section, _, tail = word.removeprefix('--').partition('.')
    name, equals, value = tail.partition('=')
    if not word.startswith('--') or section not in nested or not equals:
      parser.unknown(word, [f'--{part}.NAME=VALUE' for part in nested])
    nested[section][name] = cli.literal(value)
  chosen.model_options = nested['model_options']
  return chosen, nested['hparams']


def main(argv: Sequence[str] | None = None) -> None:
  """Run the command; see the module's docstring."""
  chosen, hparams = parse(sys.argv[1:] if argv is None else argv)
  with cli.one_line_errors():
    print('starting JAX', flush=True)
    from jaxmu import files
    from jaxmu.api import inputs, request

    # A folder that cannot be written must not cost the unlearned model.
    if files.path(chosen.checkpoint).exists():
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
  print(deletion)
  print(f'\n{folder / "report.md"} lists what could not be checked.')


if __name__ == '__main__':
  main()
