"""Fine-tuning on augmented images; otherwise FT (`jaxmu.methods.ft`).

The benchmark augments images only while it trains models from scratch. This
variant shows how much of the test accuracy that FT loses is due to that.
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
  """Take one shuffled pass over the augmented retain set."""
  rate = training.cosine(hparams.learning_rate, epoch, hparams.num_epochs)
  sgd = training.sgd_from(hparams, rate)
  loss = training.cross_entropy(problem.task, augment=draws)
  return training.pass_over('retain', hparams, draws, problem, state, sgd, loss)


METHOD = Method(
  name='ft_augmented',
  Hparams=Hparams,
  init=training.init,
  epoch=epoch,
  card=Card(
    title='Fine-tuning, augmented',
    label='FT, augmented',
    citation='this project',
    cost=lambda h, n: 3 * h['num_epochs'] * n.retain,
    reads=('retain',),
  ),
)
