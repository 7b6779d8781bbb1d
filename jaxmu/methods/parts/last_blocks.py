"""Retrain the last k blocks of a network; shared by CF-k and EU-k."""

import warnings
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxmu.data import batches as batches_lib
from jaxmu.draws import Draws
from jaxmu.method import Epoch, Info
from jaxmu.methods.parts import training, weights
from jaxmu.models import Model
from jaxmu.types import Array, Params, Problem, Variables

# Why hyper-parameters that the reference samples have no effect.
DEAD_RATE = 'the schedule starts from learning_rate'
DEAD_MOMENTUM = 'the reference trains without momentum'


class State(NamedTuple):
  """A network whose last blocks are trained.

  Attributes:
    variables: the network.
    opt: optimiser state; there is no momentum.
    anchor: parameters at the start of training, which the penalty pulls
      towards.
  """

  variables: Variables
  opt: optax.OptState
  anchor: Params


def prepare(hparams: Any, problem: Problem) -> Any:
  """Warn if the model has fewer blocks than `num_blocks`."""
  most = len(problem.task.model.blocks.body)
  asked = int(np.max(hparams.num_blocks))
  if asked > most:
    warnings.warn(
      f'num_blocks = {asked}, but the model has {most} blocks: all of them '
      f'are retrained, as with num_blocks = {most}',
      stacklevel=2,
    )
  return hparams


def init(hparams: Any, draws: Draws, problem: Problem) -> State:
  """Begin training at the problem's weights."""
  del hparams, draws
  return start(problem.start)


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


def passes(*, augmented: bool) -> Epoch:
  """Return an epoch of one shuffled pass over the retain set.

  Only the last blocks and the classifier are updated. The loss is the
  cross-entropy plus `pull` times half the squared distance of the trained
  parameters to where training began.

  Args:
    augmented: whether images pass through the training augmentation.
  """

  def epoch(
    hparams: Any, draws: Draws, problem: Problem, state: State, epoch: Array
  ) -> tuple[State, Info]:
    augment = draws if augmented else None
    return _epoch(hparams, draws, problem, state, epoch, augment)

  return epoch


def _epoch(
  hparams: Any,
  draws: Draws,
  problem: Problem,
  state: State,
  epoch: Array,
  augment: Draws | None,
) -> tuple[State, Info]:
  task = problem.task
  rate = training.milestones(
    hparams.learning_rate, epoch, hparams.num_epochs, hparams.decay_rate
  )
  free = trainable(task.model, state.anchor, hparams.num_blocks)
  order = batches_lib.shuffled(draws, 'retain', problem.split.retain)
  if hparams.bn_mode == 'train':  # padding must not enter the batch statistics
    batches = batches_lib.make_batches(
      (order, jnp.ones(order.shape)), hparams.batch_size
    )
  else:
    batches = batches_lib.Batches(
      batches_lib.padded_batches(order, hparams.batch_size), tail=None
    )
  cross_entropy = training.weighted_cross_entropy(
    task,
    state.variables,
    attn_bias_mode=hparams.attn_bias_mode,
    bn_mode=hparams.bn_mode,
    augment=augment,
  )

  def pulled(variables, batch, step_draws):
    value, variables = cross_entropy(variables, batch, step_draws)
    squares = jax.tree.map(
      lambda p, q, on: on * jnp.sum((p - q) ** 2),
      variables['params'],
      state.anchor,
      free,
    )
    return value + hparams.pull / 2 * sum(jax.tree.leaves(squares)), variables

  optimiser = training.sgd(rate, None, 0.0, trainable=free)
  return training.run_epoch(pulled, optimiser, state, batches, draws)
