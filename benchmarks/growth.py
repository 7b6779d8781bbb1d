"""Shows how the cost of training grows with the population and the batch.

    pip install -e '.[benchmarks]'
    python benchmarks/growth.py [--width=16]

A population of ResNet-18 at 32x32 pixels, jaxmu against the better layout of
PyTorch, as in `benchmarks/training.py`: 1 to 32 models at batch 64, then 8
models at batch 64, 128 and 256. With one model jaxmu uses one core, because it
distributes members over cores. The table is printed and written to
benchmarks/growth.csv.
"""

import argparse
import pathlib

import compare
import table
from workload import RATE, Workload

TABLE = pathlib.Path(__file__).with_suffix('.csv')
LEAST_STEPS = 10  # of an epoch, enough to make set-up negligible
GRID = ((1, 64), (2, 64), (4, 64), (8, 64), (32, 64), (8, 128), (8, 256))


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--width', type=int, default=16)
  parser.add_argument('--images', type=int, default=4096, help='of a turn')
  parser.add_argument('--rounds', type=int, default=3)
  options = parser.parse_args()
  rows = []
  for members, batch in GRID:
    steps = max(LEAST_STEPS, options.images // (members * batch))
    workload = Workload(
      'resnet18',
      {'width': options.width},
      members,
      batch,
      steps * batch,
      hparams={'learning_rate': RATE},
    )
    rows += compare.run(
      workload,
      rounds=options.rounds,
      checked=1,
      processes=False,
      devices=min(members, compare.cores()),
    )
  table.save(TABLE, rows)


if __name__ == '__main__':
  main()
