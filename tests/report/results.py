"""Made-up results shared by the tests of the report."""

import math

from jaxmu.report import results

METHODS = ('original', 'retrain', 'ft', 'ga', 'neggrad_plus', 'msg', 'ct')

# metric: (retrained, original, first unlearner); all others lie in between
_NUMBERS = {
  'ra': (0.999, 0.999, 0.998),
  'fa': (0.873, 0.999, 0.890),
  'va': (0.871, 0.872, 0.865),
  'ta': (0.869, 0.871, 0.860),
  'ret_dev': (0.0, 0.146, 0.06),
  'indisc_test': (0.99, 0.89, 0.97),
  'mia_test': (0.503, 0.555, 0.515),
  'population_auc': (0.501, 0.561, 0.52),
  'rte': (1.0, math.nan, 7.4),
  'ulira_auc': (0.501, 0.643, 0.55),
  'ulira_tpr_0.01': (0.0102, 0.053, 0.02),
}


def rows(methods=METHODS, half_width: float = 0.01) -> list[results.Row]:
  """Return one row per method and metric, the retrained at chance."""
  found = []
  for i, method in enumerate(methods):
    for metric, (retrained, original, unlearned) in _NUMBERS.items():
      value = {'retrain': retrained, 'original': original}.get(
        method, unlearned + 0.001 * i
      )
      found.append(_row(method, metric, value, retrained, half_width))
    if method != 'retrain':
      auc = found[-2].value
      excess = auc - _NUMBERS['ulira_auc'][0]
      found.append(_row(method, 'excess_ulira_auc', excess, 0.0, half_width))
  return found


def _row(method, metric, value, retrained, half_width):
  return results.Row(
    method=method,
    metric=metric,
    value=value,
    low=value - half_width,
    high=value + half_width,
    retrained=retrained,
    gap=value - retrained,
    n=16,
    gap_low=value - retrained - half_width,
    gap_high=value - retrained + half_width,
  )
