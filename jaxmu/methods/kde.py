"""Knowledge distillation with entropy (KDE): reset the ends, then imitate.

The stem convolution and the classifier are drawn again. A warm-up distils the
original model into the rest on the validation set; then the network is trained
on the retain set by soft and hard cross-entropy and the divergence from the
original model. Source: sixth place of the NeurIPS 2023 machine unlearning
challenge, as adapted by the benchmark (arXiv 2410.01276).

As in the reference: the warm-up trains on validation examples, so results on
them are not results on unseen data; each phase has a separate optimiser; there
is no factor of the squared temperature; the batch statistics after the redrawn
stem are kept; on TinyViT, whose stem is a block, only the classifier is drawn
again. Unlike the reference, which ends in NaN, a temperature of 0 is refused,
and the original model runs once on all examples (`Task.cache_teacher`).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct

from jaxmu import hparams as hp
from jaxmu.data import batches
from jaxmu.draws import Draws
from jaxmu.method import Card, Info, Method
from jaxmu.methods.parts import forward, losses, training, weights
from jaxmu.types import Array, Problem, Variables


@struct.dataclass
class Hparams:
  learning_rate: Array = hp.leaf(9e-4, valid=hp.POSITIVE, search=hp.RATE)
  momentum: Array = hp.leaf(0.9, valid=hp.FRACTION)
  weight_decay: Array = hp.leaf(5e-4, valid=hp.NON_NEGATIVE, search=hp.RATE)
  retain_learning_rate: Array = hp.leaf(1e-3, valid=hp.POSITIVE, search=hp.RATE)
  retain_momentum: Array = hp.leaf(0.9, valid=hp.FRACTION)
  retain_weight_decay: Array = hp.leaf(
    5e-4, valid=hp.NON_NEGATIVE, search=hp.RATE
  )
  temperature: Array = hp.leaf(5.0, valid=hp.POSITIVE, search=hp.TEMPERATURE)
  num_epochs: Array = hp.leaf(3, valid=hp.COUNT, search=hp.EPOCHS)
  retain_num_epochs: Array = hp.leaf(3, valid=hp.COUNT, search=hp.EPOCHS)
  batch_size: int = hp.static(64, valid=hp.AT_LEAST_ONE, search=hp.BATCH)


class State(NamedTuple):
  """Student, optimiser, and logits of the teacher.

  Attributes:
    variables: the student.
    opt: optimiser state, emptied between the phases.
    val_logits, retain_logits: the teacher's, or None.
  """

  variables: Variables
  opt: optax.OptState
  val_logits: Array | None
  retain_logits: Array | None


def init(hparams: Hparams, draws: Draws, problem: Problem) -> State:
  """Draw stem and classifier again and run the teacher."""
  task, split, original = problem.task, problem.split, problem.start
  blocks = task.model.blocks
  params = weights.fresh_torch_default(
    draws, original['params'], (*blocks.stem_conv, *blocks.classifier)
  )
  size = hparams.batch_size
  return State(
    *training.start({**original, 'params': params}),
    forward.cached_teacher(task, original, split.val, size),
    forward.cached_teacher(task, original, split.retain, size),
  )


def epoch(
  hparams: Hparams, draws: Draws, problem: Problem, state: State, epoch: Array
) -> tuple[State, Info]:
  """Take one pass of the warm-up, or one of the training that follows."""
  split, size = problem.split, hparams.batch_size
  steps = max(
    batches.num_steps(split.val.shape[0], size),
    batches.num_steps(split.retain.shape[0], size),
  )

  def warm_up():
    position = jnp.arange(split.val.shape[0])
    optimiser = training.sgd_from(hparams, hparams.learning_rate)
    batch = split.val, forward.cached_rows(state.val_logits, position)
    return run(_imitate, draws.at('val'), state.opt, optimiser, batch)

  def train():
    first = epoch == hparams.num_epochs
    opt = jax.tree.map(
      lambda x: jnp.where(first, jnp.zeros_like(x), x), state.opt
    )
    rate = training.cosine(
      hparams.retain_learning_rate,
      epoch - hparams.num_epochs,
      hparams.retain_num_epochs,
    )
    optimiser = training.sgd(
      rate, hparams.retain_momentum, hparams.retain_weight_decay
    )
    order = draws.permutation('retain', split.retain.shape[0])
    batch = (
      split.retain[order],
      forward.cached_rows(state.retain_logits, order),
    )
    return run(_imitate_and_learn, draws, opt, optimiser, batch)

  def run(loss, place, opt, optimiser, batch):
    fit, info = training.run_epoch(
      loss(hparams, problem),
      optimiser,
      training.Fit(state.variables, opt),
      batches.make_batches(batch, size),
      place,
    )
    values = info['loss']
    # Both phases must give infos of one shape and type.
    return fit, {
      'loss': training.pad_with_mean(values, values.shape[0], steps),
      'learning_rate': jnp.asarray(info['learning_rate'], values.dtype),
    }

  fit, info = jax.lax.cond(epoch < hparams.num_epochs, warm_up, train)
  return state._replace(variables=fit.variables, opt=fit.opt), info


def _imitate(hparams: Hparams, problem: Problem) -> training.Loss:
  def loss(variables, batch, draws):
    logits, target, variables = forward.student_and_teacher(
      problem.task, variables, problem.start, batch, draws
    )
    each = losses.divergences(target, logits, hparams.temperature)
    return jnp.mean(each), variables

  return loss


def _imitate_and_learn(hparams: Hparams, problem: Problem) -> training.Loss:
  def loss(variables, batch, draws):
    logits, target, variables = forward.student_and_teacher(
      problem.task, variables, problem.start, batch, draws
    )
    label = problem.task.dataset.label[batch[0]]
    temperature = hparams.temperature
    each = losses.soft_cross_entropies(target, logits, temperature)
    each += losses.cross_entropies(logits, label)
    each += losses.divergences(target, logits, temperature)
    return jnp.mean(each), variables

  return loss


METHOD = Method(
  name='kde',
  Hparams=Hparams,
  init=init,
  epoch=epoch,
  num_epochs=lambda hparams: hparams.num_epochs + hparams.retain_num_epochs,
  card=Card(
    title='Knowledge-Distillation-Entropy',
    label='KDE',
    citation='Cadet et al. 2024, arXiv 2410.01276 (challenge: 6th place)',
    cost=lambda h, n: (
      4 * h['num_epochs'] * n.val + 4 * h['retain_num_epochs'] * n.retain
    ),
    reads=('retain', 'val'),
  ),
)
