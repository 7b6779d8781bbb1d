"""How far apart two models are, in parameters and in outputs.

Only trainable parameters count, not BatchNorm statistics. Weights that never
meet data (taps that only see padding) count too unless `live` leaves them out;
either way a distance is read next to that between two retrained models.
"""

from typing import Any

import jax
import numpy as np
from scipy import special


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
      `jaxmu.ops.taps.live` gives it; all by default.
  """
  return float(np.sqrt(_squares(params, live=live)))


def l2(first: Any, second: Any, live: Any = None) -> float:
  """Return the L2 distance of two trees of one structure; `live` as above."""
  return float(np.sqrt(_squares(first, second, live=live)))


def relative_l2(first: Any, second: Any, live: Any = None) -> float:
  """Return the L2 distance over the norm of the first."""
  return l2(first, second, live) / norm(first, live)


def normalised_l2(first: Any, second: Any, live: Any = None) -> float:
  """Return the L2 distance of both scaled to norm one, sqrt(2 - 2 cos)."""
  a, b = norm(first, live), norm(second, live)
  scaled = [
    jax.tree.map(lambda x, n=n: np.asarray(x, np.float64) / n, tree)
    for tree, n in ((first, a), (second, b))
  ]
  return l2(*scaled, live=live)


def kl(reference_logits: np.ndarray, logits: np.ndarray) -> np.ndarray:
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


def total_variation(first: np.ndarray, second: np.ndarray) -> np.ndarray:
  """Return the mean over examples of half the L1 distance of softmaxes."""
  p, q = (
    special.softmax(np.asarray(z, np.float64), -1) for z in (first, second)
  )
  return 0.5 * abs(p - q).sum(-1).mean(-1)


def disagreement(first: np.ndarray, second: np.ndarray) -> np.ndarray:
  """Return the share of examples with different predicted classes."""
  return (np.argmax(first, -1) != np.argmax(second, -1)).mean(-1)
