"""Predictions are finite for all outputs of a model, in batches that fit."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxmu import population
from jaxmu.attacks import log_odds
from jaxmu.testing import tiny_problem


def test_log_odds_of_ordinary_logits_are_those_of_the_attacks():
  logits = np.random.default_rng(0).normal(0, 9, (20, 4)).astype(np.float32)
  label = np.arange(20) % 4
  found = population.predictions_from_logits(
    jnp.asarray(logits), jnp.asarray(label)
  )
  expected = log_odds.log_odds(logits, label)
  np.testing.assert_allclose(found.log_odds, expected, rtol=1e-5)
  np.testing.assert_array_equal(found.correct, logits.argmax(1) == label)
  assert np.all(found.finite)


def test_log_odds_are_finite_for_huge_and_for_broken_logits():
  huge, nan, inf = 3e38, np.nan, np.inf
  logits = jnp.asarray(
    [[huge, -huge], [-huge, huge], [nan, 0], [inf, 0]], jnp.float32
  )
  found = population.predictions_from_logits(logits, jnp.zeros(4, jnp.int32))
  largest = np.finfo(np.float32).max
  np.testing.assert_array_equal(
    found.log_odds, np.float32([largest, -largest, -largest, -largest])
  )
  np.testing.assert_array_equal(found.correct, [True, False, False, False])
  np.testing.assert_array_equal(found.finite, [True, True, False, False])


@pytest.mark.parametrize(
  'side, batch',
  [(28, 256), (64, 256), (90, 256), (91, 128), (224, 32), (4096, 1)],
)
def test_large_images_are_predicted_in_smaller_batches(side, batch):
  assert population.prediction_batch((side, side, 3)) == batch


@pytest.mark.parametrize('chosen', [None, [5, 0, 9]])
def test_batches_do_not_change_predictions(monkeypatch, chosen):
  task, models = tiny_problem.task(), tiny_problem.originals(2)
  index = None if chosen is None else np.tile(np.int32(chosen), (2, 1))

  height, width, _ = task.dataset.image_shape

  def run(batch):
    monkeypatch.setattr(
      population, '_PREDICTION_PIXELS', batch * height * width
    )
    predictor = population.Predictor(task, population.Layout(1, 1))
    text = predictor.lower(models, index).as_text()
    return predictor.run(models, index), text

  (found, small), (expected, large) = run(2), run(256)
  assert (batch := f'x2x{height}x{width}x3x') in small and batch not in large
  for ours, theirs in zip(found, expected, strict=True):
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
