"""What a model must do, checked on random images and said in sentences.

contract.check_model('my_net.py:Net', image_shape=(32, 32, 3), num_classes=10)
"""

import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from jaxmu import models
from jaxmu.models import pytorch_names
from jaxmu.types import Array, Variables

_BATCH = 4
_CLOSE = 1e-4  # relative to the largest number; of float32


def check_model(
  spec: Any,
  *,
  image_shape: tuple[int, int, int] = (32, 32, 3),
  num_classes: int = 10,
  options: Mapping[str, Any] | None = None,
) -> models.Model:
  """Check that a model does what every method and attack assumes.

  A batch of four random images is run through the network in both modes; on a
  large network this takes as long as compiling it.

  Args:
    spec: a name, plug-in or network, as for `models.build`.
    image_shape: (H, W, channels).
    num_classes: number of logits C.
    options: further arguments of the model.

  Returns:
    The model.

  Raises:
    ValueError: the model cannot be built, or breaks the contract; every breach
      is one line of the message.

  Example:
    >>> from jaxmu.models import contract
    >>> model = contract.check_model('tiny', image_shape=(8, 8, 3))
  """
  model = models.build(
    spec, num_classes=num_classes, image_shape=image_shape, options=options
  )
  sentences = list(breaches(model, image_shape))
  if sentences:
    lines = '\n'.join(f'- {sentence}' for sentence in sentences)
    raise ValueError(f'the model breaks its contract:\n{lines}')
  return model


def breaches(
  model: models.Model, image_shape: tuple[int, int, int]
) -> Iterator[str]:
  """Yield one sentence for each thing that a model does wrong.

  Args:
    model: a model that is built.
    image_shape: (H, W, channels).
  """
  variables = models.init(model, jax.random.key(0), image_shape)
  rng = np.random.default_rng(0)
  images = jnp.asarray(rng.standard_normal((_BATCH, *image_shape)), jnp.float32)
  noise = jnp.asarray(rng.random((model.num_drop_paths, _BATCH)), jnp.float32)
  yield from _of_structure(model, variables)
  yield from _of_evaluation(model, variables, images)
  yield from _of_training(model, variables, images, noise)
  yield from _of_members(model, variables, images)


def _of_structure(model: models.Model, variables: Variables) -> Iterator[str]:
  """Check that layers, leaves and blocks describe the variables."""
  if set(variables) != {'params', 'batch_stats'}:
    yield (
      f'its variables are {sorted(variables)}; they must be params and '
      'batch_stats.'
    )
    return
  arrays = {
    (collection, path)
    for collection, part in variables.items()
    for path in flax.traverse_util.flatten_dict(part, sep='/')
  }
  leaves = [(x.collection, x.path) for x in pytorch_names.leaves(model)]
  if set(leaves) != arrays or len(leaves) != len(arrays):
    wrong = sorted(set(leaves) ^ arrays)[:3]
    yield (
      f'its layers do not describe each array once, e.g. '
      f'{["/".join(key) for key in wrong]}.'
    )
  blocks = model.blocks
  body = [prefix for block in blocks.body for prefix in block]
  if not body:
    yield (
      'it has no block between stem and classifier, so that methods that '
      'retrain the last blocks retrain the classifier alone.'
    )
  parts = [*blocks.stem, *body, *blocks.neck, *blocks.classifier]
  for path in sorted(path for name, path in arrays if name == 'params'):
    owners = [p for p in parts if f'{path}/'.startswith(f'{p}/')]
    if len(owners) > 1:
      yield f'the parameter {path} belongs to the parts {owners}; give it one.'
  for path in blocks.classifier:
    kernel = ('params', f'{path}/kernel')
    if kernel not in arrays:
      yield f'its classifier {path} has no kernel.'
  if not blocks.classifier:
    yield 'it names no classifier.'


def _of_evaluation(
  model: models.Model, variables: Variables, images: Array
) -> Iterator[str]:
  """Check logits in evaluation mode."""

  @jax.jit
  def evaluate(images):
    return models.apply(model, variables, images, train=False)

  logits, stats = evaluate(images)
  shape = (_BATCH, model.num_classes)
  if logits.shape != shape:
    yield f'it maps {_BATCH} images to {logits.shape}; it must be {shape}.'
    return
  if logits.dtype != images.dtype:
    yield f'its logits are {logits.dtype}; they must be {images.dtype}.'
  if not np.isfinite(logits).all():
    yield 'its logits are not finite on random images.'
    return
  if not _same(logits, evaluate(images)[0]):
    yield 'it returns other logits when it is called again in evaluation mode.'
  if not _same(stats, variables['batch_stats']):
    yield 'it changes its statistics in evaluation mode.'
  others = images.at[1:].set(images[1:] + 1)
  if not _close(logits[0], evaluate(others)[0][0]):
    yield (
      'in evaluation mode the logits of an image depend on the other images of '
      'its batch; use running statistics.'
    )
  if _close(logits, jnp.broadcast_to(logits[:1], logits.shape)):
    yield 'it gives all images the same logits.'


def _of_training(
  model: models.Model, variables: Variables, images: Array, noise: Array
) -> Iterator[str]:
  """Check statistics and gradients in train mode."""
  labels = jnp.arange(_BATCH) % model.num_classes

  @jax.jit
  def step(params):
    def loss(params):
      logits, stats = models.apply(
        model,
        {**variables, 'params': params},
        images,
        train=True,
        drop_path=noise if model.num_drop_paths else None,
      )
      chosen = jax.nn.log_softmax(logits)[jnp.arange(_BATCH), labels]
      return -chosen.mean(), stats

    return jax.value_and_grad(loss, has_aux=True)(params)

  (value, stats), gradient = step(variables['params'])
  if not np.isfinite(value):
    yield 'its loss in train mode is not finite on random images.'
    return
  before = variables['batch_stats']
  if jax.tree.structure(stats) != jax.tree.structure(before):
    yield 'train mode returns statistics of another structure.'
  elif jax.tree.leaves(before) and _same(stats, before):
    yield (
      'train mode does not change its statistics; pass the train mode on to '
      'BatchNorm.'
    )
  flat: dict[str, Any] = flax.traverse_util.flatten_dict(gradient, sep='/')
  spoilt = [path for path, x in flat.items() if not np.isfinite(x).all()]
  if spoilt:
    yield f'gradients are not finite, in {", ".join(spoilt[:3])}.'
  elif not any(np.any(np.asarray(x) != 0) for x in flat.values()):
    yield 'all gradients are zero.'
  head = [
    path
    for path in flat
    for prefix in model.blocks.classifier
    if f'{path}/'.startswith(f'{prefix}/')
  ]
  if head and not any(np.any(np.asarray(flat[path]) != 0) for path in head):
    yield 'its classifier has no gradient.'


def _of_members(
  model: models.Model, variables: Variables, images: Array
) -> Iterator[str]:
  """Check that two members in one program are two members."""
  other = models.init(model, jax.random.key(1), images.shape[1:])
  if _same(variables['params'], other['params']):
    yield 'two keys draw the same parameters.'
  members = jax.tree.map(lambda *x: jnp.stack(x), variables, other)

  @jax.jit
  def evaluate(variables):
    return models.apply(model, variables, images, train=False)[0]

  try:
    with warnings.catch_warnings():
      warnings.simplefilter('ignore')
      together = jax.jit(jax.vmap(evaluate))(members)
  except Exception as error:
    first = str(error).strip().partition('\n')[0]
    yield f'it cannot be mapped over members: {type(error).__name__}: {first}'
    return
  alone = jnp.stack([evaluate(variables), evaluate(other)])
  if not _close(together, alone):
    yield 'its logits under jax.vmap are not those of one member at a time.'


def _same(a: Any, b: Any) -> bool:
  pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
  return all(np.array_equal(x, y) for x, y in pairs)


def _close(a: Array, b: Array) -> bool:
  scale = max(float(np.abs(np.asarray(b)).max()), 1e-30)
  return bool(np.abs(np.asarray(a) - np.asarray(b)).max() <= _CLOSE * scale)
