"""Variances of few observations, with the help of all other examples.

A per-example variance of eight scores is off by half its size, which costs more
power at low FPR than anything else. `shrink` mixes it with the median variance
over examples; simulations with 8 to 64 splits find it never worse than either
extreme.
"""

import dataclasses
from typing import Literal

import numpy as np
from scipy import special

from jaxmu.attacks import arrange, moments, streaming

Variance = Literal[
  'per_example', 'global', 'shrink', 'student', 'normal_inverse_gamma'
]
VARIANCES: tuple[Variance, ...] = (
  'per_example',
  'global',
  'shrink',
  'student',
  'normal_inverse_gamma',
)
KINDS = (arrange.FORGOTTEN, arrange.NEVER_SEEN)

# Examples on which prior variances are estimated: a median needs no more.
_PRIOR_POINTS = 4096


@dataclasses.dataclass(frozen=True)
class Prior:
  """Typical variance of one state, per unit left out.

  Attributes:
    variance: f64[U] tau_0^2.
    strength: f64[U] nu_0, how many observations the prior is worth.
  """

  variance: np.ndarray
  strength: np.ndarray

  @property
  def floor(self) -> np.ndarray:
    """Smallest variance used, f64[U, 1]."""
    return np.maximum(1e-6 * self.variance, 1e-12)[:, None]


def fit_prior(fit: moments.Moments, strength: float | None) -> Prior:
  """Estimate the prior variance over examples.

  Args:
    fit: moments of many examples.
    strength: nu_0; the variance is then the median over examples. None fits
      both by empirical Bayes: the log variances of Gaussian samples have known
      mean and spread (digamma, trigamma), and what they spread beyond that
      gives nu_0 (Smyth 2004).
  """
  fits = [
    _fit_unit(v, k, strength)
    for v, k in zip(fit.variance, fit.count, strict=True)
  ]
  variance, nu = np.array(fits).T
  return Prior(variance, nu)


def _fit_unit(variance, count, strength) -> tuple[float, float]:
  known = np.isfinite(variance)
  if not known.any():
    return 1.0, 0.0 if strength is None else strength
  median = float(np.median(variance[known]))
  if strength is not None:
    return median, strength
  known &= variance > 1e-12 * max(median, 1e-300)
  half = (count[known] - 1) / 2
  if known.sum() < 2:
    return median, 0.0
  log_v = np.log(variance[known]) - special.digamma(half) + np.log(half)
  excess = log_v.var(ddof=1) - special.polygamma(1, half).mean()
  if excess <= 1e-6:  # no more spread than noise: one variance for all
    return float(np.exp(log_v.mean())), 1e6
  nu = 2 * _inverse_trigamma(excess)
  shift = special.digamma(nu / 2) - np.log(nu / 2)
  return float(np.exp(log_v.mean() + shift)), nu


def _inverse_trigamma(y: float) -> float:
  """Solve trigamma(x) = y by Newton steps on the convex 1 / trigamma."""
  x = 0.5 + 1 / y
  for _ in range(50):
    trigamma = special.polygamma(1, x)
    step = trigamma * (1 - trigamma / y) / special.polygamma(2, x)
    x += step
    if abs(step) < 1e-10 * x:
      break
  return float(x)


def priors(
  view: streaming.View, variance: Variance, strength: float | None
) -> list[Prior]:
  """Fit the priors of both kinds of observations, F then N.

  The median and the empirical Bayes fit are over at most 4,096 evenly spaced
  examples; 'global' sums over all of them.
  """
  if variance == 'global':
    return _pooled(view)
  examples = view.state.shape[1]
  count = min(examples, _PRIOR_POINTS)
  points = np.linspace(0, examples - 1, count).round().astype(int)
  x, _, c = view.slab(points)
  return [
    fit_prior(moments.leave_out(x, c, view.units, kind), strength)
    for kind in KINDS
  ]


def _pooled(view: streaming.View) -> list[Prior]:
  """Pool variances within examples: sum (k - 1) v / sum (k - 1)."""

  def sums(part: slice) -> list:
    x, _, c = view.slab(part)
    out = []
    for kind in KINDS:
      fit = moments.leave_out(x, c, view.units, kind)
      degrees = np.maximum(fit.count - 1, 0)
      squares = np.where(degrees > 0, degrees * fit.variance, 0.0)
      out.append((squares.sum(axis=1), degrees.sum(axis=1)))
    return out

  total = np.sum(list(view.pool.map(sums, view.columns)), axis=0)  # [2, 2, U]
  pooled = total[:, 0] / np.maximum(total[:, 1], 1)
  return [Prior(v, np.full_like(v, np.inf)) for v in pooled]


def shrink(
  fit: moments.Moments, prior: Prior, variance: Variance
) -> np.ndarray:
  """Return the variance to use, f64[U, K], floored at 1e-6 of the typical."""
  if variance == 'per_example':
    used = fit.variance
  elif variance == 'global':
    used = np.broadcast_to(prior.variance[:, None], fit.variance.shape)
  else:
    degrees = fit.count - 1
    nu, tau2 = prior.strength[:, None], prior.variance[:, None]
    used = (nu * tau2 + degrees * fit.variance) / (nu + degrees)
  return np.maximum(used, prior.floor)
