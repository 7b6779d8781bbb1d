"""Gradient ascent (GA): climb the loss of the forget set.

Passes over the forget set alone with the cross-entropy's sign turned, constant
learning rate, in training mode, so that the batch statistics drift to those of
the forget set. Weight decay keeps shrinking the weights while the loss climbs,
as in the reference. Losses are unbounded: a member may end non-finite. Source:
Thudi et al. 2022, arXiv 2109.13398.
"""

from flax import struct

from jaxmu import hparams as hp
from jaxmu.data import batches
from jaxmu.draws import Draws
from jaxmu.method import Card, Info, Method
from jaxmu.methods.parts import training
from jaxmu.types import Array, Problem


@struct.dataclass
class Hparams:
  learning_rate: Array = hp.leaf(0.01, valid=hp.POSITIVE, search=hp.RATE)
  momentum: Array = hp.leaf(0.9, valid=hp.FRACTION)
  weight_decay: Array = hp.leaf(5e-4, valid=hp.NON_NEGATIVE, search=hp.RATE)
  num_epochs: Array = hp.leaf(10, valid=hp.COUNT, search=hp.EPOCHS)
  batch_size: int = hp.static(256, valid=hp.AT_LEAST_ONE, search=hp.BATCH)


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
  """Take one shuffled pass of ascent over the forget set."""
  del epoch
  cross_entropy = training.clean_cross_entropy(problem.task)

  def ascent(variables, batch, draws):
    value, variables = cross_entropy(variables, batch, draws)
    return -value, variables

  rate = hparams.learning_rate
  order = batches.shuffled(draws, 'forget', problem.split.forget)
  variables, opt, info = training.run_epoch(
    ascent,
    training.sgd(rate, hparams.momentum, hparams.weight_decay),
    *state,
    batches.make_batches(order, hparams.batch_size),
    draws,
  )
  return training.Fit(variables, opt), {**info, 'learning_rate': rate}


METHOD = Method(
  name='ga',
  Hparams=Hparams,
  init=init,
  epoch=epoch,
  card=Card(
    title='Gradient ascent',
    label='GA',
    citation='Thudi et al. 2022, arXiv 2109.13398',
    cost=lambda h, n: 3 * h['num_epochs'] * n.forget,
    reads=('forget',),
    digits={
      'learning_rate': 0.065,
      'weight_decay': 0.0013,
      'num_epochs': 3,
      'batch_size': 64,
    },
  ),
)
