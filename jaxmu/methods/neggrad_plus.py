"""NegGrad+ (NG+): descend on the retain set while ascending on the forget set.

Each step pairs retain batch i with forget batch i mod n and takes one gradient
of alpha CE(retain) - (1 - alpha) CE(forget), constant learning rate. The forget
set is cut into batches once per epoch and replayed within it. Source: Kurmanji
et al. 2023, arXiv 2302.09880.

As in the reference, the network stays in evaluation mode: batch statistics are
those of the original model throughout, only their scale and shift are trained
(`bn_mode='train'` normalises with the batch instead). The penalty on the
distance to the original model has strength 0 in every published run; it is kept
as `anchor`. On transformers the attention biases of an epoch's forward passes
are those of its start and receive no gradient of the cross-entropy.
"""

import jax
import jax.numpy as jnp
from flax import struct

from jaxmu.core import hparams as hp
from jaxmu.core.draws import Draws
from jaxmu.core.method import Card, Info, Method
from jaxmu.core.types import Array, Problem
from jaxmu.data import stream
from jaxmu.ops import fit, forward, losses, optim


@struct.dataclass
class Hparams:
  learning_rate: Array = hp.leaf(0.01, valid=hp.POSITIVE, search=hp.RATE)
  momentum: Array = hp.leaf(0.9, valid=hp.FRACTION)
  weight_decay: Array = hp.leaf(0.0, valid=hp.NON_NEGATIVE, search=hp.RATE)
  alpha: Array = hp.leaf(0.95, valid=hp.FRACTION, search=hp.UNIT)
  anchor: Array = hp.leaf(0.0, valid=hp.NON_NEGATIVE)
  num_epochs: Array = hp.leaf(10, valid=hp.COUNT, search=hp.EPOCHS)
  batch_size: int = hp.static(256, valid=hp.AT_LEAST_ONE, search=hp.BATCH)
  bn_mode: str = hp.static('eval', valid=('eval', 'train'))


def init(hparams: Hparams, draws: Draws, problem: Problem) -> fit.Fit:
  """Start from the original model."""
  del hparams, draws
  return fit.start(problem.original)


def epoch(
  hparams: Hparams,
  draws: Draws,
  problem: Problem,
  state: fit.Fit,
  epoch: Array,
) -> tuple[fit.Fit, Info]:
  """Take one pass over the retain set, each batch with a forget batch."""
  del epoch
  split, size = problem.split, hparams.batch_size
  retain = stream.shuffled(draws, 'retain', split.retain)
  forget = stream.shuffled(draws, 'forget', split.forget)
  retain_table, retain_weight = stream.padded(retain, size)
  forget_table, forget_weight = stream.padded(forget, size)
  partner = jnp.arange(retain_table.shape[0]) % forget_table.shape[0]
  pairs = (
    (retain_table, retain_weight),
    (forget_table[partner], forget_weight[partner]),
  )
  rate = hparams.learning_rate
  variables, opt, info = fit.epoch(
    _contrast(hparams, problem),
    optim.sgd(rate, hparams.momentum, hparams.weight_decay),
    *state,
    stream.Batches(pairs, tail=None),
    draws,
  )
  return fit.Fit(variables, opt), {**info, 'learning_rate': rate}


def _contrast(hparams: Hparams, problem: Problem) -> fit.Loss:
  task, anchor = problem.task, problem.original['params']

  def cross_entropy(variables, batch, draws):
    index, weight = batch
    dtype = forward.dtype_of(variables)
    images = forward.clean_images(task, index, dtype)
    if hparams.bn_mode == 'train':
      logits, variables = forward.train_logits(task, variables, images, draws)
    else:
      logits = forward.eval_logits(task, variables, images)
    each = losses.cross_entropies(logits, task.dataset.label[index])
    return losses.weighted_mean(each, weight.astype(dtype)), variables

  def loss(variables, batch, draws):
    retain, forget = batch
    retain_ce, variables = cross_entropy(variables, retain, draws.at('retain'))
    forget_ce, variables = cross_entropy(variables, forget, draws.at('forget'))
    squares = jax.tree.map(
      lambda p, q: jnp.sum((p - q) ** 2), variables['params'], anchor
    )
    penalty = hparams.anchor / 2 * sum(jax.tree.leaves(squares))
    alpha = hparams.alpha
    value = alpha * (retain_ce + penalty) - (1 - alpha) * forget_ce
    return value, variables

  return loss


METHOD = Method(
  name='neggrad_plus',
  Hparams=Hparams,
  init=init,
  epoch=epoch,
  card=Card(
    title='NegGrad+',
    citation='Kurmanji et al. 2023, arXiv 2302.09880',
    cost=lambda h, n: 6 * h['num_epochs'] * n.retain,
    reads=('retain', 'forget'),
  ),
)
