"""Prune, renew, match entropy, quantise (PRMQ).

The smallest weights of the network are replaced by fresh ones; it is trained on
the retain set with class weights and a penalty on the difference between its
entropy and the original model's on each example; finally all numbers are
rounded to half precision. Source: fourth place of the NeurIPS 2023 machine
unlearning challenge, as adapted by the benchmark (arXiv 2410.01276).

As in the reference: pruning is global over convolutions and linear layers; a
pruned bias stays zero; afterwards renewed weights are treated like all others;
training takes one step more than `num_epochs`, a real number, gives
(`extra_step`); `epochs_cast_int` rounds it down, as happened when searched
values were exported. Numbers beyond the range of half precision become
infinite. At 32x32 pixels 62% of ResNet-18's weights are kernel taps that only
meet padding and have decayed to small values, which are pruned first;
`live_only` excludes them.

Unlike the reference, which passes over the retain set to collect the labels,
the labels are counted directly; the original model runs once on all examples
(`Task.cache_teacher`); and equal magnitudes are ranked by flat index in torch's
parameter order.
"""

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct

from jaxmu import hparams as hp
from jaxmu.data import batches as batches_lib
from jaxmu.draws import Draws
from jaxmu.method import Card, Chosen, Info, Method, Sizes
from jaxmu.methods.parts import forward, losses, select, training, weights
from jaxmu.models import pytorch_names
from jaxmu.types import Array, Params, Problem, Variables

CLASS_EXPONENT = -0.1  # a class weighs its count to this power


@struct.dataclass
class Hparams:
  learning_rate: Array = hp.leaf(5e-4, valid=hp.POSITIVE, search=hp.RATE)
  momentum: Array = hp.leaf(0.9, valid=hp.FRACTION)
  weight_decay: Array = hp.leaf(5e-4, valid=hp.NON_NEGATIVE, search=hp.RATE)
  prune_fraction: Array = hp.leaf(0.99, valid=hp.FRACTION, search=hp.UNIT)
  num_epochs: Array = hp.leaf(
    3.2, valid=hp.NON_NEGATIVE, search=hp.EpochBudget(real=True)
  )
  batch_size: int = hp.static(64, valid=hp.AT_LEAST_ONE, search=hp.BATCH)
  epochs_cast_int: bool = hp.static(False, valid=(False, True))
  extra_step: bool = hp.static(True, valid=(True, False))
  live_only: bool = hp.static(False, valid=(False, True))
  count: Array = hp.derived()  # weights to prune
  num_steps: Array = hp.derived()
  num_passes: Array = hp.derived()  # the last pass may be incomplete


class State(NamedTuple):
  """The network in training.

  Attributes:
    variables: the network.
    opt: optimiser state.
    entropy: of the original model on the retain set f[R], or None.
    dead: number of pruned weights that are dead taps.
  """

  variables: Variables
  opt: optax.OptState
  entropy: Array | None
  dead: Array


def prepare(hparams: Hparams, problem: Problem) -> Hparams:
  """Count weights to prune, rounding half to even, and steps to take."""
  params = problem.start['params']
  total = sum(
    math.prod(leaf.shape)
    for path, leaf in weights.by_path(params).items()
    if path in candidates(problem)
  )
  if hparams.live_only:
    total -= sum(weights.count_dead(problem.task, params).values())
  fraction = np.asarray(hparams.prune_fraction, np.float64)
  epochs = np.asarray(hparams.num_epochs, np.float64)
  if hparams.epochs_cast_int:
    epochs = np.floor(epochs)
  size = problem.split.retain.shape[0]
  steps = batches_lib.num_steps(size, hparams.batch_size)
  taken = np.floor(steps * epochs).astype(np.int32) + hparams.extra_step
  return dataclasses.replace(
    hparams,
    count=np.rint(fraction * total).astype(np.int32),
    num_steps=np.int32(taken),
    num_passes=np.int32(-(-taken // steps)),
  )


def candidates(problem: Problem) -> list[str]:
  """List what may be pruned: kernels and biases of conv and linear layers."""
  kinds = ('conv', 'depthwise', 'linear')
  tensors = pytorch_names.parameters(problem.task.model)
  return [tensor.path for tensor in tensors if tensor.kind in kinds]


def init(hparams: Hparams, draws: Draws, problem: Problem) -> State:
  """Prune, renew, and store the entropies of the original model."""
  task, original = problem.task, problem.start
  mask = prune_mask(hparams, problem)
  live = weights.by_path(weights.live_weights(task, original['params']))
  dead = weights.count_chosen_dead(mask, {path: live[path] for path in mask})

  known = weights.by_path(original['params'])
  bounds = {
    path: 1 / math.sqrt(weights.fresh_fan_in(known[path]))
    for path in mask
    if path.endswith('/kernel')
  }
  drawn = weights.fresh_symmetric(draws, original['params'], bounds)

  def renew(path, leaf):
    if path not in mask:
      return leaf
    left = jnp.where(mask[path], 0, leaf)
    return jnp.where(left == 0, drawn[path], left) if path in drawn else left

  params = weights.edit(renew, original['params'])
  entropy = None
  if task.cache_teacher:
    index = problem.split.retain
    entropy = losses.entropies(
      forward.logits_table(task, original, index, hparams.batch_size)
    )
  return State(
    *training.start({**original, 'params': params}), entropy=entropy, dead=dead
  )


def prune_mask(hparams: Hparams, problem: Problem) -> dict[str, Array]:
  """Mark the smallest weights of all candidates together, bool by path."""
  model, params = problem.task.model, problem.start['params']
  paths = candidates(problem)
  tensors = pytorch_names.parameters(model)

  def pick(tree: Params) -> list[Array]:
    values = weights.to_list(model, tree)
    pairs = zip(tensors, values, strict=True)
    return [value for tensor, value in pairs if tensor.path in paths]

  size = [jnp.abs(value) for value in pick(params)]
  among = (
    pick(weights.live_weights(problem.task, params))
    if hparams.live_only
    else None
  )
  chosen = dict(
    zip(paths, select.k_smallest(size, hparams.count, among), strict=True)
  )
  return {
    tensor.path: pytorch_names.our_layout(tensor, chosen[tensor.path])
    for tensor in tensors
    if tensor.path in chosen
  }


def epoch(
  hparams: Hparams, draws: Draws, problem: Problem, state: State, epoch: Array
) -> tuple[State, Info]:
  """Take one shuffled pass over the retain set, or the steps left of one."""
  split, rate = problem.split, hparams.learning_rate
  size = split.retain.shape[0]
  order = draws.permutation('retain', size)
  batch_size = hparams.batch_size
  batches = batches_lib.make_batches(
    (split.retain[order], forward.cached_rows(state.entropy, order)),
    batch_size,
  )
  total = batches_lib.num_steps(size, batch_size)
  left = hparams.num_steps - epoch * total
  loss = _matched(problem)
  optimiser = training.sgd_from(hparams, rate)

  def step(carry, batch, draws):
    fit, done = carry

    def descend():
      return training.descend(loss, optimiser, fit, batch, draws)

    def rest():
      value = jax.eval_shape(descend)[1]
      return fit, jnp.zeros(value.shape, value.dtype)

    fit, value = jax.lax.cond(done < left, descend, rest)
    return (fit, done + 1), value

  carry = training.Fit(state.variables, state.opt), jnp.zeros((), jnp.int32)
  (fit, _), values = batches_lib.fold(step, carry, batches, draws)
  info = {
    'loss': training.pad_with_mean(values, left, total),
    'learning_rate': rate,
    'dead_pruned': state.dead,
  }
  return state._replace(variables=fit.variables, opt=fit.opt), info


def _matched(problem: Problem) -> training.Loss:
  task, original = problem.task, problem.start
  count = losses.class_counts(problem)
  weight = losses.power_class_weights(
    count, CLASS_EXPONENT, forward.dtype_of(original)
  )

  def loss(variables, batch, draws):
    index, aim = batch
    images = forward.clean_images(task, index, forward.dtype_of(variables))
    if aim is None:
      aim = losses.entropies(
        forward.teacher_logits(task, original, images, None)
      )
    logits, variables = forward.train_logits(task, variables, images, draws)
    label = task.dataset.label[index]
    each = losses.cross_entropies(logits, label)
    entropy = losses.weighted_mean(each, weight[label])
    distance = jnp.mean((losses.entropies(logits) - aim) ** 2)
    return entropy + distance, variables

  return loss


def finish(hparams: Hparams, state: State) -> Variables:
  """Round weights and batch statistics to half precision."""
  del hparams
  return jax.tree.map(
    lambda x: x.astype(jnp.float16).astype(x.dtype), state.variables
  )


def _cost(h, n: Sizes) -> float:
  steps = batches_lib.num_steps(n.retain, h['batch_size'])
  epochs = h['num_epochs']
  epochs = math.floor(epochs) if h['epochs_cast_int'] else epochs
  taken = math.floor(steps * epochs) + h['extra_step']
  return 4 * taken * h['batch_size']


METHOD = Method(
  name='prmq',
  Hparams=Hparams,
  init=init,
  epoch=epoch,
  finish=finish,
  prepare=prepare,
  num_epochs=lambda hparams: hparams.num_passes,
  card=Card(
    title='Prune, renew, match entropy, quantise',
    label='PRMQ',
    citation='Cadet et al. 2024, arXiv 2410.01276 (challenge: 4th place)',
    cost=_cost,
    reads=('retain',),
    small={'prune_fraction': 0.5},
    paper={'extra_step': False},
    chosen=Chosen('pruned', 'dead_pruned'),
  ),
)
