"""Forget, contrast, strengthen (FCS): flatten, push away, repair.

One pass makes the predictions on the forget set uniform. Then every epoch first
spreads the similarity between logits of forget and retain examples evenly, and
afterwards fine-tunes on the retain set. Source: first place of the NeurIPS 2023
machine unlearning challenge, as adapted by the benchmark (arXiv 2410.01276).

As in the reference: three optimisers with separate momentum buffers; the retain
rate is scaled by batch size / 64 and the others are not; the rate of the
contrast follows a cosine over all its steps down to `floor_rate`, which may be
above its start; the contrast has no positive pairs; both forward passes of a
contrast step update the batch statistics, forget batch first. Unlike the
reference, which ends in NaN, a temperature of 0 is refused.
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
from jaxmu.methods.parts import forward, losses, training
from jaxmu.types import Array, Problem, Variables

UNIT_BATCH = 64  # the retain rate is per this many examples


@struct.dataclass
class Hparams:
  learning_rate: Array = hp.leaf(5e-3, valid=hp.POSITIVE, search=hp.RATE)
  momentum: Array = hp.leaf(0.9, valid=hp.FRACTION)
  weight_decay: Array = hp.leaf(0.0, valid=hp.NON_NEGATIVE, search=hp.RATE)
  retain_learning_rate: Array = hp.leaf(1e-3, valid=hp.POSITIVE, search=hp.RATE)
  retain_momentum: Array = hp.leaf(0.9, valid=hp.FRACTION)
  retain_weight_decay: Array = hp.leaf(
    1e-2, valid=hp.NON_NEGATIVE, search=hp.RATE
  )
  forget_learning_rate: Array = hp.leaf(3e-4, valid=hp.POSITIVE, search=hp.RATE)
  forget_momentum: Array = hp.leaf(0.9, valid=hp.FRACTION)
  forget_weight_decay: Array = hp.leaf(
    0.0, valid=hp.NON_NEGATIVE, search=hp.RATE
  )
  floor_rate: Array = hp.leaf(
    1e-6, valid=hp.NON_NEGATIVE, search=hp.LogUniform(1e-6, 1e-1)
  )
  temperature: Array = hp.leaf(1.15, valid=hp.POSITIVE, search=hp.TEMPERATURE)
  num_epochs: Array = hp.leaf(8, valid=hp.COUNT, search=hp.EPOCHS)
  batch_size: int = hp.static(256, valid=hp.AT_LEAST_ONE, search=hp.BATCH)


class State(NamedTuple):
  variables: Variables
  forget_opt: optax.OptState
  retain_opt: optax.OptState


def init(hparams: Hparams, draws: Draws, problem: Problem) -> State:
  """Make the predictions on the forget set uniform."""
  variables, _ = flatten(hparams, draws, problem)
  empty = training.start(variables).opt
  return State(variables, empty, empty)


def flatten(
  hparams: Hparams, draws: Draws, problem: Problem
) -> tuple[Variables, Info]:
  """Take one shuffled pass over the forget set towards uniform predictions."""
  task = problem.task

  def loss(variables, index, draws):
    logits, variables = forward.clean_train_logits(
      task, variables, index, draws
    )
    return jnp.mean(losses.divergences_from_uniform(logits)), variables

  fit, info = training.pass_over(
    'forget',
    hparams,
    draws,
    problem,
    training.start(problem.start),
    training.sgd_from(hparams, hparams.learning_rate),
    loss=loss,
  )
  return fit.variables, info


def epoch(
  hparams: Hparams, draws: Draws, problem: Problem, state: State, epoch: Array
) -> tuple[State, Info]:
  """Contrast every forget batch with a retain batch, then fine-tune."""
  fit, contrast = _contrast_pass(
    hparams, draws.at('contrast'), problem, state, epoch
  )
  scale = hparams.batch_size / UNIT_BATCH
  rate = scale * hparams.retain_learning_rate
  repaired, repair = training.pass_over(
    'retain',
    hparams,
    draws,
    problem,
    training.Fit(fit.variables, state.retain_opt),
    training.sgd(rate, hparams.retain_momentum, hparams.retain_weight_decay),
  )
  constant = jnp.full_like(repair['loss'], rate)
  info = {
    'loss': jnp.concatenate([contrast['loss'], repair['loss']]),
    'learning_rate': jnp.concatenate([contrast['learning_rate'], constant]),
  }
  return State(repaired.variables, fit.opt, repaired.opt), info


def _contrast_pass(
  hparams: Hparams, draws: Draws, problem: Problem, state: State, epoch: Array
) -> tuple[training.Fit, Info]:
  """Take one step per forget batch, each with a retain batch."""
  split, size = problem.split, hparams.batch_size
  forget = batches.shuffled(draws, 'forget', split.forget)
  retain = batches.shuffled(draws, 'retain', split.retain)
  pairs, steps = _pairs(forget, retain, size)
  num_steps = batches.num_steps(forget.shape[0], size)
  loss = _spread(hparams, problem)

  def step(fit, batch, draws):
    pair, t = batch
    rate = training.cosine(
      hparams.forget_learning_rate,
      epoch * num_steps + t,
      hparams.num_epochs * num_steps,
      hparams.floor_rate,
    )
    optimiser = training.sgd(
      rate, hparams.forget_momentum, hparams.forget_weight_decay
    )
    fit, value = training.descend(loss, optimiser, fit, pair, draws)
    return fit, (value, rate)

  full = jnp.arange(steps)
  tail = None if pairs.tail is None else (pairs.tail, jnp.asarray(steps))
  fit, (values, rates) = batches.fold(
    step,
    training.Fit(state.variables, state.forget_opt),
    batches.Batches((pairs.full, full), tail),
    draws,
  )
  return fit, {'loss': values, 'learning_rate': rates}


def _pairs(
  forget: Array, retain: Array, size: int
) -> tuple[batches.Batches, int]:
  """Pair the batches of two orders until the shorter one ends.

  Returns:
    Batches of (forget, retain) and the number of pairs of whole batches.
  """
  size_f, size_r = min(size, forget.shape[0]), min(size, retain.shape[0])
  steps = min(forget.shape[0] // size_f, retain.shape[0] // size_r)

  def head(index, size):
    return index[: steps * size].reshape(steps, size)

  rest = (
    forget[steps * size_f :][:size_f],
    retain[steps * size_r :][:size_r],
  )
  tail = rest if all(index.size for index in rest) else None
  full = head(forget, size_f), head(retain, size_r)
  return batches.Batches(full, tail), steps


def _spread(hparams: Hparams, problem: Problem) -> training.Loss:
  task = problem.task

  def loss(variables, batch, draws):
    forget, retain = batch
    own, variables = forward.clean_train_logits(
      task, variables, forget, draws.at('forget')
    )
    others, variables = forward.clean_train_logits(
      task, variables, retain, draws.at('retain')
    )
    others = jax.lax.stop_gradient(others)
    similarity = own @ others.T / hparams.temperature
    return -jnp.mean(jax.nn.log_softmax(similarity, axis=1)), variables

  return loss


def _cost(h, n) -> float:
  steps = batches.num_steps(n.forget, h['batch_size'])
  contrast = 3 * n.forget + steps * h['batch_size']
  return 3 * n.forget + h['num_epochs'] * (contrast + 3 * n.retain)


METHOD = Method(
  name='fcs',
  Hparams=Hparams,
  init=init,
  epoch=epoch,
  card=Card(
    title='Forget-Contrast-Strengthen',
    label='FCS',
    citation='Cadet et al. 2024, arXiv 2410.01276 (challenge: 1st place)',
    cost=_cost,
    reads=('retain', 'forget'),
  ),
)
