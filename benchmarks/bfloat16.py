"""How much accuracy bfloat16 costs, against float32, on a CPU.

    python benchmarks/bfloat16.py [--models=6 --epochs=8 --width=8]

Trains the same models in three ways, from the same weights on the same batches:
in float32, again in float32 with two models in one batched program, which only
rounds differently, and with products in bfloat16. A small difference early in
training makes other models, so bfloat16 is to be compared with the second row,
not with zero. `log_odds` is the correlation of the log-odds of all images with
those of the first row. The set is digits, so no data are needed. The table is
printed and written to benchmarks/bfloat16.csv.
"""

import argparse
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import table

from jaxmu import hparams as hp
from jaxmu import methods, models, population, precision
from jaxmu.data import datasets
from jaxmu.draws import derive
from jaxmu.types import Dataset, Split, Task

TABLE = pathlib.Path(__file__).with_suffix('.csv')
WAYS = (('float32', 1), ('float32', 2), ('bfloat16', 1))
BATCH = 64
RATE = 0.05


def make_task(source: datasets.Source, name: str, width: int) -> Task:
  """Return a task whose network computes in a precision."""
  options = {'width': width, **precision.model_options(name)}
  model = models.build(
    'resnet18', num_classes=source.num_classes, options=options
  )
  dataset = Dataset(jnp.asarray(source.image), jnp.asarray(source.label))
  return Task(dataset, model, source.transform, name)


def train(
  source: datasets.Source, name: str, chunk: int, options: argparse.Namespace
) -> tuple[population.Trained, np.ndarray, np.ndarray]:
  """Train one population; return it, its log-odds and its hits, [P, N]."""
  task = make_task(source, name, options.width)
  method = methods.get('original')
  hparams = hp.from_config(
    method.Hparams,
    {
      'learning_rate': RATE,
      'num_epochs': options.epochs,
      'batch_size': BATCH,
    },
  )
  size = options.models
  root = jax.random.key(0)
  keys = jax.vmap(lambda p: derive(root, 'member', p))(np.arange(size))
  order = np.stack(
    [np.random.default_rng(p).permutation(source.num_dev) for p in range(size)]
  ).astype(np.int32)
  tenth = source.num_dev // 10
  split = Split(
    order[:, 2 * tenth :], order[:, :tenth], order[:, tenth : 2 * tenth]
  )
  layout = population.Layout(1, chunk)
  trained = population.Trainer(method, task, layout).run(
    [hparams] * size, keys, split, population.initial_variables(task, keys)
  )
  seen = population.Predictor(task, layout).run(trained.variables)
  return trained, seen.log_odds, seen.correct


def row_of(
  trained: population.Trained,
  log_odds: np.ndarray,
  correct: np.ndarray,
  first: np.ndarray,
  num_dev: int,
) -> dict[str, Any]:
  """Return the numbers of one way of training."""
  test = 100 * correct[:, num_dev:].mean(1)
  pairs = zip(log_odds, first, strict=True)
  alike = [np.corrcoef(one, other)[0, 1] for one, other in pairs]
  return {
    'loss': f'{trained.losses[:, -1].mean():.4f}',
    'test_percent': f'{test.mean():.2f}',
    'standard_error': f'{test.std(ddof=1) / np.sqrt(len(test)):.2f}',
    'log_odds': f'{np.mean(alike):.3f}',
  }


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--models', type=int, default=6)
  parser.add_argument('--epochs', type=int, default=8)
  parser.add_argument('--width', type=int, default=8)
  options = parser.parse_args()
  source = datasets.load('digits')
  rows, first = [], None
  for name, chunk in WAYS:
    trained, log_odds, correct = train(source, name, chunk, options)
    first = log_odds if first is None else first
    rows.append(
      {
        'precision': name,
        'chunk': chunk,
        **vars(options),
        **row_of(trained, log_odds, correct, first, source.num_dev),
      }
    )
    print(*rows[-1].values(), flush=True)
  table.save(TABLE, rows)


if __name__ == '__main__':
  main()
