"""Name of the method (ABBREVIATION): what it does in one line.

How it works and why, in a paragraph a newcomer can follow. Source: authors
year, arXiv number.

As in the reference: quirks that published numbers depend on, and the option
that switches each of them off. Unlike the reference, where we depart and why.

This file is a working method, plain fine-tuning at a constant rate: copy it,
change it, add a line to `jaxmu/methods/__init__.py`; see docs/methods.md.
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
  learning_rate: Array = hp.leaf(1e-3, valid=hp.POSITIVE, search=hp.RATE)
  momentum: Array = hp.leaf(0.9, valid=hp.FRACTION)
  weight_decay: Array = hp.leaf(5e-4, valid=hp.NON_NEGATIVE, search=hp.RATE)
  num_epochs: Array = hp.leaf(3, valid=hp.COUNT, search=hp.EPOCHS)
  # A static decides a shape or a branch; members of one program share it.
  batch_size: int = hp.static(64, valid=hp.AT_LEAST_ONE, search=hp.BATCH)


def epoch(
  hparams: Hparams, draws: Draws, problem: Problem, state: Fit, epoch: Array
) -> tuple[Fit, Info]:
  """Take one shuffled pass over the retain set."""
  del epoch  # for schedules, such as `training.cosine`
  sgd = training.sgd_from(hparams, hparams.learning_rate)
  return training.pass_over('retain', hparams, draws, problem, state, sgd)


METHOD = Method(
  name='skeleton',
  Hparams=Hparams,
  init=training.init,
  epoch=epoch,
  card=Card(
    title='Name of the method',
    citation='Authors year, arXiv number',
    cost=lambda h, n: 3 * h['num_epochs'] * n.retain,
    reads=('retain',),
  ),
)
