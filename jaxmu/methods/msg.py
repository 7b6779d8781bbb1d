"""Masked Small Gradients (MSG): redraw weights with small gradients.

Where the gradients of the retain and of the forget set cancel, a convolution
weight is drawn again and trained at the full rate; all other weights keep their
value and train at a tenth of it. Then fine-tune on the retain set with a
learning rate that rises and falls. Source: second place of the NeurIPS 2023
machine unlearning challenge, as adapted by the benchmark (arXiv 2410.01276).

As in the reference: the gradients are taken in training mode and so change the
batch statistics; the retain side is a random subset of the size of the forget
set in batches of 64 whatever `batch_size` is, so that the balance of the two
sums of batch means depends on it; weight decay also shrinks the slow weights.
Kernel taps that only meet padding have zero gradient and are renewed first;
`live_only` renews a fraction of the other taps. Unlike the reference, which
leaves the order of ties to the sort, ties go to the lower flat index in torch's
layout.
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
from jaxmu.method import Card, Chosen, Info, Method
from jaxmu.methods.parts import select, training, weights
from jaxmu.types import Array, Params, Problem, Variables

SUBSET_BATCH = 64  # fixed in the reference
SLOW = 0.1  # gradient factor of the weights that keep their value


@struct.dataclass
class Hparams:
  learning_rate: Array = hp.leaf(1e-3, valid=hp.POSITIVE, search=hp.RATE)
  momentum: Array = hp.leaf(0.9, valid=hp.FRACTION)
  weight_decay: Array = hp.leaf(5e-4, valid=hp.NON_NEGATIVE, search=hp.RATE)
  reinit_fraction: Array = hp.leaf(0.3, valid=hp.FRACTION, search=hp.UNIT)
  num_epochs: Array = hp.leaf(5, valid=hp.COUNT, search=hp.EPOCHS)
  batch_size: int = hp.static(64, valid=hp.AT_LEAST_ONE, search=hp.BATCH)
  live_only: bool = hp.static(False, valid=(False, True))
  counts: dict[str, Array] = hp.derived()  # weights to renew, by kernel


class State(NamedTuple):
  variables: Variables
  opt: optax.OptState
  grad_scale: Params  # 1 where renewed or not a kernel, 0.1 elsewhere
  dead: Array  # number of renewed weights that are dead taps


def prepare(hparams: Hparams, problem: Problem) -> Hparams:
  """Count the weights to renew per kernel, rounding half to even."""
  fraction = np.asarray(hparams.reinit_fraction, np.float64)
  kernels = weights.conv_kernels(problem.start['params'])
  sizes = {path: math.prod(kernel.shape) for path, kernel in kernels.items()}
  if hparams.live_only:
    for path, dead in weights.count_dead(problem.task, kernels).items():
      sizes[path] -= dead
  counts = {
    path: np.rint(fraction * size).astype(np.int32)
    for path, size in sizes.items()
  }
  return dataclasses.replace(hparams, counts=counts)


def init(hparams: Hparams, draws: Draws, problem: Problem) -> State:
  """Replace the kernel weights with the smallest gradient difference."""
  variables, gradient = gradient_difference(hparams, draws, problem)
  kernels = weights.conv_kernels(gradient)
  live = weights.conv_kernels(weights.live_weights(problem.task, gradient))
  alive = [weights.torch_layout(live[path]) for path in kernels]
  ranked = select.k_smallest_each(
    [weights.torch_layout(jnp.abs(g)) for g in kernels.values()],
    [hparams.counts[path] for path in kernels],
    alive if hparams.live_only else None,
  )
  pairs = zip(kernels, ranked, strict=True)
  masks = {path: weights.flax_layout(mask) for path, mask in pairs}
  dtype = next(iter(kernels.values())).dtype
  shapes = {path: kernel.shape for path, kernel in kernels.items()}
  fresh = draws.normals('fresh', shapes, dtype)

  def renew(path, leaf):
    if path not in masks:
      return leaf
    height, width, _, out = leaf.shape
    deviation = np.sqrt(2 / (out * height * width)).astype(dtype)
    return jnp.where(masks[path], deviation * fresh[path], leaf)

  def scale(path, leaf):
    ones = jnp.ones_like(leaf)
    return jnp.where(masks[path], ones, SLOW * ones) if path in masks else ones

  params = weights.edit(renew, variables['params'])
  state = training.start({**variables, 'params': params})
  dead = weights.count_chosen_dead(masks, live)
  return State(*state, grad_scale=weights.edit(scale, params), dead=dead)


def gradient_difference(
  hparams: Hparams, draws: Draws, problem: Problem
) -> tuple[Variables, Params]:
  """Sum the batch gradients of a retain subset minus those of the forget set.

  Returns:
    The original variables with the batch statistics that two training-mode
    passes leave behind, and the signed sum of gradients.
  """
  split = problem.split
  order = batches_lib.shuffled(draws, 'subset', split.retain)
  subset = order[: split.forget.shape[0]]
  forget = batches_lib.shuffled(draws, 'forget', split.forget)
  loss = training.cross_entropy(problem.task)

  def step(carry, batch, draws):
    variables, total = carry
    index, sign = batch

    def of_params(params):
      return loss({**variables, 'params': params}, index, draws)

    (value, after), grads = jax.value_and_grad(of_params, has_aux=True)(
      variables['params']
    )
    total = jax.tree.map(lambda t, g: t + sign[0] * g, total, grads)
    return ({**after, 'params': variables['params']}, total), value

  dtype = jax.tree.leaves(problem.start['params'])[0].dtype
  passes = batches_lib.one_after_the_other(
    batches_lib.make_batches(
      (subset, jnp.ones(subset.shape, dtype)), SUBSET_BATCH
    ),
    batches_lib.make_batches(
      (forget, -jnp.ones(forget.shape, dtype)), hparams.batch_size
    ),
  )
  carry = (
    problem.start,
    jax.tree.map(jnp.zeros_like, problem.start['params']),
  )
  for number, batches in enumerate(passes):
    place = draws.at(f'gradient_{number}')
    carry, _ = batches_lib.fold(step, carry, batches, place)
  return carry


def epoch(
  hparams: Hparams, draws: Draws, problem: Problem, state: State, epoch: Array
) -> tuple[State, Info]:
  """Take one shuffled pass over the retain set with scaled gradients."""
  rate = training.triangle(hparams.learning_rate, epoch, hparams.num_epochs)
  sgd = training.sgd_from(hparams, rate, state.grad_scale)
  state, info = training.pass_over(
    'retain', hparams, draws, problem, state, sgd
  )
  return state, {**info, 'dead_renewed': state.dead}


METHOD = Method(
  name='msg',
  Hparams=Hparams,
  init=init,
  epoch=epoch,
  prepare=prepare,
  card=Card(
    title='Masked Small Gradients',
    label='MSG',
    citation='Cadet et al. 2024, arXiv 2410.01276 (challenge: 2nd place)',
    cost=lambda h, n: 6 * n.forget + 3 * h['num_epochs'] * n.retain,
    reads=('retain', 'forget'),
    needs=('conv',),
    chosen=Chosen('replaced', 'dead_renewed'),
  ),
)
