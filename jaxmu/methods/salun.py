"""Saliency unlearning (SalUN): random labels, salient weights only.

The gradient of the forget loss ranks all parameters; those with the largest
magnitude are trained as in SRL, the gradient of all others is set to zero.
Source: Fan et al. 2024, arXiv 2310.12508.

As in the reference: the mask is computed in evaluation mode; gradients are
never cleared but summed again after each batch, so that early batches have more
weight (`mask_grad='sum'` adds each once); a smaller last batch has the same
weight as any other; masked weights still decay; the learning rate does not. At
32x32 pixels 62% of ResNet-18's weights are kernel taps that only meet padding
and have no gradient: any `mask_fraction` above 0.38 then keeps every weight
that matters, and the method is SRL. `live_only` takes the fraction of the live
weights. Attention biases of transformers have no gradient in evaluation mode
and rank last (`attn_bias_mode='live'` gives them gradients). Unlike the
reference, which leaves the order of equal magnitudes to the sort, they are
ranked by flat index in torch's parameter order.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct

from jaxmu import hparams as hp
from jaxmu.data import batches
from jaxmu.draws import Draws
from jaxmu.method import Card, Chosen, Info, Method
from jaxmu.methods.parts import forward, select, training, weights
from jaxmu.types import Array, Params, Problem, Variables

_DEAD = 'the reference builds this optimiser and never steps it'


@struct.dataclass
class Hparams:
  learning_rate: Array = hp.leaf(0.01, valid=hp.POSITIVE, search=hp.RATE)
  momentum: Array = hp.leaf(0.0, valid=hp.FRACTION, search=hp.Choice((0.9,)))
  weight_decay: Array = hp.leaf(0.0, valid=hp.NON_NEGATIVE, search=hp.RATE)
  mask_fraction: Array = hp.leaf(0.5, valid=hp.FRACTION, search=hp.UNIT)
  mask_learning_rate: Array = hp.leaf(
    0.01, valid=hp.POSITIVE, search=hp.RATE, dead=_DEAD
  )
  mask_momentum: Array = hp.leaf(0.0, valid=hp.FRACTION, dead=_DEAD)
  mask_weight_decay: Array = hp.leaf(
    0.0, valid=hp.NON_NEGATIVE, search=hp.RATE, dead=_DEAD
  )
  num_epochs: Array = hp.leaf(10, valid=hp.COUNT, search=hp.EPOCHS)
  batch_size: int = hp.static(256, valid=hp.AT_LEAST_ONE, search=hp.BATCH)
  mask_grad: str = hp.static('cumulative', valid=('cumulative', 'sum'))
  relabel_stream: str = hp.static(
    'randomstate123', valid=training.LABEL_STREAMS
  )
  attn_bias_mode: str = hp.static('cached', valid=forward.BIAS_MODES)
  live_only: bool = hp.static(False, valid=(False, True))
  count: Array = hp.derived()  # parameters to train


class State(NamedTuple):
  variables: Variables
  opt: optax.OptState
  mask: Params  # 1 where trained, else 0
  dead: Array  # number of trained parameters that are dead taps


def prepare(hparams: Hparams, problem: Problem) -> Hparams:
  """Count the parameters to train, rounding down."""
  params = problem.start['params']
  total = sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(params))
  if hparams.live_only:
    total -= sum(weights.count_dead(problem.task, params).values())
  fraction = np.asarray(hparams.mask_fraction, np.float64)
  return dataclasses.replace(
    hparams, count=np.floor(total * fraction).astype(np.int32)
  )


def init(hparams: Hparams, draws: Draws, problem: Problem) -> State:
  """Select the parameters with the largest gradient of the forget loss."""
  task, params = problem.task, problem.start['params']
  gradient = saliency(hparams, draws, problem)
  size = [jnp.abs(g) for g in weights.to_list(task.model, gradient)]
  live = weights.live_weights(task, params)
  among = weights.to_list(task.model, live) if hparams.live_only else None
  chosen = select.k_largest(size, hparams.count, among)
  mask = weights.to_tree(task.model, chosen, params)
  dead = weights.count_chosen_dead(mask, live)
  mask = jax.tree.map(lambda m, p: m.astype(p.dtype), mask, params)
  return State(*training.start(problem.start), mask, dead)


def saliency(hparams: Hparams, draws: Draws, problem: Problem) -> Params:
  """Sum the gradients of minus the forget loss over batches, signed."""
  start = problem.start
  order = batches.shuffled(draws, 'forget', problem.split.forget)
  cross_entropy = training.weighted_cross_entropy(
    problem.task, start, attn_bias_mode=hparams.attn_bias_mode
  )

  def ascent(params, batch):
    value, _ = cross_entropy({**start, 'params': params}, batch, draws)
    return -value

  def step(carry, batch):
    running, total = carry
    gradient = jax.grad(ascent)(start['params'], batch)
    running = jax.tree.map(jnp.add, running, gradient)
    total = jax.tree.map(jnp.add, total, running)
    return (running, total), None

  zeros = jax.tree.map(jnp.zeros_like, start['params'])
  (once, again), _ = jax.lax.scan(
    step, (zeros, zeros), batches.padded_batches(order, hparams.batch_size)
  )
  return again if hparams.mask_grad == 'cumulative' else once


def epoch(
  hparams: Hparams, draws: Draws, problem: Problem, state: State, epoch: Array
) -> tuple[State, Info]:
  """Take one shuffled pass over both sets, the forget set relabelled."""
  del epoch
  sgd = training.sgd_from(hparams, hparams.learning_rate, state.mask)
  state, info = training.relabelled_pass(hparams, draws, problem, state, sgd)
  return state, {**info, 'dead_in_mask': state.dead}


def inert(values: Mapping[str, Any], problem: Problem) -> str:
  """Say whether the mask keeps every weight that matters."""
  params = problem.start['params']
  total = sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(params))
  dead = sum(weights.count_dead(problem.task, params).values())
  share = 1.0 if values['live_only'] else 1 - dead / total
  if values['mask_fraction'] < share:
    return ''
  return 'the mask keeps every weight that matters, as in SRL'


METHOD = Method(
  name='salun',
  Hparams=Hparams,
  init=init,
  epoch=epoch,
  prepare=prepare,
  card=Card(
    title='Saliency unlearning',
    label='SalUN',
    citation='Fan et al. 2024, arXiv 2310.12508',
    cost=lambda h, n: (
      3 * n.forget + 3 * h['num_epochs'] * (n.retain + n.forget)
    ),
    reads=('retain', 'forget'),
    paper={'mask_grad': 'sum', 'relabel_stream': 'key'},
    chosen=Chosen('selected', 'dead_in_mask'),
    inert=inert,
  ),
)
