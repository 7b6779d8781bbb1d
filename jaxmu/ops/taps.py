"""Live and dead weights of a network; see `jaxmu.models.live_taps`."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxmu.core.types import Array, Params, Task
from jaxmu.models import live_taps
from jaxmu.ops import surgery


def live(task: Task, params: Params) -> Params:
  """Return which parameters are live, a tree of bool that broadcasts.

  Kernels of convolutions give bool[h, w, 1, 1], all others a single True of
  their rank.
  """
  kernels = live_taps.live_taps(task.model, task.dataset.image.shape[1:])

  def mark(path, leaf):
    if path in kernels:
      return jnp.asarray(kernels[path][:, :, None, None])
    return jnp.ones((1,) * len(leaf.shape), bool)

  return surgery.edit(mark, params)


def count_dead(task: Task, params: Params) -> dict[str, int]:
  """Count the weights that only ever meet padding, for each such kernel."""
  kernels = live_taps.live_taps(task.model, task.dataset.image.shape[1:])
  shapes = {k: leaf.shape for k, leaf in surgery.by_path(params).items()}
  return {
    path: int(np.sum(~alive)) * shapes[path][2] * shapes[path][3]
    for path, alive in kernels.items()
  }


def count_chosen_dead(chosen: Params, live: Params) -> Array:
  """Count the dead weights among chosen ones, i32[].

  Args:
    chosen: tree of bool.
    live: what `live` returned, whole or the leaves of `chosen`.
  """
  counts = jax.tree.map(
    lambda on, alive: jnp.sum(on & ~alive, dtype=jnp.int32), chosen, live
  )
  return sum(jax.tree.leaves(counts), jnp.zeros((), jnp.int32))
