"""A problem small enough to run every method in a second."""

import jax
import numpy as np

from jaxmu import models, population
from jaxmu.draws import derive
from jaxmu.types import Dataset, Split, Task, Transform

CLASSES = 4
SIZES = {'retain': 20, 'forget': 10, 'val': 9}


def task(flip: bool = True) -> Task:
  """Random images of four classes that differ in brightness."""
  random = np.random.default_rng(0)
  label = np.arange(48) % CLASSES
  image = (
    random.integers(0, 120, (48, 8, 8, 3)) + 40 * label[:, None, None, None]
  )
  dataset = Dataset(image.astype(np.uint8), label.astype(np.int32))
  transform = Transform((0.5,) * 3, (0.3,) * 3, flip=flip)
  model = models.build('tiny', num_classes=CLASSES)
  return Task(jax.tree.map(jax.numpy.asarray, dataset), model, transform)


def splits(size: int) -> Split:
  """Index sets of `size` members, different for each."""
  rows = np.stack(
    [np.random.default_rng(p).permutation(48) for p in range(size)]
  ).astype(np.int32)
  ends = np.cumsum(list(SIZES.values()))
  return Split(
    rows[:, : ends[0]], rows[:, ends[0] : ends[1]], rows[:, ends[1] : ends[2]]
  )


def keys(size: int) -> jax.Array:
  """One key per member."""
  root = jax.random.key(7)
  return jax.vmap(lambda p: derive(root, 'member', p))(np.arange(size))


def originals(size: int) -> dict:
  """Fresh models, one per member."""
  return jax.tree.map(
    jax.numpy.asarray, population.initial_variables(task(), keys(size))
  )
