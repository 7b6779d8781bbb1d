"""Populations: failed models, excluded entries, unequal sizes."""

import doctest
import math

import numpy as np
import pytest

from jaxmu.attacks import (
  intervals,
  likelihood,
  registry,
  roc,
  scores,
  simulation,
)
from tests.attacks import populations

LOWEST = np.finfo(np.float32).min  # a finite stand-in of older score files


def make(seed=0, examples=60, **more):
  rng = np.random.default_rng(seed)
  state, split = populations.states(rng, 16, 2, examples)
  state = np.pad(state, ((0, 0), (0, 6)), constant_values=3)
  z, retrained = (
    populations.scores(rng, state, split).astype(np.float32) for _ in range(2)
  )
  arrays = {'log_odds': z, 'retrained_log_odds': retrained}
  return {**arrays, 'state': state, 'split': split, **more}


QUICK = ('ulira', 'loss', 'population', 'lira_forget', 'klom', 'rmia')


def numbers(arrays, attacks=QUICK):
  data = scores.from_arrays(arrays)
  found = registry.run(data, attacks, fprs=(0.1,))
  return data, {
    name: (e.value, e.low, e.high, e.note)
    for name, e in populations.by_name(found).items()
  }


def spoiled(value, rows):
  arrays = make()
  arrays['log_odds'][rows] = value
  return arrays


@pytest.mark.parametrize('value', [LOWEST, np.nan, np.inf, -np.inf])
def test_models_whose_scores_are_stand_ins_count_as_failed(value):
  rows = np.arange(32) < 3
  data, found = numbers(spoiled(value, rows))
  np.testing.assert_array_equal(data.unlearned.failed, rows)
  assert not data.retrained.failed.any()
  assert 'Unlearned models: 3 of 32 models failed' in data.warnings[0]
  assert not any('not finite' in w for w in data.warnings)
  marked, same = numbers({**make(), 'failed': rows})
  assert repr(same) == repr(found) and marked.warnings == data.warnings
  assert '3 of 32 models failed' in found['ulira', 'auc'][3]
  assert 'failed' not in found['ulira', 'retrained_auc'][3]


def test_a_population_that_failed_is_not_at_chance():
  data, found = numbers(spoiled(LOWEST, slice(None)), None)
  assert data.unlearned.failures == 'all 32 models failed'
  for (attack, name), (value, low, high, note) in found.items():
    if not name.startswith(('retrained_', 'excess_')):
      assert math.isnan(value) and math.isnan(low) and math.isnan(high)
      assert note == 'not available: all 32 models failed', (attack, name)
    if name == 'excess_auc':
      assert math.isnan(value)
  assert found['ulira', 'retrained_auc'][0] == pytest.approx(0.5, abs=0.05)


def test_scores_beyond_every_log_odds_are_no_scores():
  arrays = make()
  arrays['log_odds'] = arrays['log_odds'].astype(np.float64) * 1e300
  data, _ = numbers(arrays)
  assert data.unlearned.failed.all()


def test_too_few_models_that_did_not_fail_give_a_reason():
  rows = np.arange(32) > 2
  _, found = numbers({**make(), 'failed': rows})
  value, _, _, note = found['ulira', 'auc']
  assert math.isnan(value) and '29 of 32 models failed' in note


def test_failed_models_leave_fits_as_if_they_were_not_there():
  rows = np.isin(np.arange(32), [0, 9])
  arrays = make()
  _, found = numbers({**arrays, 'failed': rows}, ['ulira', 'loss', 'rmia'])
  state = arrays['state'].copy()
  state[rows] = 3
  pair = arrays['split'] // 2
  ratio, _ = likelihood.ulira(arrays['log_odds'], state, pair)
  report = roc.roc_report(ratio, state, pair, fprs=())
  assert found['ulira', 'auc'][0] == report['auc'].value
  report = roc.roc_report(
    arrays['log_odds'], state, pair, fprs=(), threshold=None
  )
  assert found['loss', 'auc'][0] == report['auc'].value


def test_excluded_entries_never_count():
  arrays = make()
  state = arrays['state'].copy()
  hidden = np.zeros(state.shape, bool)
  hidden[::2, :20] = state[::2, :20] == 0
  state[hidden] = 3
  every = []
  for value in (0.0, np.nan, -np.inf, 1e9):
    z = np.where(hidden, value, arrays['log_odds'])
    # One non-finite score that counts is replaced by one that counts.
    z[5, np.flatnonzero(state[5] == 1)[0]] = np.nan
    data, found = numbers({**arrays, 'log_odds': z, 'state': state})
    assert data.unlearned.non_finite == 1
    every.append(repr(found))
  assert len(set(every)) == 1


def test_population_examples_without_a_score_are_left_out_by_rmia():
  arrays = make()
  z = arrays['log_odds'].copy()
  z[:, 60] = np.nan
  _, found = numbers({**arrays, 'log_odds': z}, ['rmia'])
  keep = np.arange(66) != 60
  fewer = {k: v if k == 'split' else v[:, keep] for k, v in arrays.items()}
  _, expected = numbers(fewer, ['rmia'])
  for name, values in expected.items():
    if not name[1].startswith(('retrained', 'excess')):
      assert repr(values) == repr(found[name]), name


def test_a_job_passes_originals_once_for_each_split():
  """Numbers equal those of the plain functions on the given populations."""
  arrays = make()
  arrays['state'][:, :12] = np.where(
    arrays['state'][:, :12] == 1, 0, arrays['state'][:, :12]
  )  # never forgotten, yet they count as unseen in a job
  state, split = arrays['state'], arrays['split']
  pair = split // 2
  first = np.flatnonzero(np.diff(split, prepend=-1))
  once = state[first].copy()
  once[(state[first] == 1) | (state[first + 1] == 1)] = 1
  original = populations.scores(
    np.random.default_rng(7), once, split[first], shift=1.0
  )
  given = {
    'original': (original, once, split[first], pair[first]),
    'retrained': (arrays['retrained_log_odds'], state, split, pair),
    'unlearned': (arrays['log_odds'], state, split, pair),
  }
  data = scores.from_populations(
    **{
      name: scores.population(*one, all_unseen=True)
      for name, one in given.items()
    }
  )
  settings = {'variance': 'per_example', 'location': 'median', 'mode': 'logo'}
  known = {}
  results = registry.run(
    data, ['ulira'], settings={'ulira': settings}, known=known
  )
  reports = {}
  for name, (z, c, _, g) in given.items():
    ratio, _ = likelihood.ulira(z.astype(np.float64), c, g, **settings)
    report = roc.roc_report(ratio, c, g)
    reports[name] = {k: intervals.cross_fitted(v) for k, v in report.items()}
  for result in results:
    if result.statistic in reports[result.population]:
      expected = reports[result.population][result.statistic]
      assert repr(result.estimate) == repr(expected)
      np.testing.assert_array_equal(result.estimate.by_split, expected.by_split)
      if result.population != 'retrained' and result.statistic == 'auc':
        excess = intervals.paired_difference(
          expected, reports['retrained'][result.statistic]
        )
        assert repr(result.excess) == repr(excess)
  # Reports on the populations that methods share are not computed again.
  assert {name for name, _ in known} == {'ulira'} and len(known) == 2
  again = registry.run(
    data, ['ulira'], settings={'ulira': settings}, known=known
  )
  assert repr(again) == repr(results)


def test_populations_that_do_not_fit_are_refused():
  arrays = make()
  state, split = arrays['state'], arrays['split']
  z = arrays['log_odds']
  good = scores.population(z, state, split)
  cases = [
    (lambda: scores.population(z[:, :-1], state, split), 'log_odds have shape'),
    (lambda: scores.population(z, state, split[:-1]), 'state has 32 models'),
    (lambda: scores.population(z, state, split, split[:-1]), 'group has 31'),
    (
      lambda: scores.population(z, state, split, failed=np.zeros(3, bool)),
      r'failed is bool\[3\]',
    ),
    (
      lambda: scores.from_populations(
        good, scores.population(z[:-2], state[:-2], split[:-2])
      ),
      'row p must belong',
    ),
    (
      lambda: scores.from_populations(
        good, None, scores.population(z[:, 1:], state[:, 1:], split)
      ),
      'expected the same examples',
    ),
    (
      lambda: scores.from_populations(
        good, scores.population(z, state, split, signals={'correctness': z})
      ),
      'expected the same',
    ),
    (
      lambda: scores.from_arrays({**arrays, 'failed': np.zeros(32, int)}),
      'one boolean',
    ),
    (
      lambda: scores.from_arrays(
        {**arrays, 'original_failed': np.zeros(32, bool)}
      ),
      'without original_log_odds',
    ),
    (
      lambda: registry.run(
        scores.from_arrays(arrays), ['ulira'], settings={'ulira': {'a': 1}}
      ),
      "no setting 'a'; it has mode",
    ),
    (
      lambda: registry.score('population', scores.from_arrays(arrays)),
      'no score to single entries',
    ),
    (
      lambda: registry.run(scores.from_arrays(arrays), ['entropy']),
      r"'entropy' needs 'logits', .* possible are ulira",
    ),
  ]
  for call, message in cases:
    with pytest.raises(ValueError, match=message):
      call()


def test_files_that_no_attack_can_read_are_refused_before_any_runs():
  """Classes that differ were found after all attacks, at the outputs."""
  arrays = make()
  shape = arrays['log_odds'].shape
  del arrays['log_odds']
  logits = np.random.default_rng(0).normal(size=(*shape, 3))
  labels = np.zeros(shape[1], int)
  other = {'retrained_logits': np.zeros((*shape, 5))}
  for changes, message in (
    ({'logits': logits, **other}, 'numbers of classes differ'),
    ({'logits': np.zeros((*shape, 0, 3))}, r'logits has shape .*, 0, 3'),
    ({'log_odds': np.zeros((*shape, 0))}, 'log_odds has shape .* at least one'),
    ({'log_odds': np.zeros((0, shape[1]))}, 'log_odds has shape .* at least'),
  ):
    with pytest.raises(ValueError, match=message):
      scores.from_arrays({**arrays, 'labels': labels, **changes})


def test_examples_in_docstrings_run():
  for module in (scores, registry, simulation):
    result = doctest.testmod(module)
    assert result.attempted and not result.failed, module.__name__


def test_few_splits_give_numbers_or_reasons_from_every_attack():
  data = scores.from_arrays(simulation.arrays(splits=4, examples=40))
  for result in registry.run(data):
    estimate = result.estimate
    assert np.isfinite(estimate.value) or estimate.note, result.metric
