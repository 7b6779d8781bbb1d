"""Synthetic populations with a known answer, for the tests of attacks."""

import numpy as np


def states(rng, splits, draws, examples):
  """Complementary split pairs, forget sets that partition the training half.

  Returns:
    int8[splits * draws, examples] and the split of each model.
  """
  state = np.zeros((splits * draws, examples), np.int8)
  for pair in range(splits // 2):
    order = rng.permutation(examples)
    halves = order[: examples // 2], order[examples // 2 :]
    for side in (0, 1):
      parts = np.array_split(rng.permutation(halves[side]), draws)
      for draw, part in enumerate(parts):
        model = (2 * pair + side) * draws + draw
        state[model, halves[1 - side]] = 2
        state[model, part] = 1
  return state, np.repeat(np.arange(splits), draws)


def locations(rng, examples):
  """Means and scales f64[N] of examples of different difficulty."""
  mean = 3 * rng.standard_normal(examples)
  return mean, np.exp(0.5 * rng.standard_normal(examples))


def noise(rng, group, examples, *, within=0.7):
  """Standard normal f64[P, N], correlated within splits."""
  shared = rng.standard_normal((group.max() + 1, examples))[group]
  own = rng.standard_normal((len(group), examples))
  return np.sqrt(within) * shared + np.sqrt(1 - within) * own


def scores(rng, state, group, *, shift=0.0, within=0.7):
  """Gaussian scores, correlated within splits, shifted where forgotten."""
  examples = state.shape[1]
  mean, scale = locations(rng, examples)
  noisy = noise(rng, group, examples, within=within)
  return mean + scale * (noisy + shift * (state == 1))


def by_name(results):
  """Estimates by attack and name: 'auc', 'retrained_auc', 'excess_auc', …"""
  found = {}
  for result in results:
    prefix = '' if result.population == 'unlearned' else f'{result.population}_'
    found[result.attack, prefix + result.statistic] = result.estimate
    if result.population == 'unlearned' and result.excess is not None:
      found[result.attack, f'excess_{result.statistic}'] = result.excess
  return found
