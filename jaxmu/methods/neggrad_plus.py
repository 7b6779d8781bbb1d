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
are those of its start and receive no gradient of the cross-entropy
(`attn_bias_mode='live'` trains them like the rest).
"""

import jax
import jax.numpy as jnp
from flax import struct

from jaxmu import hparams as hp
from jaxmu.data import batches
from jaxmu.draws import Draws
from jaxmu.method import Card, Info, Method
from jaxmu.methods.parts import forward, losses, training
from jaxmu.types import Array, Problem, Variables


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
  attn_bias_mode: str = hp.static('cached', valid=forward.BIAS_MODES)


def init(hparams: Hparams, draws: Draws, problem: Problem) -> training.Fit:
  """Start from the original model."""
  del hparams, draws
  return training.start(problem.original)


def epoch(
  hparams: Hparams,
  draws: Draws,
  problem: Problem,
  state: training.Fit,
  epoch: Array,
) -> tuple[training.Fit, Info]:
  """Take one pass over the retain set, each batch with a forget batch."""
  del epoch
  split, rate = problem.split, hparams.learning_rate
  retain = batches.shuffled(draws, 'retain', split.retain)
  forget = batches.shuffled(draws, 'forget', split.forget)
  variables, opt, info = training.run_epoch(
    _contrast(hparams, problem, state.variables),
    training.sgd(rate, hparams.momentum, hparams.weight_decay),
    *state,
    _pairs(hparams, retain, forget),
    draws,
  )
  return training.Fit(variables, opt), {**info, 'learning_rate': rate}


def _pairs(hparams: Hparams, retain: Array, forget: Array) -> batches.Batches:
  """Pair weighted retain batches with forget batches, which repeat.

  Smaller last batches are padded with weight 0. Where the batch normalises,
  padding would count: there the last retain batch stays small, and the last
  forget batch is filled up from the first.
  """
  size = hparams.batch_size
  table, weight = batches.padded_batches(forget, size)
  if hparams.bn_mode == 'train':
    table = jnp.resize(forget, table.shape)
    weight = jnp.ones_like(weight)

  def partner(step):
    row = step % table.shape[0]
    return table[row], weight[row]

  if hparams.bn_mode == 'eval':
    own = batches.padded_batches(retain, size)
    steps = jnp.arange(own[0].shape[0])
    return batches.Batches((own, partner(steps)), tail=None)
  full, tail = batches.make_batches((retain, jnp.ones(retain.shape)), size)
  steps = full[0].shape[0]
  pairs = full, partner(jnp.arange(steps))
  last = None if tail is None else (tail, partner(steps))
  return batches.Batches(pairs, last)


def _contrast(
  hparams: Hparams, problem: Problem, begin: Variables
) -> training.Loss:
  task, anchor = problem.task, problem.original['params']

  def cross_entropy(variables, batch, draws):
    index, weight = batch
    dtype = forward.dtype_of(variables)
    images = forward.clean_images(task, index, dtype)
    if hparams.bn_mode == 'train':
      logits, variables = forward.train_logits(task, variables, images, draws)
    else:
      cached = forward.cache_biases(
        task.model, hparams.attn_bias_mode, variables, begin
      )
      logits = forward.eval_logits(task, cached, images)
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
    label='NG+',
    citation='Kurmanji et al. 2023, arXiv 2302.09880',
    cost=lambda h, n: 6 * h['num_epochs'] * n.retain,
    reads=('retain', 'forget'),
    digits={
      'num_epochs': 3,
      'batch_size': 64,
    },
  ),
)
