"""Exact unlearning of the last k blocks (EU-k): retrain the end from scratch.

The last `num_blocks` blocks and the classifier are drawn again and retrained on
the augmented retain set, all else frozen. Source: Goel et al. 2022, arXiv
2201.06640.

As in the reference: the network stays in evaluation mode, so that new
convolutions are normalised with the statistics of the old ones, and training
lasts only as many epochs as for other methods; `bn_mode='train'` follows the
paper, which resets the running statistics and normalises with the batch. The
pull is towards the newly drawn weights. There is no momentum; the learning rate
decays at 50, 80 and 90 percent of the epochs; more blocks than the model has
means all of them. Layer norms and attention biases are not drawn again, and
attention biases get no gradient in evaluation mode (`attn_bias_mode='live'`
trains them). Unlike the reference, a warning is given if there are fewer blocks
than asked for.
"""

import jax
import jax.numpy as jnp
from flax import struct

from jaxmu import hparams as hp
from jaxmu.draws import Draws
from jaxmu.method import Card, Method
from jaxmu.methods.parts import forward, last_blocks, weights
from jaxmu.methods.parts.last_blocks import State
from jaxmu.types import Array, Params, Problem

_DEAD_FACTOR = 'the reference never reads it'


@struct.dataclass
class Hparams:
  learning_rate: Array = hp.leaf(0.01, valid=hp.POSITIVE, search=hp.RATE)
  sgda_learning_rate: Array = hp.leaf(
    5e-4, valid=hp.POSITIVE, search=hp.RATE, dead=last_blocks.DEAD_RATE
  )
  momentum: Array = hp.leaf(
    0.9, valid=hp.FRACTION, dead=last_blocks.DEAD_MOMENTUM
  )
  pull: Array = hp.leaf(0.1, valid=hp.NON_NEGATIVE, search=hp.RATE)
  decay_rate: Array = hp.leaf(0.1, valid=hp.NON_NEGATIVE, search=hp.UNIT)
  num_blocks: Array = hp.leaf(1, valid=hp.COUNT, search=hp.Uniform(1, 10))
  training_epoch_factor: Array = hp.leaf(
    10, valid=hp.COUNT, search=hp.Uniform(1, 10), dead=_DEAD_FACTOR
  )
  num_epochs: Array = hp.leaf(10, valid=hp.COUNT, search=hp.EPOCHS)
  batch_size: int = hp.static(256, valid=hp.AT_LEAST_ONE, search=hp.BATCH)
  bn_mode: str = hp.static('eval', valid=('eval', 'train'))
  attn_bias_mode: str = hp.static('cached', valid=forward.BIAS_MODES)


def init(hparams: Hparams, draws: Draws, problem: Problem) -> State:
  """Draw the last blocks and the classifier again."""
  model, original = problem.task.model, problem.start
  drawn = weights.fresh_scratch(draws, model, original['params'])
  free = last_blocks.trainable(model, original['params'], hparams.num_blocks)
  params = jax.tree.map(
    lambda new, old, on: jnp.where(on > 0, new, old),
    drawn,
    original['params'],
    free,
  )
  stats = original['batch_stats']
  if hparams.bn_mode == 'train':
    stats = _reset(stats, free)
  return last_blocks.start({'params': params, 'batch_stats': stats})


def _reset(stats: Params, free: Params) -> Params:
  """Set the statistics of retrained layers to mean 0 and variance 1."""
  on = weights.by_path(free)

  def reset(path, leaf):
    layer, name = path.rsplit('/', 1)
    start = jnp.full_like(leaf, 1.0 if name == 'var' else 0.0)
    return jnp.where(on[f'{layer}/scale'] > 0, start, leaf)

  return weights.edit(reset, stats)


METHOD = Method(
  name='euk',
  Hparams=Hparams,
  init=init,
  epoch=last_blocks.passes(augmented=True),
  prepare=last_blocks.prepare,
  card=Card(
    title='Exact unlearning, last k blocks',
    label='EU-k',
    citation='Goel et al. 2022, arXiv 2201.06640',
    cost=lambda h, n: 3 * h['num_epochs'] * n.retain,
    reads=('retain',),
    small={'num_epochs': 3, 'num_blocks': 0},
    paper={'bn_mode': 'train'},
  ),
)
