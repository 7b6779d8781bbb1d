"""SCRUB: a student that moves away from its teacher on the forget set.

The teacher is the original model. The first epochs begin with a pass that
maximises the divergence of the student from the teacher on the forget set;
every epoch then trains the student towards the teacher and the labels on the
retain set. In the end the epoch is chosen whose forget error is closest to the
final error on validation examples of the forgotten classes. Source: Kurmanji et
al. 2023, arXiv 2302.09880.

As in the reference: one optimiser serves both phases; the learning rate decays
at 50, 80 and 90 percent of the epochs counted from 1 (with a single epoch it is
a thousandth); the order of the forget set is fixed; if the model before the
first epoch is the closest, the final one is returned
(`rewind_zero='original'` returns the original). The smoothing term compares the
student with itself and is zero.

Unlike the reference, which ends in NaN, a temperature of 0 is refused; the
teacher runs once on all examples (`Task.cache_teacher`); and only the two
errors that decide the epoch are measured, not those on the retain set and the
whole validation set. A snapshot is kept per epoch, as any may be chosen until
the end: room for `snapshots` of them is reserved, at least as many as epochs.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct

from jaxmu import hparams as hp
from jaxmu.data import batches
from jaxmu.draws import Draws
from jaxmu.method import Card, Info, Method
from jaxmu.methods.parts import forward, losses, training
from jaxmu.types import Array, Problem, Variables

_SELF = "the smoothing term compares the student's weights with themselves"


@struct.dataclass
class Hparams:
  learning_rate: Array = hp.leaf(5e-4, valid=hp.POSITIVE, search=hp.RATE)
  momentum: Array = hp.leaf(0.9, valid=hp.FRACTION)
  weight_decay: Array = hp.leaf(5e-4, valid=hp.NON_NEGATIVE, search=hp.RATE)
  gamma: Array = hp.leaf(1.0, valid=hp.NON_NEGATIVE, search=hp.UNIT)
  alpha: Array = hp.leaf(0.5, valid=hp.NON_NEGATIVE, search=hp.UNIT)
  beta: Array = hp.leaf(0.0, search=hp.UNIT, dead=_SELF)
  smoothing: Array = hp.leaf(0.5, search=hp.UNIT, dead=_SELF)
  temperature: Array = hp.leaf(2.0, valid=hp.POSITIVE, search=hp.TEMPERATURE)
  decay_rate: Array = hp.leaf(0.1, valid=hp.NON_NEGATIVE)
  num_ascents: Array = hp.leaf(3, valid=hp.COUNT, search=hp.EPOCHS)
  num_epochs: Array = hp.leaf(5, valid=hp.COUNT, search=hp.EPOCHS)
  retain_batch_size: int = hp.static(32, valid=hp.AT_LEAST_ONE, search=hp.BATCH)
  forget_batch_size: int = hp.static(64, valid=hp.AT_LEAST_ONE, search=hp.BATCH)
  snapshots: int = hp.static(5, valid=hp.AT_LEAST_ONE, search=hp.MostEpochs())
  rewind: bool = hp.static(True, valid=(True, False))
  rewind_zero: str = hp.static('final', valid=('final', 'original'))


class Errors(NamedTuple):
  forget: Array  # error rate on the forget set
  val: Array  # the same on validation examples of forgotten classes


class State(NamedTuple):
  """Student, optimiser, and the models that may be returned.

  Attributes:
    variables: the student.
    opt: optimiser state.
    retain_logits, forget_logits: logits of the teacher, or None.
    forget_error: before the first and after every epoch, f[K + 1].
    val_error: the same, f[K + 1].
    kept: the model before the first and after every epoch but the last, which
      is `variables`; leaves [K, ...]. None without rewinding.
  """

  variables: Variables
  opt: optax.OptState
  retain_logits: Array | None
  forget_logits: Array | None
  forget_error: Array
  val_error: Array
  kept: Variables | None


def prepare(hparams: Hparams, problem: Problem) -> Hparams:
  """Check that there is room for the snapshots."""
  del problem
  needed = int(np.max(hparams.num_epochs))
  if hparams.rewind and needed > hparams.snapshots:
    raise ValueError(
      f'snapshots = {hparams.snapshots} is less than num_epochs = {needed}; '
      'give at least as many, or rewind=False to return the final student'
    )
  return hparams


def init(hparams: Hparams, draws: Draws, problem: Problem) -> State:
  """Run the teacher and measure the errors before the first epoch."""
  del draws
  task, split, original = problem.task, problem.split, problem.start
  errors = measure(hparams, problem, original)
  retain_logits = forward.cached_teacher(
    task, original, split.retain, hparams.retain_batch_size
  )
  forget_logits = forward.cached_teacher(
    task, original, split.forget, hparams.forget_batch_size
  )
  room = hparams.snapshots + 1
  empty = jnp.zeros(room, errors.forget.dtype)
  kept = None
  if hparams.rewind:
    kept = jax.tree.map(
      lambda x: jnp.zeros((room - 1, *x.shape), x.dtype).at[0].set(x),
      original,
    )
  return State(
    *training.start(original),
    retain_logits,
    forget_logits,
    empty.at[0].set(errors.forget),
    empty.at[0].set(errors.val),
    kept,
  )


def measure(hparams: Hparams, problem: Problem, variables: Variables) -> Errors:
  """Measure the errors that decide which epoch is returned."""
  task, split = problem.task, problem.split
  label = task.dataset.label
  classes = jnp.arange(task.model.num_classes)

  def wrong(index):
    logits = forward.logits_table(
      task, variables, index, hparams.retain_batch_size
    )
    return jnp.argmax(logits, axis=1) != label[index]

  forgotten = (label[split.forget][:, None] == classes[None, :]).any(axis=0)
  counted = forgotten[label[split.val]].astype(forward.dtype_of(variables))
  return Errors(
    jnp.mean(wrong(split.forget), dtype=counted.dtype),
    losses.weighted_mean(wrong(split.val).astype(counted.dtype), counted),
  )


def epoch(
  hparams: Hparams, draws: Draws, problem: Problem, state: State, epoch: Array
) -> tuple[State, Info]:
  """Move away from the teacher on the forget set, then follow it on retain."""
  split = problem.split
  rate = training.milestones(
    hparams.learning_rate, epoch + 1, hparams.num_epochs, hparams.decay_rate
  )
  optimiser = training.sgd_from(hparams, rate)
  index = jnp.arange(split.forget.shape[0])
  forget = batches.make_batches(
    (split.forget, forward.cached_rows(state.forget_logits, index)),
    hparams.forget_batch_size,
  )
  order = draws.permutation('retain', split.retain.shape[0])
  retain = batches.make_batches(
    (split.retain[order], forward.cached_rows(state.retain_logits, order)),
    hparams.retain_batch_size,
  )

  def ascend(fit):
    fit, info = training.run_epoch(
      _leave(hparams, problem), optimiser, fit, forget, draws.at('forget')
    )
    return fit, info['loss']

  def stay(fit):
    _, losses = jax.eval_shape(ascend, fit)
    return fit, jnp.full(losses.shape, jnp.nan, losses.dtype)

  fit, ascents = jax.lax.cond(
    epoch < hparams.num_ascents,
    ascend,
    stay,
    training.Fit(state.variables, state.opt),
  )
  fit, info = training.run_epoch(
    _follow(hparams, problem), optimiser, fit, retain, draws
  )
  errors = measure(hparams, problem, fit.variables)
  place = epoch + 1
  kept = _put(state.kept, place, fit.variables if hparams.rewind else None)
  return State(
    fit.variables,
    fit.opt,
    state.retain_logits,
    state.forget_logits,
    state.forget_error.at[place].set(errors.forget),
    state.val_error.at[place].set(errors.val),
    kept,
  ), {**info, 'forget_loss': ascents}


def _put(every: Any, place: Array, one: Any) -> Any:
  """Set one place of stacked trees; a place beyond the last is dropped."""
  return jax.tree.map(lambda x, y: x.at[place].set(y, mode='drop'), every, one)


def _distilled(
  hparams: Hparams, problem: Problem
) -> Callable[..., tuple[Array, Array, Variables]]:
  """Return the distance from the teacher, the logits, and new variables."""

  def distil(variables, batch, draws):
    logits, target, variables = forward.student_and_teacher(
      problem.task, variables, problem.start, batch, draws
    )
    each = losses.divergences(target, logits, hparams.temperature)
    return hparams.temperature**2 * jnp.mean(each), logits, variables

  return distil


def _leave(hparams: Hparams, problem: Problem) -> training.Loss:
  distil = _distilled(hparams, problem)

  def loss(variables, batch, draws):
    distance, _, variables = distil(variables, batch, draws)
    return -distance, variables

  return loss


def _follow(hparams: Hparams, problem: Problem) -> training.Loss:
  distil = _distilled(hparams, problem)

  def loss(variables, batch, draws):
    distance, logits, variables = distil(variables, batch, draws)
    label = problem.task.dataset.label[batch[0]]
    entropy = losses.cross_entropy(logits, label)
    return hparams.gamma * entropy + hparams.alpha * distance, variables

  return loss


def finish(hparams: Hparams, state: State) -> Variables:
  """Return the epoch whose forget error is closest to the validation error."""
  if not hparams.rewind:
    return state.variables
  aim = state.val_error[hparams.num_epochs]
  ran = jnp.arange(hparams.snapshots + 1) <= hparams.num_epochs
  distance = jnp.where(ran, jnp.abs(state.forget_error - aim), jnp.inf)
  best = jnp.argmin(distance)
  if hparams.rewind_zero == 'final':
    best = jnp.where(best == 0, hparams.num_epochs, best)
  last = best == hparams.num_epochs
  return jax.tree.map(
    lambda final, kept: jnp.where(last, final, kept[best]),
    state.variables,
    state.kept,
  )


METHOD = Method(
  name='scrub',
  Hparams=Hparams,
  init=init,
  epoch=epoch,
  finish=finish,
  prepare=prepare,
  card=Card(
    title='SCRUB',
    label='SCRUB',
    citation='Kurmanji et al. 2023, arXiv 2302.09880',
    cost=lambda h, n: (
      4 * h['num_epochs'] * n.retain
      + 4 * min(h['num_epochs'], h['num_ascents']) * n.forget
      + (h['num_epochs'] + 1) * (n.retain + n.forget + 2 * n.val)
    ),
    reads=('retain', 'forget', 'val'),
    small={'snapshots': 3, 'num_ascents': 1},
    paper={'rewind_zero': 'original'},
  ),
)
