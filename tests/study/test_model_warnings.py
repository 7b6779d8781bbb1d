"""What a report says about failed members and dead weights."""

import numpy as np
import pytest

from jaxmu import method
from jaxmu.study import job, publish


def _members(size: int) -> job.Members:
  places = np.arange(size, dtype=np.int32)
  return job.Members(places % 2, places // 2, 10 + places, places)


def test_failed_members_are_named_with_their_epochs():
  failed = np.array([-1, 3, -1, 0])
  (found,) = publish.failure_warnings('ga', failed, _members(4))
  assert found == (
    'ga: 2 of 4 models became non-finite, at epoch 3 (initialisation 1, '
    'split 0, forget set 11); epoch 0 (initialisation 1, split 1, forget set '
    '13); the others were not affected'
  )
  (found,) = publish.failure_warnings(
    'original', np.array([1, -1]), _members(2)
  )
  assert 'epoch 1 (initialisation 0, split 0);' in found
  assert not publish.failure_warnings('ga', np.full(4, -1), _members(4))


def test_many_failures_are_counted():
  failed = np.array([0] * 9 + [-1])
  (found,) = publish.failure_warnings('ga', failed, _members(10))
  assert found.count('epoch 0') == 5 and 'and 4 more;' in found


def test_a_population_that_failed_as_a_whole_is_said_in_one_sentence():
  (found,) = publish.failure_warnings('ga', np.full(4, 2), _members(4))
  assert found.startswith('ga: all 4 models failed, at epoch 2:')
  (found,) = publish.failure_warnings('ga', np.array([2, 5]), _members(2))
  assert 'all 2 models failed, at epochs 2 to 5:' in found


@pytest.mark.parametrize(('every_epoch', 'mean'), [(False, 200), (True, 300)])
def test_dead_weights_are_averaged_over_models(every_epoch, mean):
  counts = np.array([[100.0, 100.0, 100.0], [300.0, np.nan, np.nan]])
  chosen = method.Chosen('replaced', 'dead_renewed', every_epoch)
  found = publish.dead_weights_warning('msg', chosen, counts, 1000, 5000)
  assert found.startswith(
    f'msg: of the weights that it replaced, {mean} (the mean'
  )
  assert '1,000 of the 5,000 weights' in found
