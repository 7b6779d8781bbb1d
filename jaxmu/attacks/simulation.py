"""Simulated populations with a known leak, for examples and tests of attacks.

Splits come in complementary pairs, forget sets partition each training half,
and log-odds are Gaussian: examples differ in difficulty, models of a split are
correlated, and forgotten examples are shifted by the leak.
"""

import numpy as np
from jaxtyping import Float64, Int, Int8


def states(
  rng: np.random.Generator, splits: int, draws: int, examples: int
) -> tuple[Int8[np.ndarray, 'P N'], Int[np.ndarray, ' P']]:
  """Draw complementary splits and forget sets.

  Args:
    rng: source of randomness.
    splits: an even number.
    draws: forget sets of each split; they partition the training half.
    examples: N.

  Returns:
    The state of each model (P = splits * draws) and its split.
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


def locations(
  rng: np.random.Generator, examples: int
) -> tuple[Float64[np.ndarray, ' N'], Float64[np.ndarray, ' N']]:
  """Draw means and scales of examples of different difficulty."""
  mean = 3 * rng.standard_normal(examples)
  return mean, np.exp(0.5 * rng.standard_normal(examples))


def noise(
  rng: np.random.Generator,
  split: Int[np.ndarray, ' P'],
  examples: int,
  *,
  within: float = 0.7,
) -> Float64[np.ndarray, 'P N']:
  """Draw standard normal numbers with correlation `within` inside a split."""
  shared = rng.standard_normal((split.max() + 1, examples))[split]
  single = rng.standard_normal((len(split), examples))
  return np.sqrt(within) * shared + np.sqrt(1 - within) * single


def scores(
  rng: np.random.Generator,
  state: Int8[np.ndarray, 'P N'],
  split: Int[np.ndarray, ' P'],
  *,
  shift: float = 0.0,
  within: float = 0.7,
) -> Float64[np.ndarray, 'P N']:
  """Draw log-odds, shifted by `shift` deviations where forgotten."""
  examples = state.shape[1]
  mean, scale = locations(rng, examples)
  noisy = noise(rng, split, examples, within=within)
  return mean + scale * (noisy + shift * (state == 1))


def arrays(
  *,
  shift: float = 0.0,
  seed: int = 0,
  splits: int = 16,
  examples: int = 80,
  classes: int = 3,
) -> dict[str, np.ndarray]:
  """Simulate the contents of a file of scores.

  Args:
    shift: the leak of the unlearned models; retrained models have none.
    seed: of all draws.
    splits: each with two forget sets.
    examples: of the pool. A tenth as many are added that are excluded in every
      model.
    classes: of the logits.

  Returns:
    Arrays for `scores.from_arrays`: 'logits' and 'retrained_logits' f32[P, N,
    C], 'labels', 'state' and 'split'.

  Example:
    >>> from jaxmu.attacks import registry, scores
    >>> data = scores.from_arrays(arrays(shift=2.0))
    >>> auc = registry.run(data, ['ulira'], fprs=())[0]
    >>> auc.estimate.low > 0.5
    True
  """
  rng = np.random.default_rng(seed)
  state, split = states(rng, splits, 2, examples)
  excluded = max(examples // 10, 1)
  state = np.pad(state, ((0, 0), (0, excluded)), constant_values=3)
  number = examples + excluded
  labels = rng.integers(0, classes, number)
  mean, scale = locations(rng, number)
  contents = {'labels': labels, 'state': state, 'split': split}
  for key, leak in (('logits', shift), ('retrained_logits', 0.0)):
    z = rng.normal(0, 0.1, (*state.shape, classes))
    noisy = noise(rng, split, number)
    z[:, np.arange(number), labels] = mean + scale * (
      noisy + leak * (state == 1)
    )
    contents[key] = z.astype(np.float32)
  return contents
