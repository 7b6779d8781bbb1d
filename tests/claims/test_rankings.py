"""Claims about rankings and speed, where they hold, fail and are undecided."""

import itertools

import numpy as np
import pytest
from scipy import stats

from jaxmu.claims import rankings
from jaxmu.claims.evidence import FAILS, HOLDS, UNDECIDED
from jaxmu.claims.interface import ALL, REPORTED, NotRun
from tests.claims.tables import around, cell, job, method, retrained
from tests.claims.test_accuracy import find, one

NAMES = ('msg', 'ct', 'a', 'b', 'c', 'd')


def main(order, *, disc=None, speed=None, noise=0.001, turn=0, name='main'):
  """Return a job whose methods have RetDev in this order, and Disc too."""
  disc = order if disc is None else disc
  values = {
    name: method(
      0.02 + 0.02 * order.index(name),
      indisc=0.99 - 0.02 * disc.index(name),
      noise=noise,
      turn=turn + 11 * k,
    )
    for k, name in enumerate(order)
  }
  speeds = speed or {name: 20.0 - order.index(name) for name in order}
  return job(name, {'retrain': retrained(), **values}, speed=speeds)


def cells_of(make):
  return [cell(make(k), name=f'data{k}_resnet18') for k in range(4)]


# Claim 1.


def test_msg_and_ct_are_best_over_cells():
  found = find(1, *cells_of(lambda k: main(NAMES, turn=k)))
  assert [f.cell for f in found] == [f'data{k}_resnet18' for k in range(4)] + [
    ALL
  ]
  # Only the best of them is in group 1 by Disc.
  assert found[-1].verdict == FAILS
  assert found[-1].numbers == {'place_msg': 1, 'place_ct': 2}
  tied = {name: 0.99 if name in NAMES[:2] else 0.9 for name in NAMES}

  def both(k):
    made = main(NAMES, turn=k)
    for name, value in tied.items():
      made.values[name]['indisc_test'] = around(value, 0.001, ord(name[0]) + k)
    return made

  assert find(1, *cells_of(both))[-1].verdict == HOLDS
  noisy = find(
    1, *cells_of(lambda k: main(NAMES[::-1] if k % 2 else NAMES, noise=0.2))
  )
  assert noisy[-1].verdict == UNDECIDED
  last = find(1, *cells_of(lambda k: main(NAMES[::-1], turn=k)))[-1]
  assert last.verdict == FAILS


def test_three_cells_are_not_enough_for_all():
  """Without enough cells, the place in each is reported."""
  found = find(1, *cells_of(lambda k: main(NAMES, turn=k))[:3])
  assert [f.verdict for f in found[:3]] == [REPORTED] * 3
  assert isinstance(found[-1], NotRun) and 'there are 3' in found[-1].reason
  assert len(found) == 4


def test_cells_with_few_initialisations_are_left_out():
  made = main(NAMES)
  for values in made.values.values():
    for metric in values:
      values[metric] = values[metric][:4]
  found = find(1, cell(made), cell(main(NAMES), name='cifar10_resnet18'))
  assert isinstance(found[0], NotRun) and '5 init' in found[0].reason
  assert found[1].cell == 'cifar10_resnet18'
  assert isinstance(found[2], NotRun)


def test_ranks_are_averaged_over_three_numbers():
  made = main(NAMES, disc=('ct', 'msg', 'd', 'c', 'b', 'a'))
  naive = []
  for name in NAMES:
    ranks = [
      1 + sum(values[o] < values[name] for o in NAMES)
      for values in (
        {o: made.values[o]['ret_dev'].mean() for o in NAMES},
        {o: 1 - made.values[o]['indisc_test'].mean() for o in NAMES},
        {o: -made.speed(o) for o in NAMES},
      )
    ]
    naive.append(np.mean(ranks))
  got = rankings.combined_ranks(made, np.arange(10))
  np.testing.assert_allclose(got, naive)


def test_methods_that_guess_have_the_worst_rank():
  made = main(NAMES)
  made.values['msg']['ta'] = around(0.1, 0.001)
  assert rankings.combined_ranks(made, np.arange(10))[0] == len(NAMES)


# Claim 5.


def test_search_decides():
  def pair(default, *, noise=0.001, worse=0.3):
    tuned = main(NAMES, noise=noise)
    other = main(default, noise=noise, turn=40, name='default')
    for values in other.values.values():
      values['ret_dev'] = values['ret_dev'] + worse
    return tuned, other

  changed = ('d', 'ct', 'b', 'msg', 'a', 'c')
  found = one(5, *pair(changed))
  assert found.verdict == HOLDS
  places = [changed.index(name) for name in NAMES]
  tau = stats.kendalltau(np.arange(6), places).statistic
  assert found.number.value == pytest.approx(tau)
  assert found.numbers['improved'] == 1.0
  assert one(5, *pair(NAMES)).verdict == FAILS  # the same ranking
  assert one(5, *pair(changed, worse=-0.3)).verdict == FAILS
  assert one(5, *pair(changed, noise=0.5, worse=0.05)).verdict == UNDECIDED


# Claim 13.


def speeds(job_=None, **changes):
  given = {
    name: 100.0 / 1.5**level
    for level, names in enumerate(rankings.ORDER)
    for name in names
  } | changes
  values = {name: method(turn=k) for k, name in enumerate(given)}
  return job('main', {'retrain': retrained(), **values}, speed=given)


def test_the_order_of_run_time():
  found = one(13, speeds())
  assert found.verdict == HOLDS
  level = {n: k for k, names in enumerate(rankings.ORDER) for n in names}
  pairs = [
    (a, b) for a, b in itertools.combinations(level, 2) if level[a] != level[b]
  ]
  assert found.numbers['pairs'] == len(pairs)
  assert found.numbers['ordered'] == len(pairs)
  values = [-speeds().speed(name) for name in level]
  tau = stats.kendalltau(list(level.values()), values).statistic
  assert found.number.value == pytest.approx(tau)
  wrong = one(13, speeds(ga=1.0))
  assert wrong.verdict == FAILS and 'GA (1.0)' in wrong.sentence
  ct = speeds().speed('ct')
  assert one(13, speeds(ft=ct * 1.05)).verdict == UNDECIDED


# Claim 14.


def capped(speed, epochs=10):
  names = ('ft', 'ga')
  return job(
    'main',
    {'retrain': retrained(), **{n: method() for n in names}},
    speed=dict.fromkeys(names, 30.0) | {'ft': speed},
    hparams={n: {'num_epochs': epochs, 'batch_size': 64} for n in names},
    epochs=50,
  )


def test_epochs_are_capped_and_time_is_not():
  assert one(14, capped(3.0)).verdict == HOLDS
  assert one(14, capped(9.0)).verdict == FAILS
  assert one(14, capped(5.1)).verdict == UNDECIDED
  assert isinstance(one(14, capped(3.0, epochs=11)), NotRun)
  both = capped(3.0)
  both.facts['configuration']['unlearners'][0]['hparams']['num_epochs'] = 20
  assert one(14, both).verdict == FAILS  # FT has too many epochs


# Claim 17.


def test_metrics_disagree():
  reverse = NAMES[::-1]
  found = one(17, main(NAMES, disc=reverse))
  assert found.verdict == HOLDS and found.number.value == -1
  assert one(17, main(NAMES)).verdict == FAILS
  mixed = ('ct', 'msg', 'b', 'a', 'd', 'c')
  assert one(17, main(NAMES, disc=mixed, noise=0.06)).verdict == UNDECIDED


def test_rankings_that_are_noise_cannot_disagree():
  made = main(NAMES)
  for k, values in enumerate(made.values.values()):
    values['indisc_test'] = around(0.95, 0.05, 90 + k)
  found = one(17, made)
  assert found.number.value < 0.5 and found.verdict == UNDECIDED
  assert found.numbers['halves_ret_dev'] == 1
  assert found.numbers['halves_disc'] < 0.5


def test_halves_are_ranked_apart():
  values = np.random.default_rng(3).normal(size=(6, 4))
  taus = []
  for first in itertools.combinations(range(4), 2):
    second = [s for s in range(4) if s not in first]
    means = values[:, list(first)].mean(axis=1), values[:, second].mean(axis=1)
    taus.append(stats.kendalltau(*means).statistic)
  assert rankings.halves(values) == pytest.approx(np.mean(taus), abs=0.03)
  assert rankings.halves(np.arange(6.0)[:, None] + values * 1e-6) == 1


def test_a_tau_is_resampled_over_initialisations():
  made = main(NAMES, disc=('ct', 'd', 'b', 'msg', 'a', 'c'), noise=0.03)
  found = one(17, made)
  rng = np.random.default_rng(0)
  taus = []
  for rows in rng.integers(0, 10, (2000, 10)):
    means = [
      [made.values[n][metric][rows].mean() for n in NAMES]
      for metric in ('ret_dev', 'indisc_test')
    ]
    taus.append(stats.kendalltau(means[0], [1 - v for v in means[1]]).statistic)
  ends = np.quantile(taus, [0.025, 0.975])
  np.testing.assert_allclose(found.number[1:], ends, atol=1e-12)


# Claim 19.


def test_rankings_of_two_cells_are_reported():
  first = cell(main(NAMES), name='digits_resnet18')
  second = cell(main(NAMES[::-1]), name='digits_vit11m')
  other = cell(main(NAMES, turn=9), name='cifar10_resnet18')
  found = find(19, first, second, other)
  assert [f.verdict for f in found] == [REPORTED] * 2
  models, data = found
  assert models.cell == 'digits_resnet18, digits_vit11m'
  assert models.number.value == -1 and models.numbers['tau_disc'] == -1
  assert data.cell == 'digits_resnet18, cifar10_resnet18'
  assert data.number.value == 1
  assert 'digits_vit11m is -1.00' in models.sentence
  (missing,) = find(19, second, other)
  assert isinstance(missing, NotRun)


def test_two_rankings_are_resampled_apart():
  jobs = (
    main(NAMES, noise=0.03),
    main(('ct', 'd', 'b', 'msg', 'a', 'c'), noise=0.03),
  )
  found = find(19, cell(jobs[0]), cell(jobs[1], name='digits_vit11m'))
  rng = np.random.default_rng(0)
  x, y = (np.array([made.values[n]['ret_dev'] for n in NAMES]) for made in jobs)
  rows = [rng.integers(0, 10, (2000, 10)) for _ in range(2)]
  taus = [
    stats.kendalltau(x[:, a].mean(axis=1), y[:, b].mean(axis=1)).statistic
    for a, b in zip(*rows, strict=True)
  ]
  ends = np.quantile(taus, [0.025, 0.975])
  np.testing.assert_allclose(found[0].number[1:], ends, atol=1e-12)
