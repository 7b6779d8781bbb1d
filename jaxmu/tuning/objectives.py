"""What a search minimises: four numbers per trial, and their norm.

  reference   |RA - RA_R| / 3, |FA - FA_R| / 3, |VA - VA_R| / 3, 1 - Indisc
  no_oracle   |RA - RA_O| / 3, |FA - VA| / 3,   |VA - VA_O| / 3, 1 - Indisc

RA, FA, VA are accuracies on the retain, forget and validation sets; R are the
retrained and O the original models of the same initialisation; Indisc is that
of the population attack, forget against validation. The first is that of the
benchmark (arXiv 2410.01276). The second needs no retrained models: a model that
never saw the forgotten images classifies them as well as validation images.

The norm weighs Indisc most, since the other three are divided by 3.

A search of the training recipe minimises one number, 1 - VA.
"""

import numpy as np

from jaxmu.tuning.trials import Outcomes

OBJECTIVES = ('reference', 'no_oracle')
COMPONENTS = ('retain', 'forget', 'val', 'indisc')
OF_RECIPE = ('error',)


def values(
  outcomes: Outcomes,
  initialisation: np.ndarray,
  *,
  retrained: Outcomes | None,
  originals: Outcomes,
) -> np.ndarray:
  """Return the four objectives of each trial, f64[T, 4].

  Args:
    outcomes: of the trials.
    initialisation: i64[T], position of each trial in the next two.
    retrained: outcomes of the retrained models; None for 'no_oracle'.
    originals: of the original models.

  Returns:
    Infinity in all four places for trials that failed or whose attack cannot be
    computed.
  """
  target = originals if retrained is None else retrained
  aims = [field[initialisation] for field in target[:3]]
  if retrained is None:
    aims[1] = outcomes.val
  gaps = [
    abs(own - aim) / 3 for own, aim in zip(outcomes[:3], aims, strict=True)
  ]
  each = np.stack([*gaps, 1 - outcomes.indisc], axis=1)
  usable = (outcomes.failed < 0) & np.isfinite(each).all(axis=1)
  return np.where(usable[:, None], each, np.inf)


def names(count: int) -> tuple[str, ...]:
  """Return the names of the numbers that are minimised, four or one."""
  return {len(COMPONENTS): COMPONENTS, len(OF_RECIPE): OF_RECIPE}[count]


def title(count: int) -> str:
  """Return what the norm of four objectives or of one is called."""
  return 'validation error' if count == len(OF_RECIPE) else 'norm'


def of_recipe(outcomes: Outcomes) -> np.ndarray:
  """Return the validation error of each model, f64[T, 1]; inf if it failed."""
  error = np.where(outcomes.failed < 0, 1 - outcomes.val, np.inf)
  return error[:, None]


def norm(objectives: np.ndarray) -> np.ndarray:
  """Return the Euclidean norm of the objectives, f64[T]."""
  return np.sqrt((objectives**2).sum(axis=1))
