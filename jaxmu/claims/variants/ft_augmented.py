"""Fine-tuning on augmented images; otherwise FT (`jaxmu.methods.ft`).

The benchmark augments images only while it trains models from scratch. This
variant shows how much of the test accuracy that FT loses is due to that.
"""

import dataclasses

from jaxmu.draws import Draws
from jaxmu.method import Info
from jaxmu.methods import ft
from jaxmu.methods.parts import training
from jaxmu.methods.parts.training import Fit
from jaxmu.types import Array, Problem


def epoch(
  hparams: ft.Hparams,
  draws: Draws,
  problem: Problem,
  state: Fit,
  epoch: Array,
) -> tuple[Fit, Info]:
  """Take one shuffled pass over the augmented retain set."""
  rate = training.cosine(hparams.learning_rate, epoch, hparams.num_epochs)
  sgd = training.sgd_from(hparams, rate)
  loss = training.cross_entropy(problem.task, augment=draws)
  return training.pass_over('retain', hparams, draws, problem, state, sgd, loss)


METHOD = ft.METHOD._replace(
  name='ft_augmented',
  epoch=epoch,
  card=dataclasses.replace(
    ft.METHOD.card,
    title='Fine-tuning, augmented',
    label='FT, augmented',
    citation='this project',
  ),
)
