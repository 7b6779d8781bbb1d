"""Catastrophic forgetting of the last k blocks (CF-k): retrain the end only.

All but the last `num_blocks` blocks and the classifier are frozen; the rest is
fine-tuned on the retain set, with a pull back to where it started. Source: Goel
et al. 2022, arXiv 2201.06640.

As in the reference: the network stays in evaluation mode, so that batch
statistics stay those of the original (`bn_mode='train'` uses the batch's);
there is no momentum; the learning rate decays at 50, 80 and 90 percent of the
epochs; more blocks than the model has means all of them. On transformers the
attention biases get no gradient in evaluation mode (`attn_bias_mode='live'`
trains them). Unlike the reference, a warning is given if there are fewer blocks
than asked for.
"""

from flax import struct

from jaxmu import hparams as hp
from jaxmu.method import Card, Method
from jaxmu.methods.parts import forward, last_blocks
from jaxmu.types import Array


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
  num_epochs: Array = hp.leaf(10, valid=hp.COUNT, search=hp.EPOCHS)
  batch_size: int = hp.static(256, valid=hp.AT_LEAST_ONE, search=hp.BATCH)
  bn_mode: str = hp.static('eval', valid=('eval', 'train'))
  attn_bias_mode: str = hp.static('cached', valid=forward.BIAS_MODES)


METHOD = Method(
  name='cfk',
  Hparams=Hparams,
  init=last_blocks.init,
  epoch=last_blocks.passes(augmented=False),
  prepare=last_blocks.prepare,
  card=Card(
    title='Catastrophic forgetting, last k blocks',
    label='CF-k',
    citation='Goel et al. 2022, arXiv 2201.06640',
    cost=lambda h, n: 3 * h['num_epochs'] * n.retain,
    reads=('retain',),
    small={'num_epochs': 3, 'num_blocks': 0},
  ),
)
