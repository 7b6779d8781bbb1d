"""Splits: published checksums, and properties for all parameters."""

import hashlib
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import model_selection

from jaxmu.data import splits
from tests.data import refusals


def digest(index):
  return hashlib.sha256(np.asarray(index, '<i8').tobytes()).hexdigest()[:16]


def _unshuffle(shuffled, *, seed):
  original = np.empty_like(shuffled)
  original[np.random.default_rng(seed).permutation(len(shuffled))] = shuffled
  return original


# sha256 of train, retain, forget and val over little-endian int64, and the
# first indices of forget.
PUBLISHED = {
  60_000: (
    ('7d6b94c6d033f3ec', '1a45b723a06717c3'),
    ('d41285006b08fa4c', '4a5f2ef69284bb59'),
    [12238, 20118, 23825, 29798, 10974, 49858],
  ),
  50_000: (
    ('0be2ceb32b8bfbc0', '2d774d0b1d74cd9b'),
    ('e9b620dfb49798b9', 'b7f47c919b8a0b77'),
    [33810, 44208, 6639, 25856, 49484, 12123],
  ),
  18_967: (
    ('36b1c1150e9403ad', '9f9926142fe0035c'),
    ('1b95b8a5185f0ddd', '69a2b5abc2570a66'),
    [1216, 11795, 8470, 3484, 12603, 14088],
  ),
}


@pytest.mark.parametrize('num_dev', PUBLISHED)
def test_main_split_is_the_published_one(num_dev):
  (train, retain), (forget, val), first = PUBLISHED[num_dev]
  design = splits.main_split(np.zeros(num_dev), num_dev)
  kept, _ = splits.holdout(np.arange(num_dev), fraction=0.15)
  assert digest(kept) == train
  assert digest(design.retain[0]) == retain
  assert digest(design.forget[0]) == forget
  assert digest(design.val) == val
  assert design.forget[0, :6].tolist() == first
  assert design.unseen.shape == (1, 0)


def test_a_pool_of_the_main_split_is_a_random_part():
  pool = splits.main_split(np.zeros(1000), 900, pool=200)
  order = np.random.RandomState(123).permutation(900)[:200]
  kept, val = splits.holdout(order, fraction=0.15)
  retain, forget = splits.holdout(kept, fraction=0.1)
  assert (len(retain), len(forget), len(val)) == (153, 17, 30)
  np.testing.assert_array_equal(pool.retain[0], retain)
  np.testing.assert_array_equal(pool.forget[0], forget)
  np.testing.assert_array_equal(pool.val, val)


@pytest.mark.parametrize('pool', [0, 2, 901])
def test_a_pool_of_the_main_split_that_is_impossible_is_refused(pool):
  with pytest.raises(ValueError, match=f'pool is {pool}: .* choose 3 to 900'):
    splits.main_split(np.zeros(1000), 900, pool=pool)


@given(
  st.integers(2, 400), st.sampled_from([0.07, 0.1, 0.15, 0.3, 0.5]), st.data()
)
@settings(max_examples=40, deadline=None)
def test_holdout_equals_scikit_learn(size, fraction, data):
  seed = data.draw(st.integers(0, 1000))
  index = np.arange(size) * 3 + 1
  kept, held = model_selection.train_test_split(
    index, test_size=fraction, random_state=seed
  )
  ours = splits.holdout(index, fraction=fraction, seed=seed)
  np.testing.assert_array_equal(ours[0], kept)
  np.testing.assert_array_equal(ours[1], held)


def test_holdout_refuses_fractions_that_leave_nothing():
  assert not refusals.unclear(
    lambda case: splits.holdout(np.arange(case[0]), fraction=case[1]),
    [
      *(((10, f), f'fraction is {f}') for f in (0, 1, -0.5, 1.5)),
      ((2, 0.9), 'leaves nothing'),
    ],
  )


def test_reference_ulira_splits_are_the_published_ones():
  design = splits.ulira_splits_reference()
  assert design.retain.shape == (640, 21_375)
  assert design.forget.shape == (640, 2_375)
  assert design.unseen.shape == (640, 23_750)
  assert digest(design.val) == '8316277275d26970'
  assert design.val[:3].tolist() == [34049, 9776, 1945]
  assert digest(design.unseen[0]) == '3ef9097f0c9d3534'
  assert digest(design.forget[0]) == '2cc5cf7ddb8d6f6f'
  assert design.forget[0, :3].tolist() == [16130, 45508, 17503]
  assert digest(design.forget[9]) == 'c9a492fd473376d3'
  assert digest(design.forget[630]) == '320a681d32e11042'
  assert (design.split[9], design.forget_set[9]) == (0, 9)
  assert (design.split[630], design.forget_set[630]) == (63, 0)
  # Undo the shuffles: training sets and pool in the published order.
  for member, train_digest in (
    (0, '2e9ec293f62d36e5'),
    (639, 'f7fc19dbb28323aa'),
  ):
    split, forget_set = design.split[member], design.forget_set[member]
    drawn = np.concatenate([design.retain[member], design.forget[member]])
    train = _unshuffle(drawn, seed=forget_set)
    assert digest(train) == train_digest
    shuffled = np.concatenate([train, design.unseen[member]])
    assert digest(_unshuffle(shuffled, seed=split)) == '90a45c1142975d75'
  # Forget sets overlap at random: the published counts per point.
  forgotten = (splits.membership(design, 50_000) == splits.FORGOTTEN).sum(0)
  counts = forgotten[np.setdiff1d(np.arange(50_000), design.val)]
  assert (counts.min(), counts.max(), counts.mean()) == (8, 64, 32)


def _check_members(design, num_dev):
  """Check the properties of every member of a design."""
  for p in range(len(design.split)):
    parts = [design.retain[p], design.forget[p], design.unseen[p], design.val]
    together = np.concatenate(parts)
    assert len(np.unique(together)) == len(together), 'disjoint'
    assert together.min() >= 0
    assert together.max() < num_dev
  for split in np.unique(design.split):
    trained = [
      np.sort(np.concatenate([design.retain[p], design.forget[p]]))
      for p in np.flatnonzero(design.split == split)
    ]
    assert all((t == trained[0]).all() for t in trained), 'one original'


@st.composite
def _audit_parameters(draw):
  forget_sets = draw(st.integers(1, 10))
  fraction = draw(st.sampled_from([0.05, 0.1, 0.2, 0.25, 1 / 3, 0.5]))
  forget_sets = min(forget_sets, round(1 / fraction))
  pool = draw(st.integers(2 * round(1 / fraction), 300))
  return {
    'num_dev': pool + draw(st.integers(1, 50)),
    'num_splits': 2 * draw(st.integers(1, 4)),
    'forget_fraction': fraction,
    'forget_sets': forget_sets,
    'pool': pool,
    'seed': draw(st.integers(0, 99)),
  }


@given(_audit_parameters())
@settings(max_examples=60, deadline=None)
def test_audit_design_counts_every_point_alike(parameters):
  design = splits.audit_design(**parameters)
  num_dev, num_splits = parameters['num_dev'], parameters['num_splits']
  forget_sets = parameters['forget_sets']
  _check_members(design, num_dev)
  state = splits.membership(design, num_dev)
  audited = np.isin(np.arange(num_dev), design.audit)
  in_pool = ~np.isin(np.arange(num_dev), design.val)

  forgotten = (state == splits.FORGOTTEN).sum(0)
  assert (forgotten[audited] == num_splits // 2).all()
  assert (forgotten[~audited] == 0).all()
  unseen = (state == splits.NEVER_SEEN).sum(0)
  assert (unseen[in_pool] == forget_sets * num_splits // 2).all()
  retained = (state == splits.RETAINED).sum(0)
  assert (retained[audited] == (forget_sets - 1) * num_splits // 2).all(), (
    'otherwise retained'
  )
  # Each audited point is forgotten exactly once per split it is in.
  for split in range(num_splits):
    of_split = state[design.split == split]
    once = (of_split == splits.FORGOTTEN).sum(0)
    trained = (of_split[0] != splits.NEVER_SEEN) & in_pool
    np.testing.assert_array_equal(once, trained & audited)
    assert (trained & audited).sum() * 2 == len(design.audit)
  # Splits of a pair are complements within the pool.
  for pair in range(num_splits // 2):
    first, second = state[design.pair == pair][[0, -1]]
    assert (
      (first == splits.NEVER_SEEN) ^ (second == splits.NEVER_SEEN) == in_pool
    ).all()
  assert in_pool.sum() == parameters['pool'] - design.dropped
  assert 0 <= design.dropped < 2 * forget_sets


def test_audit_set_is_the_pool_when_forget_sets_cover():
  design = splits.audit_design(
    200, num_splits=4, forget_fraction=0.1, forget_sets=10, pool=180
  )
  assert len(design.audit) == 180
  assert design.forget.shape == (40, 9)
  assert design.dropped == 0


def test_digits_sizes_need_no_partial_batch_of_64():
  design = splits.audit_design(
    1437, num_splits=16, forget_fraction=0.1, forget_sets=2, pool=1280
  )
  assert design.retain.shape == (32, 576)
  assert design.forget.shape == (32, 64)
  assert design.unseen.shape == (32, 640)
  assert (len(design.audit), len(design.val)) == (256, 157)
  assert design.split.tolist() == [s for s in range(16) for _ in range(2)]
  assert design.pair.tolist() == [s // 2 for s in design.split]


def test_cifar_sizes_are_those_of_the_reference():
  design = splits.audit_design(50_000, num_splits=2)
  assert design.retain.shape == (20, 21_375)
  assert design.forget.shape == (20, 2_375)
  assert (len(design.val), design.dropped) == (2_500, 0)


def test_uneven_pool_gives_its_remainder_to_validation():
  design = splits.audit_design(
    100, num_splits=2, forget_fraction=0.25, forget_sets=4, pool=91
  )
  assert design.dropped == 3
  assert len(design.val) == 12
  assert len(design.audit) == 88


def test_audit_design_depends_on_its_seed_and_never_changes():
  def make(seed):
    return splits.audit_design(60, num_splits=2, pool=40, seed=seed)

  assert (make(0).retain != make(1).retain).any()
  # A changed draw would make earlier results impossible to continue.
  assert digest(make(0).forget) == '4772fb0473524dfa'


def test_fractions_that_round_up_still_leave_room_for_all_forget_sets():
  # 0.098 of 26 rounds to 3, but 10 disjoint sets of 3 do not fit.
  design = splits.audit_design(
    60, num_splits=2, forget_fraction=0.098, forget_sets=10, pool=52
  )
  assert design.forget.shape == (20, 2)


def test_pairs_and_splits_are_drawn_independently():
  design = splits.audit_design(
    120, num_splits=6, forget_fraction=0.1, forget_sets=2, pool=100
  )
  trained = {np.sort(row).tobytes() for row in design.unseen}
  assert len(trained) == 6
  # The chance that two points of one forget set share another is small.
  together = np.zeros((120, 120), int)
  for row in design.forget:
    together[np.ix_(row, row)] += 1
  assert (together[design.audit][:, design.audit] == 3).sum() < 40


def test_points_are_exchangeable_over_seeds():
  seeds, num_dev, pool, audited = 600, 24, 20, 8
  in_pool, in_audit = np.zeros(num_dev), np.zeros(num_dev)
  same_half = 0
  for seed in range(seeds):
    design = splits.audit_design(
      num_dev,
      num_splits=2,
      forget_fraction=0.2,
      forget_sets=2,
      pool=pool,
      seed=seed,
    )
    assert len(design.audit) == audited
    in_pool += ~np.isin(np.arange(num_dev), design.val)
    in_audit += np.isin(np.arange(num_dev), design.audit)
    forgotten = design.forget[design.split == 0]
    same_half += np.isin(design.audit[:2], forgotten).sum() != 1
  for count, share in ((in_pool, pool), (in_audit, audited)):
    p = share / num_dev
    # Five standard deviations of a binomial count.
    assert abs(count - seeds * p).max() < 5 * (seeds * p * (1 - p)) ** 0.5
  p = 3 / 7  # of the 7 other audited points, 3 are in the half of the first
  assert abs(same_half - seeds * p) < 5 * (seeds * p * (1 - p)) ** 0.5


def test_audit_design_names_value_and_remedy():
  assert not refusals.unclear(
    lambda wrong: splits.audit_design(100, **wrong),
    [
      ({'num_splits': 7}, 'num_splits is 7.*choose 8'),
      ({'num_splits': 0}, 'num_splits is 0.*choose 2'),
      ({'forget_fraction': 0}, 'forget_fraction is 0'),
      ({'forget_fraction': 1.0}, 'forget_fraction is 1.0'),
      ({'forget_sets': 11}, 'forget_sets is 11.*1 to 10'),
      ({'forget_sets': 0}, 'forget_sets is 0'),
      ({'pool': 102}, 'pool is 102.*100 examples.*to 99, or none for 95'),
      ({'pool': 100}, 'pool is 100.*for validation.*config.splits.pool=0'),
      ({'pool': 1}, 'pool is 1:'),
      ({'pool': 8, 'forget_sets': 1}, 'pool is 8.*forget no example.*from 12'),
      ({'forget_fraction': 1e-9, 'forget_sets': 1}, 'fraction, such as 0.1'),
      ({'forget_fraction': 0.999, 'forget_sets': 1}, 'every.*such as 0.1'),
    ],
  )


@given(
  st.integers(1, 120),
  st.integers(1, 130) | st.none(),
  st.sampled_from([1e-9, 0.01, 0.05, 0.1, 0.3, 1 / 3, 0.5, 0.9, 0.999]),
  st.integers(1, 12),
)
@settings(max_examples=300, deadline=None)
def test_no_design_has_an_empty_set_and_what_is_offered_is_accepted(
  num_dev, pool, fraction, forget_sets
):
  def sets(pool, fraction):
    design = splits.audit_design(
      num_dev,
      num_splits=2,
      forget_fraction=fraction,
      forget_sets=forget_sets,
      pool=pool,
    )
    return design.retain, design.forget, design.val, design.unseen

  try:
    assert all(part.size for part in sets(pool, fraction))
    return
  except ValueError as error:
    message = str(error)
  offered = re.search(r'choose one from (\d+) to (\d+)(.*)', message)
  other = re.search(r'such as ([\d.]+), and config.splits.pool=0', message)
  if offered:
    low, high = int(offered[1]), int(offered[2])
    pools = [*range(low, high + 1), *([None] if 'pool=0' in offered[3] else [])]
    assert pools
    for one in pools:
      assert all(part.size for part in sets(one, fraction)), message
  elif other:
    assert all(part.size for part in sets(None, float(other[1]))), message
  else:
    assert 'too small' in message or 'forget_sets is' in message


def test_the_reference_design_needs_validation_examples():
  with pytest.raises(ValueError, match="too few .*choose design 'audit'"):
    splits.ulira_splits_reference(19, num_splits=2, forget_sets=1)
  design = splits.ulira_splits_reference(60, num_splits=2, forget_sets=1)
  assert design.val.size and design.retain.size and design.forget.size


def test_state_marks_what_no_set_holds_as_excluded():
  design = splits.single(
    retain=np.array([4, 2]), forget=np.array([0]), val=np.array([1])
  )
  assert splits.membership(design, 6).tolist() == [[1, 3, 0, 3, 0, 3]]
  with pytest.raises(ValueError, match='example 4'):
    splits.membership(design, 4)
