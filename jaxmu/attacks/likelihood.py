"""Likelihood-ratio attacks: U-LiRA, LiRA and LiRA-Forget.

For each example, Gaussians are fitted to the scores of the models that forgot
it (F) and of those that never saw it (N). The log-likelihood ratio of a model's
score is large where the model resembles those that forgot the example.
The scored model's group stays out of the fit. Sources: Carlini et al. 2022
(LiRA), Kurmanji et al. 2023, Pawelczyk et al. 2023 (LiRA-Forget), Hayes et al.
2024 (U-LiRA).

`ulira` computes the ratio; `state` decides which hypotheses it compares, see
`jaxmu.attacks.log_odds`. `lira_online` uses the options of the public LiRA
code, `lira_offline` needs never-seen scores only, `lira_forget` compares
unlearned with retrained models.

Unlike the reference, scores are log-odds instead of 0/1 correctness, the scored
observation is not part of the fit that scores it, never-seen observations are
scored too (so that there is an FPR), and densities stay on the log scale.
`reference_ulira` is the rule of the reference, for comparison only.

Unlike the public LiRA code, whose fixed-variance mode takes the deviation of
all in-scores together (which adds the spread between examples) and uses it for
the out-distribution too, `variance='global'` pools deviations within examples,
separately for in and out.
"""

import math
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Float64, Int8, Integer
from scipy import special, stats

from jaxmu.attacks import intervals, leave_out, log_odds, roc
from jaxmu.attacks.interface import (
  AGAINST_RETRAINED_TERMS,
  ROC_TERMS,
  UNSCORED,
  Attack,
  Card,
  Options,
  Report,
  from_score,
  unscored,
)
from jaxmu.attacks.scores import PopulationScores, Scores
from jaxmu.terms import BENCHMARK, Term


def ulira(
  score: Float[np.ndarray, 'P N *A'],
  state: Int8[np.ndarray, 'P N'],
  group: Integer[np.ndarray, ' P'],
  *,
  mode: leave_out.Mode = 'logo',
  variance: leave_out.Variance = 'shrink',
  location: leave_out.Location = 'mean',
  prior_strength: float | None = 6.0,
  prior_count: float = 1.0,
  target: Float[np.ndarray, 'P N *A'] | None = None,
  threads: int | None = None,
) -> tuple[Float64[np.ndarray, 'P N'], Bool[np.ndarray, 'P N']]:
  """Compute the log-likelihood ratio of every (model, example).

  Args:
    score: float[P, N] or float[P, N, A] (A augmentations, whose ratios are
      averaged), finite; log-odds unless the caller chose another statistic.
    state: int8[P, N], 1 forgotten (F), 2 never seen (N); others are ignored.
    group: int[P], what is left out together: the split or, in the design of
      complementary split pairs, the pair. May be coarser than the groups used
      for intervals, or equal to them.
    mode: see `leave_out.make_units`; only 'logo' is a valid test.
    variance: 'per_example'; 'global', pooled within examples; 'shrink',
      per-example shrunk towards the median over examples; 'student', the
      predictive t distribution with the shrunk scale; 'normal_inverse_gamma',
      the fully conjugate predictive t, which also shrinks the location towards
      the mean of F and N together.
    location: 'mean', or 'median' as in the public LiRA code.
    prior_strength: nu_0, the observations that the median variance counts for;
      None for empirical Bayes.
    prior_count: kappa_0, the same for the location, 'normal_inverse_gamma'.
    target: float, like `score`: models to be scored with the fit on `score`,
      for attackers whose shadow models differ from their target. Row p is
      scored without the group of p. Defaults to `score`.
    threads: worker threads; defaults to the number of processors.

  Returns:
    Ratios f64[P, N], NaN where unscored, and bool[P, N] where scored: state 1
    or 2, with two observations of each kind outside the left-out group. Decide
    "forgotten" above 0.

  Raises:
    ValueError: shapes that do not fit, unknown options, non-finite scores.
  """
  if variance not in leave_out.VARIANCES:
    raise ValueError(
      f'variance is {variance!r}; choose one of {leave_out.VARIANCES}'
    )

  def begin(view: leave_out.View) -> leave_out.Work:
    priors = leave_out.priors(view, variance, prior_strength)

    def work(part: slice) -> np.ndarray:
      x, x_target, c = view.slab(part)
      fits = [
        leave_out.leave_out(x, c, view.units, kind, location=location)
        for kind in leave_out.KINDS
      ]
      scorable = (fits[0].count >= 2) & (fits[1].count >= 2)
      out = np.empty_like(x)
      with np.errstate(invalid='ignore', divide='ignore'):
        if variance in ('student', 'normal_inverse_gamma'):
          fitted = _student_densities(fits, priors, variance, prior_count)
          evaluate = _student_ratio
        else:
          fitted = _quadratic(fits, priors, variance)
          evaluate = _quadratic_ratio
        for u, rows in enumerate(view.units.slices()):
          ratio = evaluate(x_target[rows], fitted, u)
          used = leave_out.scored(c[rows]) & scorable[u]
          out[rows] = np.where(used, ratio, np.nan)
      return out

    return work

  return leave_out.run_in_slices(
    begin, score, state, group, mode=mode, target=target, threads=threads
  )


def posterior(
  ratio: Float64[np.ndarray, '*S'], *, prior: float = 0.5
) -> Float64[np.ndarray, '*S']:
  """Return P(member) = sigmoid(ratio + logit(prior))."""
  return special.expit(ratio + special.logit(prior))


def _quadratic(fits, priors, variance):
  """Coefficients of the Gaussian ratio as a x^2 + b x + c, f64[U, K] each."""
  a = b = c = 0.0
  for sign, fit, prior in zip((1, -1), fits, priors, strict=True):
    v = leave_out.shrink(fit, prior, variance)
    a = a - sign * 0.5 / v
    b = b + sign * fit.mean / v
    c = c - sign * 0.5 * (np.log(v) + fit.mean**2 / v)
  return a, b, c


def _quadratic_ratio(x, coefficients, u):
  a, b, c = coefficients
  return (a[u] * x + b[u]) * x + c[u]


def _student_densities(fits, priors, variance, prior_count):
  """Degrees, location, scale^2 and log constant of both predictive t's."""
  both = []
  pooled = sum(f.count * f.mean for f in fits) / sum(f.count for f in fits)
  for fit, prior in zip(fits, priors, strict=True):
    k, nu = fit.count, prior.strength[:, None]
    if variance == 'student':
      degrees = nu + k - 1
      location = fit.mean
      scale2 = leave_out.shrink(fit, prior, 'student') * (1 + 1 / k)
    else:
      degrees = nu + k
      gap2 = (fit.mean - pooled) ** 2
      beta = 0.5 * (
        nu * prior.variance[:, None]
        + (k - 1) * fit.variance
        + prior_count * k * gap2 / (prior_count + k)
      )
      location = (prior_count * pooled + k * fit.mean) / (prior_count + k)
      kappa = prior_count + k
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


Side = Literal['one', 'two']


def lira_online(
  score: Float[np.ndarray, 'P N *A'],
  state: Int8[np.ndarray, 'P N'],
  group: Integer[np.ndarray, ' P'],
  *,
  target: Float[np.ndarray, 'P N *A'] | None = None,
) -> tuple[Float64[np.ndarray, 'P N'], Bool[np.ndarray, 'P N']]:
  """Compute the log-likelihood ratio of training members against others.

  Args:
    score: float[P, N] or float[P, N, A] of *trained* models.
    state: int8[P, N]; retained and forgotten are both members of training.
    group: int[P], left out together.
    target: float like `score`, scored instead of it. With originals as `score`
      and unlearned models as `target` this is the attack of the SCRUB paper
      (Kurmanji et al. 2023).

  Returns:
    Ratios f64[P, N], NaN where unscored, and bool[P, N]. To score forgotten
    examples alone, mask with the original `state`.
  """
  return ulira(
    score,
    log_odds.members(state),
    group,
    variance='per_example',
    location='median',
    target=target,
  )


def lira_forget(
  score: Float[np.ndarray, 'P N *A'],
  retrained: Float[np.ndarray, 'P N *A'],
  state: Int8[np.ndarray, 'P N'],
  group: Integer[np.ndarray, ' P'],
  *,
  retrained_state: Int8[np.ndarray, 'P N'] | None = None,
) -> tuple[
  Float64[np.ndarray, 'Q N'],
  Int8[np.ndarray, 'Q N'],
  Integer[np.ndarray, ' Q'],
]:
  """Compute the log-likelihood ratio of unlearned against retrained models.

  Args:
    score: float[P, N] or float[P, N, A] of unlearned models: the negative loss
      in the paper (`log_odds.statistic`).
    retrained: the same of models retrained without the same forget sets.
    state: int8[P, N].
    group: int[P].
    retrained_state: where it differs from `state` (models that failed).

  Returns:
    Ratios f64[2P, N], unlearned models first, then the states int8[2P, N] and
    groups int[2P] to report them with. Success of unlearning is a ROC on the
    diagonal.
  """
  both, states, groups = log_odds.against_retrained(
    score, retrained, state, group, retrained_state
  )
  ratio, _ = ulira(both, states, groups)
  return ratio, states, groups


def lira_offline(
  score: Float[np.ndarray, 'P N *A'],
  state: Int8[np.ndarray, 'P N'],
  group: Integer[np.ndarray, ' P'],
  *,
  side: Side = 'two',
  variance: leave_out.Variance = 'shrink',
) -> tuple[Float64[np.ndarray, 'P N'], Bool[np.ndarray, 'P N']]:
  """Compute how unlikely a score is among models that never saw the example.

  Args:
    score: float[P, N] or float[P, N, A]; scores of state 2 are fitted, of
      states 1 and 2 scored.
    state: int8[P, N].
    group: int[P], left out together.
    side: 'one' gives (score - mu) / sigma, of which the published score is the
      normal distribution function (which ties at 1); 'two' its absolute value,
      which also sees over-unlearned examples, *below* the never-seen ones.
    variance: 'per_example', 'global' or 'shrink'.

  Returns:
    Scores f64[P, N], NaN where unscored, and bool[P, N] where scored. No
    threshold is known in advance.

  Raises:
    ValueError: as `ulira`, or an unknown side.
  """
  if side not in ('one', 'two'):
    raise ValueError(f"side is {side!r}; use 'one' or 'two'")
  if variance not in ('per_example', 'global', 'shrink'):
    raise ValueError(
      f"variance is {variance!r}; offline takes 'per_example', 'global' or "
      "'shrink'"
    )

  def begin(view: leave_out.View) -> leave_out.Work:
    prior = leave_out.priors(view, variance, 6.0)[1]

    def work(part: slice) -> np.ndarray:
      x, _, c = view.slab(part)
      kind = log_odds.NEVER_SEEN
      fit = leave_out.leave_out(x, c, view.units, kind)
      with np.errstate(invalid='ignore', divide='ignore'):
        sigma = np.sqrt(leave_out.shrink(fit, prior, variance))
        distance = np.empty_like(x)
        for u, rows in enumerate(view.units.slices()):
          scaled = (x[rows] - fit.mean[u]) / sigma[u]
          used = leave_out.scored(c[rows]) & (fit.count[u] >= 2)
          distance[rows] = np.where(used, scaled, np.nan)
      return abs(distance) if side == 'two' else distance

    return work

  return leave_out.run_in_slices(begin, score, state, group, mode='logo')


def reference_ulira(
  correct: Bool[np.ndarray, 'P N'], state: Int8[np.ndarray, 'P N']
) -> Float64[np.ndarray, 'P N']:
  """Compute P(member) = N(c; F) / (N(c; F) + N(c; N)) as released.

  Not a calibrated test: the statistic is 0/1 correctness; the scored
  observation is part of the fit that scores it, which shows a leak where there
  is none; only forgotten observations are scored, so there is no
  false-positive rate; and where all models of a kind agree the deviation is 0
  and the score is NaN (more than half of CIFAR-10's examples at its
  accuracies).

  Args:
    correct: bool[P, N], whether the model classifies the example correctly.
    state: int8[P, N].

  Returns:
    f64[P, N]; for forgotten observations the score, or NaN where a deviation
    is 0 (or no never-seen model exists); NaN everywhere else.
  """
  c = np.asarray(correct, np.float64)
  forgotten = state == log_odds.FORGOTTEN
  densities = []
  with np.errstate(invalid='ignore', divide='ignore'):
    for kind in (forgotten, state == log_odds.NEVER_SEEN):
      count = kind.sum(axis=0)
      mean = np.where(kind, c, 0.0).sum(axis=0) / count
      square = np.where(kind, (c - mean) ** 2, 0.0).sum(axis=0) / count
      densities.append(stats.norm.pdf(c, mean, np.sqrt(square)))
    member = densities[0] / (densities[0] + densities[1])
  return np.where(forgotten, member, np.nan)


def _ulira_score(
  population: PopulationScores, data: Scores, options: Options
) -> Float64[np.ndarray, 'P N']:
  del data
  return ulira(
    population.log_odds,
    population.audited_state,
    population.group,
    **options.settings,
  )[0]


def _ulira_more(
  score: Float64[np.ndarray, 'P N'],
  population: PopulationScores,
  options: Options,
) -> Report:
  size = population.log_odds.size
  return {
    'unscored': unscored(score, population),
    'retain_auc': _retain_auc(population, options),
    'non_finite': intervals.point(population.non_finite, size),
  }


def _retain_auc(
  population: PopulationScores, options: Options
) -> intervals.Estimate:
  """Leakage of the retain set, which unlearning is not meant to reduce."""
  state, group = log_odds.retained(population.state), population.group
  if not (state == log_odds.FORGOTTEN).any():
    return intervals.point(np.nan, 0, 'no retained examples (state 0)')
  ratio, _ = ulira(population.log_odds, state, group, **options.settings)
  report = roc.roc_report(ratio, state, group, fprs=())
  return intervals.cross_fitted(report['auc'])


ULIRA = from_score(
  'ulira',
  _ulira_score,
  Card(
    title='U-LiRA',
    subject='the per-example attack U-LiRA',
    source='Hayes et al. 2024, with log-odds and leave-one-split-out',
    terms={
      **ROC_TERMS,
      'unscored': UNSCORED,
      'retain_auc': Term(
        'AUC on retained examples',
        'How often {attack} ranks a retained example above an unseen one; '
        'guessing gives 0.5.',
        'fraction',
        'half',
        source='',
      ),
      'non_finite': Term(
        'non-finite outputs',
        'Number of outputs, read by {attack}, that were infinite or NaN.',
        'count',
        'lower',
        source='',
      ),
    },
    settings=('mode', 'variance', 'location', 'prior_strength', 'prior_count'),
  ),
  threshold=0.0,
  cross_fitted=True,
  more=_ulira_more,
)

LIRA_ONLINE = from_score(
  'lira_online',
  lambda population, data, options: ulira(
    population.log_odds,
    population.audited_state,
    population.group,
    variance='per_example',
    location='median',
  )[0],
  Card(
    title='LiRA, online',
    subject='the likelihood-ratio attack LiRA with both hypotheses fitted',
    source='Carlini et al. 2022',
  ),
  threshold=0.0,
  cross_fitted=True,
)

# Not fitted on forgotten scores, so plain intervals are valid.
LIRA_OFFLINE = from_score(
  'lira_offline',
  lambda population, data, options: lira_offline(
    population.log_odds, population.audited_state, population.group
  )[0],
  Card(
    title='LiRA, offline',
    subject='the likelihood-ratio attack LiRA with only unseen examples fitted',
    source='Carlini et al. 2022',
  ),
)


def _lira_forget_report(
  population: PopulationScores, data: Scores, options: Options
) -> Report:
  retrained = data.retrained
  assert retrained is not None, 'the card says that it is needed'
  ratio, states, groups = lira_forget(
    log_odds.log_confidence(population.log_odds),
    log_odds.log_confidence(retrained.log_odds),
    population.state,
    population.group,
    retrained_state=retrained.state,
  )
  report = roc.roc_report(ratio, states, groups, fprs=options.fprs)
  return {k: intervals.cross_fitted(v) for k, v in report.items()}


LIRA_FORGET = Attack(
  'lira_forget',
  _lira_forget_report,
  Card(
    title='LiRA-Forget',
    subject='the attack LiRA-Forget',
    source='Pawelczyk et al. 2023',
    question='unlearned_or_retrained',
    terms=AGAINST_RETRAINED_TERMS,
    needs=('retrained',),
    populations=('unlearned',),
  ),
)


def _reference_report(
  population: PopulationScores, data: Scores, options: Options
) -> Report:
  del data, options
  correct = population.signals['correctness'] > 0.5
  score = reference_ulira(correct, population.state)
  forgotten = score[population.state == log_odds.FORGOTTEN]
  known = forgotten[~np.isnan(forgotten)]
  rate = float((known > 0.5).mean()) if len(known) else np.nan
  missing = len(forgotten) - len(known)
  return {
    'member_rate': intervals.point(rate, len(known)),
    'unscored': intervals.point(missing, len(forgotten)),
  }


ULIRA_REFERENCE = Attack(
  'ulira_reference',
  _reference_report,
  Card(
    title='U-LiRA as released with the benchmark',
    subject='the released variant of U-LiRA on correctness, fitted in sample,',
    source=f'{BENCHMARK}, released code',
    terms={
      'member_rate': Term(
        'share called members',
        'Share of the forgotten observations that {attack} calls members: a '
        'true-positive rate for which no false-positive rate is known.',
        'fraction',
        'retrained',
        source='',
      ),
      'unscored': UNSCORED,
    },
    needs=('correctness',),
    populations=('unlearned',),
  ),
)
