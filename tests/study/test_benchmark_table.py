"""The benchmark's table of a job: noise floor, storage, warnings."""

import json

import numpy as np

from jaxmu.data import splits
from jaxmu.metrics import Evaluated
from jaxmu.report import results, tables
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
    {
      'retrain': {'ra': np.array([0.5, np.nan])},
      'ff': {'ra': np.zeros(2), 'rte': [np.inf, 2]},
    },
    floor={'ret_dev': np.array([0.1, 0.2])},
    failed={'ff': (1, 2)},
  )
  packed = json.loads(json.dumps(results.to_plain(table)))
  again = tables.PaperTable(**packed)
  assert tables.paper_markdown(again) == tables.paper_markdown(table)
  assert '1 of 2 failed' in tables.paper_text(again)


def make_population(log_odds, state, split=None):
  models = len(log_odds)
  return Evaluated(
    name='ft',
    log_odds=log_odds,
    correct=log_odds > 0,
    state=state,
    validation=np.zeros(0, int),
    test=np.arange(2, log_odds.shape[1]),
    cluster=np.arange(models),
    split=np.zeros(models, int) if split is None else split,
    classes=2,
    failed=np.zeros(models, bool),
  )


def test_unseen_points_are_test_images_where_there_is_one_split():
  log_odds = np.arange(8.0).reshape(2, 4)
  state = np.full((2, 4), splits.NEVER_SEEN)
  state[:, 0], state[:, 1] = splits.RETAINED, splits.FORGOTTEN
  population = make_population(log_odds, state)
  forgotten, unseen = evaluate.compared_log_odds(population)
  assert forgotten.tolist() == [1, 5]
  assert unseen.tolist() == [2, 3, 6, 7]
  state[1, :2] = splits.FORGOTTEN, splits.NEVER_SEEN
  forgotten, unseen = evaluate.compared_log_odds(population)
  assert (forgotten.tolist(), unseen.tolist()) == ([1, 4], [5])
