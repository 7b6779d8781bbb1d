"""RMIA: confidence relative to reference models (Zarifzadeh et al. 2024).

    LR(x, z) = [p(x) / pbar(x)] / [p(z) / pbar(z)]
    score(x) = share of population examples z with LR(x, z) >= gamma

p is the true-class probability under the scored model, pbar its mean over
reference models. For unlearning, "in" means forgotten by the unlearner and
"out" never seen; z are examples that no model has seen. One to four reference
models are enough. The attack is one-sided: over-unlearned examples look like
non-members, so combine it with two-sided attacks.

Everything is computed in log space. Ties at the top are broken by x's ratio,
below the quantum 1/|Z|, since a leaky model would otherwise tie all its members
at 1, where no threshold of a low FPR separates them.
"""

from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Float64, Int8, Integer

from jaxmu.attacks import leave_out, log_odds
from jaxmu.attacks.interface import (
  ROC_TERMS,
  UNSCORED,
  Card,
  from_score,
  unscored,
)

Rule = Literal['online', 'offline']


def rmia(
  score: Float[np.ndarray, 'P N *A'],
  state: Int8[np.ndarray, 'P N'],
  group: Integer[np.ndarray, ' P'],
  *,
  population: Bool[np.ndarray, ' N'] | None = None,
  rule: Rule = 'offline',
  a: float = 0.3,
  gamma: float = 1.0,
  mode: leave_out.Mode = 'logo',
) -> tuple[Float64[np.ndarray, 'P N'], Bool[np.ndarray, 'P N']]:
  """Compute RMIA scores of every (model, example).

  Args:
    score: float[P, N] or float[P, N, A] log-odds (scores are averaged over A).
    state: int8[P, N], 1 in, 2 out; others are not scored.
    group: int[P], whose models are never each other's references.
    population: bool[N], the examples z; those of state 3 in every model if
      None.
    rule: 'online', pbar = (mean_in p + mean_out p) / 2; 'offline' needs out
      models only, with mean_in p taken as a mean_out p + 1 - a.
    a: of the offline rule, 0.3 as in the paper's experiments.
    gamma: threshold of the ratio.
    mode: see `leave_out.make_units`.

  Returns:
    Scores f64[P, N] in [0, 1 + 1/|Z|), NaN where unscored (no reference of a
    needed kind), and bool[P, N]. No threshold is known in advance.

  Raises:
    ValueError: no population examples, or an option out of range.
  """
  score, state, group = map(np.asarray, (score, state, group))
  _check(rule, a, gamma)
  if population is None:
    population = np.all(state == log_odds.EXCLUDED, axis=0)
  population = np.asarray(population, bool)
  if not population.any():
    raise ValueError(
      'RMIA needs population examples that no model has seen (state 3 in '
      'every model); there are none. Pass `population`'
    )
  if (state[:, population] < log_odds.NEVER_SEEN).any():
    raise ValueError(
      'some population examples were trained on (state 0 or 1); RMIA compares '
      'with examples that no model has seen'
    )
  views = score[..., None] if score.ndim == 2 else score
  total = np.zeros(state.shape)
  for view in np.moveaxis(views, 2, 0):
    total += _one_view(view, state, group, population, rule, a, gamma, mode)
  total /= views.shape[2]
  return total, ~np.isnan(total)


def _one_view(score, state, group, population, rule, a, gamma, mode):
  log_p = log_odds.log_confidence(score)
  units = leave_out.make_units(group, mode)
  out = np.full(state.shape, np.nan)
  # Population examples may lack scores, for example those of failed models.
  unseen = (state == log_odds.NEVER_SEEN) | (population & np.isfinite(log_p))
  log_out = _log_mean(log_p, unseen, units)
  if rule == 'online':
    log_in = _log_mean(log_p, state == log_odds.FORGOTTEN, units)
    both = _log_sum(log_in, log_out) - np.log(2)
    log_bar = np.where(population, log_out, both)
  else:
    log_bar = _log_sum(np.log((1 + a) / 2) + log_out, _log((1 - a) / 2))
  for u, rows in enumerate(units.slices()):
    for m in units.order[rows]:
      rho = log_p[m] - log_bar[u]
      used = leave_out.scored(state[m]) & np.isfinite(rho)
      out[m, used] = _dominance(rho[used], rho[population], gamma)
  return out


def _log_sum(first: np.ndarray, second: np.ndarray | float) -> np.ndarray:
  with np.errstate(invalid='ignore'):  # NaN where there is no reference model
    return np.logaddexp(first, second)


def _log(x: float) -> float:
  return float(np.log(x)) if x > 0 else -np.inf


def _log_mean(log_p, where, units) -> np.ndarray:
  """Return the log of the mean p over some models without each unit, f64[U, N].

  NaN where no reference model is left.
  """
  top = np.where(where, log_p, -np.inf).max(axis=0)
  top = np.where(np.isfinite(top), top, 0.0)
  p = np.where(where, np.exp(np.minimum(log_p - top, 0.0)), 0.0)
  rows = [units.order[part] for part in units.slices()]
  sums = np.stack([p[r].sum(axis=0) for r in rows])
  counts = np.stack([where[r].sum(axis=0) for r in rows])
  if units.left_out:
    sums, counts = _without_each(sums), _without_each(counts)
  with np.errstate(invalid='ignore', divide='ignore'):
    mean = np.maximum(sums, np.finfo(np.float64).tiny) / counts
    return np.where(counts > 0, top + np.log(mean), np.nan)


def _without_each(sums: np.ndarray) -> np.ndarray:
  """Return the sums without each row; added up, since differences cancel."""
  zero = np.zeros_like(sums[:1])
  before = np.concatenate([zero, np.cumsum(sums, axis=0)[:-1]])
  after = np.cumsum(sums[::-1], axis=0)[::-1]
  return before + np.concatenate([after[1:], zero])


def _dominance(rho_x, rho_z, gamma) -> np.ndarray:
  """Share of z with LR >= gamma, plus a tie-break below the quantum."""
  rho_z = np.sort(rho_z[np.isfinite(rho_z)])
  count = np.searchsorted(rho_z, rho_x - np.log(gamma), 'right')
  within = 0.5 * (1 + rho_x / (1 + abs(rho_x)))  # increasing, in (0, 1)
  return (count + within) / max(len(rho_z), 1)


def _check(rule: str, a: float, gamma: float) -> None:
  if rule not in ('online', 'offline'):
    raise ValueError(f"rule is {rule!r}; use 'online' or 'offline'")
  if not 0 <= a <= 1:
    raise ValueError(f'a is {a}; it must be in [0, 1]')
  if not gamma > 0:
    raise ValueError(f'gamma is {gamma}; it must be positive')


RMIA = from_score(
  'rmia',
  lambda population, data, options: rmia(
    population.log_odds,
    population.audited_state,
    population.group,
    population=population.population_examples,
  )[0],
  Card(
    title='RMIA',
    subject='the attack RMIA, one-sided,',
    source='Zarifzadeh et al. 2024',
    terms={**ROC_TERMS, 'unscored': UNSCORED},
    needs=('population_examples',),
  ),
  more=lambda score, population, options: {
    'unscored': unscored(score, population)
  },
)
