"""From example indices to logits; the only caller of the models.

The policy of batch normalisation lives here: `train_logits` normalises with the
batch and returns updated running statistics, `eval_logits` uses the stored ones
and leaves them alone.

A frozen network as teacher, asked once for all or batch by batch.

Its answers depend on the example alone (evaluation mode, no augmentation), so
asking once before training is exact and saves a forward pass per step. The
table takes N x C floats per member; without it the teacher runs in every step.
"""

import jax
import jax.numpy as jnp

from jaxmu import models
from jaxmu.data import batches as batches_lib
from jaxmu.draws import Draws
from jaxmu.methods.parts import weights
from jaxmu.types import Array, Key, Task, Variables


def dtype_of(variables: Variables) -> jnp.dtype:
  """Return the floating type a model computes in, that of its parameters."""
  return jax.tree.leaves(variables['params'])[0].dtype


def clean_images(task: Task, index: Array, dtype: jnp.dtype) -> Array:
  """Look up and normalise images, float[B, H, W, 3], without augmentation."""
  return batches_lib.normalise(task.transform, task.dataset.image[index], dtype)


def augmented_images(
  task: Task, index: Array, dtype: jnp.dtype, draws: Draws
) -> Array:
  """Look up, augment and normalise images, float[B, H, W, 3].

  What happens to an example depends on the place of `draws` and on the
  example, not on its position in the batch.
  """
  image = batches_lib.augment_batch(
    task.transform, draws.key_for('augment'), index, task.dataset.image[index]
  )
  return batches_lib.normalise(task.transform, image, dtype)


def train_logits(
  task: Task, variables: Variables, images: Array, draws: Draws
) -> tuple[Array, Variables]:
  """Run the model in training mode.

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


def eval_logits(task: Task, variables: Variables, images: Array) -> Array:
  """Run the model in evaluation mode; logits f[B, C]."""
  logits, _ = models.apply(task.model, variables, images, train=False)
  return logits


BIAS_MODES = ('cached', 'live')


def cache_biases(
  model: models.Model, mode: str, variables: Variables, cached: Variables
) -> Variables:
  """Give a network the attention biases it had at another time, as constants.

  The reference's transformer copies its attention biases when it is switched to
  evaluation mode: until the next switch they stay as they were and receive no
  gradient. Without attention nothing changes.

  Args:
    model: tells which parameters are attention biases.
    mode: 'cached' for the reference's behaviour, 'live' to change nothing.
    variables: the network.
    cached: the same network when it was switched.
  """
  kinds = {layer.path: layer.kind for layer in model.layers}
  known = weights.by_path(cached['params'])

  def choose(path, leaf):
    if kinds.get(path.rsplit('/', 1)[0]) != 'attention_bias':
      return leaf
    return jax.lax.stop_gradient(known[path])

  if mode == 'live':
    return variables
  return {**variables, 'params': weights.edit(choose, variables['params'])}


def fresh_variables(
  task: Task, key: Key, image_shape: tuple[int, int, int]
) -> Variables:
  """Draw a network of the task's architecture."""
  return models.init(task.model, key, image_shape)


def resnet18_like(model: models.Model) -> models.Model:
  """Return the model itself if it is a ResNet-18, else a ResNet-18."""
  if isinstance(model, models.MODELS['resnet18']):
    return model
  return models.build('resnet18', num_classes=model.num_classes)


def teacher_table(
  task: Task, variables: Variables, index: Array, batch_size: int
) -> Array:
  """Return the logits of examples i32[N] in their order, f[N, C]."""
  batches, _ = batches_lib.padded_batches(index, batch_size)

  def logits(batch):
    images = clean_images(task, batch, dtype_of(variables))
    return eval_logits(task, variables, images)

  found = jax.lax.map(logits, batches)
  return found.reshape(-1, found.shape[-1])[: index.shape[0]]


def teacher_answer(
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
    known = eval_logits(task, variables, images)
  return jax.lax.stop_gradient(known)


def teacher_rows(table: Array | None, position: Array) -> Array | None:
  """Look up rows of a table, f[N, C], or None where there is none."""
  return None if table is None else jnp.take(table, position, axis=0)
