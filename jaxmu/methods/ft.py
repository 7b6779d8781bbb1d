"""Fine-tuning (FT): go on training on the retain set and let the rest fade.

Plain cross-entropy on the retain set from the original model, cosine decay per
epoch, in training mode and without augmentation (the benchmark augments only
while training from scratch). Source: Warnecke et al. 2021, arXiv 2108.11577;
Golatkar et al. 2020, arXiv 1911.04933.
"""

from flax import struct

from jaxmu.core import hparams as hp
from jaxmu.core.draws import Draws
from jaxmu.core.method import Card, Info, Method
from jaxmu.core.types import Array, Problem
from jaxmu.ops import fit, optim, schedules


@struct.dataclass
class Hparams:
  learning_rate: Array = hp.leaf(0.1, valid=hp.POSITIVE, search=hp.RATE)
  momentum: Array = hp.leaf(0.9, valid=hp.FRACTION)
  weight_decay: Array = hp.leaf(5e-4, valid=hp.NON_NEGATIVE, search=hp.RATE)
  num_epochs: Array = hp.leaf(5, valid=hp.COUNT, search=hp.EPOCHS)
  batch_size: int = hp.static(256, valid=hp.AT_LEAST_ONE, search=hp.BATCH)


def init(hparams: Hparams, draws: Draws, problem: Problem) -> fit.Fit:
  """Start from the original model."""
  del hparams, draws
  return fit.start(problem.original)


def epoch(
  hparams: Hparams,
  draws: Draws,
  problem: Problem,
  state: fit.Fit,
  epoch: Array,
) -> tuple[fit.Fit, Info]:
  """Take one shuffled pass over the retain set."""
  rate = schedules.cosine(hparams.learning_rate, epoch, hparams.num_epochs)
  variables, opt, info = fit.retain_epoch(
    problem,
    draws,
    *state,
    optim.sgd(rate, hparams.momentum, hparams.weight_decay),
    hparams.batch_size,
  )
  return fit.Fit(variables, opt), {**info, 'learning_rate': rate}


METHOD = Method(
  name='ft',
  Hparams=Hparams,
  init=init,
  epoch=epoch,
  card=Card(
    title='Fine-tuning',
    citation='Warnecke et al. 2021, arXiv 2108.11577',
    cost=lambda h, n: 3 * h['num_epochs'] * n.retain,
    reads=('retain',),
  ),
)
