"""How far accuracies are from those of retraining: RetDev, ToW, SAPE.

RetDev is a sum of absolute relative errors. It also counts what is harmless or
good (retain or test accuracy above the retrained model's) and explodes where
the retrained forget accuracy is small, so the signed parts always go with it.
"""

from typing import NamedTuple

import numpy as np


class Retention(NamedTuple):
  """Ratios to the retrained model and their distance from one, f64[...] each.

  Attributes:
    retain: RR = RA_U / RA_R.
    forget: FR = FA_U / FA_R.
    test: TR = TA_U / TA_R.
    deviation: RetDev = |RR - 1| + |FR - 1| + |TR - 1|, 0 is best.
  """

  retain: np.ndarray
  forget: np.ndarray
  test: np.ndarray
  deviation: np.ndarray


def ratio(new: np.ndarray, reference: np.ndarray) -> np.ndarray:
  """Return new / reference of two accuracies.

  Raises:
    ValueError: a new accuracy outside [0, 1] or a reference outside (0, 1].
  """
  new, reference = (
    np.asarray(new, np.float64),
    np.asarray(reference, np.float64),
  )
  if not ((0 <= new) & (new <= 1)).all():
    raise ValueError(
      f'accuracies {new} are not all in [0, 1]; give shares, not percentages'
    )
  if not ((0 < reference) & (reference <= 1)).all():
    raise ValueError(
      f'reference accuracies {reference} are not all in (0, 1]; a retrained '
      'model that is always wrong gives no ratio'
    )
  return new / reference


def retention(
  new: tuple[np.ndarray, np.ndarray, np.ndarray],
  reference: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> Retention:
  """Compute ratios and RetDev, each model against its own retrained model.

  Args:
    new: (RA, FA, TA) of the unlearned models, float[...] each.
    reference: the same of the retrained models, paired entry by entry.
  """
  retain, forget, test = (
    ratio(a, b) for a, b in zip(new, reference, strict=True)
  )
  deviation = abs(retain - 1) + abs(forget - 1) + abs(test - 1)
  return Retention(retain, forget, test, deviation)


def retention_of_means(
  new: tuple[np.ndarray, np.ndarray, np.ndarray],
  reference: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> Retention:
  """Compute the same from means over models (`RetDev_means`).

  As third-party tables of the benchmark do; never larger than the mean of the
  paired RetDev by much, and often smaller, since errors of opposite sign
  cancel.
  """
  (ra, fa, ta), (ra_r, fa_r, ta_r) = (
    [np.asarray(np.mean(part)) for part in parts] for parts in (new, reference)
  )
  return retention((ra, fa, ta), (ra_r, fa_r, ta_r))


def tug_of_war(
  new: tuple[np.ndarray, np.ndarray, np.ndarray],
  reference: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> np.ndarray:
  """Return ToW = prod (1 - |new - reference|) over RA, FA, TA; 1 is best.

  Zhao et al. 2024 (RUM).
  """
  product = np.ones(())
  for a, b in zip(new, reference, strict=True):
    product = product * (1 - abs(np.asarray(a, np.float64) - b))
  return product


def sape(a: np.ndarray, b: np.ndarray) -> np.ndarray:
  """Return the symmetric absolute percentage error, 100 |b - a| / (|a| + |b|).

  Zhang et al. 2023. Unlike the reference, which divides by zero, 0 where both
  are 0.
  """
  a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
  total = abs(a) + abs(b)
  return 100 * np.where(
    total > 0, abs(b - a) / np.where(total > 0, total, 1.0), 0.0
  )
