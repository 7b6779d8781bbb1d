"""Every attack satisfies the contract, and the check reports violations."""

import dataclasses
import pathlib
import warnings

import numpy as np
import pytest

from jaxmu import testing
from jaxmu.attacks import (
  interface,
  intervals,
  likelihood,
  registry,
  scores,
  simulation,
)
from jaxmu.report import glossary

PLUGIN = '''
"""One threshold on bounded log-odds."""
import numpy as np

from jaxmu.attacks import interface


def _score(population, data, options):
  return np.tanh(population.mean / options.settings.get('scale', 4.0))


ATTACK = interface.from_score(
  'bounded',
  _score,
  interface.Card(
    title='Bounded log-odds',
    subject='one threshold on bounded log-odds',
    source='a test',
    question='forgotten_or_unseen',
    terms=interface.ROC_TERMS,
    settings=('scale',),
  ),
)
'''


@pytest.mark.parametrize('name', registry.ATTACKS)
def test_every_attack_keeps_the_contract(name):
  with warnings.catch_warnings():
    warnings.simplefilter('error')
    testing.check_attack(name)


def test_a_plug_in_keeps_it_and_runs_beside_built_in_attacks(tmp_path):
  path = tmp_path / 'my_attack.py'
  path.write_text(PLUGIN)
  testing.check_attack(str(path))
  data = scores.from_arrays(simulation.arrays(shift=2.0))
  results = registry.run(data, ['ulira', str(path)], fprs=(0.1,))
  assert [r.metric for r in results if r.population == 'original'] == []
  found = {r.metric: r for r in results if r.population == 'unlearned'}
  assert found['bounded_auc'].estimate.low > 0.5
  assert found['bounded_auc'].excess.low > 0
  term = glossary.describe('bounded_tpr_0.1')
  assert (
    term.title == 'Bounded log-odds: TPR at 10% FPR' and term.source == 'a test'
  )
  assert registry.resolve('bounded') is registry.resolve(str(path))
  assert registry.ATTACKS.fingerprint(str(path)) != ''


def _changed(name, **changes):
  """A built-in attack, changed and under another name."""
  attack = dataclasses.replace(registry.ATTACKS[name], name='changed')
  card = {k: v for k, v in changes.items() if hasattr(attack.card, k)}
  other = {k: v for k, v in changes.items() if k not in card}
  return dataclasses.replace(
    attack, card=dataclasses.replace(attack.card, **card), **other
  )


def _ulira_in_sample(population, data, options):
  return likelihood.ulira(
    population.log_odds,
    population.audited_state,
    population.group,
    mode='in_sample',
  )[0]


def _first_model_counts_twice(population, data, options):
  score = population.mean.copy()
  score[0] *= 2
  return score


def _stateful():
  calls = iter(range(1000))
  return lambda population, data, options: {
    'auc': intervals.point(0.5 + 1e-6 * next(calls), 1)
  }


def _raises_on_constant(population, data, options):
  if np.nanstd(population.mean) == 0:
    raise ZeroDivisionError('no spread')
  return population.mean


def _reads_excluded(population, data, options):
  return population.mean - population.mean.mean(axis=0)


def _by_score(function):
  return interface.from_score(
    'changed', function, registry.ATTACKS['loss'].card
  )


def test_violations_of_the_contract_are_reported():
  cases = [
    (_by_score(_ulira_in_sample), 'null: auc is off by 0'),
    (_by_score(_first_model_counts_twice), 'model_order: '),
    (_changed('loss', report=_stateful()), 'order: |repeat: '),
    (_by_score(_raises_on_constant), 'constant: it ends in ZeroDivisionError'),
    (_by_score(_reads_excluded), '(null|excluded|failed|non_finite): '),
    (_changed('loss', title=' '), 'title is empty'),
    (_changed('loss', terms={}), 'has no term. Add it'),
    (_changed('loss', exempt={'null': ''}), 'without a reason'),
    (
      _changed('loss', report=lambda *_: {}, score=None),
      'it reports no number',
    ),
    (
      _changed('loss', score=lambda population, *_: population.mean[0]),
      r'a score for each \[models, examples\]',
    ),
  ]
  for attack, message in cases:
    with pytest.raises(testing.ContractError, match=message):
      testing.check_attack(attack)


def test_objects_that_are_not_attacks_are_refused(tmp_path: pathlib.Path):
  for name, code, message in (
    ('number', 'ATTACK = 3', 'expected a jaxmu.attacks.interface.Attack'),
    ('name', PLUGIN.replace("'bounded'", "'Bounded Log'"), 'lower-case'),
    ('builtin', PLUGIN.replace("'bounded'", "'ulira'"), 'choose another'),
    ('empty', '', 'has no ATTACK'),
  ):
    path = tmp_path / f'{name}.py'
    path.write_text(code)
    with pytest.raises(ValueError, match=message):
      registry.resolve(str(path))
  with pytest.raises(ValueError, match="did you mean 'ulira'"):
    registry.resolve('u_lira')
  card = registry.ATTACKS['loss'].card
  for field, value in (
    ('question', 'what'),
    ('needs', ('gradients',)),
    ('cost', 'free'),
    ('populations', ('people',)),
    ('exempt', {'gravity': 'none'}),
  ):
    with pytest.raises(ValueError, match=f'{field} of the card .* choose from'):
      dataclasses.replace(card, **{field: value})
