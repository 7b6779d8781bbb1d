"""Metrics by worked numbers, naive twins and limits."""

import math

import numpy as np
import pytest
from scipy import special, stats

from jaxmu.attacks import single_model
from jaxmu.metrics import (
  accuracies,
  cost,
  distances,
  indiscernibility,
  interface,
  retention,
)


def test_accuracy_of_masked_sets():
  correct = np.array([[1, 1, 0, 0], [0, 0, 0, 0]], bool)
  where = np.array([True, False, True, False])
  np.testing.assert_array_equal(accuracies.accuracy(correct, where), [0.5, 0.0])
  # A set of its own for each model.
  where = np.array([[1, 1, 1, 0], [0, 0, 1, 1]], bool)
  np.testing.assert_allclose(accuracies.accuracy(correct, where), [2 / 3, 0.0])
  empty = np.array([[1, 0, 0, 0], [0, 0, 0, 0]], bool)
  np.testing.assert_array_equal(
    accuracies.accuracy(correct, empty), [1.0, np.nan]
  )


def test_retention_is_the_sum_of_absolute_relative_errors():
  new = tuple(np.array(a) for a in ([0.9, 1.0], [0.5, 0.9], [0.6, 0.7]))
  ref = tuple(np.array(a) for a in ([1.0, 1.0], [0.8, 0.8], [0.75, 0.7]))
  got = retention.retention(new, ref)
  np.testing.assert_allclose(got.retain, [0.9, 1.0])
  np.testing.assert_allclose(got.forget, [0.625, 1.125])
  np.testing.assert_allclose(got.test, [0.8, 1.0])
  np.testing.assert_allclose(got.deviation, [0.1 + 0.375 + 0.2, 0.125])


def test_means_cancel_what_pairs_keep():
  new = tuple(np.array([0.7, 0.9]) for _ in range(3))
  ref = tuple(np.array([0.8, 0.8]) for _ in range(3))
  assert retention.retention_of_means(new, ref).deviation == pytest.approx(0)
  paired = retention.retention(new, ref).deviation
  np.testing.assert_allclose(paired, 0.375)


def test_ratio_refuses_what_is_no_accuracy():
  for new, ref in ((1.1, 0.5), (-0.1, 0.5), (0.5, 1.5), (0.5, -0.1)):
    with pytest.raises(ValueError):
      retention.accuracy_ratio(np.array(new), np.array(ref))


def test_no_ratio_to_an_accuracy_of_zero():
  new, ref = np.array([0.5, 0.0, 0.5, np.nan]), np.array([0, 0, np.nan, 0.5])
  assert np.isnan(retention.accuracy_ratio(new, ref)).all()
  found = retention.retention((new,) * 3, (np.array([0.5] * 4), ref, new))
  assert np.isnan(found.deviation).all()
  np.testing.assert_array_equal(found.retain, [1.0, 0.0, 1.0, np.nan])


def test_tug_of_war():
  new = (np.array(0.9), np.array(0.5), np.array(0.6))
  ref = (np.array(1.0), np.array(0.8), np.array(0.6))
  assert retention.tug_of_war(new, ref) == pytest.approx(0.9 * 0.7)
  assert retention.tug_of_war(ref, ref) == 1.0


def test_indiscernibility_and_its_noise_floor():
  np.testing.assert_allclose(
    indiscernibility.indiscernibility(np.array([0.5, 0.6, 0.4, 1.0, 0.0])),
    [1.0, 0.8, 0.8, 0.0, 0.0],
  )
  with pytest.raises(ValueError, match='1.2'):
    indiscernibility.indiscernibility(np.array(1.2))
  # The benchmark's sizes: 5,100 / 4,250 and 1,613 forget images.
  assert indiscernibility.noise_floor(4250) == pytest.approx(
    (0.5, 0.0053, 0.991), abs=6e-4
  )
  assert indiscernibility.noise_floor(1613) == pytest.approx(
    (0.5, 0.0086, 0.986), abs=6e-4
  )


def test_noise_floor_is_that_of_the_attack_on_heavy_tailed_losses():
  losses = np.exp(2 * np.random.default_rng(0).normal(size=(2, 300)))
  mia = single_model.null_mia(*losses, repeats=300)
  _, sd, indisc = indiscernibility.noise_floor(300)
  assert mia.std() == pytest.approx(sd, rel=0.25)
  measured = indiscernibility.indiscernibility(mia).mean()
  assert measured == pytest.approx(indisc, abs=0.01)


def test_failed_models_are_no_perfect_unlearning():
  """Their placeholders are all equal, which an attack cannot tell apart."""
  rng = np.random.default_rng(0)
  state = np.zeros((4, 120), np.int8)
  state[:, :30] = 1
  scores = rng.normal(size=state.shape) + 3 * (state == 1)
  failed = np.array([False, True, False, True])
  broken = np.where(failed[:, None], -3e38, scores)

  def numbers(log_odds, failed):
    return indiscernibility.attack(
      interface.Evaluated(
        name='ft',
        log_odds=log_odds,
        correct=log_odds > 0,
        state=state[: len(failed)],
        validation=np.arange(60, 90),
        test=np.arange(90, 120),
        cluster=np.arange(len(failed)),
        split=np.zeros(len(failed), int),
        classes=2,
        failed=failed,
      )
    )

  found = numbers(broken, failed)
  alone = numbers(scores[~failed], np.zeros(2, bool))
  for name in ('mia_val', 'indisc_val', 'mia_test', 'indisc_test'):
    np.testing.assert_array_equal(np.isnan(found[name]), failed)
    np.testing.assert_array_equal(found[name][~failed], alone[name])
  assert found['population_auc'].value == alone['population_auc'].value
  assert found['population_auc'].n == 2


def test_rte_of_free_and_impossible_runs():
  assert cost.rte(6.0, 3.0) == 2.0
  assert cost.rte(1.0, 0.0) == math.inf
  assert math.isnan(cost.rte(0.0, 0.0))
  with pytest.raises(ValueError, match='negative, got -1.0'):
    cost.rte(-1.0, 1.0)


def test_parameter_distances():
  first = {'a': np.array([3.0, 0.0]), 'b': {'c': np.array([[4.0]])}}
  second = {'a': np.array([0.0, 0.0]), 'b': {'c': np.array([[8.0]])}}
  assert distances.norm(first) == 5.0
  assert distances.l2(first, second) == 5.0
  assert distances.relative_l2(first, second) == 1.0


def test_distances_of_live_weights_alone():
  rng = np.random.default_rng(2)
  alive = rng.integers(0, 2, (3, 3)).astype(bool)
  first, second = (
    {'kernel': rng.normal(size=(3, 3, 4, 5)), 'bias': rng.normal(size=5)}
    for _ in range(2)
  )
  live = {'kernel': alive[:, :, None, None], 'bias': np.ones(1, bool)}
  a, b = (
    np.concatenate([tree['kernel'][alive].reshape(-1), tree['bias']])
    for tree in (first, second)
  )
  length = np.linalg.norm
  for found, expected in (
    (distances.norm(first, live), length(a)),
    (distances.l2(first, second, live), length(a - b)),
    (distances.relative_l2(first, second, live), length(a - b) / length(a)),
  ):
    assert found == pytest.approx(expected, rel=1e-12)


def test_distances_accumulate_in_float64():
  big = {'w': np.full(1 << 18, 0.1, np.float32)}
  exact = float(np.float32(0.1)) * 512
  assert distances.norm(big) == pytest.approx(exact, rel=1e-12)


def test_output_distances_equal_their_definitions():
  rng = np.random.default_rng(1)
  r, u = rng.normal(size=(2, 3, 5, 4))
  p, q = special.softmax(r, -1), special.softmax(u, -1)
  for i in range(3):
    kl = np.mean([stats.entropy(p[i, n], q[i, n]) for n in range(5)])
    assert distances.kl(r, u)[i] == pytest.approx(kl)
    tv = np.mean([0.5 * abs(p[i, n] - q[i, n]).sum() for n in range(5)])
    assert distances.total_variation(r, u)[i] == pytest.approx(tv)
    unequal = np.mean(r[i].argmax(-1) != u[i].argmax(-1))
    assert distances.disagreement(r, u)[i] == unequal
  saturated = np.array([[[2000.0, 0.0]]]), np.array([[[0.0, 2000.0]]])
  assert distances.kl(*saturated)[0] == 2000.0
