"""Settings at which a method leaves out what it is named after."""

import jax
import numpy as np
import pytest

from jaxmu import hparams as hp
from jaxmu import methods, models
from jaxmu.data.catalog import CATALOG
from jaxmu.study import recipes
from jaxmu.types import Dataset, Problem, Task


@pytest.fixture(scope='module')
def problem() -> Problem:
  """The architecture and shapes of the digits scale."""
  entry = CATALOG['digits']
  shape = (4, entry.size, entry.size, 3)
  data = Dataset(np.zeros(shape, np.uint8), np.zeros(4, np.int32))
  options = recipes.benchmark()['model']['options']
  model = models.build(
    'resnet18', num_classes=entry.num_classes, options=options
  )
  shapes = jax.eval_shape(
    lambda: models.init(model, jax.random.key(0), shape[1:])
  )
  return Problem(Task(data, model, entry.transform), split=None, start=shapes)


def _inert(name: str, values: dict, problem: Problem) -> str:
  return methods.get(name).card.inert(values, problem)


def test_every_method_acts_at_its_digits_setting(problem):
  without = [
    name
    for name in recipes.PAPER_METHODS
    if methods.get(name).card.inert
    and _inert(name, recipes.method_hparams(name), problem)
  ]
  assert not without


@pytest.mark.parametrize(
  ('epochs', 'fine', 'quiet', 'fraction'),
  [
    (3, 3, 1, 0.6),  # all epochs are final ones
    (3, 2, 1, 0.6),  # the only other one is before the first noise
    (3, 1, 2, 0.6),
    (3, 1, 1, 0.6),
    (3, 1, 1, 0.1),  # of nine tensors, none
    (3, 1, 1, 0.12),
  ],
)
def test_rni_acts_where_a_tensor_gets_noise(
  problem, epochs, fine, quiet, fraction
):
  values = {
    **methods.hparams_for('rni'),
    'num_epochs': epochs,
    'fine_num_epochs': fine,
    'reset_num_epochs': quiet,
    'noise_fraction': fraction,
  }
  rni = methods.get('rni')
  hparams = rni.prepare(hp.from_config(rni.Hparams, values), problem)
  noise = any(bool(row.any()) for row in hparams.noisy[:epochs])
  assert (not _inert('rni', values, problem)) == noise


def test_salun_acts_where_its_mask_spares_a_live_weight(problem):
  # By hand: taps of the last stage that only meet padding (1x1 maps).
  total = sum(leaf.size for leaf in jax.tree.leaves(problem.start['params']))
  live = 1 - (5 * 32 * 64 + 3 * 8 * 64 * 64) / total
  for fraction in (live - 0.01, live + 0.01):
    inert = _inert(
      'salun', {'mask_fraction': fraction, 'live_only': False}, problem
    )
    assert bool(inert) == (fraction > live)
