"""Retraining the last k blocks of a network, shared by CF-k and EU-k."""

import warnings
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxmu.data import batches as batches_lib
from jaxmu.draws import Draws
from jaxmu.method import Info
from jaxmu.methods.parts import forward, losses, training, weights
from jaxmu.models import Model
from jaxmu.types import Array, Params, Problem, Task, Variables


class State(NamedTuple):
  """A network of which a part is trained.

  Attributes:
    variables: the network.
    opt: optimiser state; there is no momentum.
    start: parameters when training began, which the penalty pulls towards.
  """

  variables: Variables
  opt: optax.OptState
  start: Params


def start(variables: Variables) -> State:
  """Begin training at given variables."""
  opt = training.sgd(0.0, None, 0.0).init(variables['params'])
  return State(variables, opt, variables['params'])


def trainable(model: Model, params: Params, num_blocks: Array) -> Params:
  """Return a tree of scalars, 1 in the last blocks and in the classifier.

  Stem and neck are never trained; more blocks than there are means all.
  """
  body = model.blocks.body

  def flag(path, leaf):
    if weights.is_under(path, model.blocks.classifier):
      return jnp.ones((), leaf.dtype)
    for depth, block in enumerate(body):
      if weights.is_under(path, block):
        return (depth >= len(body) - num_blocks).astype(leaf.dtype)
    return jnp.zeros((), leaf.dtype)

  return weights.edit(flag, params)


def epoch(
  problem: Problem,
  draws: Draws,
  state: State,
  *,
  rate: Array,
  pull: Array,
  num_blocks: Array,
  batch_size: int,
  bn_mode: str,
  attn_bias_mode: str,
  augmented: bool,
) -> tuple[State, Info]:
  """Take one shuffled pass over the retain set, updating the last blocks.

  Args:
    problem: data and model.
    draws: place of this epoch.
    state: the network in training.
    rate: learning rate.
    pull: strength of half the squared distance to where training began.
    num_blocks: k.
    batch_size: B.
    bn_mode: 'eval' normalises with the stored statistics, 'train' with the
      batch, updating them.
    attn_bias_mode: see `forward.cache_biases`.
    augmented: whether images pass through the training augmentation.
  """
  task = problem.task
  free = trainable(task.model, state.start, num_blocks)
  order = batches_lib.shuffled(draws, 'retain', problem.split.retain)

  if bn_mode == 'train':  # the batch statistics must not see padding
    batches = batches_lib.make_batches(
      (order, jnp.ones(order.shape)), batch_size
    )
  else:
    batches = batches_lib.Batches(
      batches_lib.padded_batches(order, batch_size), tail=None
    )
  loss = _cross_entropy(task, draws, state, bn_mode, attn_bias_mode, augmented)

  def pulled(variables, batch, step_draws):
    value, variables = loss(variables, batch, step_draws)
    squares = jax.tree.map(
      lambda p, q, on: on * jnp.sum((p - q) ** 2),
      variables['params'],
      state.start,
      free,
    )
    return value + pull / 2 * sum(jax.tree.leaves(squares)), variables

  variables, opt, info = training.run_epoch(
    pulled,
    training.sgd(rate, None, 0.0, trainable=free),
    state.variables,
    state.opt,
    batches,
    draws,
  )
  return State(variables, opt, state.start), {**info, 'learning_rate': rate}


def check(model: Model, num_blocks: Array) -> None:
  """Warn if a model has fewer blocks than are to be retrained."""
  most, asked = len(model.blocks.body), int(np.max(num_blocks))
  if asked > most:
    warnings.warn(
      f'num_blocks = {asked}, but the model has {most} blocks: all of them '
      f'are retrained, as with num_blocks = {most}',
      stacklevel=2,
    )


def _cross_entropy(
  task: Task,
  draws: Draws,
  state: State,
  bn_mode: str,
  attn_bias_mode: str,
  augmented: bool,
) -> training.Loss:
  def loss(variables, batch, step_draws):
    index, weight = batch
    dtype = forward.dtype_of(variables)
    if augmented:
      images = forward.augmented_images(task, index, dtype, draws)
    else:
      images = forward.clean_images(task, index, dtype)
    if bn_mode == 'train':
      logits, variables = forward.train_logits(
        task, variables, images, step_draws
      )
    else:
      cached = forward.cache_biases(
        task.model, attn_bias_mode, variables, state.variables
      )
      logits = forward.eval_logits(task, cached, images)
    each = losses.cross_entropies(logits, task.dataset.label[index])
    return losses.weighted_mean(each, weight.astype(dtype)), variables

  return loss
