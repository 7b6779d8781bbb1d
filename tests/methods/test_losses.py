"""Losses on logits, against sums written out."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

from jaxmu.methods.parts import losses

RANDOM = np.random.default_rng(0)
TEACHER = RANDOM.normal(size=(5, 4)).astype(np.float32) * 3
STUDENT = RANDOM.normal(size=(5, 4)).astype(np.float32)
LABEL = np.array([0, 3, 1, 1, 2], np.int32)


def _softmax(row, temperature=1.0):
  powers = [math.exp(value / temperature) for value in row]
  return [power / sum(powers) for power in powers]


def _each(formula):
  return [formula(p, q) for p, q in zip(TEACHER, STUDENT, strict=True)]


def test_cross_entropies():
  pairs = zip(STUDENT, LABEL, strict=True)
  expected = [-math.log(_softmax(row)[label]) for row, label in pairs]
  found = losses.cross_entropies(jnp.asarray(STUDENT), jnp.asarray(LABEL))
  np.testing.assert_allclose(found, expected, rtol=1e-5)
  mean = losses.cross_entropy(jnp.asarray(STUDENT), jnp.asarray(LABEL))
  np.testing.assert_allclose(mean, np.mean(expected), rtol=1e-5)


@pytest.mark.parametrize('temperature', [1.0, 3.0])
def test_divergences(temperature):
  def naive(teacher, student):
    p, q = _softmax(teacher, temperature), _softmax(student, temperature)
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))

  found = losses.divergences(
    jnp.asarray(TEACHER), jnp.asarray(STUDENT), temperature
  )
  np.testing.assert_allclose(found, _each(naive), rtol=1e-4)


@pytest.mark.parametrize('temperature', [1.0, 3.0])
def test_soft_cross_entropies(temperature):
  def naive(teacher, student):
    p, q = _softmax(teacher, temperature), _softmax(student, temperature)
    return -sum(a * math.log(b) for a, b in zip(p, q, strict=True))

  found = losses.soft_cross_entropies(
    jnp.asarray(TEACHER), jnp.asarray(STUDENT), temperature
  )
  np.testing.assert_allclose(found, _each(naive), rtol=1e-5)


def test_divergence_of_equals_is_zero():
  found = losses.divergences(jnp.asarray(TEACHER), jnp.asarray(TEACHER), 2.0)
  np.testing.assert_allclose(found, 0, atol=1e-6)


def test_a_class_of_probability_zero_adds_nothing():
  sure = jnp.asarray([[200.0, 0.0, 0.0, 0.0]])
  found = losses.divergences(sure, jnp.zeros((1, 4)))
  np.testing.assert_allclose(found, math.log(4), rtol=1e-6)


def test_divergences_from_uniform():
  expected = [
    sum(math.log(0.25 / p) / 4 for p in _softmax(row)) for row in STUDENT
  ]
  found = losses.divergences_from_uniform(jnp.asarray(STUDENT))
  np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_entropies():
  expected = [-sum(p * math.log(p) for p in _softmax(row)) for row in STUDENT]
  found = losses.entropies(jnp.asarray(STUDENT))
  np.testing.assert_allclose(found, expected, rtol=1e-5)
  uniform = losses.entropies(jnp.zeros((1, 4)))
  np.testing.assert_allclose(uniform, math.log(4), rtol=1e-6)


def test_log_odds_agree_with_the_cross_entropy():
  args = jnp.asarray(STUDENT), jnp.asarray(LABEL)
  softplus = np.log1p(np.exp(-np.asarray(losses.log_odds(*args))))
  np.testing.assert_allclose(softplus, losses.cross_entropies(*args), rtol=1e-5)
