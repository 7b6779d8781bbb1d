"""U-LiRA: is this example forgotten, or was it never seen?

For each example, Gaussians are fitted to the scores of the models that forgot
it (F) and of those that never saw it (N); the log-likelihood ratio of a model's
score is large where the model looks like one that once knew the example. The
scored model's whole split stays out of the fit. Specification: Carlini et al.
2022 (LiRA), Hayes et al. 2024 (U-LiRA), Kurmanji et al. 2023.

Which pair of hypotheses is tested is a matter of what is put into `state`; see
`jaxmu.attacks.arrange` for retrained models as the null, for members of the
training set, and for leakage of the retain set.

Unlike the reference, scores are log-odds instead of 0/1 correctness, the scored
observation is not part of its own fit, never-seen observations are scored too
(so that there is an FPR), and densities stay on the log scale. The reference's
own rule is `jaxmu.attacks.reference_ulira`.
"""

import dataclasses
import math

import numpy as np
from scipy import special

from jaxmu.attacks import moments, shrinkage, streaming


@dataclasses.dataclass(frozen=True)
class _Options:
  variance: shrinkage.Variance
  location: moments.Location
  prior_strength: float | None
  prior_count: float


def ulira(
  score: np.ndarray,
  state: np.ndarray,
  group: np.ndarray,
  *,
  mode: moments.Mode = 'logo',
  variance: shrinkage.Variance = 'shrink',
  location: moments.Location = 'mean',
  prior_strength: float | None = 6.0,
  prior_count: float = 1.0,
  target: np.ndarray | None = None,
  threads: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
  """Compute the log-likelihood ratio of every (model, example).

  Args:
    score: float[P, N] or float[P, N, A] (A augmentations, whose ratios are
      averaged), finite; log-odds unless the caller chose another statistic.
    state: int8[P, N], 1 forgotten (F), 2 never seen (N); others are ignored.
    group: int[P], what is left out together: the split or, in the design of
      complementary split pairs, the pair. May be coarser than the groups used
      for intervals, or equal to them.
    mode: see `moments.make_units`; only 'logo' is a valid test.
    variance: 'per_example'; 'global', pooled within examples; 'shrink',
      per-example shrunk towards the median over examples; 'student', the
      predictive t distribution with the shrunk scale; 'normal_inverse_gamma',
      the fully conjugate predictive t, which also shrinks the location towards
      the mean of F and N together.
    location: 'mean', or 'median' as in the public LiRA code.
    prior_strength: nu_0, the observations that the median variance counts for;
      None for empirical Bayes.
    prior_count: kappa_0, the same for the location, 'normal_inverse_gamma'.
    target: float, like `score`: models to be judged by the fit on `score`, for
      attackers whose shadow models differ from their target. Row p of it is
      judged without the group of p. Defaults to `score`.
    threads: worker threads; defaults to the number of processors.

  Returns:
    Ratios f64[P, N], NaN where unscored, and bool[P, N] where scored: state 1
    or 2, with two observations of each kind outside the left-out group. Decide
    "forgotten" above 0.

  Raises:
    ValueError: shapes that do not fit, unknown options, non-finite scores.
  """
  if variance not in shrinkage.VARIANCES:
    raise ValueError(
      f'variance is {variance!r}; choose one of {shrinkage.VARIANCES}'
    )
  options = _Options(variance, location, prior_strength, prior_count)

  def begin(view: streaming.View) -> streaming.Work:
    priors = shrinkage.priors(view, variance, prior_strength)
    return lambda part: _slab_ratio(view, options, priors, part)

  return streaming.run(
    begin, score, state, group, mode=mode, target=target, threads=threads
  )


def posterior(ratio: np.ndarray, *, prior: float = 0.5) -> np.ndarray:
  """Return P(member) = sigmoid(ratio + logit(prior))."""
  return special.expit(ratio + special.logit(prior))


def _slab_ratio(view, options, priors, part):
  x, target, c = view.slab(part)
  fits = [
    moments.leave_out(x, c, view.units, kind, location=options.location)
    for kind in shrinkage.KINDS
  ]
  scorable = (fits[0].count >= 2) & (fits[1].count >= 2)
  with np.errstate(invalid='ignore', divide='ignore'):
    if options.variance in ('student', 'normal_inverse_gamma'):
      densities = _student_densities(fits, priors, options)
      evaluate = _student_ratio
    else:
      densities = _quadratic(fits, priors, options)
      evaluate = _quadratic_ratio
    out = np.empty_like(x)
    for u, rows in enumerate(view.units.slices()):
      ratio = evaluate(target[rows], densities, u)
      used = streaming.scored(c[rows]) & scorable[u]
      out[rows] = np.where(used, ratio, np.nan)
  return out


def _quadratic(fits, priors, options):
  """Coefficients of the Gaussian ratio as a x^2 + b x + c, f64[U, K] each."""
  a = b = c = 0.0
  for sign, fit, prior in zip((1, -1), fits, priors, strict=True):
    v = shrinkage.shrink(fit, prior, options.variance)
    a = a - sign * 0.5 / v
    b = b + sign * fit.mean / v
    c = c - sign * 0.5 * (np.log(v) + fit.mean**2 / v)
  return a, b, c


def _quadratic_ratio(x, coefficients, u):
  a, b, c = coefficients
  return (a[u] * x + b[u]) * x + c[u]


def _student_densities(fits, priors, options):
  """Degrees, location, scale^2 and log constant of both predictive t's."""
  both = []
  pooled = sum(f.count * f.mean for f in fits) / sum(f.count for f in fits)
  for fit, prior in zip(fits, priors, strict=True):
    k, nu = fit.count, prior.strength[:, None]
    if options.variance == 'student':
      degrees = nu + k - 1
      location = fit.mean
      scale2 = shrinkage.shrink(fit, prior, 'student') * (1 + 1 / k)
    else:
      kappa0 = options.prior_count
      degrees = nu + k
      gap2 = (fit.mean - pooled) ** 2
      beta = 0.5 * (
        nu * prior.variance[:, None]
        + (k - 1) * fit.variance
        + kappa0 * k * gap2 / (kappa0 + k)
      )
      location = (kappa0 * pooled + k * fit.mean) / (kappa0 + k)
      kappa = kappa0 + k
      scale2 = beta * (kappa + 1) / (0.5 * degrees * kappa)
      scale2 = np.maximum(scale2, prior.floor)
    constant = (
      special.gammaln((degrees + 1) / 2)
      - special.gammaln(degrees / 2)
      - 0.5 * np.log(degrees * math.pi * scale2)
    )
    both.append((degrees, location, scale2, constant))
  return both


def _student_ratio(x, densities, u):
  total = 0.0
  for sign, density in zip((1, -1), densities, strict=True):
    degrees, location, scale2, constant = (part[u] for part in density)
    tail = np.log1p((x - location) ** 2 / (degrees * scale2))
    total = total + sign * (constant - 0.5 * (degrees + 1) * tail)
  return total
