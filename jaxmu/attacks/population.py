"""Population attacks: one rule for all examples of one model.

They need a single model and no shadow models: members are the forget set,
non-members validation or test examples. Weak by design: the accuracy can be
one half while single examples are exposed, so read them next to U-LiRA.

`population_mia` is the benchmark's own attack (raw loss, logistic regression,
ten stratified 90/10 splits). Its target is the *retrained* model's value, not
exactly one half; `metrics.indiscernibility.noise_floor` says how far from one
half it falls without any signal.

Unlike the reference, the shuffle before truncation is seeded, and non-finite
losses are replaced and counted by the caller instead of raising.
"""

from collections.abc import Sequence

import numpy as np
from scipy import special
from sklearn import model_selection

from jaxmu.attacks import arrange, intervals, log_odds, logistic, roc_report

SEED = 123
FOLDS = 10
TEST_FRACTION = 0.1

# Signals that log-odds do not determine; the others rank examples as the loss.
LOGIT_SIGNALS = ('entropy', 'modified_entropy', 'correctness')


def population_mia(
  forget: np.ndarray, nonmember: np.ndarray, *, seed: int = SEED
) -> np.ndarray:
  """Computes the benchmark's MIA: accuracy of a one-feature classifier.

  Args:
    forget: float[..., F] one feature per example (raw cross-entropy in the
      benchmark); leading axes are models, all attacked at once.
    nonmember: float[..., V], same leading axes.
    seed: of the shuffle that truncates both sides to the shorter one, and of
      the ten stratified splits.

  Returns:
    Accuracy, f64[...].

  Raises:
    ValueError: a feature is not finite, or fewer than ten examples a side.
  """
  x, target = balanced_sample(forget, nonmember, seed=seed)
  return cross_validated_accuracy(x, target, seed=seed).mean(-1)


def balanced_sample(
  forget: np.ndarray, nonmember: np.ndarray, *, seed: int = SEED
) -> tuple[np.ndarray, np.ndarray]:
  """Shuffles both sides and cuts them to the length of the shorter one.

  Returns:
    Feature f64[..., 2n], forget first, and target int[2n]: 1 for non-members,
    as the reference has it (by symmetry it does not matter).
  """
  rng = np.random.RandomState(seed)
  second = rng.permutation(nonmember.shape[-1])  # drawn first, as there
  first = rng.permutation(forget.shape[-1])
  n = min(len(first), len(second))
  if n < FOLDS:
    raise ValueError(
      f'{len(first)} forget and {len(second)} non-member examples; the '
      f'population attack needs at least {FOLDS} of each.'
    )
  sides = [forget[..., first[:n]], nonmember[..., second[:n]]]
  x = np.concatenate([np.asarray(s, np.float64) for s in sides], -1)
  return x, np.repeat([0, 1], n)


def cross_validated_accuracy(
  feature: np.ndarray, target: np.ndarray, *, seed: int = SEED
) -> np.ndarray:
  """Scores logistic regressions on ten stratified random 90/10 splits.

  Args:
    feature: float[..., n].
    target: int[n], 0 or 1.
    seed: of the splits (scikit-learn's `StratifiedShuffleSplit`).

  Returns:
    Accuracy on the held-out tenth, f64[..., 10].
  """
  splitter = model_selection.StratifiedShuffleSplit(
    FOLDS, test_size=TEST_FRACTION, random_state=seed
  )
  scores = []
  for train, test in splitter.split(np.zeros((len(target), 1)), target):
    slope, intercept = logistic.fit(feature[..., train], target[train])
    decision = slope[..., None] * feature[..., test] + intercept[..., None]
    scores.append(((decision > 0) == target[test]).mean(-1))
  return np.stack(scores, -1)


def null_mia(
  forget: np.ndarray,
  nonmember: np.ndarray,
  *,
  repeats: int = 100,
  seed: int = SEED,
) -> np.ndarray:
  """Computes the MIA of shuffled labels: its noise floor on these features.

  Args:
    forget: f64[F] features of one model.
    nonmember: f64[V].
    repeats: random relabellings.
    seed: of the relabellings.

  Returns:
    f64[repeats] accuracies without any signal.
  """
  rng = np.random.default_rng(seed)
  pooled = np.concatenate([forget, nonmember])
  shuffled = rng.permuted(np.tile(pooled, (repeats, 1)), axis=1)
  return population_mia(shuffled[:, : len(forget)], shuffled[:, len(forget) :])


def signals(logits: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
  """Computes the classical one-model attack scores.

  Args:
    logits: float[N, C], float[P, N, C] or float[P, N, A, C].
    labels: int[N].

  Returns:
    Arrays without the last axis of `logits`, all larger for more member-like:
    'loss' (negative cross-entropy), 'confidence' (p of the true class),
    'entropy' and 'modified_entropy' (negated; Song and Mittal 2021) and
    'correctness'. Non-finite logits give non-finite values.
  """
  phi = log_odds.log_odds(logits, labels)
  z = np.asarray(logits, np.float64)
  label = np.asarray(labels)
  label = label[:, None] if z.ndim == 4 else label
  label = np.broadcast_to(label, phi.shape)
  with np.errstate(invalid='ignore'):
    log_p = special.log_softmax(z, axis=-1)
  p = np.exp(log_p)
  return {
    'loss': log_odds.log_confidence(phi),
    'confidence': special.expit(phi),
    'entropy': special.xlogy(p, p).sum(-1),
    'modified_entropy': _modified_entropy(z, p, label, phi),
    'correctness': log_odds.statistic(logits, labels, kind='correctness'),
  }


def _modified_entropy(z, p, label, phi) -> np.ndarray:
  """Returns (1 - p_y) log p_y + sum_{k != y} p_k log(1 - p_k)."""
  with np.errstate(divide='ignore', invalid='ignore'):
    log_not_p = np.log1p(-p)
    # 1 - p cancels for the largest class alone; its log-odds do not.
    top = z.argmax(-1)
    log_not_top = log_odds.log_confidence(-log_odds.of_class(z, top))
  np.put_along_axis(log_not_p, top[..., None], log_not_top[..., None], -1)
  terms = p * log_not_p
  np.put_along_axis(terms, label[..., None], 0.0, -1)
  true_term = special.expit(-phi) * log_odds.log_confidence(phi)
  return true_term + terms.sum(-1)


def population_report(
  forget: np.ndarray,
  nonmember: np.ndarray,
  group: np.ndarray,
  *,
  fprs: Sequence[float] = roc_report.FPRS,
) -> dict[str, intervals.Estimate]:
  """Reports one score as an attack, model by model.

  Args:
    forget: float[P, F] scores, larger for more member-like.
    nonmember: float[P, V].
    group: int[P] clusters of the intervals.
    fprs: see `roc_report`.

  Returns:
    'mia', the benchmark's accuracy with this score as its feature, and the
    entries of `roc_report` (no a-priori threshold exists for a raw score).
  """
  score = np.concatenate([forget, nonmember], -1)
  state = np.repeat(
    np.array([arrange.FORGOTTEN, arrange.NEVER_SEEN], np.int8),
    [forget.shape[1], nonmember.shape[1]],
  )
  state = np.broadcast_to(state, score.shape)
  report = roc_report.roc_report(score, state, group, fprs=fprs, threshold=None)
  means = intervals.group_means(population_mia(forget, nonmember), group)
  return {'mia': intervals.over_splits(means, bounds=(0.0, 1.0)), **report}
