"""RMIA against its definition, its tie-break and its one-sidedness."""

import math

import numpy as np
import pytest
from scipy import special

from jaxmu.attacks import rmia, roc
from tests.attacks import populations


@pytest.fixture(name='small', scope='module')
def _small():
  rng = np.random.default_rng(0)
  state, group = populations.states(rng, 6, 2, 40)
  state[:, 30:] = 3  # never in any model: the population
  score = populations.scores(rng, state, group, shift=0.5)
  order = rng.permutation(len(group))
  return score[order], state[order], group[order]


def naive_rmia(phi, state, group, rule, a, gamma):
  """Probabilities, means and counts as in the definition."""
  p = special.expit(phi)
  population = (state == 3).all(axis=0)
  out = np.full(phi.shape, np.nan)
  for m in range(len(phi)):
    keep = group != group[m]
    bar = np.full(phi.shape[1], np.nan)
    for n in range(phi.shape[1]):
      outs = p[keep & ((state[:, n] == 2) | population[n]), n]
      ins = p[keep & (state[:, n] == 1), n]
      if rule == 'offline' and len(outs):
        bar[n] = 0.5 * ((1 + a) * outs.mean() + 1 - a)
      elif population[n]:
        bar[n] = outs.mean()
      elif len(ins) and len(outs):
        bar[n] = 0.5 * (ins.mean() + outs.mean())
    ratio = p[m] / bar
    for n in np.flatnonzero(np.isin(state[m], (1, 2)) & np.isfinite(bar)):
      out[m, n] = np.mean(ratio[n] / ratio[population] >= gamma)
  return out


@pytest.mark.filterwarnings('error')
@pytest.mark.parametrize('rule', ['online', 'offline'])
def test_missing_scores_and_references_give_no_warning(small, rule):
  score, state, group = (x.copy() for x in small)
  state[group != 0, 0] = 0  # no reference is left for this example
  state[3] = 3
  score[3] = np.nan  # a failed model
  score[:, 29] = 800.0
  for a in (0.3, 1.0):
    got, valid = rmia.rmia(score, state, group, rule=rule, a=a)
    assert valid.any() and not valid[3].any() and np.isnan(got[3]).all()


@pytest.mark.parametrize('rule', ['online', 'offline'])
@pytest.mark.parametrize('gamma', [1.0, 2.0])
def test_equals_the_definition_up_to_the_tie_break(small, rule, gamma):
  expected = naive_rmia(*small, rule, 0.3, gamma)
  got, valid = rmia.rmia(*small, rule=rule, gamma=gamma)
  np.testing.assert_array_equal(valid, np.isfinite(expected))
  excess = got[valid] - expected[valid]
  assert (excess > -1e-12).all() and (excess < 0.1).all()  # 1 / |Z|


def test_ties_at_the_top_are_broken_in_order(small):
  phi, state, group = small
  leaky = np.where(state == 1, phi + 30, phi)
  score, valid = rmia.rmia(leaky, state, group)
  top = valid & (score >= 1)
  assert top.sum() > 20  # these would tie at 1
  for m in range(len(phi)):
    assert len(np.unique(score[m, top[m]])) == top[m].sum()


def test_augmentations_are_averaged(small):
  phi, state, group = small
  views = [phi, phi + np.random.default_rng(1).normal(size=phi.shape)]
  got, _ = rmia.rmia(np.stack(views, -1), state, group)
  each = [rmia.rmia(view, state, group)[0] for view in views]
  np.testing.assert_allclose(got, np.mean(each, 0))


def test_extreme_log_odds_stay_finite(small):
  phi, state, group = small
  for scale in (1e3, -1e3):
    score, valid = rmia.rmia(scale * np.sign(phi), state, group)
    assert valid.any() and np.isfinite(score[valid]).all()


def test_leave_out_sums_do_not_cancel():
  sums = np.array([[1e-30], [1.0], [1e-30]])
  got = rmia._without_each(sums)
  np.testing.assert_allclose(got, [[1.0], [2e-30], [1.0]])


def test_one_sided():
  rng = np.random.default_rng(2)
  state, group = populations.states(rng, 8, 2, 300)
  state[:, 250:] = 3
  auc = []
  for shift in (-2.0, 0.0, 2.0):
    phi = populations.scores(rng, state, group, shift=shift)
    score, valid = rmia.rmia(phi, state, group // 2)
    auc.append(
      roc.auc(score[valid & (state == 1)], score[valid & (state == 2)])
    )
  assert auc[0] < 0.35 and abs(auc[1] - 0.5) < 0.03 and auc[2] > 0.65


def test_null_is_calibrated():
  rng = np.random.default_rng(3)
  values = []
  for _ in range(40):
    state, group = populations.states(rng, 8, 2, 100)
    state[:, 80:] = 3
    phi = populations.scores(rng, state, group)
    score, valid = rmia.rmia(phi, state, group // 2, rule='online')
    values.append(
      roc.auc(score[valid & (state == 1)], score[valid & (state == 2)])
    )
  error = np.std(values, ddof=1) / math.sqrt(len(values))
  assert abs(np.mean(values) - 0.5) < 3 * error and error < 0.01


def test_refusals_say_what_is_missing(small):
  phi, state, group = small
  with pytest.raises(ValueError, match='population examples'):
    rmia.rmia(phi[:, :30], state[:, :30], group)
  with pytest.raises(ValueError, match='trained on'):
    rmia.rmia(phi, state, group, population=np.arange(40) < 5)
  for options in ({'a': 1.5}, {'gamma': 0.0}, {'rule': 'both'}):
    with pytest.raises(ValueError, match=str(next(iter(options.values())))):
      rmia.rmia(phi, state, group, **options)
