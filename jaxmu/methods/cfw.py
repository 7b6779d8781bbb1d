"""Confuse, fine-tune, weaken (CFW): noise on the first layer, then fine-tune.

Gaussian noise is added to the stem convolution before training and once more
before the last epoch; in between the network is fine-tuned on the retain set.
Source: third place of the NeurIPS 2023 machine unlearning challenge, as adapted
by the benchmark (arXiv 2410.01276).

As in the reference: class weights, balanced on the retain set, multiply the
mean loss of a batch by their mean over it, a number close to one; momentum is
kept through the second noise; with one epoch there is no second noise. Only
convolutions at the top level get noise; TinyViT has none there
(`confuse_scope='all_conv'` takes every convolution).

Unlike the reference, which runs the network over the retain set to collect the
labels, the labels are counted directly.
"""

import jax.numpy as jnp
from flax import struct

from jaxmu import hparams as hp
from jaxmu.draws import Draws
from jaxmu.method import Card, Chosen, Info, Method
from jaxmu.methods.parts import forward, losses, training, weights
from jaxmu.methods.parts.training import Fit
from jaxmu.types import Array, Params, Problem, Variables


@struct.dataclass
class Hparams:
  learning_rate: Array = hp.leaf(7e-4, valid=hp.POSITIVE, search=hp.RATE)
  momentum: Array = hp.leaf(0.9, valid=hp.FRACTION)
  weight_decay: Array = hp.leaf(5e-4, valid=hp.NON_NEGATIVE, search=hp.RATE)
  first_noise: Array = hp.leaf(0.6, valid=hp.NON_NEGATIVE, search=hp.UNIT)
  second_noise: Array = hp.leaf(0.005, valid=hp.NON_NEGATIVE, search=hp.UNIT)
  class_weight: Array = hp.leaf(
    0.05, valid=hp.NON_NEGATIVE, dead='the reference balances classes instead'
  )
  num_epochs: Array = hp.leaf(4, valid=hp.COUNT, search=hp.EPOCHS)
  batch_size: int = hp.static(64, valid=hp.AT_LEAST_ONE, search=hp.BATCH)
  confuse_scope: str = hp.static(
    'top_level_conv', valid=('top_level_conv', 'all_conv')
  )


def init(hparams: Hparams, draws: Draws, problem: Problem) -> Fit:
  """Confuse the original model."""
  return training.start(
    confuse(hparams, draws, problem, problem.start, hparams.first_noise)
  )


def confuse(
  hparams: Hparams,
  draws: Draws,
  problem: Problem,
  variables: Variables,
  deviation: Array,
) -> Variables:
  """Add Gaussian noise to the convolutions in scope."""

  def noisy(path, leaf):
    if not (weights.is_conv(leaf) and _in_scope(hparams, problem, path)):
      return leaf
    noise = draws.normal(f'noise/{path}', leaf.shape, leaf.dtype)
    return leaf + deviation * noise

  params: Params = weights.edit(noisy, variables['params'])
  return {**variables, 'params': params}


def _in_scope(hparams: Hparams, problem: Problem, path: str) -> bool:
  everywhere = hparams.confuse_scope == 'all_conv'
  return everywhere or weights.is_under(
    path, problem.task.model.blocks.stem_conv
  )


def epoch(
  hparams: Hparams, draws: Draws, problem: Problem, state: Fit, epoch: Array
) -> tuple[Fit, Info]:
  """Take one shuffled pass over the retain set, confused if it is the last."""
  last = (epoch == hparams.num_epochs - 1) & (epoch > 0)
  deviation = jnp.where(last, hparams.second_noise, 0.0)
  variables = confuse(hparams, draws, problem, state.variables, deviation)
  rate = training.cosine(hparams.learning_rate, epoch, hparams.num_epochs)
  state, info = training.pass_over(
    'retain',
    hparams,
    draws,
    problem,
    Fit(variables, state.opt),
    training.sgd_from(hparams, rate),
    loss=_weighted_cross_entropy(problem),
  )
  dead = sum(
    count
    for path, count in weights.count_dead(
      problem.task, problem.start['params']
    ).items()
    if _in_scope(hparams, problem, path)
  )
  return state, {**info, 'dead_noised': jnp.int32(dead)}


def _weighted_cross_entropy(problem: Problem) -> training.Loss:
  task = problem.task
  cross_entropy = training.cross_entropy(task)
  weight = losses.balanced_class_weights(
    losses.class_counts(problem), forward.dtype_of(problem.start)
  )

  def loss(variables, index, draws):
    value, variables = cross_entropy(variables, index, draws)
    return value * jnp.mean(weight[task.dataset.label[index]]), variables

  return loss


METHOD = Method(
  name='cfw',
  Hparams=Hparams,
  init=init,
  epoch=epoch,
  card=Card(
    title='Confuse-Finetune-Weaken',
    label='CFW',
    citation='Cadet et al. 2024, arXiv 2410.01276 (challenge: 3rd place)',
    cost=lambda h, n: n.retain + 3 * h['num_epochs'] * n.retain,
    reads=('retain',),
    needs=('conv',),
    chosen=Chosen('noised', 'dead_noised'),
  ),
)
