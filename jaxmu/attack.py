"""Attack stored scores of models from any framework, and report.

    python -m jaxmu.attack --scores=file.npz --out=directory

No model and no training code are needed. The file holds arrays: `log_odds`
float [models, examples] or [models, examples, augmentations], or `logits` with
a last axis of classes and `labels` int [examples]; `state` int [models,
examples] (0 retained, 1 forgotten, 2 never seen, 3 excluded); `split` int
[models]; and, for the comparison with retraining, `retrained_log_odds` or
`retrained_logits` of the same form, and `original_...` for the models before
unlearning. Softmax outputs are named `probabilities` in place of `logits`.
`failed`, `retrained_failed` and `original_failed` bool [models] mark models
that diverged. docs/attacks.md explains every number.
"""

import argparse
import contextlib
import shlex
import time
from collections.abc import Sequence

from jaxmu import cli, terms

FPRS = '0.001,0.01,0.1'
MAX_GB = '4'


def parse_fprs(texts: Sequence[str]) -> tuple[float, ...]:
  """Parse false-positive rates.

  Raises:
    ValueError: one is not a number between 0 and 1.
  """
  rates = []
  for text in texts:
    rate = -1.0
    with contextlib.suppress(ValueError):
      rate = terms.number(text, float)
    if not 0 < rate < 1:
      raise ValueError(
        f'--fprs has {text!r}; expected numbers between 0 and 1, such as 0.01'
      )
    rates.append(rate)
  return tuple(rates)


def parse_gb(text: str) -> float:
  """Parse a number of GB.

  Raises:
    ValueError: it is not a positive number.
  """
  size = -1.0
  with contextlib.suppress(ValueError):
    size = terms.number(text, float)
  if not 0 < size < float('inf'):
    raise ValueError(f'--max_gb={text}: expected a number of GB, such as 64')
  return size


def main(argv: Sequence[str] | None = None) -> None:
  """Run the command; see the module's docstring.

  Raises:
    SystemExit: with a line that says what is wrong and what to do.
  """
  chosen = _parser().parse_args(argv)
  started = time.monotonic()
  print('attack: starting JAX', flush=True)
  # Imported late: help needs no JAX.
  from jaxmu.api import audits
  from jaxmu.report import html, progress, summary, tables

  with cli.one_line_errors(), progress.Progress() as bars:
    fprs = parse_fprs(_words(chosen.fprs))
    arrays = audits.read_scores(chosen.scores, parse_gb(chosen.max_gb) * 1e9)
    folder = html.report_folder(chosen.out)
    audit = audits.of_scores(
      arrays,
      f'--scores={chosen.scores}',
      _words(chosen.attacks) or None,
      fprs,
      costly=True,
      bars=bars,
    )
    report = audit.report(command(chosen))
    audit.save(folder, report)
  for line in summary.verdict(report.rows):
    print(line)
  tables.show_attacks(report.rows)
  for line in report.warnings:
    print(line)
  seconds = time.monotonic() - started
  print(
    f'{folder / "report.html"} explains these and all other numbers; '
    f'written after {seconds:.0f} s'
  )


def command(chosen: argparse.Namespace) -> str:
  """Return the command line that reproduces the report."""
  words = [f'--scores={chosen.scores}', f'--out={chosen.out}']
  if chosen.attacks:
    words.append(f'--attacks={chosen.attacks}')
  words.append(f'--fprs={chosen.fprs}')
  if chosen.max_gb != MAX_GB:
    words.append(f'--max_gb={chosen.max_gb}')
  return shlex.join(['python', '-m', 'jaxmu.attack', *words])


def _words(text: str) -> list[str]:
  return [word.strip() for word in text.split(',') if word.strip()]


def _parser() -> cli.Parser:
  parser = cli.Parser('jaxmu.attack', __doc__ or '')
  add = parser.add_argument
  add('--scores', required=True, help='an .npz file of scores')
  add('--out', required=True, help='directory for results.csv, plots, report')
  add(
    '--attacks',
    default='',
    help='names, separated by commas (default: all that can run)',
  )
  add(
    '--fprs',
    default=FPRS,
    help='report true-positive rates at these false-positive rates '
    '(default %(default)s)',
  )
  add(
    '--max_gb',
    default=MAX_GB,
    help='refuse a compressed file that unpacks to more (default %(default)s)',
  )
  return parser


if __name__ == '__main__':
  main()
