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
from jaxmu.data import batches
from jaxmu.draws import Draws
from jaxmu.method import Card, Info, Method
from jaxmu.methods.parts import training
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


def init(hparams: Hparams, draws: Draws, problem: Problem) -> training.Fit:
  """Prepare the model: surgery, masks, teachers."""
  del hparams, draws
  return training.start(problem.original)


def epoch(
  hparams: Hparams,
  draws: Draws,
  problem: Problem,
  state: training.Fit,
  epoch: Array,
) -> tuple[training.Fit, Info]:
  """Take one pass over the data."""
  del epoch  # schedules need it, see `jaxmu.methods.parts.training`
  rate = hparams.learning_rate
  order = batches.shuffled(draws, 'retain', problem.split.retain)
  variables, opt, info = training.run_epoch(
    training.clean_cross_entropy(problem.task),
    training.sgd(rate, hparams.momentum, hparams.weight_decay),
    *state,
    batches.make_batches(order, hparams.batch_size),
    draws,
  )
  return training.Fit(variables, opt), {**info, 'learning_rate': rate}


METHOD = Method(
  name='skeleton',
  Hparams=Hparams,
  init=init,
  epoch=epoch,
  card=Card(
    title='Name of the method',
    citation='Authors year, arXiv number',
    cost=lambda h, n: 3 * h['num_epochs'] * n.retain,
    reads=('retain',),
  ),
)
