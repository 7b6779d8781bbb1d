"""Convolution Transpose (CT): flip every kernel about its diagonal, fine-tune.

The two spatial axes of each convolution kernel are swapped, which keeps its
weights but breaks what they detect; fine-tuning on the retain set restores the
task. Height and width are transposed, not input and output channels, and it is
not a transposed convolution. Batch statistics are kept. Source: fifth place of
the NeurIPS 2023 machine unlearning challenge, as adapted by the benchmark
(arXiv 2410.01276).
"""

import jax.numpy as jnp
from flax import struct

from jaxmu import hparams as hp
from jaxmu.draws import Draws
from jaxmu.method import Card, Info, Method
from jaxmu.methods.parts import training, weights
from jaxmu.methods.parts.training import Fit
from jaxmu.types import Array, Problem


@struct.dataclass
class Hparams:
  learning_rate: Array = hp.leaf(1e-3, valid=hp.POSITIVE, search=hp.RATE)
  momentum: Array = hp.leaf(0.9, valid=hp.FRACTION)
  weight_decay: Array = hp.leaf(5e-4, valid=hp.NON_NEGATIVE, search=hp.RATE)
  num_epochs: Array = hp.leaf(3, valid=hp.COUNT, search=hp.EPOCHS)
  batch_size: int = hp.static(64, valid=hp.AT_LEAST_ONE, search=hp.BATCH)


def init(hparams: Hparams, draws: Draws, problem: Problem) -> Fit:
  """Swap height and width of every convolution kernel."""
  del hparams, draws

  def transpose(path, leaf):
    del path
    return jnp.swapaxes(leaf, 0, 1) if weights.is_conv(leaf) else leaf

  params = weights.edit(transpose, problem.start['params'])
  return training.start({**problem.start, 'params': params})


def epoch(
  hparams: Hparams, draws: Draws, problem: Problem, state: Fit, epoch: Array
) -> tuple[Fit, Info]:
  """Take one shuffled pass over the retain set."""
  rate = training.cosine(hparams.learning_rate, epoch, hparams.num_epochs)
  sgd = training.sgd_from(hparams, rate)
  return training.pass_over('retain', hparams, draws, problem, state, sgd)


METHOD = Method(
  name='ct',
  Hparams=Hparams,
  init=init,
  epoch=epoch,
  card=Card(
    title='Convolution Transpose',
    label='CT',
    citation='Cadet et al. 2024, arXiv 2410.01276 (challenge: 5th place)',
    cost=lambda h, n: 3 * h['num_epochs'] * n.retain,
    reads=('retain',),
    needs=('conv',),
  ),
)
