"""KDE whose warm-up has half of the validation images.

KDE distils the original model on validation images, so accuracy on these is
not that on unseen images. Here the warm-up has the first half of them, and
`va_held` (`jaxmu.claims.variants.held_validation`) is the accuracy on the rest.
"""

import dataclasses

from jaxmu.draws import Draws
from jaxmu.method import Card, Info, Method
from jaxmu.methods import kde
from jaxmu.types import Array, Problem


def _halved(problem: Problem) -> Problem:
  val = problem.split.val
  half = dataclasses.replace(problem.split, val=val[: held_from(val.shape[0])])
  return dataclasses.replace(problem, split=half)


def held_from(size: int) -> int:
  """Return the position of the first validation image that is held out."""
  return size // 2


def init(hparams: kde.Hparams, draws: Draws, problem: Problem) -> kde.State:
  """Draw stem and classifier again and run the teacher."""
  return kde.init(hparams, draws, _halved(problem))


def epoch(
  hparams: kde.Hparams,
  draws: Draws,
  problem: Problem,
  state: kde.State,
  epoch: Array,
) -> tuple[kde.State, Info]:
  """Take one pass of the warm-up, or one of the training that follows."""
  return kde.epoch(hparams, draws, _halved(problem), state, epoch)


METHOD = Method(
  name='kde_disjoint',
  Hparams=kde.Hparams,
  init=init,
  epoch=epoch,
  num_epochs=kde.METHOD.num_epochs,
  card=Card(
    title='Knowledge distillation with entropy, disjoint warm-up',
    label='KDE, disjoint',
    citation='this project',
    cost=lambda h, n: (
      4 * h['num_epochs'] * held_from(n.val)
      + 4 * h['retain_num_epochs'] * n.retain
    ),
    reads=('retain', 'val'),
  ),
)
