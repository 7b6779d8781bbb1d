"""Losses on logits; natural logarithms throughout."""

import math

import jax
import jax.numpy as jnp

from jaxmu.types import Array


def cross_entropies(logits: Array, label: Array) -> Array:
  """Return the cross-entropy of each example, f[B]."""
  log_p = jax.nn.log_softmax(logits)
  return -jnp.take_along_axis(log_p, label[:, None], axis=1)[:, 0]


def cross_entropy(logits: Array, label: Array) -> Array:
  """Return the mean cross-entropy of a batch."""
  return jnp.mean(cross_entropies(logits, label))


def weighted_mean(values: Array, weight: Array) -> Array:
  """Return the mean of f[B] under weights f[B]."""
  return jnp.sum(values * weight) / jnp.sum(weight)


def divergences(
  teacher: Array, student: Array, temperature: Array | float = 1.0
) -> Array:
  """Return KL(teacher, student) of each example at a temperature, f[B].

  Args:
    teacher: logits f[B, C].
    student: logits f[B, C].
    temperature: divides both; there is no factor of its square.
  """
  target = jax.nn.log_softmax(teacher / temperature)
  found = jax.nn.log_softmax(student / temperature)
  return jnp.sum(jnp.exp(target) * (target - found), axis=1)


def soft_cross_entropies(
  teacher: Array, student: Array, temperature: Array | float = 1.0
) -> Array:
  """Return the cross-entropy to the teacher's distribution, f[B]."""
  target = jax.nn.softmax(teacher / temperature)
  return -jnp.sum(target * jax.nn.log_softmax(student / temperature), axis=1)


def divergences_from_uniform(logits: Array) -> Array:
  """Return KL(uniform, softmax) of each example, f[B]."""
  log_p = jax.nn.log_softmax(logits)
  return -math.log(logits.shape[1]) - jnp.mean(log_p, axis=1)


def entropies(logits: Array) -> Array:
  """Return the entropy of each example's softmax in nats, f[B]."""
  log_p = jax.nn.log_softmax(logits)
  return -jnp.sum(jnp.exp(log_p) * log_p, axis=1)


def log_odds(logits: Array, label: Array) -> Array:
  """Return log(p / (1 - p)) of the true class, f[N], without forming p.

  The cross-entropy is softplus(-log_odds). Source: Carlini et al. 2022, eq. 4.
  """
  true = jnp.take_along_axis(logits, label[:, None], axis=1)[:, 0]
  is_true = jax.nn.one_hot(label, logits.shape[1], dtype=bool)
  others = jnp.where(is_true, -jnp.inf, logits)
  return true - jax.scipy.special.logsumexp(others, axis=1)
