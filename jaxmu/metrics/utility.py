"""Top-1 accuracy on the four sets: RA, FA, VA, TA.

How far accuracies are from those of retraining: RetDev, ToW, SAPE.

RetDev is a sum of absolute relative errors. It also counts what is harmless or
good (retain or test accuracy above the retrained model's) and explodes where
the retrained forget accuracy is small, so the signed parts always go with it.

Indiscernibility: how close a population attack is to guessing.

Run-time efficiency: how much cheaper than retraining.

RTE = T_R / T_U, above 1 is faster than retraining. A job gives three: by the
clock with compilation and without (the median of `config.timing.repeats` runs),
and by counted passes through the network, a backward pass as two, which no
clock can distort. Search for hyper-parameters is charged to nobody.

How far apart two models are, in parameters and in outputs.

Only trainable parameters count, not BatchNorm statistics. Weights that never
meet data (taps that only see padding) count too unless `live` leaves them out;
either way a distance is read next to that between two retrained models.
"""

import math
from typing import Any, NamedTuple

import jax
import numpy as np
from scipy import special


def accuracy(correct: np.ndarray, where: np.ndarray) -> np.ndarray:
  """Return the fraction correct of a set of examples, f64[...].

  Args:
    correct: bool[..., N].
    where: bool, broadcastable to `correct`, the set.

  Raises:
    ValueError: the set is empty for some model.
  """
  correct = np.asarray(correct, bool)
  where = np.broadcast_to(where, correct.shape)
  size = where.sum(-1)
  if (size == 0).any():
    raise ValueError(
      'accuracy over an empty set of examples; check the masks of the split'
    )
  return (correct & where).sum(-1) / size


class Retention(NamedTuple):
  """Ratios to the retrained model and their distance from one, f64[...] each.

  Attributes:
    retain: RR = RA_U / RA_R.
    forget: FR = FA_U / FA_R.
    test: TR = TA_U / TA_R.
    deviation: RetDev = |RR - 1| + |FR - 1| + |TR - 1|, 0 is best.
  """

  retain: np.ndarray
  forget: np.ndarray
  test: np.ndarray
  deviation: np.ndarray


def accuracy_ratio(new: np.ndarray, reference: np.ndarray) -> np.ndarray:
  """Return new / reference of two accuracies.

  Raises:
    ValueError: a new accuracy outside [0, 1] or a reference outside (0, 1].
  """
  new, reference = (
    np.asarray(new, np.float64),
    np.asarray(reference, np.float64),
  )
  if not ((0 <= new) & (new <= 1)).all():
    raise ValueError(
      f'accuracies {new} are not all in [0, 1]; give shares, not percentages'
    )
  if not ((0 < reference) & (reference <= 1)).all():
    raise ValueError(
      f'reference accuracies {reference} are not all in (0, 1]; a retrained '
      'model that is always wrong gives no ratio'
    )
  return new / reference


def retention(
  new: tuple[np.ndarray, np.ndarray, np.ndarray],
  reference: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> Retention:
  """Compute ratios and RetDev, each model against its own retrained model.

  Args:
    new: (RA, FA, TA) of the unlearned models, float[...] each.
    reference: the same of the retrained models, paired entry by entry.
  """
  retain, forget, test = (
    accuracy_ratio(a, b) for a, b in zip(new, reference, strict=True)
  )
  deviation = abs(retain - 1) + abs(forget - 1) + abs(test - 1)
  return Retention(retain, forget, test, deviation)


def retention_of_means(
  new: tuple[np.ndarray, np.ndarray, np.ndarray],
  reference: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> Retention:
  """Compute the same from means over models (`RetDev_means`).

  As third-party tables of the benchmark do; never larger than the mean of the
  paired RetDev by much, and often smaller, since errors of opposite sign
  cancel.
  """
  (ra, fa, ta), (ra_r, fa_r, ta_r) = (
    [np.asarray(np.mean(part)) for part in parts] for parts in (new, reference)
  )
  return retention((ra, fa, ta), (ra_r, fa_r, ta_r))


def tug_of_war(
  new: tuple[np.ndarray, np.ndarray, np.ndarray],
  reference: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> np.ndarray:
  """Return ToW = prod (1 - |new - reference|) over RA, FA, TA; 1 is best.

  Zhao et al. 2024 (RUM).
  """
  product = np.ones(())
  for a, b in zip(new, reference, strict=True):
    product = product * (1 - abs(np.asarray(a, np.float64) - b))
  return product


def sape(a: np.ndarray, b: np.ndarray) -> np.ndarray:
  """Return the symmetric absolute percentage error, 100 |b - a| / (|a| + |b|).

  Zhang et al. 2023. Unlike the reference, which divides by zero, 0 where both
  are 0.
  """
  a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
  total = abs(a) + abs(b)
  return 100 * np.where(
    total > 0, abs(b - a) / np.where(total > 0, total, 1.0), 0.0
  )


# sd(MIA) * sqrt(n) without any signal, for the mean of ten stratified random
# 90/10 splits of n + n examples, simulated: .35 for heavy-tailed features such
# as the losses of well-trained models, up to .57 for uniform ones.
HEAVY_TAILED = 0.346


def indiscernibility(mia: np.ndarray) -> np.ndarray:
  """Return Indisc = 1 - |2 MIA - 1|; 1 is best. Disc is 1 - Indisc.

  Args:
    mia: float[...] accuracy of the population attack, in [0, 1].

  Raises:
    ValueError: a value outside [0, 1].
  """
  mia = np.asarray(mia, np.float64)
  if ((mia < 0) | (mia > 1)).any():
    raise ValueError(f'MIA {mia} is not an accuracy in [0, 1]')
  return 1 - abs(2 * mia - 1)


def noise_floor(n: int, *, spread: float = HEAVY_TAILED) -> tuple[float, float]:
  """Return sd(MIA) and E[Indisc] when there is nothing to find.

  Differences in Indisc below one minus the second number mean nothing. For
  features that are not heavy-tailed the floor is worse; see
  `attacks.population.null_mia` for the floor of given losses.

  Args:
    n: examples on each side of the balanced attack.
    spread: sd(MIA) times the root of n.
  """
  sd = spread / np.sqrt(n)
  return float(sd), float(1 - 2 * sd * np.sqrt(2 / np.pi))


def rte(reference_time: float, new_time: float) -> float:
  """Return T_R / T_U; infinity for a free method, NaN if both are free.

  Args:
    reference_time: of retraining, in seconds or passes.
    new_time: of the method, in the same unit.

  Raises:
    ValueError: a negative time.
  """
  if reference_time < 0 or new_time < 0:
    raise ValueError(
      f'times must not be negative, got {reference_time} and {new_time}'
    )
  if new_time == 0:
    return math.inf if reference_time > 0 else math.nan
  return reference_time / new_time


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
