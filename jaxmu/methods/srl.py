"""Successive random labels (SRL): relearn the forget set under wrong labels.

Every epoch each example to be forgotten gets a label drawn from all classes,
and the network is trained by cross-entropy on both sets mixed, in training
mode, at a constant learning rate. Source: Hayase et al. 2020, arXiv 2003.02960;
Golatkar et al. 2020, arXiv 1911.04933.

As in the reference: one fixed sequence of labels starts again every epoch and
is used in the order of the shuffled examples (`relabel_stream='key'` draws
fresh ones), a label may equal the true one, and the learning rate does not
decay.
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
  learning_rate: Array = hp.leaf(0.1, valid=hp.POSITIVE, search=hp.RATE)
  momentum: Array = hp.leaf(0.9, valid=hp.FRACTION)
  weight_decay: Array = hp.leaf(5e-4, valid=hp.NON_NEGATIVE, search=hp.RATE)
  num_epochs: Array = hp.leaf(5, valid=hp.COUNT, search=hp.EPOCHS)
  batch_size: int = hp.static(256, valid=hp.AT_LEAST_ONE, search=hp.BATCH)
  relabel_stream: str = hp.static(
    'randomstate123', valid=training.LABEL_STREAMS
  )


def epoch(
  hparams: Hparams, draws: Draws, problem: Problem, state: Fit, epoch: Array
) -> tuple[Fit, Info]:
  """Take one shuffled pass over both sets, the forget set relabelled."""
  del epoch
  sgd = training.sgd_from(hparams, hparams.learning_rate)
  return training.relabelled_pass(hparams, draws, problem, state, sgd)


METHOD = Method(
  name='srl',
  Hparams=Hparams,
  init=training.init,
  epoch=epoch,
  card=Card(
    title='Successive random labels',
    label='SRL',
    citation='Hayase et al. 2020, arXiv 2003.02960',
    cost=lambda h, n: 3 * h['num_epochs'] * (n.retain + n.forget),
    reads=('retain', 'forget'),
    paper={'relabel_stream': 'key'},
  ),
)
