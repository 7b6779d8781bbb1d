"""Learning rates per epoch, with the epoch and the total as traced scalars."""

import jax.numpy as jnp

from jaxmu.core.types import Array


def cosine(
  learning_rate: Array, epoch: Array, num_epochs: Array, floor: float = 0.0
) -> Array:
  """Anneal from the full rate at epoch 0 towards `floor` at `num_epochs`."""
  share = (1 + jnp.cos(jnp.pi * epoch / num_epochs)) / 2
  return floor + (learning_rate - floor) * share


def triangle(learning_rate: Array, epoch: Array, num_epochs: Array) -> Array:
  """Rise linearly to the full rate in the middle, then fall linearly.

  Five epochs give 1/3, 2/3, 1, 2/3, 1/3 of the rate. Used by MSG.
  """
  peak = (num_epochs + 1) // 2
  rising = (epoch + 1) / peak
  falling = (num_epochs - epoch) / (num_epochs + 1 - peak)
  return learning_rate * jnp.where(epoch < peak, rising, falling)


def milestones(
  learning_rate: Array, time: Array, num_epochs: Array, factor: Array
) -> Array:
  """Multiply by `factor` once past 50, 80 and 90 percent of the epochs.

  A mark counts as passed when `time` is greater than it, marks being rounded
  down. SCRUB counts time from 1, so that even its first epoch may decay (with
  one epoch, by all three factors); CF-k and EU-k count from 0.
  """
  total = jnp.asarray(num_epochs)
  marks = (total // 2, 4 * total // 5, 9 * total // 10)
  passed = sum((time > mark).astype(int) for mark in marks)
  return learning_rate * factor**passed
