"""Is U-LiRA at chance on simulated scores of models that leak nothing?

    python benchmarks/null_simulation.py [--designs=200]

Draws designs of the size of the null study of CIFAR-10 (32 splits in pairs, 2
forget sets, a pool of 2,000 images). The log-odds of a model depend on the
images that it retains, never on whether another image was forgotten or not
drawn, so that an AUC of one half is the truth. Rows:

  independent   normal scores about the mean of each image
  skewed        the same with exponential noise
  class         and a term for the retained images of its class
  images        and a term for each of 30 retained images
  both          and both terms

Columns are the mean AUC over the designs and its standard error. They are
printed and written to benchmarks/null_simulation.csv.
"""

import argparse
import math
import pathlib
from typing import Any

import numpy as np
import table

from jaxmu import terms
from jaxmu.attacks import registry, scores
from jaxmu.data import splits

TABLE = pathlib.Path(__file__).with_suffix('.csv')
# Kinds of scores, with the key of their draws.
KINDS = {'independent': 0, 'skewed': 1, 'class': 2, 'images': 3, 'both': 4}
DEVELOPMENT, POOL, CLASSES = 3000, 2000, 10
NEIGHBOURS = 30  # retained images that change the score of another
SPREAD = 2.0  # of the means of images
NOISE = 0.7
OF_CLASS, OF_IMAGE = 0.15, 0.3  # per retained image


def log_odds(
  kind: str, state: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
  """Draw scores that depend on the retained images alone, f64[P, N].

  Args:
    kind: one of `KINDS`.
    state: int8[P, N], the role of each example for each model.
    rng: source of randomness.
  """
  examples = state.shape[1]
  retained = (state == terms.RETAINED).astype(np.float64)
  if kind == 'skewed':
    drawn = rng.exponential(size=state.shape) - 1
  else:
    drawn = rng.normal(size=state.shape)
  score = SPREAD * rng.normal(size=examples) + NOISE * drawn
  if kind in ('class', 'both'):
    label = rng.integers(0, CLASSES, examples)
    count = retained @ np.eye(CLASSES)[label]
    score += OF_CLASS * (count - count.mean(axis=0))[:, label]
  if kind in ('images', 'both'):
    influence = np.zeros((examples, examples))
    for row in influence:
      near = rng.choice(examples, NEIGHBOURS, replace=False)
      row[near] = rng.normal(size=NEIGHBOURS)
    score += OF_IMAGE * (retained @ influence.T)
  return score


def auc(kind: str, seed: int) -> float:
  """Return the AUC of U-LiRA on one design."""
  design = splits.audit_design(
    DEVELOPMENT, num_splits=32, forget_sets=2, pool=POOL, seed=seed
  )
  state = splits.membership(design, DEVELOPMENT)
  rng = np.random.default_rng((seed, KINDS[kind]))
  score = log_odds(kind, state, rng)
  pool = (state != terms.EXCLUDED).any(axis=0)
  data = scores.from_arrays(
    {
      'log_odds': score[:, pool],
      'state': state[:, pool],
      'split': design.split,
    }
  )
  found = registry.run(data, ['ulira'], fprs=())
  return next(x.estimate.value for x in found if x.metric == 'ulira_auc')


def row(kind: str, designs: int) -> dict[str, Any]:
  """Return the mean AUC of a kind of score over designs."""
  values = np.array([auc(kind, seed) for seed in range(designs)])
  error = values.std(ddof=1) / math.sqrt(designs)
  return {
    'scores': kind,
    'designs': designs,
    'mean': f'{values.mean():.5f}',
    'error': f'{error:.5f}',
    'z': f'{(values.mean() - 0.5) / error:.2f}',
  }


def main() -> None:
  """Simulate all kinds and write the table."""
  parser = argparse.ArgumentParser(allow_abbrev=False)
  parser.add_argument('--designs', type=int, default=200)
  designs = parser.parse_args().designs
  if designs < 2:
    parser.error(f'--designs={designs}: an error needs at least 2')
  rows: list[dict[str, Any]] = []
  for kind in KINDS:
    table.append(TABLE, rows, row(kind, designs))
  table.show(rows)


if __name__ == '__main__':
  main()
