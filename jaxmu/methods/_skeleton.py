"""Name of the method: what it does in one line.

How it works and why, for a reader who is new to it. Source: authors year.

This file is a working method, fine-tuning at a constant rate. Copy it out of
the package, change it, and run `jaxmu.testing.check_method('my_method.py')`.
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
  # A leaf may differ per member and never costs a compilation.
  learning_rate: Array = hp.leaf(1e-3, valid=hp.POSITIVE)
  momentum: Array = hp.leaf(0.9, valid=hp.FRACTION)
  weight_decay: Array = hp.leaf(5e-4, valid=hp.NON_NEGATIVE)
  num_epochs: Array = hp.leaf(3, valid=hp.COUNT)
  # A static decides a shape or a branch; members of one program share it.
  batch_size: int = hp.static(64, valid=hp.AT_LEAST_ONE)


def epoch(
  hparams: Hparams, draws: Draws, problem: Problem, state: Fit, epoch: Array
) -> tuple[Fit, Info]:
  """Take one shuffled pass over the retain set."""
  del epoch  # a schedule needs it, such as `training.cosine`
  sgd = training.sgd_from(hparams, hparams.learning_rate)
  return training.pass_over('retain', hparams, draws, problem, state, sgd)


METHOD = Method(
  name='my_method',
  Hparams=Hparams,
  init=training.init,
  epoch=epoch,
  card=Card(
    title='Name of the method',
    citation='authors year, where it is published',
    cost=lambda h, n: 3 * h['num_epochs'] * n.retain,
    reads=('retain',),
  ),
)
