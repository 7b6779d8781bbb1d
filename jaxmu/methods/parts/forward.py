"""From example indices to logits: how methods run models.

BatchNorm: training mode normalises with the batch and returns updated running
statistics; evaluation mode uses the stored statistics and leaves them alone.

Teachers are frozen networks. Their logits depend on the example alone
(evaluation mode, no augmentation), so computing them once before training is
exact and saves a forward pass per step. `task.cache_teacher` decides: a table
takes N x C floats per member; without it, the teacher runs in every step.
"""

import jax
import jax.numpy as jnp

from jaxmu import models
from jaxmu.data import batches as batches_lib
from jaxmu.draws import Draws
from jaxmu.methods.parts import weights
from jaxmu.types import Array, Task, Variables


def dtype_of(variables: Variables) -> jnp.dtype:
  """Return the dtype of a model's parameters, in which it computes."""
  return jax.tree.leaves(variables['params'])[0].dtype


def clean_images(task: Task, index: Array, dtype: jnp.dtype) -> Array:
  """Look up and normalise images i32[B] without augmentation, f[B, H, W, 3]."""
  image = task.dataset.look_up(index)
  return batches_lib.normalise(task.transform, image, dtype)


def augmented_images(
  task: Task, index: Array, dtype: jnp.dtype, draws: Draws
) -> Array:
  """Look up, augment and normalise images i32[B], f[B, H, W, 3].

  The augmentation of an example depends on the place of `draws` and on the
  example, not on its position in the batch.
  """
  image = batches_lib.augment_batch(
    task.transform,
    draws.key_for('augment'),
    index,
    task.dataset.look_up(index),
  )
  return batches_lib.normalise(task.transform, image, dtype)


def train_logits(
  task: Task, variables: Variables, images: Array, draws: Draws
) -> tuple[Array, Variables]:
  """Run the model in training mode on images f[B, H, W, 3].

  Returns:
    Logits f[B, C] and the variables with updated running statistics.
  """
  model = task.model
  noise = None
  if model.num_drop_paths:
    shape = model.num_drop_paths, images.shape[0]
    noise = draws.uniform('drop_path', shape, images.dtype)
  logits, stats = models.apply(
    model, variables, images, train=True, drop_path=noise
  )
  return logits, {**variables, 'batch_stats': stats}


def clean_train_logits(
  task: Task, variables: Variables, index: Array, draws: Draws
) -> tuple[Array, Variables]:
  """Run the model in training mode on clean images of examples i32[B].

  Returns:
    Logits f[B, C] and the variables with updated running statistics.
  """
  images = clean_images(task, index, dtype_of(variables))
  return train_logits(task, variables, images, draws)


def eval_logits(task: Task, variables: Variables, images: Array) -> Array:
  """Run the model in evaluation mode on f[B, H, W, 3]; logits f[B, C]."""
  logits, _ = models.apply(task.model, variables, images, train=False)
  return logits


BIAS_MODES = ('cached', 'live')


def held_logits(
  task: Task, variables: Variables, images: Array, *, held: Variables, mode: str
) -> Array:
  """Run the model in evaluation mode with earlier attention biases.

  The reference's transformer copies its attention biases when it is switched to
  evaluation mode: until the next switch they keep these values and receive no
  gradient. Models without attention are not affected.

  Args:
    task: gives the model.
    variables: the network.
    images: f[B, H, W, 3].
    held: the same network at the time of the switch to evaluation mode.
    mode: 'cached' for the reference's behaviour, 'live' for ordinary biases.

  Returns:
    Logits f[B, C].
  """
  if mode == 'cached':
    variables = _with_held_biases(task.model, variables, held)
  return eval_logits(task, variables, images)


def _with_held_biases(
  model: models.Model, variables: Variables, held: Variables
) -> Variables:
  kinds = {layer.path: layer.kind for layer in model.layers}
  known = weights.by_path(held['params'])

  def choose(path, leaf):
    if kinds.get(path.rsplit('/', 1)[0]) != 'attention_bias':
      return leaf
    return jax.lax.stop_gradient(known[path])

  return {**variables, 'params': weights.edit(choose, variables['params'])}


def resnet18_like(model: models.Model) -> models.Model:
  """Return the model itself if it is a ResNet-18, else a ResNet-18."""
  if isinstance(model, models.MODELS['resnet18']):
    return model
  return models.build('resnet18', num_classes=model.num_classes)


def logits_table(
  task: Task, variables: Variables, index: Array, batch_size: int
) -> Array:
  """Return the logits of examples i32[N] in their order, f[N, C].

  Evaluation mode, clean images, `batch_size` examples at a time.
  """
  batches, _ = batches_lib.padded_batches(index, batch_size)

  def logits_of(batch):
    images = clean_images(task, batch, dtype_of(variables))
    return eval_logits(task, variables, images)

  logits = jax.lax.map(logits_of, batches)
  return logits.reshape(-1, logits.shape[-1])[: index.shape[0]]


def cached_teacher(
  task: Task, teacher: Variables, index: Array, batch_size: int
) -> Array | None:
  """Return a teacher's logits of i32[N], f[N, C], or None if not cached."""
  if not task.cache_teacher:
    return None
  return logits_table(task, teacher, index, batch_size)


def cached_rows(table: Array | None, position: Array) -> Array | None:
  """Return rows i32[B] of a table, f[B, ...], or None without a table."""
  return None if table is None else jnp.take(table, position, axis=0)


def teacher_logits(
  task: Task, teacher: Variables, images: Array, cached: Array | None
) -> Array:
  """Return the teacher's logits for a batch, f[B, C], without gradient.

  Args:
    task: gives the model.
    teacher: the teacher's variables.
    images: the batch, f[B, H, W, 3].
    cached: rows of the teacher's table for this batch, f[B, C], or None to run
      the teacher.
  """
  if cached is None:
    cached = eval_logits(task, teacher, images)
  return jax.lax.stop_gradient(cached)


def student_and_teacher(
  task: Task,
  variables: Variables,
  teacher: Variables,
  batch: tuple[Array, Array | None],
  draws: Draws,
) -> tuple[Array, Array, Variables]:
  """Run the student in training mode and the teacher on the same clean images.

  Args:
    task: gives the model.
    variables: the student.
    teacher: the teacher.
    batch: examples i32[B], and the teacher's logits f[B, C] or None.
    draws: place of the step.

  Returns:
    Logits of the student and of the teacher, f[B, C] each, and the student
    with updated running statistics.
  """
  index, cached = batch
  images = clean_images(task, index, dtype_of(variables))
  target = teacher_logits(task, teacher, images, cached)
  logits, variables = train_logits(task, variables, images, draws)
  return logits, target, variables
