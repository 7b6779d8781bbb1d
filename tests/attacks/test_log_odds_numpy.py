"""Log-odds from logits: exactness, extremes and refused input."""

import numpy as np
import pytest
from scipy import special

from jaxmu.attacks import log_odds


def naive_log_odds(logits, labels):
  out = np.empty(logits.shape[:-1])
  for index in np.ndindex(*out.shape):
    n = index[0] if logits.ndim == 2 else index[1]
    z = logits[index].astype(np.float64)
    others = [z[k] for k in range(len(z)) if k != labels[n]]
    out[index] = z[labels[n]] - special.logsumexp(others)
  return out


@pytest.mark.parametrize('shape', [(7, 3), (4, 7, 3), (4, 7, 2, 5), (2, 7, 2)])
def test_equals_naive_loop(shape):
  rng = np.random.default_rng(0)
  logits = rng.normal(0, 20, shape).astype(np.float32)
  labels = rng.integers(0, shape[-1], 7)
  got = log_odds.log_odds(logits, labels)
  assert got.dtype == np.float64
  np.testing.assert_allclose(got, naive_log_odds(logits, labels), rtol=1e-13)


def test_chunking_over_members_changes_nothing(monkeypatch):
  rng = np.random.default_rng(1)
  logits, labels = rng.normal(size=(9, 5, 3)), rng.integers(0, 3, 5)
  whole = log_odds.log_odds(logits, labels)
  monkeypatch.setattr(log_odds, '_CHUNK', 1)
  np.testing.assert_array_equal(log_odds.log_odds(logits, labels), whole)


def test_two_classes_are_the_exact_logit_difference():
  logits = np.array([[0.1, 0.7], [800.0, -3.0]], np.float32)
  got = log_odds.log_odds(logits, np.array([0, 1]))
  expected = logits.astype(np.float64)
  np.testing.assert_array_equal(
    got, [expected[0, 0] - expected[0, 1], expected[1, 1] - expected[1, 0]]
  )


def test_does_not_saturate_where_float32_probabilities_do():
  logits = np.zeros((2, 3), np.float32)
  logits[:, 0] = [200.0, -200.0]
  got = log_odds.log_odds(logits, np.array([0, 0]))
  np.testing.assert_allclose(got, [200 - np.log(2), -200 - np.log(2)])


def test_loss_and_confidence_are_cross_entropy_and_its_negative():
  rng = np.random.default_rng(2)
  logits, labels = rng.normal(0, 5, (6, 4)), rng.integers(0, 4, 6)
  phi = log_odds.log_odds(logits, labels)
  loss = -special.log_softmax(logits, -1)[np.arange(6), labels]
  np.testing.assert_allclose(log_odds.loss_from_log_odds(phi), loss)
  np.testing.assert_allclose(log_odds.log_confidence(phi), -loss)
  assert log_odds.loss_from_log_odds(np.array([-800.0]))[0] == 800.0


def test_margin_and_correctness():
  logits = np.array([[1.0, 3.0, 2.0], [2.0, 0.0, 2.0], [0.0, 5.0, 1.0]])
  labels = np.array([1, 2, 2])
  margin = log_odds.statistic(logits, labels, kind='margin')
  np.testing.assert_array_equal(margin, [1.0, 0.0, -4.0])
  correct = log_odds.statistic(logits, labels, kind='correctness')
  np.testing.assert_array_equal(correct, [1.0, 0.0, 0.0])
  loss = log_odds.statistic(logits, labels, kind='loss')
  np.testing.assert_allclose(
    loss, special.log_softmax(logits, -1)[np.arange(3), labels]
  )


def test_non_finite_become_the_most_wrong_finite_value_and_are_counted():
  logits = np.zeros((2, 3, 2))
  logits[0, :, 0] = [3.0, -4.0, np.nan]
  logits[1, :, 0] = [np.inf, 1.0, -np.inf]
  phi = log_odds.log_odds(logits, np.array([0, 0, 0]))
  fixed, count = log_odds.replace_non_finite(phi)
  assert count == 3
  np.testing.assert_array_equal(fixed, [[3.0, -4.0, -4.0], [-4.0, 1.0, -4.0]])
  same, count = log_odds.replace_non_finite(fixed)
  assert same is fixed and count == 0
  fixed, count = log_odds.replace_non_finite(np.full(4, np.nan))
  assert count == 4 and (fixed == log_odds.MOST_WRONG).all()


@pytest.mark.parametrize(
  'logits, labels, message',
  [
    (np.zeros(3), np.zeros(3, int), 'expected'),
    (np.zeros((3, 1)), np.zeros(3, int), 'at least 2'),
    (np.zeros((3, 2)), np.zeros(4, int), '3 examples'),
    (np.zeros((3, 2)), np.zeros(3), 'integer'),
    (np.zeros((3, 2)), np.array([0, 1, 2]), r'0\.\.1'),
  ],
)
def test_bad_input_is_explained(logits, labels, message):
  with pytest.raises(ValueError, match=message):
    log_odds.log_odds(logits, labels)


def test_unknown_statistic_is_named():
  with pytest.raises(ValueError, match='accuracy'):
    log_odds.statistic(np.zeros((3, 2)), np.zeros(3, int), kind='accuracy')  # pyright: ignore
