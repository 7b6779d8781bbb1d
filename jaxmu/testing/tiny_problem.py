"""A problem small enough to run a method in a second.

48 random images of 8x8 pixels in four classes that differ in brightness, a
network of two convolutions, 20 retained, 10 forgotten and 9 validation images.
"""

import jax
import jax.numpy as jnp
import numpy as np

from jaxmu import models, population
from jaxmu.draws import derive
from jaxmu.types import Dataset, Key, Problem, Split, Task, Transform, Variables

CLASSES = 4
IMAGES = 48
SIZES = {'retain': 20, 'forget': 10, 'val': 9}


def task(flip: bool = True) -> Task:
  """Return data and model.

  Args:
    flip: whether augmented passes mirror images at random.
  """
  random = np.random.default_rng(0)
  label = np.arange(IMAGES) % CLASSES
  image = random.integers(0, 120, (IMAGES, 8, 8, 3))
  image = image + 40 * label[:, None, None, None]
  dataset = Dataset(
    jnp.asarray(image, jnp.uint8), jnp.asarray(label, jnp.int32)
  )
  transform = Transform((0.5,) * 3, (0.3,) * 3, flip=flip)
  model = models.build('tiny', num_classes=CLASSES)
  return Task(dataset, model, transform)


def splits(size: int) -> Split[np.ndarray]:
  """Return index sets of `size` members, different for each, i32[P, ...]."""
  rows = np.stack(
    [np.random.default_rng(p).permutation(IMAGES) for p in range(size)]
  ).astype(np.int32)
  ends = np.cumsum(list(SIZES.values()))
  return Split(
    rows[:, : ends[0]], rows[:, ends[0] : ends[1]], rows[:, ends[1] : ends[2]]
  )


def keys(size: int) -> Key:
  """Return one key per member, [P]."""
  root = jax.random.key(7)
  return jax.vmap(lambda p: derive(root, 'member', p))(np.arange(size))


def originals(size: int) -> Variables:
  """Return fresh models, one per member, leaves [P, ...]."""
  return jax.tree.map(
    jnp.asarray, population.initial_variables(task(), keys(size))
  )


def problem(flip: bool = True) -> Problem:
  """Return the problem of the first member."""
  first = lambda tree: jax.tree.map(lambda x: jnp.asarray(x[0]), tree)  # noqa: E731
  return Problem(task(flip), first(splits(1)), first(originals(1)))
