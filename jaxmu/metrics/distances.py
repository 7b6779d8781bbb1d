"""Distances between two models, in weights and in outputs.

Only trainable parameters count, not BatchNorm statistics. Dead weights, which
only multiply padding, count unless `live` excludes them. Compare a distance
with the one between two retrained models.
"""

import math
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Float64
from scipy import special

from jaxmu.metrics.interface import Card
from jaxmu.terms import BENCHMARK, Term


def _squares(*trees: Any, live: Any = None) -> float:
  """Sum of squares of the first tree, minus the second if there is one."""
  if live is not None:
    trees = tuple(_live_only(tree, live) for tree in trees)
  total = 0.0
  leaves = [jax.tree.leaves(tree) for tree in trees]
  for parts in zip(*leaves, strict=True):
    difference = np.asarray(parts[0], np.float64)
    if len(parts) == 2:
      difference = difference - np.asarray(parts[1], np.float64)
    total += float(np.vdot(difference, difference))
  return total


def _live_only(params: Any, live: Any) -> Any:
  return jax.tree.map(lambda p, on: np.where(on, p, 0), params, live)


def norm(params: Any, live: Any = None) -> float:
  """Return the global L2 norm of a pytree, accumulated in float64.

  Args:
    params: the tree.
    live: which entries count, a tree of bool that broadcasts, as
      `jaxmu.methods.parts.weights.live_weights` gives it; all by default.
  """
  return float(np.sqrt(_squares(params, live=live)))


def l2(first: Any, second: Any, live: Any = None) -> float:
  """Return the L2 distance of two trees of one structure; `live` as above."""
  return float(np.sqrt(_squares(first, second, live=live)))


def relative_l2(first: Any, second: Any, live: Any = None) -> float:
  """Return the L2 distance over the norm of the first; NaN where that is 0."""
  length = norm(first, live)
  return l2(first, second, live) / length if length else math.nan


Logits = Float[np.ndarray, '*M N C']


def kl(reference_logits: Logits, logits: Logits) -> Float64[np.ndarray, '*M']:
  """Return the mean KL(R || U) over examples, in nats.

  Args:
    reference_logits: float[..., N, C] of the retrained model R.
    logits: the same of the other model U.

  Returns:
    f64[...].
  """
  log_r = special.log_softmax(np.asarray(reference_logits, np.float64), -1)
  log_u = special.log_softmax(np.asarray(logits, np.float64), -1)
  return (np.exp(log_r) * (log_r - log_u)).sum(-1).mean(-1)


def total_variation(first: Logits, second: Logits) -> Float64[np.ndarray, '*M']:
  """Return the mean over examples of half the L1 distance of softmaxes."""
  p, q = (
    special.softmax(np.asarray(z, np.float64), -1) for z in (first, second)
  )
  return 0.5 * abs(p - q).sum(-1).mean(-1)


def disagreement(first: Logits, second: Logits) -> Float64[np.ndarray, '*M']:
  """Return the share of examples with different predicted classes."""
  return (np.argmax(first, -1) != np.argmax(second, -1)).mean(-1)


_RELEASED = f'{BENCHMARK}, released code'

WEIGHTS = Card(
  title='Distances of weights',
  undefined='weights are not finite, or all are 0',
  terms={
    'distance_original': Term(
      'Distance from the original weights',
      'Euclidean distance of the weights from the original model, relative to '
      'the length of the weights; over the first eight models, without weights '
      'that only multiply padding.',
      'ratio',
      source=_RELEASED,
    ),
    'distance_retrained': Term(
      'Distance from the retrained weights',
      'Euclidean distance of the weights from the retrained model, relative to '
      'the length of the weights. Two retrained models are also far apart: '
      'the value of the retrained models compares each with the next one.',
      'ratio',
      source=_RELEASED,
    ),
  },
)

OUTPUTS = Card(
  title='Distances of outputs',
  needs=('retrained',),
  undefined='no example is forgotten, or none that both models never saw',
  terms={
    'outputs_kl': Term(
      'Outputs: divergence from retrained',
      'How far the predicted probabilities for forgotten images are from those '
      'of the retrained model, as a Kullback-Leibler divergence.',
      'nats',
      'retrained',
    ),
    'outputs_total_variation': Term(
      'Outputs: total variation from retrained',
      'How far the predicted probabilities for forgotten images are from those '
      'of the retrained model: half the sum of absolute differences, 0 to 1.',
      'fraction',
      'retrained',
    ),
    'outputs_disagreement': Term(
      'Outputs: disagreement with retrained',
      'Share of the forgotten images to which the model and the retrained '
      'model give different classes.',
      'fraction',
      'retrained',
    ),
  },
)

# Distances of outputs by name, each of (retrained logits, logits).
OUTPUT_DISTANCES = {
  'outputs_kl': kl,
  'outputs_total_variation': total_variation,
  'outputs_disagreement': disagreement,
}
