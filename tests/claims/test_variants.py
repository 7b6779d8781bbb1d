"""Variants of methods that claims need."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from jaxmu import method as method_lib
from jaxmu import methods, metrics, testing
from jaxmu.claims.variants import held_validation, kde_disjoint
from jaxmu.metrics import Evaluated
from tests.methods import small

FT = 'jaxmu.claims.variants.ft_augmented'
KDE = 'jaxmu.claims.variants.kde_disjoint'


def _run(name, problem, **values):
  method = methods.get(name)
  hparams = small.hparams(name, **values)
  return method_lib.run(method, hparams, small.draws(), problem)[0]


def test_fine_tuning_differs_by_its_images_alone():
  plain = small.problem()
  task = dataclasses.replace(
    plain.task,
    transform=dataclasses.replace(plain.task.transform, flip=True),
  )
  flipped = dataclasses.replace(plain, task=task)
  given = {'num_epochs': 1, 'learning_rate': 0.01}
  ft = _run('ft', plain, **given)
  assert small.same(_run(FT, plain, **given), ft)
  assert small.same(_run('ft', flipped, **given), ft)
  assert not small.same(_run(FT, flipped, **given), ft)


def test_the_disjoint_warm_up_reads_the_first_half_alone():
  problem = small.problem()
  val = problem.split.val
  half = val.shape[0] // 2
  given = {'num_epochs': 1, 'retain_num_epochs': 1}
  result = _run(KDE, problem, **given)

  def with_val(index):
    split = dataclasses.replace(problem.split, val=index)
    return dataclasses.replace(problem, split=split)

  other = jnp.concatenate([val[:half], val[half:][::-1]])
  assert not np.array_equal(other, val)
  assert small.same(_run(KDE, with_val(other), **given), result)
  assert small.same(_run('kde', with_val(val[:half]), **given), result)


def test_the_other_half_is_evaluated():
  validation = np.array([4, 0, 2, 5, 1])
  correct = np.zeros((2, 6), bool)
  correct[0, [2, 5]] = correct[1, [4, 0]] = True
  one = Evaluated(
    name='kde_disjoint',
    log_odds=np.where(correct, 1.0, -1.0),
    correct=correct,
    state=np.full((2, 6), 3, np.int8),
    validation=validation,
    test=np.array([3]),
    cluster=np.arange(2),
    split=np.zeros(2, int),
    classes=10,
    failed=np.zeros(2, bool),
  )
  found = held_validation.METRIC.compute(one)['va_held']
  np.testing.assert_allclose(found, [2 / 3, 0])
  assert kde_disjoint.held_from(5) == 2
  chosen = metrics.choose(('jaxmu.claims.variants.held_validation',))
  assert chosen[-1] is held_validation.METRIC


@pytest.mark.slow
@pytest.mark.parametrize('name', [FT, KDE])
def test_they_keep_the_contract_of_methods(name):
  testing.check_method(name)


def test_the_metric_keeps_the_contract_of_metrics():
  testing.check_metric('jaxmu.claims.variants.held_validation')
