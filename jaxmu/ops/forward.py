"""From example indices to logits; the only caller of the models.

The policy of batch normalisation lives here: `train_logits` normalises with the
batch and returns updated running statistics, `eval_logits` uses the stored ones
and leaves them alone.
"""

import jax
import jax.numpy as jnp

from jaxmu import models
from jaxmu.core.draws import Draws
from jaxmu.core.types import Array, Key, Task, Variables
from jaxmu.data import augment
from jaxmu.ops import surgery


def dtype_of(variables: Variables) -> jnp.dtype:
  """Return the floating type a model computes in, that of its parameters."""
  return jax.tree.leaves(variables['params'])[0].dtype


def clean_images(task: Task, index: Array, dtype: jnp.dtype) -> Array:
  """Look up and normalise images, float[B, H, W, 3], without augmentation."""
  return augment.normalise(task.transform, task.dataset.image[index], dtype)


def augmented_images(
  task: Task, index: Array, dtype: jnp.dtype, draws: Draws
) -> Array:
  """Look up, augment and normalise images, float[B, H, W, 3].

  What happens to an example depends on the place of `draws` and on the
  example, not on its position in the batch.
  """
  image = augment.augment_batch(
    task.transform, draws.key_for('augment'), index, task.dataset.image[index]
  )
  return augment.normalise(task.transform, image, dtype)


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
  known = surgery.by_path(cached['params'])

  def choose(path, leaf):
    if kinds.get(path.rsplit('/', 1)[0]) != 'attention_bias':
      return leaf
    return jax.lax.stop_gradient(known[path])

  if mode == 'live':
    return variables
  return {**variables, 'params': surgery.edit(choose, variables['params'])}


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
