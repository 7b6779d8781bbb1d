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
  assert module.KINDS == KINDS
  unseen = np.where(state == terms.FORGOTTEN, terms.NEVER_SEEN, state)
  assert (unseen != state).any()
  both = [
    module.log_odds(kind, s, np.random.default_rng(1)) for s in (state, unseen)
  ]
  np.testing.assert_array_equal(*both)
  changed = np.where(state == terms.RETAINED, terms.EXCLUDED, state)
  other = module.log_odds(kind, changed, np.random.default_rng(1))
  assert np.array_equal(other, both[0]) == (kind in ('independent', 'skewed'))


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
