"""Times training against PyTorch: populations of ResNet-18 and TinyViT.

    pip install -e '.[benchmarks]'
    python benchmarks/training.py [--only=targets --rounds=5 --huge-pages]

Both backends train the same models from the same weights on the same batches at
32x32 pixels in float32, in turn on the same cores. Their losses are compared
first (`losses_apart`, relative). `benchmarks/compare.py` describes the
backends. `speed_up` is the median over rounds of a backend's time divided by
jaxmu's, with the lowest and the highest round. Compilation is reported
separately and not counted. PyTorch's images are normalised before the clock
starts, jaxmu's in every step. A turn is one epoch from the given weights, after
one that does not count. It has 10 to 20 steps (2 where PyTorch is slowest),
where an epoch of the paper's recipe has 150, so set-up costs weigh more here.
The table is printed and written to benchmarks/training.csv, which keeps the
rows of other machines and, with `--only`, of other groups.
"""

import argparse
import pathlib

import compare
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
    (resnet(64, 256, 4, 10), ''),
    (resnet(16, 128, 16, 20), ''),
  ],
  'resnet': [
    (resnet(64, 64, 4, 12), ''),
    (resnet(16, 64, 16, 20), ''),
    (resnet(16, 256, 16, 20), ''),
  ],
  'vit': [
    (vit(64, 2, 12), 'padfree'),
    (vit(256, 2, 12), 'padfree'),
    (vit(64, 2, 2), 'padded'),
  ],
}


def others(names: list[str]) -> list[dict[str, str]]:
  """Return the stored rows of other groups, and those of other machines."""
  return [
    row
    for row in table.read(TABLE)
    if row['group'] not in names or row['hardware'] != table.machine()
  ]


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--only', choices=MATCHES)
  parser.add_argument('--rounds', type=int, default=compare.ROUNDS)
  parser.add_argument('--compiled', action='store_true')
  parser.add_argument('--huge-pages', action='store_true')
  parser.add_argument('--devices', type=int, default=0)
  options = parser.parse_args()
  names = [options.only] if options.only else list(MATCHES)
  kept, rows = others(names), []
  for name in names:
    for workload, form in MATCHES[name]:
      slow = form == 'padded'
      found = compare.run(
        workload,
        rounds=2 if slow else options.rounds,
        checked=1 if slow else compare.CHECKED,
        form=form or 'padded',
        processes=not slow,
        compiled=options.compiled,
        huge_pages=options.huge_pages,
        devices=options.devices,
      )
      table.show(found)
      how = table.made(TABLE)
      rows += [{'group': name, **row, **how} for row in found]
      order = list(MATCHES)
      table.write(
        TABLE, sorted(rows + kept, key=lambda row: order.index(row['group']))
      )


if __name__ == '__main__':
  main()
