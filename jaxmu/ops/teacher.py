"""A frozen network as teacher, asked once for all or batch by batch.

Its answers depend on the example alone (evaluation mode, no augmentation), so
asking once before training is exact and saves a forward pass per step. The
table takes N x C floats per member; without it the teacher runs in every step.
"""

import jax
import jax.numpy as jnp

from jaxmu.core.types import Array, Task, Variables
from jaxmu.data import stream
from jaxmu.ops import forward


def table(
  task: Task, variables: Variables, index: Array, batch_size: int
) -> Array:
  """Return the logits of examples i32[N] in their order, f[N, C]."""
  batches, _ = stream.padded(index, batch_size)

  def logits(batch):
    images = forward.clean_images(task, batch, forward.dtype_of(variables))
    return forward.eval_logits(task, variables, images)

  found = jax.lax.map(logits, batches)
  return found.reshape(-1, found.shape[-1])[: index.shape[0]]


def answer(
  task: Task, variables: Variables, images: Array, known: Array | None
) -> Array:
  """Return the teacher's logits for a batch, f[B, C].

  Args:
    task: gives the model.
    variables: the teacher.
    images: the batch, f[B, H, W, 3].
    known: rows of `table` for this batch, or None to run the teacher.
  """
  if known is None:
    known = forward.eval_logits(task, variables, images)
  return jax.lax.stop_gradient(known)


def rows(table: Array | None, position: Array) -> Array | None:
  """Look up rows of a table, f[N, C], or None where there is none."""
  return None if table is None else jnp.take(table, position, axis=0)
