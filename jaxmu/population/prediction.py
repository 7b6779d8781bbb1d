"""Score examples of a data set with every model of a population."""

import functools
from typing import Generic, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmu import precision
from jaxmu.data import batches
from jaxmu.methods.parts import forward, losses
from jaxmu.population.layout import Layout, map_members, pad, put, replicate
from jaxmu.types import Array, ArrayT, Task, Variables

PREDICTION_BATCH = 256


class Predictions(NamedTuple, Generic[ArrayT]):
  """Model outputs that attacks and metrics need.

  Attributes:
    log_odds: log(p / (1 - p)) of the true class; where logits are not finite,
      the most negative finite number. f32[P, N]
    correct: whether the largest logit is that of the true class. bool[P, N]
    finite: whether all logits are finite. bool[P, N]
  """

  log_odds: ArrayT
  correct: ArrayT
  finite: ArrayT


class Predictor:
  """The compiled program that scores populations, on all examples or some."""

  def __init__(self, task: Task, layout: Layout):
    self.layout = layout
    self._task = replicate(task, layout)
    self._build()

  def narrow(self) -> None:
    """Halve the chunk; the program is compiled again when it is needed."""
    self.layout = self.layout.halved()
    self._build()

  def _build(self) -> None:
    layout = self.layout
    self._program = jax.jit(
      lambda task, stacked: map_members(
        _score_chosen, task, stacked, layout=layout
      )
    )

  def run(
    self, variables: Variables, index: np.ndarray | None = None
  ) -> Predictions[np.ndarray]:
    """Score examples; clean images, evaluation mode, float32 outputs.

    Args:
      variables: models stacked along [P].
      index: i32[P, N] which examples each model is scored on, None for all of
        the data set in order.
    """
    size = jax.tree.leaves(variables)[0].shape[0]
    padded = put(pad((variables, index), self.layout), self.layout)
    result = self._program(self._task, padded)
    log_odds, correct, finite = (np.asarray(x)[:size] for x in result)
    return Predictions(log_odds, correct, finite)


def _score_chosen(
  task: Task, pair: tuple[Variables, Array | None]
) -> Predictions[Array]:
  variables, index = pair
  if index is None:
    index = jnp.arange(task.dataset.label.shape[0])
  table, _ = batches.padded_batches(index, PREDICTION_BATCH)
  score = functools.partial(_score, task, variables)
  with precision.products(task.precision):
    _, scores = jax.lax.scan(lambda _, index: (None, score(index)), None, table)
  return jax.tree.map(lambda x: x.reshape(-1)[: index.shape[0]], scores)


def _score(
  task: Task, variables: Variables, index: Array
) -> Predictions[Array]:
  images = forward.clean_images(task, index, forward.dtype_of(variables))
  logits = forward.eval_logits(task, variables, images).astype(jnp.float32)
  label = task.dataset.label[index]
  return predictions_from_logits(logits, label)


def predictions_from_logits(logits: Array, label: Array) -> Predictions[Array]:
  """Return the predictions of one model from its logits f32[N, C].

  Logits may be finite but so large that their differences are not, for example
  after a method that adds unbounded noise; such log-odds are clipped to the
  largest finite number of their sign.
  """
  finite = jnp.isfinite(logits).all(axis=1)
  largest = jnp.finfo(jnp.float32).max
  log_odds = jnp.clip(losses.log_odds(logits, label), -largest, largest)
  return Predictions(
    jnp.where(finite, log_odds, -largest),
    finite & (jnp.argmax(logits, axis=1) == label),
    finite,
  )
