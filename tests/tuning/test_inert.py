"""Settings at which a method is not itself, on the network of the digits."""

import jax
import numpy as np
import pytest

from jaxmu import hparams as hp
from jaxmu import methods, models
from jaxmu.data.catalog import CATALOG
from jaxmu.study import recipes
from jaxmu.tuning import driver
from jaxmu.types import Dataset, Problem, Task


@pytest.fixture(scope='module')
def problem() -> Problem:
  entry = CATALOG['digits']
  shape = (4, entry.size, entry.size, 3)
  data = Dataset(np.zeros(shape, np.uint8), np.zeros(4, np.int32))
  model = models.build(
    'resnet18',
    num_classes=entry.num_classes,
    options=recipes.benchmark()['model']['options'],
  )
  task = Task(data, model, entry.transform)
  start = jax.eval_shape(
    lambda key: models.init(model, key, shape[1:]), jax.random.key(0)
  )
  return Problem(task, None, start)


def _inert(problem: Problem, name: str, values: dict) -> str:
  return driver.inert(problem, methods.get(name), values)


def test_no_method_is_inert_at_its_setting_for_digits(problem):
  for name in set(methods.METHODS) - set(methods.BASELINES):
    assert not _inert(problem, name, recipes.method_hparams(name)), name


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
  assert bool(_inert(problem, 'rni', values)) != noise


def test_salun_acts_where_its_mask_spares_a_live_weight(problem):
  # By hand: taps of the last stage that only meet padding (1x1 maps).
  total = sum(x.size for x in jax.tree.leaves(problem.start['params']))
  live = 1 - (5 * 32 * 64 + 3 * 8 * 64 * 64) / total
  for fraction in (live - 0.01, live + 0.01):
    values = {**methods.hparams_for('salun'), 'mask_fraction': fraction}
    assert bool(_inert(problem, 'salun', values)) == (fraction > live)
