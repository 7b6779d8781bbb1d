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


def scores(rng, state, group, *, shift=0.0, within=0.7):
  """Gaussian scores, correlated within splits, shifted where forgotten."""
  splits, examples = group.max() + 1, state.shape[1]
  mean = 3 * rng.standard_normal(examples)
  scale = np.exp(0.5 * rng.standard_normal(examples))
  shared = rng.standard_normal((splits, examples))[group]
  own = rng.standard_normal(state.shape)
  noise = np.sqrt(within) * shared + np.sqrt(1 - within) * own
  return mean + scale * (noise + shift * (state == 1))
