"""Knowledge distillation with entropy (KDE): reset the ends, then imitate.

The stem convolution and the classifier are drawn anew. A warm-up distils the
original model into the rest on the validation set; then the network is trained
on the retain set by soft and hard cross-entropy and the divergence from the
original model. Source: sixth place of the NeurIPS 2023 machine unlearning
challenge, as adapted by the benchmark (arXiv 2410.01276).

As in the reference: the warm-up trains on validation examples, so figures on
them are no longer those of unseen data; the phases have optimisers of their
own; there is no factor of the squared temperature; the statistics after the
renewed stem are kept; on TinyViT, whose stem is a block, only the classifier is
drawn anew. Unlike the reference, which ends in NaN, a temperature of 0 is
refused, and the original model is asked once (`cache_teacher`).
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
  cache_teacher: bool = hp.static(True, valid=(True, False))


class State(NamedTuple):
  """Student, optimiser, and what the teacher answered.

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
  """Draw stem and classifier anew and ask the teacher."""
  task, split, original = problem.task, problem.split, problem.original
  blocks = task.model.blocks
  params = weights.fresh_torch_default(
    draws, original['params'], (*blocks.stem_conv, *blocks.classifier)
  )

  def ask(index):
    if not hparams.cache_teacher:
      return None
    return forward.teacher_table(task, original, index, hparams.batch_size)

  return State(
    *training.start({**original, 'params': params}),
    ask(split.val),
    ask(split.retain),
  )


def epoch(
  hparams: Hparams,
  draws: Draws,
  problem: Problem,
  state: State,
  epoch: Array,
) -> tuple[State, Info]:
  """Take one pass of the warm-up, or one of the training that follows."""
  split, size = problem.split, hparams.batch_size
  steps = max(
    batches.num_steps(split.val.shape[0], size),
    batches.num_steps(split.retain.shape[0], size),
  )

  def warm_up():
    position = jnp.arange(split.val.shape[0])
    rate = hparams.learning_rate
    optimiser = training.sgd(rate, hparams.momentum, hparams.weight_decay)
    batch = split.val, forward.teacher_rows(state.val_logits, position)
    place = draws.at('val')
    return run(_imitate, place, state.opt, optimiser, batch, rate)

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
      forward.teacher_rows(state.retain_logits, order),
    )
    return run(_imitate_and_learn, draws, opt, optimiser, batch, rate)

  def run(loss, place, opt, optimiser, batch, rate):
    variables, opt, info = training.run_epoch(
      loss(hparams, problem),
      optimiser,
      state.variables,
      opt,
      batches.make_batches(batch, size),
      place,
    )
    values = info['loss']
    found = {
      'loss': training.pad_with_mean(values, values.shape[0], steps),
      'learning_rate': jnp.asarray(rate, values.dtype),
    }
    return variables, opt, found

  variables, opt, info = jax.lax.cond(
    epoch < hparams.num_epochs, warm_up, train
  )
  return State(variables, opt, state.val_logits, state.retain_logits), info


def _imitate(hparams: Hparams, problem: Problem) -> training.Loss:
  task, original = problem.task, problem.original

  def loss(variables, batch, draws):
    index, known = batch
    images = forward.clean_images(task, index, forward.dtype_of(variables))
    target = forward.teacher_answer(task, original, images, known)
    logits, variables = forward.train_logits(task, variables, images, draws)
    each = losses.divergences(target, logits, hparams.temperature)
    return jnp.mean(each), variables

  return loss


def _imitate_and_learn(hparams: Hparams, problem: Problem) -> training.Loss:
  task, original = problem.task, problem.original

  def loss(variables, batch, draws):
    index, known = batch
    images = forward.clean_images(task, index, forward.dtype_of(variables))
    target = forward.teacher_answer(task, original, images, known)
    logits, variables = forward.train_logits(task, variables, images, draws)
    temperature = hparams.temperature
    each = losses.soft_cross_entropies(target, logits, temperature)
    each += losses.cross_entropies(logits, task.dataset.label[index])
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
    digits={
      'learning_rate': 0.031,
      'weight_decay': 0.087,
      'retain_learning_rate': 0.019,
      'retain_weight_decay': 0.00011,
      'temperature': 3.9,
      'num_epochs': 2,
    },
  ),
)
