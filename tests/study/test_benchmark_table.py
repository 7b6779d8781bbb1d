"""The benchmark's table of a job: noise floor, storage, warnings."""

import json
import types

import numpy as np

from jaxmu.data import splits
from jaxmu.report import tables
from jaxmu.study import evaluate, publish


def test_noise_floor_compares_each_seed_with_the_next():
  rng = np.random.default_rng(0)
  retrained = {name: rng.uniform(0.8, 1, 4) for name in ('ra', 'fa', 'ta')}
  found = publish.noise_floor(retrained)
  for seed in range(4):
    distance = 0.0
    for short, name in (('rr', 'ra'), ('fr', 'fa'), ('tr', 'ta')):
      ratio = retrained[name][seed] / retrained[name][(seed + 1) % 4]
      assert found[short][seed] == ratio
      distance += abs(ratio - 1)
    np.testing.assert_allclose(found['ret_dev'][seed], distance)


def test_noise_floor_needs_two_seeds():
  one = dict.fromkeys(('ra', 'fa', 'ta'), np.ones(1))
  assert publish.noise_floor(one) == {}


def test_a_table_is_stored_as_json_and_read_again():
  table = tables.PaperTable(
    {'retrain': {'ra': np.array([0.5, np.nan])}, 'ff': {'ra': np.zeros(2)}},
    floor={'ret_dev': np.array([0.1, 0.2])},
    failed={'ff': (1, 2)},
  )
  packed = json.loads(json.dumps(publish.pack_table(table)))
  again = publish.unpack_table(packed)
  assert tables.paper_table_markdown(again) == tables.paper_table_markdown(
    table
  )
  assert '1 of 2 failed' in tables.paper_table_text(again)


def test_a_single_split_is_warned_of_once_for_all_methods():
  warnings = []
  for name in ('retrain', 'ft'):
    people = evaluate.Scored(
      name,
      *[np.zeros((6, 3))] * 3,
      cluster=np.arange(6),
      split=np.zeros(6, int),
    )
    job = types.SimpleNamespace()
    assert evaluate.run_ulira(job, people, warnings) is None  # pyright: ignore
  assert len(warnings) == 1
  assert 'at least 3' in warnings[0] and 'this design has 1.' in warnings[0]


def test_unseen_points_are_test_images_where_there_is_one_split():
  phi = np.arange(8.0).reshape(2, 4)
  state = np.full((2, 4), splits.NEVER_SEEN)
  state[:, 0], state[:, 1] = splits.RETAINED, splits.FORGOTTEN
  people = evaluate.Scored('ft', phi, phi > 0, state, np.arange(2), np.zeros(2))
  forgotten, unseen = evaluate._observations(people, num_dev=2)
  assert forgotten.tolist() == [1, 5]
  assert unseen.tolist() == [2, 3, 6, 7]
  state[1, :2] = splits.FORGOTTEN, splits.NEVER_SEEN
  forgotten, unseen = evaluate._observations(people, num_dev=2)
  assert (forgotten.tolist(), unseen.tolist()) == ([1, 4], [5])
