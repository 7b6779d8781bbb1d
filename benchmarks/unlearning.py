"""Times unlearning against PyTorch: MSG, CT, NG+, SCRUB and SalUN.

    pip install -e '.[benchmarks]'
    python benchmarks/unlearning.py [--width=16 --batch=64 --members=8]

One epoch of each method with its surgery (masks, renewed kernels, saliency,
teacher, choice of the epoch) on a population of ResNet-18, against the plain
loop of `benchmarks/pytorch/unlearn.py`, from the same weights on the same
draws. The losses are compared first. Backends and columns are those of
`benchmarks/training.py`; an image of the retain set counts once, whatever the
method does with it. The table is printed and written to
benchmarks/unlearning.csv.
"""

import argparse
import pathlib

import compare
import table
from workload import RATE, Workload

TABLE = pathlib.Path(__file__).with_suffix('.csv')
METHODS = ('msg', 'ct', 'neggrad_plus', 'scrub', 'salun')


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--methods', default=','.join(METHODS))
  parser.add_argument('--width', type=int, default=16)
  parser.add_argument('--batch', type=int, default=64)
  parser.add_argument('--members', type=int, default=8)
  parser.add_argument('--rounds', type=int, default=compare.ROUNDS)
  options = parser.parse_args()
  rows = []
  for method in options.methods.split(','):
    workload = Workload(
      'resnet18',
      {'width': options.width},
      options.members,
      options.batch,
      retain=8 * options.batch,
      forget=options.batch,
      val=options.batch,
      method=method,
      hparams={'learning_rate': RATE},
    )
    found = compare.run(workload, rounds=options.rounds, checked=2)
    table.show(found)
    rows += found
  table.save(TABLE, rows)


if __name__ == '__main__':
  main()
