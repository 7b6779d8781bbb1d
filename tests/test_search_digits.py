"""The search for digits settings excludes settings without effect."""

import types

import jax
import numpy as np
import pytest

from benchmarks import search_digits
from configs import benchmark
from jaxmu import hparams as hp
from jaxmu import methods, models
from jaxmu.data.catalog import CATALOG
from jaxmu.study import settings
from jaxmu.types import Dataset, Problem, Task


@pytest.fixture(scope='module')
def task() -> Task:
  entry = CATALOG['digits']
  shape = (4, entry.size, entry.size, 3)
  data = Dataset(np.zeros(shape, np.uint8), np.zeros(4, np.int32))
  options = benchmark.get_config().model.options.to_dict()
  model = models.build(
    'resnet18', num_classes=entry.num_classes, options=options
  )
  return Task(data, model, entry.transform)


@pytest.fixture(scope='module')
def job(task):
  """The attributes of a job that drawing a setting needs."""
  chosen = settings.from_config(benchmark.get_config().to_dict())
  return types.SimpleNamespace(task=task, settings=chosen)


def test_every_method_acts_at_its_setting(task):
  unlearners = set(methods.METHODS) - set(methods.BASELINES)
  for name in sorted(unlearners):
    values = methods.get(name).card.digits
    values = {**methods.hparams_for(name), **values}
    assert search_digits.acts(values, name, task), name


@pytest.mark.parametrize(
  ('epochs', 'fine', 'quiet', 'fraction'),
  [
    (3, 3, 1, 0.6),  # all epochs are final ones
    (3, 2, 1, 0.6),  # the only other one is before the first noise
    (3, 1, 2, 0.6),
    (3, 1, 1, 0.6),
    (3, 1, 1, 0.1),  # of nine tensors, none
    (3, 1, 1, 0.1146),  # one, but none once rounded to two digits
    (3, 1, 1, 0.12),
  ],
)
def test_rni_acts_where_a_tensor_gets_noise(
  task, epochs, fine, quiet, fraction
):
  values = {
    **methods.hparams_for('rni'),
    'num_epochs': epochs,
    'fine_num_epochs': fine,
    'reset_num_epochs': quiet,
    'noise_fraction': fraction,
  }
  rni = methods.get('rni')
  used = {**values, 'noise_fraction': float(f'{fraction:.2g}')}
  hparams = rni.prepare(
    hp.from_config(rni.Hparams, used), Problem(task, split=None, start={})
  )
  noise = any(bool(row.any()) for row in hparams.noisy[:epochs])
  assert search_digits.acts(values, 'rni', task) == noise


def test_salun_acts_where_its_mask_spares_a_live_weight(task):
  # By hand: taps of the last stage that only meet padding (1x1 maps).
  shape = task.dataset.image.shape[1:]
  params = models.init(task.model, jax.random.key(0), shape)['params']
  total = sum(leaf.size for leaf in jax.tree.leaves(params))
  live = 1 - (5 * 32 * 64 + 3 * 8 * 64 * 64) / total
  assert search_digits.live_share(task) == pytest.approx(live)
  for fraction in (live - 0.01, live + 0.01):
    values = {'mask_fraction': fraction}
    acts = search_digits.acts(values, 'salun', task)
    assert acts == (fraction < live)


@pytest.mark.parametrize('name', ['rni', 'salun'])
def test_what_is_drawn_acts(job, name):
  random = np.random.default_rng(0)
  drawn = [search_digits.draw(name, job, random) for _ in range(20)]
  assert all(search_digits.acts(values, name, job.task) for values in drawn)
  assert len({values['learning_rate'] for values in drawn}) == 20
