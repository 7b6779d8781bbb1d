"""Synthetic populations with a known answer, for the tests of attacks."""

from jaxmu.attacks.simulation import locations, noise, scores, states

__all__ = ['by_name', 'locations', 'noise', 'scores', 'states']


def by_name(results):
  """Estimates by attack and name: 'auc', 'retrained_auc', 'excess_auc', …"""
  found = {}
  for result in results:
    prefix = '' if result.population == 'unlearned' else f'{result.population}_'
    found[result.attack, prefix + result.statistic] = result.estimate
    if result.population == 'unlearned' and result.excess is not None:
      found[result.attack, f'excess_{result.statistic}'] = result.excess
  return found
