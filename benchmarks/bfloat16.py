"""Compares a study in bfloat16 with the same study in float32, on a CPU.

    python benchmarks/bfloat16.py [--seeds=2 --epochs=10 --width=8]

Original and retrained models, unlearning with MSG, and their audit, on 16
splits of digits, so no data are needed. Each precision runs from several roots
of all random draws: products in bfloat16 make other models, as another seed
does, so its numbers are to be compared with the spread over seeds in float32.
The half-widths are those of 95 % intervals. Rows are written to
benchmarks/bfloat16.csv one by one; rows that it has are kept.
"""

import argparse
import itertools
import pathlib

import table

import jaxmu

TABLE = pathlib.Path(__file__).with_suffix('.csv')
PRECISIONS = ('float32', 'bfloat16')
# Accuracies on test, retained and forgotten images; what an attack finds.
NUMBERS = (
  *(('original', 'ta'), ('retrain', 'ta'), ('msg', 'ta')),
  *(('msg', 'ra'), ('msg', 'fa'), ('original', 'ulira_auc')),
  ('msg', 'ulira_auc'),
)


def measure(
  precision: str, seed: int, epochs: int, width: int
) -> dict[str, str]:
  """Run a study; return its numbers with half the width of their intervals."""
  data = jaxmu.load_data('digits')
  original = jaxmu.train(
    data,
    jaxmu.split(data),
    seed=seed,
    precision=precision,
    num_epochs=epochs,
    width=width,
  )
  report = jaxmu.audit(
    [original, jaxmu.unlearn('msg', original)],
    against=jaxmu.retrain(original),
    attacks=['ulira'],
  )
  rows = {name: report[name] for name in NUMBERS}
  return {
    '_'.join(name): f'{row.value:.3f} ± {(row.high - row.low) / 2:.3f}'
    for name, row in rows.items()
  }


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--seeds', type=int, default=2)
  parser.add_argument('--epochs', type=int, default=10)
  parser.add_argument('--width', type=int, default=8)
  chosen = parser.parse_args()
  rows = table.read(TABLE)
  for seed, precision in itertools.product(range(chosen.seeds), PRECISIONS):
    row = {'precision': precision, 'seed': str(seed)}
    row |= {'epochs': str(chosen.epochs), 'width': str(chosen.width)}
    if table.has(rows, row):
      continue
    row |= measure(precision, seed, chosen.epochs, chosen.width)
    table.append(TABLE, rows, row)
  table.show(rows)


if __name__ == '__main__':
  main()
