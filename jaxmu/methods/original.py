"""Original (O): train on all training data; where every unlearning starts.

Stochastic gradient descent on the retain and the forget set together, with the
training augmentation, cosine decay per epoch, the last epoch kept. Source: the
benchmark's recipe (arXiv 2410.01276).

Unlike the reference, where it depends on the number of loader processes, what
augmentation does to an image follows from the member's key, the epoch and the
image alone.
"""

import jax.numpy as jnp
from flax import struct

from jaxmu.core import hparams as hp
from jaxmu.core.draws import Draws
from jaxmu.core.method import Card, Info, Method
from jaxmu.core.types import Array, Problem
from jaxmu.data import stream
from jaxmu.ops import fit, optim, schedules


@struct.dataclass
class Hparams:
  learning_rate: Array = hp.leaf(0.1, valid=hp.POSITIVE)
  momentum: Array = hp.leaf(0.9, valid=hp.FRACTION)
  weight_decay: Array = hp.leaf(5e-4, valid=hp.NON_NEGATIVE)
  num_epochs: Array = hp.leaf(182, valid=hp.COUNT)
  batch_size: int = hp.static(256, valid=hp.AT_LEAST_ONE)


def init(hparams: Hparams, draws: Draws, problem: Problem) -> fit.Fit:
  """Start from the fresh weights."""
  del hparams, draws
  return fit.start(problem.original)


def epoch(
  hparams: Hparams,
  draws: Draws,
  problem: Problem,
  state: fit.Fit,
  epoch: Array,
) -> tuple[fit.Fit, Info]:
  """Take one shuffled, augmented pass over retain and forget set."""
  train = jnp.concatenate([problem.split.retain, problem.split.forget])
  order = stream.shuffled(draws, 'train', train)
  rate = schedules.cosine(hparams.learning_rate, epoch, hparams.num_epochs)
  variables, opt, info = fit.epoch(
    fit.augmented_cross_entropy(problem.task, draws),
    optim.sgd(rate, hparams.momentum, hparams.weight_decay),
    *state,
    stream.cut(order, hparams.batch_size),
    draws,
  )
  return fit.Fit(variables, opt), {**info, 'learning_rate': rate}


METHOD = Method(
  name='original',
  Hparams=Hparams,
  init=init,
  epoch=epoch,
  card=Card(
    title='Original model',
    citation='Cadet et al. 2024, arXiv 2410.01276',
    cost=lambda h, n: 3 * h['num_epochs'] * (n.retain + n.forget),
    reads=('retain', 'forget'),
  ),
)
