"""Weights of classes from how often they occur in the retain set."""

import jax
import jax.numpy as jnp

from jaxmu.core.types import Array, Problem


def counts(problem: Problem) -> Array:
  """Count the examples of each class in the retain set, i32[C]."""
  label = problem.task.dataset.label[problem.split.retain]
  classes = problem.task.model.num_classes
  return jnp.sum(jax.nn.one_hot(label, classes, dtype=jnp.int32), axis=0)


def balanced(count: Array, dtype: jnp.dtype) -> Array:
  """Return N / (C count), f[C]; 0 for classes without examples."""
  present = jnp.maximum(count, 1).astype(dtype)
  weight = jnp.sum(count).astype(dtype) / (count.shape[0] * present)
  return jnp.where(count > 0, weight, 0)


def power(count: Array, exponent: float, dtype: jnp.dtype) -> Array:
  """Return count ** exponent, f[C]; 0 for classes without examples."""
  weight = jnp.maximum(count, 1).astype(dtype) ** exponent
  return jnp.where(count > 0, weight, 0)
