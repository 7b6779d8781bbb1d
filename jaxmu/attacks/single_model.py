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

Logistic regression on one feature, many problems at once.

Minimises `w^2 / 2 + C sum softplus(-(2t - 1)(w x + b))`, the objective of
scikit-learn's `LogisticRegression`, by damped Newton steps in two unknowns.
scikit-learn's lbfgs stops at a gradient of about 0.03 with its default
tolerance; with a tight tolerance both agree to 1e-6.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from scipy import special
from sklearn import ensemble, model_selection

from jaxmu.attacks import intervals, log_odds, roc

SEED = 123
FOLDS = 10
TEST_FRACTION = 0.1

# Signals that log-odds do not determine; the others rank examples as the loss.
LOGIT_SIGNALS = ('entropy', 'modified_entropy', 'correctness')

Kind = Literal['logistic', 'gbm']
COMBINED_FOLDS = 5
_STEPS = 50


def population_mia(
  forget: np.ndarray, nonmember: np.ndarray, *, seed: int = SEED
) -> np.ndarray:
  """Compute the benchmark's MIA: accuracy of a one-feature classifier.

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
  """Shuffle both sides and cuts them to the length of the shorter one.

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
      f'population attack needs at least {FOLDS} of each'
    )
  sides = [forget[..., first[:n]], nonmember[..., second[:n]]]
  x = np.concatenate([np.asarray(s, np.float64) for s in sides], -1)
  return x, np.repeat([0, 1], n)


def cross_validated_accuracy(
  feature: np.ndarray, target: np.ndarray, *, seed: int = SEED
) -> np.ndarray:
  """Score logistic regressions on ten stratified random 90/10 splits.

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
    slope, intercept = fit_logistic(feature[..., train], target[train])
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
  """Compute the MIA of shuffled labels: its noise floor on these features.

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
  """Compute the classical one-model attack scores.

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
  """Return (1 - p_y) log p_y + sum_{k != y} p_k log(1 - p_k)."""
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
  fprs: Sequence[float] = roc.FPRS,
) -> dict[str, intervals.Estimate]:
  """Report one score as an attack, model by model.

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
    np.array([log_odds.FORGOTTEN, log_odds.NEVER_SEEN], np.int8),
    [forget.shape[1], nonmember.shape[1]],
  )
  state = np.broadcast_to(state, score.shape)
  report = roc.roc_report(score, state, group, fprs=fprs, threshold=None)
  means = intervals.group_means(population_mia(forget, nonmember), group)
  return {'mia': intervals.over_splits(means, bounds=(0.0, 1.0)), **report}


def combined(
  features: np.ndarray,
  member: np.ndarray,
  *,
  kind: Kind = 'logistic',
  seed: int = 0,
) -> np.ndarray:
  """Compute held-out scores of one model's examples from all signals.

  Five-fold cross-validation: each example is judged by a classifier that has
  not seen it. Still one rule for all examples.

  Args:
    features: f64[n, K] signals of `population.signals`, finite.
    member: bool[n].
    kind: 'logistic', on standardised features, or 'gbm', boosted trees (ten
      times slower).
    seed: of folds and trees.

  Returns:
    f64[n] log-odds of membership, larger for member; balanced classes are
    assumed, whatever their numbers.

  Raises:
    ValueError: unknown kind or fewer than five examples of a side.
  """
  if kind not in ('logistic', 'gbm'):
    raise ValueError(f"kind is {kind!r}; use 'logistic' or 'gbm'")
  member = np.asarray(member, bool)
  if min(member.sum(), (~member).sum()) < COMBINED_FOLDS:
    raise ValueError(
      f'{member.sum()} members and {(~member).sum()} others; '
      f'{COMBINED_FOLDS} of each are needed'
    )
  folds = model_selection.StratifiedKFold(
    COMBINED_FOLDS, shuffle=True, random_state=seed
  )
  fit = _gbm if kind == 'gbm' else _logistic
  # Both sides weigh the same, so that 0 is the even threshold.
  weight = np.where(member, 0.5 / member.mean(), 0.5 / (1 - member.mean()))
  out = np.empty(len(member))
  for train, test in folds.split(features, member):
    out[test] = fit(
      features[train], member[train], weight[train], features[test], seed
    )
  return out


def _gbm(x, member, weight, test, seed) -> np.ndarray:
  trees = ensemble.GradientBoostingClassifier(
    n_estimators=50, subsample=0.5, random_state=seed
  )
  return trees.fit(x, member, sample_weight=weight).decision_function(test)


def _logistic(x, member, weight, test, seed) -> np.ndarray:
  """Logistic regression with an L2 penalty of 1/2, by damped Newton steps."""
  del seed
  middle, scale = x.mean(axis=0), np.maximum(x.std(axis=0), 1e-12)
  design = _design((x - middle) / scale)
  sign = np.where(member, 1.0, -1.0)
  penalty = np.append(np.ones(x.shape[1]), 0.0)  # the intercept is free
  theta = np.zeros(design.shape[1])

  def objective(theta):
    loss = np.logaddexp(0.0, -sign * (design @ theta))
    return 0.5 * penalty @ theta**2 + weight @ loss

  value = objective(theta)
  for _ in range(_STEPS):
    wrong = special.expit(-sign * (design @ theta))
    gradient = penalty * theta - design.T @ (weight * sign * wrong)
    curvature = weight * wrong * (1 - wrong)
    hessian = (design.T * curvature) @ design + np.diag(penalty + 1e-9)
    step = np.linalg.solve(hessian, gradient)
    length = 1.0
    while objective(theta - length * step) > value and length > 1e-9:
      length *= 0.5
    theta = theta - length * step
    before, value = value, objective(theta)
    if before - value <= 1e-12 * abs(value):
      break
  return _design((test - middle) / scale) @ theta


def _design(x: np.ndarray) -> np.ndarray:
  return np.column_stack([x, np.ones(len(x))])


_LOGISTIC_STEPS = 100
_HALVINGS = 40


def fit_logistic(
  feature: np.ndarray, target: np.ndarray, *, c: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
  """Fit slope and intercept of each problem.

  Args:
    feature: float[..., n], finite.
    target: int[..., n], 0 or 1, both present in every problem.
    c: weight of the data against the penalty of the slope.

  Returns:
    Slope and intercept, f64[...] each.

  Raises:
    ValueError: a feature is not finite or a class is absent.
  """
  x = np.asarray(feature, np.float64)
  sign = 2.0 * np.broadcast_to(target, x.shape) - 1
  if not np.isfinite(x).all():
    raise ValueError(
      'the feature of the logistic regression is not finite; replace such '
      'scores with log_odds.replace_non_finite and report their count'
    )
  if (abs(sign.sum(-1)) == x.shape[-1]).any():
    raise ValueError('logistic regression needs both classes in every fit')
  shape = x.shape[:-1]
  x, sign = x.reshape(-1, x.shape[-1]), sign.reshape(-1, x.shape[-1])
  # The intercept is free, so centring changes nothing but the conditioning;
  # scaling is undone in the penalty.
  middle = x.mean(-1)
  scale = np.maximum(x.std(-1), 1e-300)
  theta = _newton((x - middle[:, None]) / scale[:, None], sign, scale, c)
  slope = theta[:, 0] / scale
  intercept = theta[:, 1] - slope * middle
  return slope.reshape(shape), intercept.reshape(shape)


def _objective(theta, x, sign, penalty, c):
  margin = sign * (theta[:, :1] * x + theta[:, 1:])
  loss = np.logaddexp(0.0, -margin).sum(-1)
  return 0.5 * penalty * theta[:, 0] ** 2 + c * loss


def _newton(x, sign, scale, c) -> np.ndarray:
  """Return f64[problems, 2]: slope and intercept of the scaled feature."""
  with np.errstate(over='ignore', divide='ignore'):
    penalty = np.minimum(scale**-2.0, 1e300)
  theta = np.zeros((len(x), 2))
  value = _objective(theta, x, sign, penalty, c)
  for _ in range(_LOGISTIC_STEPS):
    step = _step(theta, x, sign, penalty, c)
    theta, value, moved = _line_search(theta, step, value, x, sign, penalty, c)
    if (moved < 1e-12).all():
      break
  return theta


def _step(theta, x, sign, penalty, c):
  margin = sign * (theta[:, :1] * x + theta[:, 1:])
  wrong = special.expit(-margin)
  pull = c * sign * wrong
  weight = c * wrong * (1 - wrong)
  gradient = np.stack(
    [penalty * theta[:, 0] - (pull * x).sum(-1), -pull.sum(-1)], -1
  )
  ww = penalty + (weight * x * x).sum(-1)
  wb = (weight * x).sum(-1)
  bb = weight.sum(-1) + 1e-12  # all but zero when every margin is huge
  determinant = np.maximum(ww * bb - wb * wb, 1e-300)
  return -np.stack(
    [
      (bb * gradient[:, 0] - wb * gradient[:, 1]) / determinant,
      (ww * gradient[:, 1] - wb * gradient[:, 0]) / determinant,
    ],
    -1,
  )


def _line_search(theta, step, value, x, sign, penalty, c):
  """Halves the steps of those problems whose objective would grow."""
  length = np.ones(len(theta))
  new = theta + step
  new_value = _objective(new, x, sign, penalty, c)
  for _ in range(_HALVINGS):
    worse = ~(new_value <= value + 1e-12 * abs(value))
    if not worse.any():
      break
    length[worse] *= 0.5
    new[worse] = theta[worse] + length[worse, None] * step[worse]
    new_value[worse] = _objective(
      new[worse], x[worse], sign[worse], penalty[worse], c
    )
  worse = ~(new_value <= value + 1e-12 * abs(value))
  new[worse], new_value[worse] = theta[worse], value[worse]
  return new, new_value, abs(new - theta).max(-1)
