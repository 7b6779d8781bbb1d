"""Indiscernibility: how close a population attack is to guessing."""

import numpy as np

# sd(MIA) * sqrt(n) without any signal, for the mean of ten stratified random
# 90/10 splits of n + n examples, simulated: .35 for heavy-tailed features such
# as the losses of well-trained models, up to .57 for uniform ones.
HEAVY_TAILED = 0.346


def indiscernibility(mia: np.ndarray) -> np.ndarray:
  """Return Indisc = 1 - |2 MIA - 1|; 1 is best. Disc is 1 - Indisc.

  Args:
    mia: float[...] accuracy of the population attack, in [0, 1].

  Raises:
    ValueError: a value outside [0, 1].
  """
  mia = np.asarray(mia, np.float64)
  if ((mia < 0) | (mia > 1)).any():
    raise ValueError(f'MIA {mia} is not an accuracy in [0, 1]')
  return 1 - abs(2 * mia - 1)


def noise_floor(n: int, *, spread: float = HEAVY_TAILED) -> tuple[float, float]:
  """Return sd(MIA) and E[Indisc] when there is nothing to find.

  Differences in Indisc below one minus the second number mean nothing. For
  features that are not heavy-tailed the floor is worse; see
  `attacks.population.null_mia` for the floor of given losses.

  Args:
    n: examples on each side of the balanced attack.
    spread: sd(MIA) times the root of n.
  """
  sd = spread / np.sqrt(n)
  return float(sd), float(1 - 2 * sd * np.sqrt(2 / np.pi))
