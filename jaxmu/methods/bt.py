"""Bad teacher (BT): imitate a random network on the forget set.

The student follows the original model on the retain set and a network of random
weights on the forget set, in training mode, with Adam at a constant learning
rate. Source: Chundawat et al. 2023, arXiv 2205.08096.

As in the reference: the loss is the Kullback-Leibler divergence divided by
batch size and number of classes, without the factor of the squared temperature;
the noisy teacher is a ResNet-18 whatever the student is (`noisy_arch='same'`
follows the paper); the whole retain set is used where the paper uses 30%.
Unlike the reference, whose members share one noisy teacher, each member has a
separate one unless members share a key; and if the student is a ResNet-18 of
another width or stem, so is the noisy teacher. A temperature of 0 is refused,
and both teachers run once on all examples (`Task.cache_teacher`).
"""

import dataclasses
from typing import Any, NamedTuple

import jax.numpy as jnp
import optax
from flax import struct

from jaxmu import hparams as hp
from jaxmu import models
from jaxmu.data import batches
from jaxmu.draws import Draws
from jaxmu.method import Card, Info, Method
from jaxmu.methods.parts import forward, losses, training
from jaxmu.types import Array, Problem, Task, Variables


@struct.dataclass
class Hparams:
  learning_rate: Array = hp.leaf(0.01, valid=hp.POSITIVE, search=hp.RATE)
  momentum: Array = hp.leaf(
    0.9, valid=hp.FRACTION, dead='Adam uses fixed decay rates'
  )
  weight_decay: Array = hp.leaf(0.0, valid=hp.NON_NEGATIVE, search=hp.RATE)
  temperature: Array = hp.leaf(1.0, valid=hp.POSITIVE, search=hp.TEMPERATURE)
  num_epochs: Array = hp.leaf(10, valid=hp.COUNT, search=hp.EPOCHS)
  batch_size: int = hp.static(256, valid=hp.AT_LEAST_ONE, search=hp.BATCH)
  noisy_arch: str = hp.static('resnet18', valid=('resnet18', 'same'))


class State(NamedTuple):
  """Student and teachers.

  Attributes:
    variables: the student.
    opt: Adam's moments.
    targets: logits to follow, retain set first, f[R + F, C], or None.
    noisy: the noisy teacher where `targets` is None, else None.
  """

  variables: Variables
  opt: optax.OptState
  targets: Array | None
  noisy: Variables | None


def init(hparams: Hparams, draws: Draws, problem: Problem) -> State:
  """Draw the noisy teacher and run both teachers."""
  split, size = problem.split, hparams.batch_size
  task = _noisy_task(hparams, problem)
  shape = task.dataset.image_shape
  noisy = draws.make('noisy', lambda key: models.init(task.model, key, shape))
  opt = training.adam(0.0, 0.0).init(problem.start['params'])
  if not task.cache_teacher:
    return State(problem.start, opt, None, noisy)
  targets = (
    forward.logits_table(problem.task, problem.start, split.retain, size),
    forward.logits_table(task, noisy, split.forget, size),
  )
  return State(problem.start, opt, jnp.concatenate(targets), None)


def _noisy_task(hparams: Hparams, problem: Problem) -> Task:
  task = problem.task
  if hparams.noisy_arch == 'same':
    return task
  return dataclasses.replace(task, model=forward.resnet18_like(task.model))


def epoch(
  hparams: Hparams, draws: Draws, problem: Problem, state: State, epoch: Array
) -> tuple[State, Info]:
  """Take one shuffled pass over both sets, each set with its teacher."""
  del epoch
  split = problem.split
  train = jnp.concatenate([split.retain, split.forget])
  order = draws.permutation('train', train.shape[0])
  forgotten = order >= split.retain.shape[0]
  batch = train[order], forgotten, forward.cached_rows(state.targets, order)
  return training.run_epoch(
    _imitate(hparams, problem, state.noisy),
    training.adam(hparams.learning_rate, hparams.weight_decay),
    state,
    batches.make_batches(batch, hparams.batch_size),
    draws,
  )


def _imitate(hparams: Hparams, problem: Problem, noisy: Any) -> training.Loss:
  task, original = problem.task, problem.start
  noisy_task = _noisy_task(hparams, problem)

  def loss(variables, batch, draws):
    index, forgotten, known = batch
    images = forward.clean_images(task, index, forward.dtype_of(variables))
    if known is None:
      good = forward.teacher_logits(task, original, images, None)
      bad = forward.teacher_logits(noisy_task, noisy, images, None)
      known = jnp.where(forgotten[:, None], bad, good)
    logits, variables = forward.train_logits(task, variables, images, draws)
    each = losses.divergences(known, logits, hparams.temperature)
    return jnp.mean(each) / logits.shape[1], variables

  return loss


METHOD = Method(
  name='bt',
  Hparams=Hparams,
  init=init,
  epoch=epoch,
  card=Card(
    title='Bad teacher',
    label='BT',
    citation='Chundawat et al. 2023, arXiv 2205.08096',
    # With a noisy teacher that costs as much as the student.
    cost=lambda h, n: 5 * h['num_epochs'] * (n.retain + n.forget),
    reads=('retain', 'forget'),
    small={'noisy_arch': 'same', 'learning_rate': 1e-3},
    paper={'noisy_arch': 'same'},
  ),
)
