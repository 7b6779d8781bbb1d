"""Times training against PyTorch: populations of ResNet-18 and TinyViT.

    pip install -e '.[torch]'
    python benchmarks/training.py [--only=targets --rounds=5 --compiled]

Both sides train the same models from the same weights on the same batches at
32x32 pixels in float32, in turn on the same cores; before that their losses are
compared (`losses_apart`, relative). `benchmarks/match.py` says what the sides
are. `times_as_slow` is the median over rounds of a side's time by jaxmu's, with
the lowest and the highest round. jaxmu's time of compilation is apart and not
counted. PyTorch's images are normalised before the clock starts, jaxmu's in
every step. A turn is one epoch from the given weights; it has 2 to 20 steps, an
epoch of the paper's recipe 150, so setting up weighs more here. The table is
printed and written to benchmarks/training.csv.
"""

import argparse
import pathlib

import match
import table
from workload import RATE, Workload

TABLE = pathlib.Path(__file__).with_suffix('.csv')


def resnet(width: int, batch: int, members: int, steps: int) -> Workload:
  """Return a population of ResNet-18."""
  return Workload(
    'resnet18',
    {'width': width},
    members,
    batch,
    steps * batch,
    hparams={'learning_rate': RATE},
  )


def vit(batch: int, members: int, steps: int) -> Workload:
  """Return a population of TinyViT-11M."""
  return Workload(
    'vit11m',
    {},
    members,
    batch,
    steps * batch,
    hparams={'learning_rate': RATE},
  )


# (workload, form of PyTorch's attention)
MATCHES = {
  'targets': [
    (resnet(64, 256, 4, 4), ''),
    (resnet(16, 128, 16, 10), ''),
  ],
  'resnet': [
    (resnet(64, 64, 4, 12), ''),
    (resnet(16, 64, 16, 20), ''),
    (resnet(16, 256, 16, 5), ''),
  ],
  'vit': [
    (vit(64, 2, 6), 'padfree'),
    (vit(256, 2, 2), 'padfree'),
    (vit(64, 2, 2), 'padded'),
  ],
}


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--only', choices=MATCHES)
  parser.add_argument('--rounds', type=int, default=match.ROUNDS)
  parser.add_argument('--compiled', action='store_true')
  parser.add_argument('--devices', type=int, default=0)
  options = parser.parse_args()
  rows = []
  for name, matches in MATCHES.items():
    if options.only not in (None, name):
      continue
    for workload, form in matches:
      slow = form == 'padded'
      rows += match.play(
        workload,
        rounds=2 if slow else options.rounds,
        checked=1 if slow else match.CHECKED,
        form=form or 'padded',
        processes=not slow,
        compiled=options.compiled,
        devices=options.devices,
      )
      table.save(TABLE, rows)


if __name__ == '__main__':
  main()
