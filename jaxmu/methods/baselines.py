"""Original (O) and retrained (R) models: training from scratch.

The original models are trained on the retain and the forget set; unlearning
starts from them. The retrained models are trained on the retain set alone, from
the same initial weights; unlearning is judged by how close it comes to them.

Both use stochastic gradient descent with the training augmentation and cosine
decay per epoch, and keep the last epoch. Source: the benchmark's recipe (arXiv
2410.01276), which calls the retrained models "naive".

Unlike the reference, where the augmentation depends on the number of loader
processes, here it depends only on the member's key, the epoch and the image.

Unlike the reference, which fixes the recipe, jaxmu can search learning rate and
weight decay.
"""

from flax import struct

from jaxmu import hparams as hp
from jaxmu.draws import Draws
from jaxmu.method import Card, Epoch, Info, Method
from jaxmu.methods.parts import training
from jaxmu.methods.parts.training import Fit
from jaxmu.types import Array, Problem


@struct.dataclass
class Hparams:
  learning_rate: Array = hp.leaf(
    0.1, valid=hp.POSITIVE, search=hp.LogUniform(1e-3, 1.0)
  )
  momentum: Array = hp.leaf(0.9, valid=hp.FRACTION)
  weight_decay: Array = hp.leaf(
    5e-4, valid=hp.NON_NEGATIVE, search=hp.LogUniform(1e-5, 1e-2)
  )
  num_epochs: Array = hp.leaf(182, valid=hp.COUNT)
  batch_size: int = hp.static(256, valid=hp.AT_LEAST_ONE)


def _passes_over(part: str) -> Epoch:
  """Return an epoch of one shuffled, augmented pass over a part."""

  def epoch(
    hparams: Hparams, draws: Draws, problem: Problem, state: Fit, epoch: Array
  ) -> tuple[Fit, Info]:
    rate = training.cosine(hparams.learning_rate, epoch, hparams.num_epochs)
    sgd = training.sgd_from(hparams, rate)
    loss = training.cross_entropy(problem.task, augment=draws)
    return training.pass_over(
      part, hparams, draws, problem, state, sgd, loss=loss
    )

  return epoch


ORIGINAL = Method(
  name='original',
  Hparams=Hparams,
  init=training.init,
  epoch=_passes_over('train'),
  card=Card(
    title='Original model',
    label='Original',
    citation='Cadet et al. 2024, arXiv 2410.01276',
    cost=lambda h, n: 3 * h['num_epochs'] * (n.retain + n.forget),
    reads=('retain', 'forget'),
  ),
)


RETRAIN = Method(
  name='retrain',
  Hparams=Hparams,
  init=training.init,
  epoch=_passes_over('retain'),
  card=Card(
    title='Retrained model',
    label='Retrained',
    citation='Cadet et al. 2024, arXiv 2410.01276',
    cost=lambda h, n: 3 * h['num_epochs'] * n.retain,
    reads=('retain',),
  ),
)
