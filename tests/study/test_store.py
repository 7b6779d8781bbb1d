"""Shards are whole or absent."""

import jax
import numpy as np

from jaxmu import files
from jaxmu.study import store


def _tree():
  kernel = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
  return {'params': {'fc': {'kernel': kernel}}, 'batch_stats': {}}


def test_models_and_arrays_come_back_as_written(tmp_path):
  shelf = store.open_shelf(tmp_path, 'models', 'ft', 'abc', 2)
  assert shelf.missing() == [0, 1]
  for number in range(2):
    shelf.save(
      number,
      models=_tree(),
      arrays={'losses': np.full(3, number)},
      info={'seconds': 1.5},
    )
  assert shelf.missing() == []
  like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), _tree())
  back = shelf.models(1, like)
  kernel = back['params']['fc']['kernel']
  np.testing.assert_array_equal(kernel, _tree()['params']['fc']['kernel'])
  np.testing.assert_array_equal(shelf.arrays('losses'), [0, 0, 0, 1, 1, 1])
  assert shelf.info(1) == {'seconds': 1.5}


def test_drafts_of_killed_processes_are_cleared(tmp_path):
  shelf = store.open_shelf(tmp_path, 'models', 'ft', 'abc', 1)
  draft = shelf.folder / 'shard_000.draft'
  draft.mkdir(parents=True)
  (draft / 'losses.npy').write_bytes(b'half')
  shelf = store.open_shelf(tmp_path, 'models', 'ft', 'abc', 1)
  assert not draft.exists()
  assert shelf.missing() == [0]


def test_shard_without_readable_record_is_missing(tmp_path):
  shelf = store.open_shelf(tmp_path, 'models', 'ft', 'abc', 1)
  shelf.save(0, arrays={'losses': np.zeros(3)})
  (shelf.shard(0) / store.RECORD).write_text('{"files"')
  assert shelf.missing() == [0]


def test_equal_sizes_hide_changes_only_without_verification(tmp_path):
  shelf = store.open_shelf(tmp_path, 'models', 'ft', 'abc', 1)
  shelf.save(0, arrays={'losses': np.zeros(3)})
  path = shelf.shard(0) / 'losses.npy'
  path.write_bytes(path.read_bytes()[:-1] + b'\1')
  assert shelf.missing(verify=False) == []
  assert shelf.missing(verify=True) == [0]


def test_digest_depends_on_content_not_on_order():
  a = files.digest('train', 1, {'x': 1, 'y': 2.0}, np.arange(3))
  assert a == files.digest('train', 1, {'y': 2.0, 'x': 1}, np.arange(3))
  others = [
    files.digest('train', 2, {'x': 1, 'y': 2.0}, np.arange(3)),
    files.digest('predict', 1, {'x': 1, 'y': 2.0}, np.arange(3)),
    files.digest('train', 1, {'x': 1, 'y': 2.5}, np.arange(3)),
    files.digest('train', 1, {'x': 1, 'y': 2.0}, np.arange(3)[::-1]),
  ]
  assert len({a, *others}) == 5
