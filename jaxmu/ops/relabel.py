"""Training on random labels for the forget set, shared by SRL and SalUN."""

import jax.numpy as jnp
import numpy as np

from jaxmu.core.draws import Draws
from jaxmu.core.types import Array, Problem, Variables
from jaxmu.data import stream
from jaxmu.ops import fit, forward, losses

STREAMS = ('randomstate123', 'key')


def epoch_batches(
  problem: Problem, draws: Draws, batch_size: int, source: str
) -> stream.Batches:
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
  return stream.cut((index, label), batch_size)


def cross_entropy(problem: Problem) -> fit.Loss:
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
