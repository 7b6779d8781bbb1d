"""Losses on logits, in natural logarithms, and weights of classes."""

import math

import jax
import jax.numpy as jnp

from jaxmu.types import Array, Problem


def cross_entropies(logits: Array, label: Array) -> Array:
  """Return the cross-entropy of each example, f[B].

  Args:
    logits: f[B, C].
    label: i32[B].
  """
  log_p = jax.nn.log_softmax(logits)
  return -jnp.take_along_axis(log_p, label[:, None], axis=1)[:, 0]


def cross_entropy(logits: Array, label: Array) -> Array:
  """Return the mean cross-entropy of a batch, f[]; see `cross_entropies`."""
  return jnp.mean(cross_entropies(logits, label))


def weighted_mean(values: Array, weight: Array) -> Array:
  """Return the mean of f[B] under weights f[B], f[]."""
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
  log_p = jax.nn.log_softmax(student / temperature)
  return jnp.sum(jnp.exp(target) * (target - log_p), axis=1)


def soft_cross_entropies(
  teacher: Array, student: Array, temperature: Array | float = 1.0
) -> Array:
  """Return the cross-entropy to the teacher's distribution, f[B].

  Arguments as for `divergences`.
  """
  target = jax.nn.softmax(teacher / temperature)
  return -jnp.sum(target * jax.nn.log_softmax(student / temperature), axis=1)


def divergences_from_uniform(logits: Array) -> Array:
  """Return KL(uniform, softmax) of each example, f[B], from f[B, C]."""
  log_p = jax.nn.log_softmax(logits)
  return -math.log(logits.shape[1]) - jnp.mean(log_p, axis=1)


def entropies(logits: Array) -> Array:
  """Return the entropy of each softmax in nats, f[B], from logits f[B, C]."""
  log_p = jax.nn.log_softmax(logits)
  return -jnp.sum(jnp.exp(log_p) * log_p, axis=1)


def log_odds(logits: Array, label: Array) -> Array:
  """Return log(p / (1 - p)) of the true class, f[N], without forming p.

  The cross-entropy is softplus(-log_odds). Source: Carlini et al. 2022, eq. 4.

  Args:
    logits: f[N, C].
    label: i32[N].
  """
  true = jnp.take_along_axis(logits, label[:, None], axis=1)[:, 0]
  is_true = jax.nn.one_hot(label, logits.shape[1], dtype=bool)
  others = jnp.where(is_true, -jnp.inf, logits)
  return true - jax.scipy.special.logsumexp(others, axis=1)


def class_counts(problem: Problem) -> Array:
  """Count the examples of each class in the retain set, i32[C]."""
  label = problem.task.dataset.label[problem.split.retain]
  classes = problem.task.model.num_classes
  return jnp.sum(jax.nn.one_hot(label, classes, dtype=jnp.int32), axis=0)


def balanced_class_weights(count: Array, dtype: jnp.dtype) -> Array:
  """Return N / (C count), f[C]; 0 for classes without examples."""
  present = jnp.maximum(count, 1).astype(dtype)
  weight = jnp.sum(count).astype(dtype) / (count.shape[0] * present)
  return jnp.where(count > 0, weight, 0)


def power_class_weights(
  count: Array, exponent: float, dtype: jnp.dtype
) -> Array:
  """Return count ** exponent, f[C]; 0 for classes without examples."""
  weight = jnp.maximum(count, 1).astype(dtype) ** exponent
  return jnp.where(count > 0, weight, 0)
