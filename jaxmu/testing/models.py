"""The contract of models: what methods and attacks require of a network.

A batch of four random images is run through the network in both modes, alone
and as one of two members.
"""

import functools
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from jaxmu import models
from jaxmu.models import pytorch_names
from jaxmu.testing import Findings, Rule, enforce
from jaxmu.types import Array, Variables

_BATCH = 4
_CLOSE = 1e-4  # relative to the largest number; of float32


class _Trial:
  """A model with fresh variables and random images."""

  def __init__(self, model: models.Model, image_shape: tuple[int, int, int]):
    rng = np.random.default_rng(0)
    noise = rng.random((model.num_drop_paths, _BATCH))
    images = rng.standard_normal((_BATCH, *image_shape))
    self.model = model
    self.image_shape = image_shape
    self.images = jnp.asarray(images, jnp.float32)
    self.drop_path = jnp.asarray(noise, jnp.float32) if len(noise) else None

  def fresh(self, seed: int) -> Variables:
    return models.init(self.model, jax.random.key(seed), self.image_shape)

  @functools.cached_property
  def variables(self) -> Variables:
    return self.fresh(0)

  @functools.cached_property
  def evaluate(self) -> Any:
    """Compiled (variables, images) -> (logits, statistics)."""
    return jax.jit(functools.partial(models.apply, self.model, train=False))


def _description(trial: _Trial) -> Findings:
  """Layers and blocks describe the variables."""
  if set(trial.variables) != {'params', 'batch_stats'}:
    yield (
      f'its variables are {sorted(trial.variables)}.',
      'Give it params and batch_stats alone.',
    )
    return
  arrays = {
    (collection, path)
    for collection, part in trial.variables.items()
    for path in flax.traverse_util.flatten_dict(part, sep='/')
  }
  leaves = [(x.collection, x.path) for x in pytorch_names.leaves(trial.model)]
  if set(leaves) != arrays or len(leaves) != len(arrays):
    wrong = sorted(set(leaves) ^ arrays)[:3]
    yield (
      f'its layers do not describe {["/".join(key) for key in wrong]}.',
      'Describe each array once.',
    )
  blocks = trial.model.blocks
  body = [prefix for block in blocks.body for prefix in block]
  if not body:
    yield (
      'it has no block between stem and classifier.',
      'Name one, or methods that retrain the last blocks retrain the '
      'classifier alone.',
    )
  parts = [*blocks.stem, *body, *blocks.neck, *blocks.classifier]
  for path in sorted(path for name, path in arrays if name == 'params'):
    owners = [p for p in parts if f'{path}/'.startswith(f'{p}/')]
    if len(owners) > 1:
      yield (
        f'the parameter {path} belongs to the parts {owners}.',
        'Give it one.',
      )
  for path in blocks.classifier:
    if ('params', f'{path}/kernel') not in arrays:
      yield (
        f'its classifier {path} has no kernel.',
        'Name the last linear layer.',
      )
  if not blocks.classifier:
    yield 'it names no classifier.', 'Name the last linear layer.'


def _logits(trial: _Trial) -> Findings:
  """Evaluation gives finite logits of the right shape."""
  logits, _ = trial.evaluate(trial.variables, trial.images)
  shape, dtype = (_BATCH, trial.model.num_classes), trial.images.dtype
  if logits.shape != shape:
    yield f'it maps {_BATCH} images to {logits.shape}.', f'Return {shape}.'
  elif logits.dtype != dtype:
    yield f'its logits are {logits.dtype}.', f'Return {dtype}, as the images.'
  elif not np.isfinite(logits).all():
    yield (
      'its logits are not finite on random images.',
      'Scale its initial weights, or normalise.',
    )


def _evaluation(trial: _Trial) -> Findings:
  """Evaluation is a function of one image."""
  images, variables = trial.images, trial.variables
  logits, stats = trial.evaluate(variables, images)
  if not _same(logits, trial.evaluate(variables, images)[0]):
    yield (
      'it returns other logits when it is called again in evaluation mode.',
      'Draw nothing in evaluation mode.',
    )
  if not _same(stats, variables['batch_stats']):
    yield (
      'it changes its statistics in evaluation mode.',
      'Pass the mode on to BatchNorm.',
    )
  others = images.at[1:].set(images[1:] + 1)
  if not _close(logits[0], trial.evaluate(variables, others)[0][0]):
    yield (
      'in evaluation mode the logits of an image depend on the other images of '
      'its batch.',
      'Use running statistics.',
    )
  if _close(logits, jnp.broadcast_to(logits[:1], logits.shape)):
    yield 'it gives all images the same logits.', 'Let it read the images.'


def _training(trial: _Trial) -> Findings:
  """Train mode updates statistics and gives gradients."""
  model, variables = trial.model, trial.variables
  labels = jnp.arange(_BATCH) % model.num_classes

  @jax.jit
  def step(params: Any) -> Any:
    def loss(params: Any) -> tuple[Array, Any]:
      logits, stats = models.apply(
        model,
        {**variables, 'params': params},
        trial.images,
        train=True,
        drop_path=trial.drop_path,
      )
      chosen = jax.nn.log_softmax(logits)[jnp.arange(_BATCH), labels]
      return -chosen.mean(), stats

    return jax.value_and_grad(loss, has_aux=True)(params)

  (value, stats), gradient = step(variables['params'])
  if not np.isfinite(value):
    yield (
      'its loss in train mode is not finite on random images.',
      'Scale its initial weights, or normalise.',
    )
    return
  before = variables['batch_stats']
  if jax.tree.structure(stats) != jax.tree.structure(before):
    yield (
      'train mode returns statistics of another structure.',
      'Return the statistics that `init` made.',
    )
  elif jax.tree.leaves(before) and _same(stats, before):
    yield (
      'train mode does not change its statistics.',
      'Pass the train mode on to BatchNorm.',
    )
  yield from _gradient(model, gradient)


def _gradient(model: models.Model, gradient: Any) -> Findings:
  flat: dict[str, Any] = flax.traverse_util.flatten_dict(gradient, sep='/')
  spoilt = [path for path, x in flat.items() if not np.isfinite(x).all()]
  if spoilt:
    yield (
      f'gradients are not finite, in {", ".join(spoilt[:3])}.',
      'Look for a root, a norm or a logarithm of zero.',
    )
  elif not any(np.any(np.asarray(x) != 0) for x in flat.values()):
    yield 'all gradients are zero.', 'Look for a stop_gradient or a dead unit.'
  head = [
    path
    for path in flat
    for prefix in model.blocks.classifier
    if f'{path}/'.startswith(f'{prefix}/')
  ]
  if head and not any(np.any(np.asarray(flat[path]) != 0) for path in head):
    yield 'its classifier has no gradient.', 'Let the logits depend on it.'


def _members(trial: _Trial) -> Findings:
  """Two members in one program give the same logits as each alone."""
  variables, other = trial.variables, trial.fresh(1)
  if _same(variables['params'], other['params']):
    yield 'two keys draw the same parameters.', 'Draw from the key of `init`.'
  members = jax.tree.map(lambda *x: jnp.stack(x), variables, other)

  def logits(variables: Variables) -> Array:
    return trial.evaluate(variables, trial.images)[0]

  remedy = 'Compute with jax.numpy alone, and read nothing but the arguments.'
  try:
    with warnings.catch_warnings():
      warnings.simplefilter('ignore')
      together = jax.jit(jax.vmap(logits))(members)
  except Exception as error:
    first = str(error).strip().partition('\n')[0]
    yield (
      f'it cannot be mapped over members: {type(error).__name__}: {first}.',
      remedy,
    )
    return
  if not _close(together, jnp.stack([logits(variables), logits(other)])):
    yield (
      'its logits under jax.vmap are not those of one member at a time.',
      remedy,
    )


def _same(a: Any, b: Any) -> bool:
  pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
  return all(np.array_equal(x, y) for x, y in pairs)


def _close(a: Array, b: Array) -> bool:
  scale = max(float(np.abs(np.asarray(b)).max()), 1e-30)
  return bool(np.abs(np.asarray(a) - np.asarray(b)).max() <= _CLOSE * scale)


MODEL_RULES: dict[str, Rule[_Trial]] = {
  'description': _description,
  'logits': _logits,
  'evaluation': _evaluation,
  'training': _training,
  'members': _members,
}


def check_model(
  spec: Any,
  rules: Sequence[str] | None = None,
  *,
  image_shape: tuple[int, int, int] = (32, 32, 3),
  num_classes: int = 10,
  options: Mapping[str, Any] | None = None,
) -> None:
  """Check that a model meets the requirements of methods and attacks.

  Takes as long as compiling the network.

  Args:
    spec: a name, plug-in or network, as for `jaxmu.models.build`.
    rules: names of rules to check, of `MODEL_RULES`; None for all.
    image_shape: (H, W, channels).
    num_classes: number of logits C.
    options: further arguments of the model.

  Raises:
    ValueError: there is no such rule, or the model cannot be built.
    ContractError: rules are broken; the message has one line for each with
      what to do.

  Example:
    >>> from jaxmu import testing
    >>> testing.check_model('tiny', image_shape=(8, 8, 3))
  """
  model = models.build(
    spec, num_classes=num_classes, image_shape=image_shape, options=options
  )
  name = spec if isinstance(spec, str) else getattr(spec, '__name__', '')
  trial = _Trial(model, image_shape)
  enforce(
    'model', name or type(spec).__name__, MODEL_RULES, rules, subject=trial
  )
