"""Gradient steps over a pass of data: what most methods' epochs consist of."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxmu.core.draws import Draws
from jaxmu.core.method import Info
from jaxmu.core.types import Array, Problem, Task, Variables
from jaxmu.data import stream
from jaxmu.ops import forward, losses, optim

# (variables, batch, draws) -> (loss, variables with new running statistics)
Loss = Callable[[Variables, Any, Draws], tuple[Array, Variables]]


class Fit(NamedTuple):
  """A model in training, the state of the plain methods."""

  variables: Variables
  opt: optax.OptState


def start(variables: Variables) -> Fit:
  """Begin training with an empty momentum buffer."""
  return Fit(variables, optim.sgd(0.0, 0.0, 0.0).init(variables['params']))


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


def epoch(
  loss: Loss,
  optimiser: optax.GradientTransformation,
  variables: Variables,
  opt: optax.OptState,
  batches: stream.Batches,
  draws: Draws,
) -> tuple[Variables, optax.OptState, Info]:
  """Take one gradient step per batch; the info holds the losses f[steps]."""

  def step(carry, batch, draws):
    variables, opt = carry
    variables, opt, value = descend(
      loss, optimiser, variables, opt, batch, draws
    )
    return (variables, opt), value

  (variables, opt), values = stream.fold(step, (variables, opt), batches, draws)
  return variables, opt, {'loss': values}


def fill(values: Array, count: Array | int, size: int) -> Array:
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
  order = stream.shuffled(draws, 'retain', problem.split.retain)
  return epoch(
    clean_cross_entropy(problem.task),
    optimiser,
    variables,
    opt,
    stream.cut(order, batch_size),
    draws,
  )
