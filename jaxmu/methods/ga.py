"""Gradient ascent (GA): increase the loss on the forget set.

Passes over the forget set alone with the sign of the cross-entropy reversed, at
a constant learning rate, in training mode, so that the batch statistics drift
to those of the forget set. Weight decay keeps shrinking the weights while the
loss rises, as in the reference. Losses are unbounded, and a member may end with
non-finite weights. Source: Thudi et al. 2022, arXiv 2109.13398.
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
  learning_rate: Array = hp.leaf(0.01, valid=hp.POSITIVE, search=hp.RATE)
  momentum: Array = hp.leaf(0.9, valid=hp.FRACTION)
  weight_decay: Array = hp.leaf(5e-4, valid=hp.NON_NEGATIVE, search=hp.RATE)
  num_epochs: Array = hp.leaf(10, valid=hp.COUNT, search=hp.EPOCHS)
  batch_size: int = hp.static(256, valid=hp.AT_LEAST_ONE, search=hp.BATCH)


def epoch(
  hparams: Hparams, draws: Draws, problem: Problem, state: Fit, epoch: Array
) -> tuple[Fit, Info]:
  """Take one shuffled pass of ascent over the forget set."""
  del epoch
  cross_entropy = training.cross_entropy(problem.task)

  def ascent(variables, batch, draws):
    value, variables = cross_entropy(variables, batch, draws)
    return -value, variables

  sgd = training.sgd_from(hparams, hparams.learning_rate)
  return training.pass_over(
    'forget', hparams, draws, problem, state, sgd, loss=ascent
  )


METHOD = Method(
  name='ga',
  Hparams=Hparams,
  init=training.init,
  epoch=epoch,
  card=Card(
    title='Gradient ascent',
    label='GA',
    citation='Thudi et al. 2022, arXiv 2109.13398',
    cost=lambda h, n: 3 * h['num_epochs'] * n.forget,
    reads=('forget',),
  ),
)
