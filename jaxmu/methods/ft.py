"""Fine-tuning (FT): continue to train on the retain set alone.

Plain cross-entropy on the retain set from the original model, cosine decay per
epoch, in training mode and without augmentation (the benchmark augments only
while training from scratch). Source: Warnecke et al. 2021, arXiv 2108.11577;
Golatkar et al. 2020, arXiv 1911.04933.
"""

from flax import struct

from jaxmu import hparams as hp
from jaxmu.draws import Draws
from jaxmu.method import Card, Info, Method
from jaxmu.methods.parts import training
from jaxmu.methods.parts.training import Fit
from jaxmu.types import Array, Problem


@struct.dataclass
class Hparams:
  learning_rate: Array = hp.leaf(0.1, valid=hp.POSITIVE, search=hp.RATE)
  momentum: Array = hp.leaf(0.9, valid=hp.FRACTION)
  weight_decay: Array = hp.leaf(5e-4, valid=hp.NON_NEGATIVE, search=hp.RATE)
  num_epochs: Array = hp.leaf(5, valid=hp.COUNT, search=hp.EPOCHS)
  batch_size: int = hp.static(256, valid=hp.AT_LEAST_ONE, search=hp.BATCH)


def epoch(
  hparams: Hparams, draws: Draws, problem: Problem, state: Fit, epoch: Array
) -> tuple[Fit, Info]:
  """Take one shuffled pass over the retain set."""
  rate = training.cosine(hparams.learning_rate, epoch, hparams.num_epochs)
  sgd = training.sgd_from(hparams, rate)
  return training.pass_over('retain', hparams, draws, problem, state, sgd)


METHOD = Method(
  name='ft',
  Hparams=Hparams,
  init=training.init,
  epoch=epoch,
  card=Card(
    title='Fine-tuning',
    label='FT',
    citation='Warnecke et al. 2021, arXiv 2108.11577',
    cost=lambda h, n: 3 * h['num_epochs'] * n.retain,
    reads=('retain',),
  ),
)
