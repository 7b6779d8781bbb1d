"""Claims about attacks, where they hold, fail and are undecided."""

import numpy as np
import pytest
from scipy import stats

from jaxmu import claims
from jaxmu.attacks import log_odds, roc, scores, simulation
from jaxmu.claims import leaks
from jaxmu.claims.cells import CannotAnswer
from jaxmu.claims.evidence import FAILS, HOLDS, UNDECIDED
from jaxmu.claims.interface import REPORTED, NotRun
from tests.claims.tables import around, cell, job, rows
from tests.claims.test_accuracy import find, one

PAIRS = 16


def attacked(ulira=0.5, population=0.5, mia=0.5, noise=0.005, turn=0):
  numbers = {
    'ulira_auc': ulira,
    'population_auc': population,
    'mia_test': mia,
    'ta': 0.8,
    'ret_dev': 0.1,
  }
  return {
    metric: around(value, noise, turn + k, PAIRS)
    for k, (metric, value) in enumerate(numbers.items())
  }


def study(original=0.6, methods=None, *, null=0.5, noise=0.005, folder=None):
  methods = methods or {}
  values = {
    'original': attacked(original, 0.52, noise=noise, turn=70),
    'retrain': attacked(null, noise=noise, turn=80),
    **{
      name: attacked(noise=noise, turn=9 * k, **given)
      for k, (name, given) in enumerate(methods.items())
    },
  }
  return job('ulira', values, **({'folder': folder} if folder else {}))


# Claim 6.


def test_ulira_is_stronger_than_the_population_attack():
  leak = {'ft': {'ulira': 0.54}, 'ct': {'ulira': 0.5}}
  found = one(6, study(methods=leak))
  assert found.verdict == HOLDS
  assert found.numbers == {'hidden': 2, 'exposed': 1}
  made = study(methods=leak).values['original']
  difference = made['ulira_auc'] - made['population_auc']
  half = stats.t.ppf(0.975, PAIRS - 1) * stats.sem(difference)
  half *= np.sqrt(2 * (PAIRS - 1) / (PAIRS - 2))  # fitted on other groups
  np.testing.assert_allclose(
    found.number,
    [difference.mean(), difference.mean() - half, difference.mean() + half],
  )
  assert one(6, study(0.5, leak)).verdict == FAILS
  # The leak is one that the population attack sees as well.
  seen = {'ft': {'ulira': 0.54, 'mia': 0.6}, 'ct': {'ulira': 0.5}}
  assert one(6, study(methods=seen)).verdict == FAILS
  assert one(6, study(methods=seen, noise=0.05)).verdict == UNDECIDED
  # Without a method that the population attack misses, there is no answer.
  all_seen = {'ft': {'ulira': 0.54, 'mia': 0.6}}
  assert one(6, study(methods=all_seen)).verdict == UNDECIDED


# Claim 7.


def test_the_six_methods_are_reported():
  found = one(7, study(methods={'msg': {'ulira': 0.53}, 'ct': {'ulira': 0.5}}))
  assert found.verdict == REPORTED
  assert found.numbers['msg'] == pytest.approx(0.03)
  assert 'MSG 0.030' in found.sentence and ']*' in found.sentence
  assert 'Without CFW, PRMQ, KDE and FT.' in found.sentence
  assert isinstance(one(7, study(methods={'ga': {}})), NotRun)


# Claims 8 and 10 read scores.


def write(folder, name, unlearned=0.0, original=1.0, spread=0.0, seed=0):
  """Write simulated scores of a method, and return their arrays."""
  rng = np.random.default_rng(seed)
  state, split = simulation.states(rng, 2 * PAIRS, 2, 120)
  mean, scale = simulation.locations(rng, 120)
  of_example = np.where(np.arange(120) % 2, 1.0, -1.0) * spread

  def drawn(shift):
    noise = simulation.noise(rng, split, 120, within=0.3)
    return (mean + scale * (noise + shift * (state == 1))).astype(np.float32)

  arrays = {
    'log_odds': drawn(unlearned + of_example),
    'original_log_odds': drawn(original),
    'retrained_log_odds': drawn(0.0),
    'state': state,
    'split': split,
  }
  path = folder / 'scores' / f'{name}.npz'
  path.parent.mkdir(parents=True, exist_ok=True)
  np.savez(path, **arrays)
  return arrays


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  path = tmp_path_factory.mktemp('ulira')
  write(path, 'ct')
  return path


def with_tpr(made, tpr=0.01, noise=0.0005):
  made.values['retrain']['ulira_tpr_0.01'] = around(tpr, noise, 3, PAIRS)
  made.rows.update(
    rows(
      {'retrain': {'ulira_tpr_0.01': made.values['retrain']['ulira_tpr_0.01']}}
    )
  )
  return made


def test_the_null_is_valid_and_the_in_sample_attack_is_not(folder):
  made = with_tpr(study(methods={'ct': {}}, folder=folder, noise=0.004))
  found = one(8, made)
  assert found.verdict == HOLDS
  assert found.numbers['in_sample_auc'] > 0.55
  biased = study(methods={'ct': {}}, folder=folder, null=0.53)
  assert one(8, with_tpr(biased)).verdict == FAILS
  low = with_tpr(study(methods={'ct': {}}, folder=folder, noise=0.004), 0.03)
  assert one(8, low).verdict == FAILS
  wide = study(methods={'ct': {}}, folder=folder, noise=0.05)
  assert one(8, with_tpr(wide)).verdict == UNDECIDED
  without = study(methods={'ct': {}}, folder=folder, noise=0.004)
  found = one(8, without)
  assert found.verdict == UNDECIDED and 'too few' in found.sentence
  assert isinstance(one(8, with_tpr(study())), NotRun)


# Claim 9.


def test_originals_leak():
  found = one(9, study(0.6))
  assert found.verdict == HOLDS
  assert found.number.value == pytest.approx(0.1)
  assert one(9, study(0.45)).verdict == FAILS
  assert one(9, study(0.505, noise=0.03)).verdict == UNDECIDED


# Claim 10.


def test_aucs_of_examples_without_each_group_are_recomputed(folder):
  data = claims.cells.scores.from_arrays(
    dict(np.load(folder / 'scores' / 'ct.npz'))
  )
  population = data.unlearned
  got = leaks.leave_one_out_aucs(population)
  groups = np.unique(population.group)
  assert got.shape == (1 + PAIRS, 120) and len(groups) == PAIRS
  for k, keep in (
    (0, np.ones(len(population.group), bool)),
    (3, population.group != groups[2]),
  ):
    state, score = population.state[keep], population.mean[keep]
    naive = [
      roc.auc(score[state[:, n] == 1, n], score[state[:, n] == 2, n])
      for n in range(120)
    ]
    np.testing.assert_allclose(got[k], naive)


def test_more_exposed_examples_are_counted_one_by_one(folder):
  rng = np.random.default_rng(0)
  effect = np.repeat([0.2, 0.0, -0.2], 20)
  before = 0.5 + rng.normal(0, 0.002, (1 + PAIRS, 60))
  own = before + effect + rng.normal(0, 0.004, before.shape)
  sure, possible = leaks.more_exposed(own, before)
  p_values, upper = [], []
  for n in range(60):
    difference = own[:, n] - before[:, n]
    pseudo = PAIRS * difference[0] - (PAIRS - 1) * difference[1:]
    # The variance of the jackknife is that of the pseudo-values' mean.
    error = stats.sem(pseudo)
    p_values.append(2 * stats.t.sf(abs(difference[0]) / error, PAIRS - 1))
    upper.append(difference[0] + stats.t.ppf(0.975, PAIRS - 1) * error)
  rank = stats.rankdata(p_values)
  passed = [p <= 0.05 * r / 60 for p, r in zip(p_values, rank, strict=True)]
  largest = max(p for p, ok in zip(p_values, passed, strict=True) if ok)
  naive = [
    p <= largest and (own - before)[0, n] > 0 for n, p in enumerate(p_values)
  ]
  assert sure == np.mean(naive) and 0.3 < sure < 0.4
  assert possible == np.mean(np.array(upper) > 0.05)
  with pytest.raises(CannotAnswer):
    leaks.more_exposed(np.full((4, 3), np.nan), np.full((4, 3), np.nan))


def test_examples_leak_differently(tmp_path):
  def found(**given):
    write(tmp_path, 'ct', **given)
    return one(10, study(methods={'ct': {}}, folder=tmp_path))

  uneven = found(spread=2.5, original=0.0)
  assert uneven.verdict == HOLDS
  assert uneven.numbers['more_exposed'] > 0.2
  assert 'CT' in uneven.sentence
  assert found(unlearned=0.0, original=0.0).verdict == UNDECIDED
  # Every example is less exposed than before.
  assert found(unlearned=-1.0, original=6.0).verdict == FAILS


def test_one_method_has_to_show_both_parts(tmp_path):
  # CT leaks unevenly but less than before, FT more than before but evenly.
  write(tmp_path, 'ct', spread=2.5, original=6.0)
  write(tmp_path, 'ft', unlearned=6.0, original=0.0)
  both = one(10, study(methods={'ct': {}, 'ft': {}}, folder=tmp_path))
  assert both.numbers['more_exposed'] > 0.5 and both.number[1] > 0
  assert both.verdict != HOLDS


def test_width_is_the_jackknife_of_deviations(folder):
  data = scores.from_arrays(dict(np.load(folder / 'scores' / 'ct.npz')))
  own, null = map(leaks.leave_one_out_aucs, (data.unlearned, data.retrained))
  number = leaks._width(own, null)
  whole = np.std(own[0]) - np.std(null[0])
  pseudo = [
    PAIRS * whole - (PAIRS - 1) * (np.std(own[k]) - np.std(null[k]))
    for k in range(1, PAIRS + 1)
  ]
  half = stats.t.ppf(0.975, PAIRS - 1) * stats.sem(pseudo)
  middle = np.mean(pseudo)
  assert number.value == pytest.approx(whole)
  # The interval is centred on the value.
  np.testing.assert_allclose(number[1:], [whole - half, whole + half])
  assert abs(middle - whole) < half


def test_in_sample_scores_separate_what_does_not_leak(folder):
  data = scores.from_arrays(dict(np.load(folder / 'scores' / 'ct.npz')))
  estimate = leaks.in_sample_auc(data.retrained)
  # The naive fit: mean and deviation of both kinds, nothing left out, with
  # variances shrunk to the median over examples.
  state, score = data.retrained.state, data.retrained.mean.astype(np.float64)
  assert estimate.value > 0.55 and estimate.n == PAIRS
  pairs = log_odds.complementary_pairs(state, data.retrained.split)
  assert len(np.unique(pairs)) == PAIRS
  ratio = np.full(score.shape, np.nan)
  fits = {}
  for kind in (1, 2):
    members = [score[state[:, n] == kind, n] for n in range(score.shape[1])]
    variance = np.array([m.var(ddof=1) for m in members])
    count = np.array([len(m) for m in members])
    prior = np.median(variance)
    shrunk = (6 * prior + (count - 1) * variance) / (6 + count - 1)
    fits[kind] = np.array([m.mean() for m in members]), shrunk
  for p, n in zip(*np.nonzero((state == 1) | (state == 2)), strict=True):
    ratio[p, n] = stats.norm.logpdf(
      score[p, n], fits[1][0][n], np.sqrt(fits[1][1][n])
    ) - stats.norm.logpdf(score[p, n], fits[2][0][n], np.sqrt(fits[2][1][n]))
  by_model = [
    roc.auc(ratio[p, state[p] == 1], ratio[p, state[p] == 2])
    for p in range(len(score))
  ]
  by_pair = [np.mean(np.array(by_model)[pairs == g]) for g in np.unique(pairs)]
  assert estimate.value == pytest.approx(np.mean(by_pair), abs=2e-3)


# Claim 11.


def test_over_unlearning_is_seen_two_sidedly():
  def large(rmia=0.4, ulira=0.6, noise=0.01):
    values = {
      'retrain': attacked(),
      **{
        name: attacked(ulira, noise=noise, turn=k)
        | {'rmia_auc': around(rmia, noise, k + 30, PAIRS)}
        for k, name in enumerate(('ga', 'neggrad_plus'))
      },
    }
    return job('large_rate', values)

  found = one(11, large())
  assert found.verdict == HOLDS
  assert found.number.value == pytest.approx(0.4)
  assert one(11, large(rmia=0.6)).verdict == FAILS
  assert one(11, large(ulira=0.45)).verdict == FAILS
  assert one(11, large(rmia=0.499, noise=0.03)).verdict == UNDECIDED


def test_a_method_whose_models_failed_decides_nothing_and_is_named():
  values = {
    'retrain': attacked(),
    'ga': attacked(0.6, noise=0.01)
    | {'rmia_auc': around(0.4, 0.01, 30, PAIRS)},
    'neggrad_plus': {'rmia_auc': around(0.6, 0.01, 31, PAIRS)},
  }
  found = one(11, job('large_rate', values))
  assert found.verdict == UNDECIDED
  assert 'NG+ has no AUC by U-LiRA' in found.sentence


def test_numbers_that_are_missing_are_named():
  (found,) = find(9, cell(job('ulira', {'retrain': attacked()})))
  assert isinstance(found, NotRun)
  assert 'excess_ulira_auc of Original' in found.reason
