"""Head reset: draw the classifier again, then fine-tune on the retain set."""

from flax import struct

from jaxmu import hparams as hp
from jaxmu.method import Card, Method
from jaxmu.methods.parts import training, weights
from jaxmu.types import Array


@struct.dataclass
class Hparams:
  learning_rate: Array = hp.leaf(0.02, valid=hp.POSITIVE, search=hp.RATE)
  momentum: Array = hp.leaf(0.9, valid=hp.FRACTION)
  weight_decay: Array = hp.leaf(5e-4, valid=hp.NON_NEGATIVE)
  scale: Array = hp.leaf(0.1, valid=hp.NON_NEGATIVE)
  num_epochs: Array = hp.leaf(2, valid=hp.COUNT)
  batch_size: int = hp.static(64, valid=hp.AT_LEAST_ONE)


def init(hparams, draws, problem):
  """Draw the weights of the classifier from a normal distribution."""
  head = problem.task.model.blocks.classifier

  def reset(path, leaf):
    if not weights.is_under(path, head):
      return leaf
    return hparams.scale * draws.normal(path, leaf.shape, leaf.dtype)

  params = weights.edit(reset, problem.start['params'])
  return training.start({**problem.start, 'params': params})


def epoch(hparams, draws, problem, state, epoch):
  """Take one shuffled pass over the retain set, with cosine decay."""
  rate = training.cosine(hparams.learning_rate, epoch, hparams.num_epochs)
  sgd = training.sgd_from(hparams, rate)
  return training.pass_over('retain', hparams, draws, problem, state, sgd)


METHOD = Method(
  name='head_reset',
  Hparams=Hparams,
  init=init,
  epoch=epoch,
  card=Card(
    title='Head reset',
    label='HR',
    citation='an example of jaxmu',
    cost=lambda h, n: 3 * h['num_epochs'] * n.retain,
    reads=('retain',),
  ),
)
