"""LiRA and its relatives (Carlini et al. 2022; Pawelczyk et al. 2023).

`online` fits in- and out-distributions as the public code does: per-example
Gaussians with a median location. `offline` needs models without the example
only. `lira_forget` compares unlearned with retrained models. All are
`ulira`'s machinery with other options; the scored model's group stays out.

Unlike the public LiRA code, whose fixed-variance mode takes the deviation of
all in-scores together (which adds the spread between examples) and uses it for
the out-distribution too, `variance='global'` pools deviations within examples,
separately for in and out.
"""

from typing import Literal

import numpy as np

from jaxmu.attacks import arrange, moments, shrinkage, streaming, ulira

Side = Literal['one', 'two']


def online(
  score: np.ndarray,
  state: np.ndarray,
  group: np.ndarray,
  *,
  variance: shrinkage.Variance = 'per_example',
  location: moments.Location = 'median',
  mode: moments.Mode = 'logo',
  target: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
  """Compute the log-likelihood ratio of training members against others.

  Args:
    score: float[P, N] or float[P, N, A] of *trained* models.
    state: int8[P, N]; retained and forgotten are both members of training.
    group: int[P], left out together.
    variance: 'per_example' or 'global' in the paper.
    location: 'median' in the public code, 'mean' in the paper.
    mode: see `moments.make_units`.
    target: float like `score`, judged instead of it. With originals as `score`
      and unlearned models as `target` this is the attack of the SCRUB paper
      (Kurmanji et al. 2023).

  Returns:
    Ratios f64[P, N], NaN where unscored, and bool[P, N]. To score forgotten
    examples alone, mask with the original `state`.
  """
  return ulira.ulira(
    score,
    arrange.members(state),
    group,
    mode=mode,
    variance=variance,
    location=location,
    target=target,
  )


def lira_forget(
  score: np.ndarray,
  retrained: np.ndarray,
  state: np.ndarray,
  group: np.ndarray,
  *,
  variance: shrinkage.Variance = 'shrink',
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Compute the log-likelihood ratio of unlearned against retrained models.

  Args:
    score: float[P, N] or float[P, N, A] of unlearned models: the negative loss
      in the paper (`log_odds.statistic`).
    retrained: the same of models retrained without the same forget sets.
    state: int8[P, N].
    group: int[P].
    variance: see `ulira`.

  Returns:
    Ratios f64[2P, N], unlearned models first, then the states int8[2P, N] and
    groups int[2P] to report them with. Success of unlearning is a ROC on the
    diagonal.
  """
  both, states, groups = arrange.against_retrained(
    score, retrained, state, group
  )
  ratio, _ = ulira.ulira(both, states, groups, variance=variance)
  return ratio, states, groups


def offline(
  score: np.ndarray,
  state: np.ndarray,
  group: np.ndarray,
  *,
  side: Side = 'two',
  variance: shrinkage.Variance = 'shrink',
  location: moments.Location = 'mean',
  prior_strength: float = 6.0,
) -> tuple[np.ndarray, np.ndarray]:
  """Compute how unlikely a score is among models that never saw the example.

  Args:
    score: float[P, N] or float[P, N, A]; scores of state 2 are fitted, of
      states 1 and 2 judged.
    state: int8[P, N].
    group: int[P], left out together.
    side: 'one' gives (phi - mu) / sigma, of which the published score is the
      normal distribution function (which ties at 1); 'two' its absolute value,
      which also sees over-unlearned examples, *below* the never-seen ones.
    variance: 'per_example', 'global' or 'shrink'.
    location: 'mean' or 'median'.
    prior_strength: nu_0 of 'shrink'.

  Returns:
    Scores f64[P, N], NaN where unscored, and bool[P, N] where scored. No
    threshold is known beforehand.

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

  def begin(view: streaming.View) -> streaming.Work:
    prior = shrinkage.priors(view, variance, prior_strength)[1]

    def work(part: slice) -> np.ndarray:
      x, _, c = view.slab(part)
      kind = arrange.NEVER_SEEN
      fit = moments.leave_out(x, c, view.units, kind, location=location)
      with np.errstate(invalid='ignore', divide='ignore'):
        sigma = np.sqrt(shrinkage.shrink(fit, prior, variance))
        z = np.empty_like(x)
        for u, rows in enumerate(view.units.slices()):
          z[rows] = (x[rows] - fit.mean[u]) / sigma[u]
          used = streaming.scored(c[rows]) & (fit.count[u] >= 2)
          z[rows] = np.where(used, z[rows], np.nan)
      return abs(z) if side == 'two' else z

    return work

  return streaming.run(begin, score, state, group, mode='logo')
