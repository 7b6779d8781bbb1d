"""Gradient steps: states, passes over data, losses, optimisers, learning rates.

An epoch of a plain method is `pass_over` with an optimiser that is rebuilt
from the hyper-parameters inside the compiled program, so that each of them may
be traced and differ per member. SGD and Adam have torch's semantics: weight
decay is added to the gradient of every tensor, and the learning rate of the
current step multiplies the whole momentum buffer.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, Self, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxmu.data import batches as batches_lib
from jaxmu.draws import Draws
from jaxmu.method import Info
from jaxmu.methods.parts import forward, losses
from jaxmu.types import Array, Params, Problem, Task, Variables

# (variables, batch, draws) -> (loss, variables with new running statistics);
# the draws are those of the step, None where nothing is drawn.
Loss = Callable[[Variables, Any, Draws | None], tuple[Array, Variables]]


class Fit(NamedTuple):
  """A model in training, the state of the plain methods."""

  variables: Variables
  opt: optax.OptState


class InTraining(Protocol):
  """A state with a model and its optimiser: `Fit` or a larger NamedTuple."""

  @property
  def variables(self) -> Variables: ...

  @property
  def opt(self) -> optax.OptState: ...

  def _replace(self, **changes: Any) -> Self: ...


S = TypeVar('S', bound=InTraining)


class Optimiser(NamedTuple):
  """An optax transformation with the learning rate that it was built with."""

  init: optax.TransformInitFn
  update: optax.TransformUpdateFn
  learning_rate: Array | float


def start(variables: Variables) -> Fit:
  """Begin training with an empty momentum buffer."""
  return Fit(variables, sgd(0.0, 0.0, 0.0).init(variables['params']))


def init(hparams: Any, draws: Draws, problem: Problem) -> Fit:
  """Begin training at the problem's weights: the `init` of plain methods."""
  del hparams, draws
  return start(problem.start)


class Edited(NamedTuple):
  """Edited weights, the state of methods without an optimiser to keep."""

  variables: Variables


def no_epoch(
  hparams: Any, draws: Draws, problem: Problem, state: Any, epoch: Array
) -> tuple[Any, Info]:
  """Do nothing: the `epoch` of methods whose `init` does all the work."""
  del hparams, draws, problem, epoch
  return state, {'loss': jnp.zeros(())}


def descend(
  loss: Loss, optimiser: Optimiser, fit: Fit, batch: Any, draws: Draws
) -> tuple[Fit, Array]:
  """Take one gradient step.

  Returns:
    The model with new parameters and running statistics and its optimiser
    state, and the loss before the step, f[].
  """
  variables, opt = fit

  def of_params(params):
    return loss({**variables, 'params': params}, batch, draws)

  params = variables['params']
  (value, after), grads = jax.value_and_grad(of_params, has_aux=True)(params)
  updates, opt = optimiser.update(grads, opt, params)
  params = optax.apply_updates(params, updates)
  return Fit({**after, 'params': params}, opt), value


def run_epoch(
  loss: Loss,
  optimiser: Optimiser,
  state: S,
  batches: batches_lib.Batches,
  draws: Draws,
) -> tuple[S, Info]:
  """Take one gradient step per batch.

  Args:
    loss: of the model on a batch.
    optimiser: of this epoch.
    state: has `variables` and `opt`; other fields are passed through.
    batches: what `loss` takes.
    draws: place of the epoch.

  Returns:
    The state after the epoch, and an info with the losses f[steps] and the
    learning rate.
  """

  def step(fit, batch, draws):
    return descend(loss, optimiser, fit, batch, draws)

  fit, values = batches_lib.fold(
    step, Fit(state.variables, state.opt), batches, draws
  )
  info = {'loss': values, 'learning_rate': optimiser.learning_rate}
  return state._replace(variables=fit.variables, opt=fit.opt), info


def pass_over(
  part: str,
  hparams: Any,
  draws: Draws,
  problem: Problem,
  state: S,
  optimiser: Optimiser,
  loss: Loss | None = None,
) -> tuple[S, Info]:
  """Take one shuffled pass over a set of the split; see `run_epoch`.

  Args:
    part: 'retain', 'forget', or 'train' for both together.
    hparams: have `batch_size`.
    draws: place of the epoch; the order is drawn under the name of the part.
    problem: data, split and model.
    state: has `variables` and `opt`; other fields are passed through.
    optimiser: of this epoch.
    loss: of the model on examples i32[B]; None for the cross-entropy in
      training mode on clean images.
  """
  split = problem.split
  if part == 'train':
    index = jnp.concatenate([split.retain, split.forget])
  else:
    index = getattr(split, part)
  order = batches_lib.shuffled(draws, part, index)
  return run_epoch(
    loss or cross_entropy(problem.task),
    optimiser,
    state,
    batches_lib.make_batches(order, hparams.batch_size),
    draws,
  )


def pad_with_mean(values: Array, count: Array | int, size: int) -> Array:
  """Make f[size] of the first `count` values, keeping their mean.

  The rest is filled with this mean, so that passes of different lengths fit one
  array, whose mean is that of the steps taken.
  """
  kept = jnp.arange(values.shape[0]) < count
  taken = jnp.maximum(jnp.sum(kept), 1).astype(values.dtype)
  mean = jnp.sum(jnp.where(kept, values, 0)) / taken
  rest = jnp.full((size - values.shape[0],), mean, values.dtype)
  return jnp.concatenate([jnp.where(kept, values, mean), rest])


def cross_entropy(task: Task, augment: Draws | None = None) -> Loss:
  """Return the mean cross-entropy of examples i32[B] in training mode.

  Args:
    task: data and model.
    augment: place of the epoch's augmentation; None for clean images.
  """

  def loss(variables, index, draws):
    images = _images(task, variables, index, augment)
    logits, variables = forward.train_logits(task, variables, images, draws)
    label = task.dataset.label[index]
    return losses.cross_entropy(logits, label), variables

  return loss


def weighted_cross_entropy(
  task: Task,
  held: Variables,
  *,
  attn_bias_mode: str,
  bn_mode: str = 'eval',
  augment: Draws | None = None,
) -> Loss:
  """Return the weighted mean cross-entropy of (examples i32[B], weights f[B]).

  Args:
    task: data and model.
    held: the network at the time of the switch to evaluation mode.
    attn_bias_mode: see `forward.held_logits`.
    bn_mode: 'eval' normalises with the stored statistics, 'train' with the
      batch and updates them.
    augment: place of the epoch's augmentation; None for clean images.
  """

  def loss(variables, batch, draws):
    index, weight = batch
    images = _images(task, variables, index, augment)
    if bn_mode == 'train':
      logits, variables = forward.train_logits(task, variables, images, draws)
    else:
      logits = forward.held_logits(
        task, variables, images, held=held, mode=attn_bias_mode
      )
    each = losses.cross_entropies(logits, task.dataset.label[index])
    weight = weight.astype(forward.dtype_of(variables))
    return losses.weighted_mean(each, weight), variables

  return loss


def _images(
  task: Task, variables: Variables, index: Array, augment: Draws | None
) -> Array:
  dtype = forward.dtype_of(variables)
  if augment is None:
    return forward.clean_images(task, index, dtype)
  return forward.augmented_images(task, index, dtype, augment)


def sgd(
  learning_rate: Array | float,
  momentum: Array | float | None,
  weight_decay: Array | float,
  *,
  grad_scale: Params | None = None,
  trainable: Params | None = None,
) -> Optimiser:
  """Build SGD with coupled weight decay and heavy-ball momentum.

  Args:
    learning_rate: step size.
    momentum: factor of the buffer u <- m u + g; no dampening, no Nesterov.
      None keeps no buffer.
    weight_decay: factor of the parameters that is added to the gradient.
    grad_scale: multiplies the gradient before decay and momentum, so that
      masked weights still decay (the masks of SalUN and MSG).
    trainable: 1 for tensors that train, 0 for frozen ones, which neither decay
      nor move (CF-k, EU-k, RNI); constant while the optimiser state is used.
  """
  # Every chain has the same five links, so that the state of one fits another.
  chain = optax.chain(
    scale_by_tree(grad_scale),
    optax.add_decayed_weights(weight_decay),
    scale_by_tree(trainable),
    optax.identity() if momentum is None else optax.trace(momentum),
    optax.scale(-learning_rate),
  )
  return Optimiser(chain.init, chain.update, learning_rate)


def sgd_from(
  hparams: Any, learning_rate: Array | float, grad_scale: Params | None = None
) -> Optimiser:
  """Build SGD with the `momentum` and `weight_decay` of hyper-parameters."""
  return sgd(
    learning_rate,
    hparams.momentum,
    hparams.weight_decay,
    grad_scale=grad_scale,
  )


def adam(
  learning_rate: Array | float, weight_decay: Array | float
) -> Optimiser:
  """Build Adam whose weight decay is part of the gradient, as in torch.

  Decay rates 0.9 and 0.999, epsilon 1e-8 outside the root, bias-corrected.
  """
  chain = optax.chain(
    optax.add_decayed_weights(weight_decay),
    optax.scale_by_adam(b1=0.9, b2=0.999, eps=1e-8),
    optax.scale(-learning_rate),
  )
  return Optimiser(chain.init, chain.update, learning_rate)


def scale_by_tree(factors: Params | None) -> optax.GradientTransformation:
  """Multiply updates by factors of the same tree; a factor 0 removes NaN."""
  if factors is None:
    return optax.identity()

  def scale(updates: Any, params: Any = None) -> Any:
    del params
    return jax.tree.map(
      lambda u, f: jnp.where(f == 0, jnp.zeros_like(u), u * f), updates, factors
    )

  return optax.stateless(scale)


def cosine(
  learning_rate: Array | float,
  epoch: Array | int,
  num_epochs: Array | int,
  floor: Array | float = 0.0,
) -> Array:
  """Anneal from the full rate at epoch 0 towards `floor` at `num_epochs`."""
  share = (1 + jnp.cos(jnp.pi * epoch / num_epochs)) / 2
  return floor + (learning_rate - floor) * share


def triangle(
  learning_rate: Array | float, epoch: Array | int, num_epochs: Array | int
) -> Array:
  """Rise linearly to the full rate in the middle, then fall linearly.

  Five epochs give 1/3, 2/3, 1, 2/3, 1/3 of the rate. Used by MSG.
  """
  peak = (num_epochs + 1) // 2
  rising = (epoch + 1) / peak
  falling = (num_epochs - epoch) / (num_epochs + 1 - peak)
  return learning_rate * jnp.where(epoch < peak, rising, falling)


def milestones(
  learning_rate: Array | float,
  time: Array | int,
  num_epochs: Array | int,
  factor: Array | float,
) -> Array | float:
  """Multiply by `factor` after 50, 80 and 90 percent of the epochs.

  A mark counts as passed when `time` is greater than it; marks are rounded
  down. SCRUB counts time from 1, so that even its first epoch may decay (with
  one epoch, by all three factors); CF-k and EU-k count from 0.
  """
  total = jnp.asarray(num_epochs)
  marks = (total // 2, 4 * total // 5, 9 * total // 10)
  passed = sum((time > mark).astype(int) for mark in marks)
  return learning_rate * factor**passed


LABEL_STREAMS = ('randomstate123', 'key')


def relabelled_pass(
  hparams: Any,
  draws: Draws,
  problem: Problem,
  state: S,
  optimiser: Optimiser,
) -> tuple[S, Info]:
  """Take one shuffled pass over both sets, the forget set with random labels.

  The epoch of SRL and SalUN: cross-entropy in training mode on clean images.

  Args:
    hparams: have `batch_size` and `relabel_stream`, see `relabelled_batches`.
    draws: place of the epoch.
    problem: data, split and model.
    state: has `variables` and `opt`; other fields are passed through.
    optimiser: of this epoch.
  """
  task = problem.task

  def loss(variables, batch, draws):
    index, label = batch
    logits, variables = forward.clean_train_logits(
      task, variables, index, draws
    )
    return losses.cross_entropy(logits, label), variables

  batches = relabelled_batches(
    problem, draws, hparams.batch_size, hparams.relabel_stream
  )
  return run_epoch(loss, optimiser, state, batches, draws)


def relabelled_batches(
  problem: Problem, draws: Draws, batch_size: int, stream: str
) -> batches_lib.Batches:
  """Shuffle both sets together and give the forget set random labels.

  Labels are uniform over all classes, the true one included.

  Args:
    problem: gives the sets.
    draws: place of this epoch.
    batch_size: B.
    stream: 'randomstate123' for the reference's labels, one sequence that
      starts again in each epoch and is used in the order of the shuffled
      examples; 'key' for fresh labels in every epoch.

  Returns:
    Batches of (example i32[B], label i32[B]).
  """
  split, classes = problem.split, problem.task.model.num_classes
  retain, forget = split.retain.shape[0], split.forget.shape[0]
  if stream == 'randomstate123':
    random = np.random.RandomState(123).randint(0, classes, forget)
    labels = jnp.asarray(random, jnp.int32)
  else:
    labels = draws.integers('labels', (forget,), classes)
  order = draws.permutation('train', retain + forget)
  index = jnp.concatenate([split.retain, split.forget])[order]
  forgotten = order >= retain
  rank = jnp.cumsum(forgotten) - 1  # forgotten examples before this one
  true = problem.task.dataset.label[index]
  label = jnp.where(forgotten, labels[jnp.maximum(rank, 0)], true)
  return batches_lib.make_batches((index, label), batch_size)
