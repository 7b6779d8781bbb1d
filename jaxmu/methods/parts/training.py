"""Gradient steps over a pass of data: what most methods' epochs consist of.

SGD and Adam with torch's semantics, as optax chains.

Weight decay is coupled and falls on every tensor; the learning rate of the
current step multiplies the whole momentum buffer. Every argument may be traced,
so an optimiser is rebuilt inside the program from the hyper-parameters.

Learning rates per epoch, with the epoch and the total as traced scalars.

Training on random labels for the forget set, shared by SRL and SalUN.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxmu.data import batches as batches_lib
from jaxmu.draws import Draws
from jaxmu.method import Info
from jaxmu.methods.parts import forward, losses
from jaxmu.types import Array, Params, Problem, Task, Variables

# (variables, batch, draws) -> (loss, variables with new running statistics)
Loss = Callable[[Variables, Any, Draws], tuple[Array, Variables]]


class Fit(NamedTuple):
  """A model in training, the state of the plain methods."""

  variables: Variables
  opt: optax.OptState


def start(variables: Variables) -> Fit:
  """Begin training with an empty momentum buffer."""
  return Fit(variables, sgd(0.0, 0.0, 0.0).init(variables['params']))


def descend(
  loss: Loss,
  optimiser: optax.GradientTransformation,
  variables: Variables,
  opt: optax.OptState,
  batch: Any,
  draws: Draws,
) -> tuple[Variables, optax.OptState, Array]:
  """Take one gradient step.

  Returns:
    New variables (parameters and running statistics), optimiser state, and the
    loss before the step.
  """

  def of_params(params):
    return loss({**variables, 'params': params}, batch, draws)

  params = variables['params']
  (value, after), grads = jax.value_and_grad(of_params, has_aux=True)(params)
  updates, opt = optimiser.update(grads, opt, params)
  return {**after, 'params': optax.apply_updates(params, updates)}, opt, value


def run_epoch(
  loss: Loss,
  optimiser: optax.GradientTransformation,
  variables: Variables,
  opt: optax.OptState,
  batches: batches_lib.Batches,
  draws: Draws,
) -> tuple[Variables, optax.OptState, Info]:
  """Take one gradient step per batch; the info holds the losses f[steps]."""

  def step(carry, batch, draws):
    variables, opt = carry
    variables, opt, value = descend(
      loss, optimiser, variables, opt, batch, draws
    )
    return (variables, opt), value

  (variables, opt), values = batches_lib.fold(
    step, (variables, opt), batches, draws
  )
  return variables, opt, {'loss': values}


def pad_with_mean(values: Array, count: Array | int, size: int) -> Array:
  """Make f[size] of the first `count` values, keeping their mean.

  What follows is their mean itself, so that passes of different lengths fit
  one array and its mean is that of the steps taken.
  """
  kept = jnp.arange(values.shape[0]) < count
  taken = jnp.maximum(jnp.sum(kept), 1).astype(values.dtype)
  mean = jnp.sum(jnp.where(kept, values, 0)) / taken
  rest = jnp.full((size - values.shape[0],), mean, values.dtype)
  return jnp.concatenate([jnp.where(kept, values, mean), rest])


def clean_cross_entropy(task: Task) -> Loss:
  """Return the training-mode cross-entropy on plain images of i32[B]."""

  def loss(variables, index, draws):
    images = forward.clean_images(task, index, forward.dtype_of(variables))
    logits, variables = forward.train_logits(task, variables, images, draws)
    label = task.dataset.label[index]
    return losses.cross_entropy(logits, label), variables

  return loss


def augmented_cross_entropy(task: Task, epoch_draws: Draws) -> Loss:
  """Return the training-mode cross-entropy on augmented images of i32[B]."""

  def loss(variables, index, draws):
    images = forward.augmented_images(
      task, index, forward.dtype_of(variables), epoch_draws
    )
    logits, variables = forward.train_logits(task, variables, images, draws)
    label = task.dataset.label[index]
    return losses.cross_entropy(logits, label), variables

  return loss


def retain_epoch(
  problem: Problem,
  draws: Draws,
  variables: Variables,
  opt: optax.OptState,
  optimiser: optax.GradientTransformation,
  batch_size: int,
) -> tuple[Variables, optax.OptState, Info]:
  """Take one shuffled pass of plain cross-entropy over the retain set."""
  order = batches_lib.shuffled(draws, 'retain', problem.split.retain)
  return run_epoch(
    clean_cross_entropy(problem.task),
    optimiser,
    variables,
    opt,
    batches_lib.make_batches(order, batch_size),
    draws,
  )


def sgd(
  learning_rate: Array | float,
  momentum: Array | float | None,
  weight_decay: Array | float,
  *,
  grad_scale: Params | None = None,
  trainable: Params | None = None,
) -> optax.GradientTransformation:
  """Build SGD with coupled weight decay and heavy-ball momentum.

  Args:
    learning_rate: step size.
    momentum: factor of the buffer u <- m u + g; no dampening, no Nesterov.
      None keeps no buffer.
    weight_decay: factor of the parameters that is added to the gradient.
    grad_scale: multiplies the gradient before decay and momentum, so that
      masked weights still decay (the masks of SalUN and MSG).
    trainable: 1 for tensors that train, 0 for frozen ones, which neither decay
      nor move (CF-k, EU-k, RNI); constant while the optimiser state lives.
  """
  # Every chain has the same five links, so that the state of one fits another.
  return optax.chain(
    scale_by_tree(grad_scale),
    optax.add_decayed_weights(weight_decay),
    scale_by_tree(trainable),
    optax.identity() if momentum is None else optax.trace(momentum),
    optax.scale(-learning_rate),
  )


def adam(
  learning_rate: Array | float, weight_decay: Array | float
) -> optax.GradientTransformation:
  """Build Adam whose weight decay is part of the gradient, as in torch.

  Decay rates 0.9 and 0.999, epsilon 1e-8 outside the root, bias-corrected.
  """
  return optax.chain(
    optax.add_decayed_weights(weight_decay),
    optax.scale_by_adam(b1=0.9, b2=0.999, eps=1e-8),
    optax.scale(-learning_rate),
  )


def scale_by_tree(factors: Params | None) -> optax.GradientTransformation:
  """Multiply updates by factors of the same tree; zero wins over NaN."""
  if factors is None:
    return optax.identity()

  def scale(updates: Any, params: Any = None) -> Any:
    del params
    return jax.tree.map(
      lambda u, f: jnp.where(f == 0, jnp.zeros_like(u), u * f), updates, factors
    )

  return optax.stateless(scale)


def cosine(
  learning_rate: Array, epoch: Array, num_epochs: Array, floor: float = 0.0
) -> Array:
  """Anneal from the full rate at epoch 0 towards `floor` at `num_epochs`."""
  share = (1 + jnp.cos(jnp.pi * epoch / num_epochs)) / 2
  return floor + (learning_rate - floor) * share


def triangle(learning_rate: Array, epoch: Array, num_epochs: Array) -> Array:
  """Rise linearly to the full rate in the middle, then fall linearly.

  Five epochs give 1/3, 2/3, 1, 2/3, 1/3 of the rate. Used by MSG.
  """
  peak = (num_epochs + 1) // 2
  rising = (epoch + 1) / peak
  falling = (num_epochs - epoch) / (num_epochs + 1 - peak)
  return learning_rate * jnp.where(epoch < peak, rising, falling)


def milestones(
  learning_rate: Array, time: Array, num_epochs: Array, factor: Array
) -> Array:
  """Multiply by `factor` once past 50, 80 and 90 percent of the epochs.

  A mark counts as passed when `time` is greater than it, marks being rounded
  down. SCRUB counts time from 1, so that even its first epoch may decay (with
  one epoch, by all three factors); CF-k and EU-k count from 0.
  """
  total = jnp.asarray(num_epochs)
  marks = (total // 2, 4 * total // 5, 9 * total // 10)
  passed = sum((time > mark).astype(int) for mark in marks)
  return learning_rate * factor**passed


LABEL_STREAMS = ('randomstate123', 'key')


def relabelled_batches(
  problem: Problem, draws: Draws, batch_size: int, source: str
) -> batches_lib.Batches:
  """Shuffle both sets together and relabel what is to be forgotten.

  Labels are uniform over all classes, the true one included.

  Args:
    problem: gives the sets.
    draws: place of this epoch.
    batch_size: B.
    source: 'randomstate123' for the reference's labels, one sequence that
      starts anew each epoch and is handed out in order of encounter; 'key' for
      fresh labels in every epoch.

  Returns:
    Batches of (example i32[B], label i32[B]).
  """
  split, classes = problem.split, problem.task.model.num_classes
  retain, forget = split.retain.shape[0], split.forget.shape[0]
  if source == 'randomstate123':
    random = np.random.RandomState(123).randint(0, classes, forget)
    labels = jnp.asarray(random, jnp.int32)
  else:
    labels = draws.integers('labels', (forget,), classes)
  order = draws.permutation('train', retain + forget)
  index = jnp.concatenate([split.retain, split.forget])[order]
  forgotten = order >= retain
  rank = jnp.cumsum(forgotten) - 1  # how many to be forgotten came before
  true = problem.task.dataset.label[index]
  label = jnp.where(forgotten, labels[jnp.maximum(rank, 0)], true)
  return batches_lib.make_batches((index, label), batch_size)


def relabelled_cross_entropy(problem: Problem) -> Loss:
  """Return the training-mode cross-entropy to given labels."""
  task = problem.task

  def loss(
    variables: Variables, batch: tuple[Array, Array], draws: Draws
  ) -> tuple[Array, Variables]:
    index, label = batch
    images = forward.clean_images(task, index, forward.dtype_of(variables))
    logits, variables = forward.train_logits(task, variables, images, draws)
    return losses.cross_entropy(logits, label), variables

  return loss
