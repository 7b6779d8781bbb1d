"""The simulated null of U-LiRA: its scores have no leak, and one is seen."""

import numpy as np
import pytest

from jaxmu import terms
from jaxmu.data import splits

KINDS = ('independent', 'skewed', 'class', 'images', 'both')


@pytest.fixture
def state():
  design = splits.audit_design(300, num_splits=4, forget_sets=2, pool=200)
  return splits.membership(design, 300)


@pytest.mark.parametrize('kind', KINDS)
def test_scores_do_not_depend_on_what_was_forgotten(load, state, kind):
  module = load('null_simulation')
  assert tuple(module.KINDS) == KINDS
  unseen = np.where(state == terms.FORGOTTEN, terms.NEVER_SEEN, state)
  assert (unseen != state).any()
  both = [
    module.log_odds(kind, s, np.random.default_rng(1)) for s in (state, unseen)
  ]
  np.testing.assert_array_equal(*both)
  changed = np.where(state == terms.RETAINED, terms.EXCLUDED, state)
  other = module.log_odds(kind, changed, np.random.default_rng(1))
  assert np.array_equal(other, both[0]) == (kind in ('independent', 'skewed'))


def test_scores_are_those_of_a_plain_loop(load, state):
  module = load('null_simulation')
  models, examples = state.shape
  rng = np.random.default_rng(2)
  noise = rng.normal(size=state.shape)
  mean = rng.normal(size=examples)
  label = rng.integers(0, module.CLASSES, examples)
  near = []
  for _ in range(examples):
    chosen = rng.choice(examples, module.NEIGHBOURS, replace=False)
    near.append(dict(zip(chosen, rng.normal(size=len(chosen)), strict=True)))
  retained = [np.flatnonzero(row == terms.RETAINED) for row in state]
  mates = [
    [sum(label[i] == c for i in own) for c in range(module.CLASSES)]
    for own in retained
  ]
  usual = np.mean(mates, axis=0)
  expected = np.empty(state.shape)
  for m in range(models):
    for x in range(examples):
      expected[m, x] = (
        2.0 * mean[x]
        + 0.7 * noise[m, x]
        + 0.15 * (mates[m][label[x]] - usual[label[x]])
        + 0.3 * sum(near[x].get(i, 0.0) for i in retained[m])
      )
  got = module.log_odds('both', state, np.random.default_rng(2))
  np.testing.assert_allclose(got, expected, atol=1e-12)


def test_a_leak_would_be_seen(load, monkeypatch):
  module = load('null_simulation')
  assert abs(module.auc('independent', 0) - 0.5) < 0.05
  draw = module.log_odds
  monkeypatch.setattr(
    module,
    'log_odds',
    lambda kind, state, rng: (
      draw(kind, state, rng) + 2.0 * (state == terms.FORGOTTEN)
    ),
  )
  assert module.auc('independent', 0) > 0.8
