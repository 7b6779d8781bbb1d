"""Influence unlearning (IU): one Newton-like step away from the forget set.

The difference of the forget and retain gradients is corrected by a recursive
estimate of the inverse Fisher information (WoodFisher) along gradients of
single retained examples, and added to the weights. No training, evaluation
mode, everything deterministic. Source: Izzo et al. 2021, arXiv 2002.10077; Jia
et al. 2023, arXiv 2304.04934.

As in the reference: the recursion makes one update more than `num_samples` and
visits the examples in the order of the retain set; it only rescales its vector,
so that the correction is along the gradient of the first example alone; if the
retain set has fewer examples, all are visited. The batch size only affects
rounding.

Unlike the reference, transformers work: their attention biases have gradients
in evaluation mode. The reference lacks these gradients and raises an error.
With `attn_bias_mode='cached'` they count as constants and do not change.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from jaxmu import hparams as hp
from jaxmu.data import batches
from jaxmu.draws import Draws
from jaxmu.method import Card, Method
from jaxmu.methods.parts import forward, training
from jaxmu.types import Array, Params, Problem


@struct.dataclass
class Hparams:
  alpha: Array = hp.leaf(0.2, valid=hp.NON_NEGATIVE, search=hp.UNIT)
  num_epochs: Array = hp.leaf(
    1, valid=hp.COUNT, search=hp.EPOCHS, dead='there is no training'
  )
  batch_size: int = hp.static(256, valid=hp.AT_LEAST_ONE, search=hp.BATCH)
  num_samples: int = hp.static(1000, valid=hp.AT_LEAST_ONE)
  attn_bias_mode: str = hp.static('live', valid=forward.BIAS_MODES[::-1])


class Influence(NamedTuple):
  """The step and the quantities it is computed from.

  Attributes:
    first: difference of gradients, a tree like the parameters.
    step: the same after the recursion.
    losses: mean cross-entropies of forget batches, retain batches, and of the
      single examples.
  """

  first: Params
  step: Params
  losses: tuple[Array, Array, Array]


def init(hparams: Hparams, draws: Draws, problem: Problem) -> training.Edited:
  """Add the influence of forgetting to the weights."""
  del draws
  step = influence(hparams, problem).step
  params = jax.tree.map(
    lambda p, s: p + hparams.alpha * s, problem.start['params'], step
  )
  return training.Edited({**problem.start, 'params': params})


def influence(hparams: Hparams, problem: Problem) -> Influence:
  """Estimate how the weights move when the forget set is left out."""
  split = problem.split
  forget, retain = split.forget.shape[0], split.retain.shape[0]
  forget_sum, forget_loss = _sum(hparams, problem, split.forget)
  retain_sum, retain_loss = _sum(hparams, problem, split.retain)
  first = jax.tree.map(
    lambda f, r: (f - forget / retain * r) / (forget + retain),
    forget_sum,
    retain_sum,
  )
  visited = split.retain[: hparams.num_samples + 2]
  single = _gradient(hparams, problem)
  one = jnp.ones(1, forward.dtype_of(problem.start))
  value, direction = single(visited[:1], one)

  def update(carry, index):
    vector, direction = carry
    value, gradient = single(index[None], one)
    along = _dot(direction, gradient)
    scale = hparams.num_samples + along
    ahead = _dot(vector, gradient) / scale
    vector = jax.tree.map(lambda k, o: k - ahead * o, vector, direction)
    direction = jax.tree.map(lambda o: o - along / scale * o, direction)
    return (vector, direction), value

  (step, _), values = jax.lax.scan(update, (first, direction), visited[1:])
  single_losses = jnp.concatenate([value[None], values])
  return Influence(first, step, (forget_loss, retain_loss, single_losses))


def _gradient(
  hparams: Hparams, problem: Problem
) -> Callable[[Array, Array], tuple[Array, Params]]:
  """Return the weighted mean loss of examples i32[B], and its gradient."""
  start = problem.start
  cross_entropy = training.weighted_cross_entropy(
    problem.task, start, attn_bias_mode=hparams.attn_bias_mode
  )

  def mean(params, batch):
    # Nothing is drawn in evaluation mode.
    return cross_entropy({**start, 'params': params}, batch, None)[0]

  def gradient(index, weight):
    return jax.value_and_grad(mean)(start['params'], (index, weight))

  return gradient


def _sum(
  hparams: Hparams, problem: Problem, index: Array
) -> tuple[Params, Array]:
  """Sum the gradients of all examples; also the mean loss of each batch."""
  params = problem.start['params']
  mean_gradient = _gradient(hparams, problem)
  dtype = forward.dtype_of(problem.start)
  table, weight = batches.padded_batches(index, hparams.batch_size)

  def step(total, batch):
    index, weight = batch
    value, gradient = mean_gradient(index, weight)
    size = jnp.sum(weight)
    return jax.tree.map(lambda t, g: t + size * g, total, gradient), value

  zeros = jax.tree.map(jnp.zeros_like, params)
  return jax.lax.scan(step, zeros, (table, weight.astype(dtype)))


def _dot(a: Params, b: Params) -> Array | int:
  products = jax.tree.map(lambda x, y: jnp.sum(x * y), a, b)
  return sum(jax.tree.leaves(products))


METHOD = Method(
  name='iu',
  Hparams=Hparams,
  init=init,
  epoch=training.no_epoch,
  num_epochs=lambda hparams: 0,
  card=Card(
    title='Influence unlearning',
    label='IU',
    citation='Izzo et al. 2021, arXiv 2002.10077',
    cost=lambda h, n: (
      3 * (n.forget + n.retain + min(h['num_samples'] + 2, n.retain))
    ),
    reads=('retain', 'forget'),
    exempt={'different_keys_differ': 'nothing is drawn'},
    # A step of length 1 or less changes networks of this scale hardly.
    digits_space={'alpha': 'log(0.1, 1e4)'},
  ),
)
