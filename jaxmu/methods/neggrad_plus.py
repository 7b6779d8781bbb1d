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
from jaxmu.methods.parts import forward, training
from jaxmu.methods.parts.training import Fit
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


def epoch(
  hparams: Hparams, draws: Draws, problem: Problem, state: Fit, epoch: Array
) -> tuple[Fit, Info]:
  """Take one pass over the retain set, each batch with a forget batch."""
  del epoch
  split = problem.split
  retain = batches.shuffled(draws, 'retain', split.retain)
  forget = batches.shuffled(draws, 'forget', split.forget)
  return training.run_epoch(
    _contrast(hparams, problem, state.variables),
    training.sgd_from(hparams, hparams.learning_rate),
    state,
    _pairs(hparams, retain, forget),
    draws,
  )


def _pairs(hparams: Hparams, retain: Array, forget: Array) -> batches.Batches:
  """Pair weighted retain batches with forget batches, which repeat.

  Smaller last batches are padded with weight 0. With batch normalisation in
  training mode, padding would change the statistics: then the last retain batch
  stays small, and the last forget batch is filled up from the first.
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
  anchor = problem.start['params']
  cross_entropy = training.weighted_cross_entropy(
    problem.task,
    begin,
    attn_bias_mode=hparams.attn_bias_mode,
    bn_mode=hparams.bn_mode,
  )

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
  init=training.init,
  epoch=epoch,
  card=Card(
    title='NegGrad+',
    label='NG+',
    citation='Kurmanji et al. 2023, arXiv 2302.09880',
    cost=lambda h, n: 6 * h['num_epochs'] * n.retain,
    reads=('retain', 'forget'),
  ),
)
