"""A classifier on all one-model signals together.

What loss, entropy and the others know jointly about one model: scores of
held-out examples from five-fold cross-validation, so that each example is
judged by a classifier that has not seen it. Still one rule for all examples.
"""

from typing import Literal

import numpy as np
from scipy import special
from sklearn import ensemble, model_selection

Kind = Literal['logistic', 'gbm']
FOLDS = 5
_STEPS = 50


def combined(
  features: np.ndarray,
  member: np.ndarray,
  *,
  kind: Kind = 'logistic',
  seed: int = 0,
) -> np.ndarray:
  """Computes held-out scores of one model's examples.

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
    raise ValueError(f"kind is {kind!r}; use 'logistic' or 'gbm'.")
  member = np.asarray(member, bool)
  if min(member.sum(), (~member).sum()) < FOLDS:
    raise ValueError(
      f'{member.sum()} members and {(~member).sum()} others; {FOLDS} of each '
      'are needed.'
    )
  folds = model_selection.StratifiedKFold(
    FOLDS, shuffle=True, random_state=seed
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
