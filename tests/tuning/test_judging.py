"""The choice of a setting: ties, failures, and a second judgement."""

import numpy as np
import pytest

from jaxmu.report.plots import search as plots
from jaxmu.tuning import judging
from jaxmu.tuning.trials import Outcomes

SETTINGS = [{'a': k} for k in range(6)]


def _ranked(norms, initialisation=None, number=None, usable=None):
  size = len(norms)
  return judging.ranked(
    np.array(norms, float),
    np.zeros(size, int) if initialisation is None else initialisation,
    np.arange(size) if number is None else number,
    np.ones(size, bool) if usable is None else usable,
  )


def _choose(norms, **options):
  size = len(norms)
  return judging.choose(
    _ranked(norms),
    norms,
    SETTINGS[:size],
    initialisation=np.zeros(size, int),
    default=SETTINGS[5],
    **options,
  )


def test_smallest_norm_wins_and_ties_go_to_the_lower_initialisation():
  order = _ranked(
    [0.3, 0.1, 0.1, 0.1],
    initialisation=np.array([0, 1, 0, 0]),
    number=np.array([0, 0, 2, 1]),
  )
  assert order.tolist() == [3, 2, 1, 0]


def test_failed_and_inert_trials_cannot_win():
  order = _ranked(
    [np.inf, 0.1, 0.2, np.nan], usable=np.array([True, False, True, True])
  )
  assert order.tolist() == [2]


def test_the_reference_takes_the_smallest_value():
  norms = np.array([0.3, 0.1, 0.2])
  choice = _choose(norms, count=2, judge=None)
  assert (choice.trial, choice.norm) == (1, 0.1)


def test_finalists_are_judged_again():
  norms = np.array([0.30, 0.10, 0.20, 0.15])
  judged = []

  def judge(settings):
    judged.extend(settings)
    return np.array(
      [{1: 0.5, 3: 0.4, 2: 0.2, 5: 0.3}[s['a']] for s in settings]
    )

  choice = _choose(norms, count=3, judge=judge)
  assert judged == [{'a': 1}, {'a': 3}, {'a': 2}, {'a': 5}]
  assert choice.setting == {'a': 2} and choice.norm == 0.2
  assert choice.finalists == [1, 3, 2]


def test_the_default_wins_if_it_is_best_and_acts():
  norms = np.array([0.30, 0.10])
  judge = lambda settings: np.array([0.5, 0.4, 0.3])  # noqa: E731
  best = _choose(norms, count=2, judge=judge)
  assert (best.setting, best.norm, best.trial) == ({'a': 5}, 0.3, None)
  inert = _choose(norms, count=2, judge=judge, default_may_win=False)
  assert (inert.setting, inert.norm, inert.trial) == ({'a': 0}, 0.4, 0)


def test_finalists_come_from_all_initialisations_alike():
  # The second study has small norms whatever the setting is.
  study = np.array([0, 0, 0, 1, 1, 1])
  norms = np.array([0.3, 0.2, 0.4, 0.03, 0.01, 0.02])
  order = _ranked(norms, initialisation=study)
  assert judging.alternate(order, study).tolist() == [4, 1, 5, 0, 3, 2]


def test_equal_settings_are_judged_once():
  settings = [{'a': 0}, {'a': 0}, {'a': 1}]
  assert judging.distinct(np.arange(3), settings, 2) == [0, 2]


def test_nothing_usable_is_said():
  with pytest.raises(ValueError, match='every trial failed'):
    _choose(np.array([np.inf]), count=1, judge=None)


def _outcomes(**fields) -> Outcomes:
  size = len(next(iter(fields.values())))
  empty = {name: np.zeros(size) for name in Outcomes._fields}
  empty['failed'] = np.full(size, -1)
  return Outcomes(**{**empty, **{k: np.array(v) for k, v in fields.items()}})


def test_objectives_are_those_of_the_specification():
  trials = _outcomes(
    retain=[0.9, 0.8], forget=[0.7, 0.6], val=[0.5, 0.4], indisc=[0.95, 0.9]
  )
  retrained = _outcomes(
    retain=[0.6, 0.95], forget=[0.7, 0.3], val=[0.2, 0.5], indisc=[1.0, 1.0]
  )
  originals = _outcomes(
    retain=[1.0, 1.0], forget=[0.9, 0.9], val=[0.6, 0.4], indisc=[0.5, 0.5]
  )
  which = np.array([1, 0])
  naive = np.array(
    [
      [
        abs(trials.retain[t] - retrained.retain[k]) / 3,
        abs(trials.forget[t] - retrained.forget[k]) / 3,
        abs(trials.val[t] - retrained.val[k]) / 3,
        1 - trials.indisc[t],
      ]
      for t, k in enumerate(which)
    ]
  )
  given = judging.objectives(
    trials, which, retrained=retrained, originals=originals
  )
  np.testing.assert_allclose(given, naive, rtol=1e-15)
  norms = [np.sqrt(sum(x * x for x in row)) for row in naive]
  np.testing.assert_allclose(judging.norm(given), norms, rtol=1e-15)
  alone = judging.objectives(trials, which, retrained=None, originals=originals)
  np.testing.assert_allclose(
    alone[0], [0.1 / 3, 0.2 / 3, 0.1 / 3, 0.05], rtol=1e-12
  )


def test_non_dominated_trials_are_those_of_a_plain_loop():
  values = np.random.default_rng(0).integers(0, 4, (40, 4)).astype(float)
  naive = [
    not any((b <= a).all() and (b < a).any() for b in values) for a in values
  ]
  assert plots.non_dominated(values).tolist() == naive
  assert any(naive) and not all(naive)


def test_failures_are_infinite_in_every_place():
  trials = _outcomes(indisc=[0.9, np.nan, 0.9], failed=[2, -1, -1])
  given = judging.objectives(
    trials, np.zeros(3, int), retrained=trials, originals=trials
  )
  assert np.isinf(given[:2]).all() and np.isfinite(given[2]).all()
