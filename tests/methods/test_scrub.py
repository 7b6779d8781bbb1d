"""Which epoch SCRUB returns."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmu.methods import scrub
from jaxmu.methods.parts import forward
from tests.methods import small

EPOCHS = 3


def _state(forget_error, val_error) -> scrub.State:
  """Models named by their epoch: weight e after e epochs."""
  room = EPOCHS + 1
  return scrub.State(
    variables={'params': jnp.asarray(3.0)},
    opt=(),
    retain_logits=None,
    forget_logits=None,
    forget_error=jnp.asarray(forget_error),
    val_error=jnp.zeros(room).at[EPOCHS].set(val_error),
    kept={'params': jnp.arange(3.0)},
  )


def _returned(forget_error, val_error, **values) -> int:
  hparams = small.hparams(
    'scrub', num_epochs=EPOCHS, snapshots=EPOCHS, **values
  )
  found = jax.jit(scrub.finish)(hparams, _state(forget_error, val_error))
  return int(found['params'])


def test_the_closest_error_decides():
  assert _returned([0.0, 0.2, 0.5, 0.9], 0.4) == 2
  assert _returned([0.0, 0.2, 0.5, 0.9], 1.0) == 3
  assert _returned([0.0, 0.2, 0.5, 0.9], 0.25) == 1


def test_the_first_of_equals_is_taken():
  assert _returned([0.9, 0.5, 0.5, 0.5], 0.4) == 1


def test_the_start_stands_for_the_final_model_as_in_the_reference():
  assert _returned([0.0, 0.2, 0.5, 0.9], 0.05) == 3
  found = _returned([0.0, 0.2, 0.5, 0.9], 0.05, rewind_zero='original')
  assert found == 0


@pytest.mark.parametrize('num_epochs', [1, 3])
def test_snapshots_are_the_models_after_each_epoch(num_epochs):
  values = {'learning_rate': 0.05, 'num_ascents': 1, 'snapshots': 3}
  found, infos = small.run('scrub', num_epochs=num_epochs, **values)
  final, _ = small.run('scrub', num_epochs=num_epochs, **values, rewind=False)
  assert len(infos) == num_epochs
  if num_epochs == 1:  # the start or the end, which are both the final one
    small.assert_close(found, final, 1e-6)  # of two programs
    assert not small.same(found, small.problem().start)
  else:
    shapes = [(x.shape, x.dtype) for x in jax.tree.leaves(found)]
    assert shapes == [(x.shape, x.dtype) for x in jax.tree.leaves(final)]


def test_errors_are_those_of_the_forget_set_and_of_its_classes():
  problem = small.problem()
  label = np.asarray(problem.task.dataset.label)
  forget = np.asarray(problem.split.forget)
  forget = forget[label[forget] != 0]  # class 0 is not forgotten
  problem = problem.replace(
    split=problem.split.replace(forget=jnp.asarray(forget))
  )
  hparams = small.hparams('scrub')
  found = scrub.measure(hparams, problem, problem.start)

  def wrong(index):
    logits = forward.logits_table(problem.task, problem.start, index, 8)
    return np.asarray(logits).argmax(axis=1) != label[np.asarray(index)]

  val = np.asarray(problem.split.val)
  counted = np.isin(label[val], label[forget])
  assert 0 < counted.sum() < len(val)
  np.testing.assert_allclose(found.forget, wrong(forget).mean(), rtol=1e-6)
  expected = wrong(problem.split.val)[counted].mean()
  np.testing.assert_allclose(found.val, expected, rtol=1e-6)
