"""Fisher forgetting (FF): noise on weights that the retain set does not need.

The diagonal of the Fisher information on the retain set measures how strongly
the retain set determines each weight; Gaussian noise of inverse variance is
added to all of them. No training. Source: Golatkar et al. 2020, arXiv
1911.04933, in the form of Jia et al. 2023, arXiv 2304.04934.

As in the reference: squares are taken of the mean gradient of a batch, once per
class, weighted with the batch's mean probability of the class. The variance is
at most 1e3 (100 in the classifier), times `alpha`, averaged over the inputs of
each output, and ten times larger for the classifier and for vectors. At the
default `alpha` the noise has a standard deviation above 10 per weight and
logits may overflow; 1e-6 is a reasonable order of magnitude. Dead kernel taps
have no curvature and get the most noise, to no effect.

Unlike the reference, the classifier is identified by its path rather than by
the size of its first axis, and transformers work: their attention biases have
gradients in evaluation mode. The reference lacks these gradients and raises an
error. With `attn_bias_mode='cached'` they count as constants, without
curvature.
"""

import jax
import jax.numpy as jnp
from flax import struct

from jaxmu import hparams as hp
from jaxmu.data import batches
from jaxmu.draws import Draws
from jaxmu.method import Card, Chosen, Method
from jaxmu.methods.parts import forward, losses, training, weights
from jaxmu.models import pytorch_names
from jaxmu.types import Array, Params, Problem

EPSILON = 1e-8
LARGEST, LARGEST_IN_CLASSIFIER = 1e3, 1e2
LOUDER = 10.0  # for vectors and for the classifier


@struct.dataclass
class Hparams:
  alpha: Array = hp.leaf(0.2, valid=hp.NON_NEGATIVE, search=hp.UNIT)
  batch_size: int = hp.static(64, valid=hp.AT_LEAST_ONE, search=hp.BATCH)
  attn_bias_mode: str = hp.static('live', valid=forward.BIAS_MODES[::-1])


def init(hparams: Hparams, draws: Draws, problem: Problem) -> training.Edited:
  """Add noise to every parameter."""
  curvature, _ = fisher(hparams, problem)
  spread = weights.by_path(variance(hparams, problem, curvature))
  shapes = {path: value.shape for path, value in spread.items()}
  dtype = forward.dtype_of(problem.start)
  noise = draws.normals('noise', shapes, dtype)

  def blur(path, leaf):
    return leaf + jnp.sqrt(spread[path]) * noise[path]

  params = weights.edit(blur, problem.start['params'])
  return training.Edited({**problem.start, 'params': params})


def fisher(hparams: Hparams, problem: Problem) -> tuple[Params, Array]:
  """Estimate the diagonal of the Fisher information on the retain set.

  Returns:
    A tree like the parameters, and the mean cross-entropy of each batch to
    each class, f[S, C].
  """
  task, start = problem.task, problem.start
  dtype = forward.dtype_of(start)
  table, weight = batches.padded_batches(
    problem.split.retain, hparams.batch_size
  )
  weight = weight.astype(dtype)
  classes = jnp.arange(task.model.num_classes)

  def batch(total, item):
    index, weight = item
    images = forward.clean_images(task, index, dtype)

    def logits(params):
      return forward.held_logits(
        task,
        {**start, 'params': params},
        images,
        held=start,
        mode=hparams.attn_bias_mode,
      )

    outputs, pull_back = jax.vjp(logits, start['params'])
    probability = jax.nn.softmax(outputs)
    share = weight / jnp.sum(weight)
    mean = jnp.sum(probability * share[:, None], axis=0)

    def add(total, label):
      target = jax.nn.one_hot(label, outputs.shape[1], dtype=dtype)
      slope = (probability - target[None, :]) * share[:, None]
      (gradient,) = pull_back(slope)
      each = losses.cross_entropies(outputs, jnp.full(index.shape, label))
      squares = jax.tree.map(
        lambda t, g: t + mean[label] * g**2, total, gradient
      )
      return squares, jnp.sum(each * share)

    return jax.lax.scan(add, total, classes)

  zeros = jax.tree.map(jnp.zeros_like, start['params'])
  total, entropy = jax.lax.scan(batch, zeros, (table, weight))
  return jax.tree.map(lambda t: t / table.shape[0], total), entropy


def variance(hparams: Hparams, problem: Problem, curvature: Params) -> Params:
  """Turn curvature into the variance of the noise.

  The inputs that are averaged over are the second axis of torch's layout: the
  input channels of a kernel, the inputs of a linear map, the offsets of an
  attention bias.
  """
  model = problem.task.model
  spreads = []
  tensors = pytorch_names.parameters(model)
  values = weights.to_list(model, curvature)
  for tensor, value in zip(tensors, values, strict=True):
    last = weights.is_under(tensor.path, model.blocks.classifier)
    spread = jnp.minimum(1 / (value + EPSILON), LARGEST)
    if last:
      spread = jnp.minimum(spread, LARGEST_IN_CLASSIFIER)
    spread = hparams.alpha * spread
    if spread.ndim > 1:
      mean = jnp.mean(spread, axis=1, keepdims=True)
      spread = jnp.broadcast_to(mean, spread.shape)
    if last or spread.ndim == 1:
      spread = LOUDER * spread
    spreads.append(spread)
  return weights.to_tree(model, spreads, curvature)


METHOD = Method(
  name='ff',
  Hparams=Hparams,
  init=init,
  epoch=training.no_epoch,
  num_epochs=lambda hparams: 0,
  card=Card(
    title='Fisher forgetting',
    label='FF',
    citation='Golatkar et al. 2020, arXiv 1911.04933',
    cost=lambda h, n: n.retain * (1 + 2 * n.classes),
    reads=('retain',),
    small={'alpha': 1e-6},
    chosen=Chosen('noised'),
    # A share drawn uniformly from [0, 1] is noise that destroys this network.
    digits_space={'alpha': 'log(1e-9, 1)'},
  ),
)
