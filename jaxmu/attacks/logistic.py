"""Logistic regression on one feature, many problems at once.

Minimises `w^2 / 2 + C sum softplus(-(2t - 1)(w x + b))`, the objective of
scikit-learn's `LogisticRegression`, by damped Newton steps in two unknowns.
scikit-learn's lbfgs stops at a gradient of about 0.03 with its default
tolerance; with a tight tolerance both agree to 1e-6.
"""

import numpy as np
from scipy import special

_STEPS = 100
_HALVINGS = 40


def fit(
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
  for _ in range(_STEPS):
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
