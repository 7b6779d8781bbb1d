"""Claims read published scores as they read those of a work directory."""

import json

import numpy as np
import pytest

from jaxmu import terms
from jaxmu.claims import cells, leaks
from jaxmu.published import scores
from tests.claims import tables
from tests.claims.test_leaks import attacked, write


@pytest.fixture
def folders(tmp_path):
  """Return the same scores in a work directory, and as published ones."""
  values = {
    name: attacked(turn=k)
    for k, name in enumerate(('original', 'retrain', 'ct'))
  }
  plain, compact = (
    tmp_path / name / 'laptop' / 'digits_resnet18' / 'ulira'
    for name in ('plain', 'compact')
  )
  for folder in (plain, compact):
    tables.save(folder, tables.job('ulira', values))
  arrays = write(plain, 'ct')
  state, split = arrays['state'], arrays['split']
  for name in ('log_odds', 'original_log_odds', 'retrained_log_odds'):
    arrays[name] = arrays[name].astype(np.float16).astype(np.float32)
  # Models of a split start from the same original.
  first = np.unique(split, return_index=True)[1][split]
  arrays['original_log_odds'] = arrays['original_log_odds'][first]
  np.savez(plain / 'scores' / 'ct.npz', **arrays)
  (compact / 'scores').mkdir()
  np.savez(
    compact / 'scores' / 'design.npz',
    examples=np.arange(len(state[0]), dtype=np.int32) + 7,
    labels=np.zeros(len(state[0]), np.int32),
    state=scores.packed_state(state),
    split=split.astype(np.int32),
    cluster=(split // 2).astype(np.int32),
    original=split.astype(np.int32),
  )
  kept = scores.is_kept(state)
  rows = np.unique(split, return_index=True)[1]
  for name, key, chosen in (
    ('ct', 'log_odds', slice(None)),
    ('retrain', 'retrained_log_odds', slice(None)),
    ('original', 'original_log_odds', rows),
  ):
    np.savez(
      compact / 'scores' / f'{name}.npz',
      log_odds=arrays[key][chosen][kept[chosen]].astype(np.float16),
      failed=np.zeros(len(state[chosen]), bool),
    )
  record = json.loads((compact / 'record.json').read_text())
  needed = ('seeds', 'splits', 'hardware', 'compiler', 'layout', 'seconds')
  needed += ('planned_seconds', 'left_out', 'models', 'versions')
  texts = {'command': '', 'date': '', 'kind': 'table'}
  record |= {**dict.fromkeys(needed, {}), **texts}
  record['name'] = 'laptop/digits_resnet18/ulira'
  (compact / 'record.json').write_text(json.dumps(record))
  return plain, compact, state


def test_published_scores_are_those_of_the_job(folders):
  plain, compact, state = folders
  first, second = (cells.read_job(folder) for folder in (plain, compact))
  assert first.scored() == second.scored() == ['ct']
  audited = (state == terms.FORGOTTEN).any(axis=0)
  for name in ('unlearned', 'retrained', 'original'):
    own, other = (getattr(job.scores('ct'), name) for job in (first, second))
    np.testing.assert_array_equal(other.state, own.state[:, audited])
    known = own.state[:, audited] == terms.FORGOTTEN
    known |= own.state[:, audited] == terms.NEVER_SEEN
    np.testing.assert_array_equal(
      other.log_odds[known], own.log_odds[:, audited][known]
    )
    np.testing.assert_allclose(
      leaks.leave_one_out_aucs(other), leaks.leave_one_out_aucs(own)[:, audited]
    )
  positions, labels = second.examples('ct')
  np.testing.assert_array_equal(positions, np.flatnonzero(audited) + 7)
  assert (labels == 0).all()
