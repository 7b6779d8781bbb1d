"""How far accuracies are from those of retraining: RetDev and Tug-of-War.

RetDev is a sum of absolute relative errors. It also counts harmless or good
deviations (retain or test accuracy above that of the retrained model), and the
forget set dominates it where the retrained forget accuracy is small, so its
signed parts are always given as well. Ratios are not available where the
accuracy of the retrained model is 0.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float64

from jaxmu.attacks import intervals
from jaxmu.metrics import accuracies
from jaxmu.metrics.interface import Card, Evaluated, Metric, Number
from jaxmu.terms import BENCHMARK, Term

Ratio = Float64[np.ndarray, '*M']
Share = Float[np.ndarray, '*M']
Accuracies = tuple[Share, Share, Share]  # RA, FA, TA


class Retention(NamedTuple):
  """Ratios to the retrained model and their distance from one, f64[...] each.

  Attributes:
    retain: RR = RA_U / RA_R.
    forget: FR = FA_U / FA_R.
    test: TR = TA_U / TA_R.
    deviation: RetDev = |RR - 1| + |FR - 1| + |TR - 1|, 0 is best.
  """

  retain: Ratio
  forget: Ratio
  test: Ratio
  deviation: Ratio


def accuracy_ratio(new: Share, reference: Share) -> Ratio:
  """Return new / reference of two accuracies, NaN where the reference is 0.

  Args:
    new: float[...] in [0, 1], or NaN.
    reference: the same of the retrained models.

  Raises:
    ValueError: an accuracy outside [0, 1].

  Example:
    >>> accuracy_ratio(np.array([0.4, 0.4]), np.array([0.8, 0.0]))
    array([0.5, nan])
  """
  new, reference = (
    np.asarray(new, np.float64),
    np.asarray(reference, np.float64),
  )
  for values in (new, reference):
    if ((values < 0) | (values > 1)).any():
      raise ValueError(
        f'accuracies {values} are not all in [0, 1]; give shares, not '
        'percentages'
      )
  defined = reference > 0
  return np.where(defined, new / np.where(defined, reference, 1.0), np.nan)[()]


def retention(new: Accuracies, reference: Accuracies) -> Retention:
  """Compute ratios and RetDev of each model to its retrained model.

  Args:
    new: (RA, FA, TA) of the unlearned models, float[...] each.
    reference: the same of the retrained models, paired entry by entry.
  """
  retain, forget, test = (
    accuracy_ratio(a, b) for a, b in zip(new, reference, strict=True)
  )
  deviation = abs(retain - 1) + abs(forget - 1) + abs(test - 1)
  return Retention(retain, forget, test, deviation)


def retention_of_means(new: Accuracies, reference: Accuracies) -> Retention:
  """Compute the same from means over models (`ret_dev_means`).

  Some published tables of the benchmark do so. The result is at most slightly
  larger than the mean of the paired RetDev, and often smaller, since errors of
  opposite sign cancel.
  """
  (ra, fa, ta), (ra_r, fa_r, ta_r) = (
    [np.asarray(np.mean(part)) for part in parts] for parts in (new, reference)
  )
  return retention((ra, fa, ta), (ra_r, fa_r, ta_r))


def tug_of_war(new: Accuracies, reference: Accuracies) -> Ratio:
  """Return ToW = prod (1 - |new - reference|) over RA, FA, TA; 1 is best.

  Zhao et al. 2024 (RUM).
  """
  product = np.ones(())
  for a, b in zip(new, reference, strict=True):
    product = product * (1 - abs(np.asarray(a, np.float64) - b))
  return product


def compare(population: Evaluated) -> dict[str, Number]:
  """Return the ratios, RetDev and ToW of each model, f64[P]."""
  assert population.retrained is not None  # the card needs it
  new, reference = (
    _three(accuracies.accuracies(one))
    for one in (population, population.retrained)
  )
  ratios = retention(new, reference)
  of_means = retention_of_means(new, reference).deviation
  return {
    'rr': ratios.retain,
    'fr': ratios.forget,
    'tr': ratios.test,
    'ret_dev': ratios.deviation,
    'tow': tug_of_war(new, reference),
    'ret_dev_means': intervals.point(float(of_means), population.size),
  }


def _three(values: dict[str, Ratio]) -> Accuracies:
  return values['ra'], values['fa'], values['ta']


def _ratio(title: str, part: str) -> Term:
  return Term(
    title,
    f'{part} accuracy divided by that of the retrained model.',
    'ratio',
    'one',
    BENCHMARK,
  )


METRIC = Metric(
  'retention',
  compare,
  Card(
    title='Distance of accuracies from retraining',
    needs=('retrained',),
    undefined='an accuracy of the retrained model is 0 or not available',
    terms={
      'rr': _ratio('Retain retention (RR)', 'Retain'),
      'fr': _ratio('Forget retention (FR)', 'Forget'),
      'tr': _ratio('Test retention (TR)', 'Test'),
      'ret_dev': Term(
        'Retention deviation (RetDev)',
        'Sum of the relative distances of retain, forget and test accuracy '
        'from those of the retrained model of the same seed; 0 means equal '
        'accuracies.',
        better='lower',
        source=f'{BENCHMARK} (|RR-1| + |FR-1| + |TR-1|, paired by seed)',
      ),
      'tow': Term(
        'Tug-of-war (ToW)',
        'Product of one minus the accuracy differences from the retrained '
        'model on retain, forget and test images; 1 means equal accuracies.',
        'fraction',
        'higher',
        'Zhao et al. 2024 (RUM)',
      ),
      'ret_dev_means': Term(
        'Retention deviation of the means',
        'Retention deviation computed from accuracies averaged over seeds '
        'first, as some tables report it; at most slightly larger than the '
        'paired one.',
        better='lower',
        source=BENCHMARK,
      ),
    },
  ),
)
