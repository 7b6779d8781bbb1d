"""Shards are complete and in their place, or they count as missing."""

import json
import pathlib
import shutil

import jax
import numpy as np
import pytest

from jaxmu import files
from jaxmu.study import store

NAMES = (((0, 0, -1), (0, 1, -1)), ((1, 0, -1), (1, 1, -1)))


def _tree(rows=2):
  kernel = np.arange(rows * 12, dtype=np.float32).reshape(rows, 3, 4)
  return {'params': {'fc': {'kernel': kernel}}, 'batch_stats': {}}


def _like(tree):
  return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)


def _shelf(root, label='ft', address='abc', members=NAMES, stage='models'):
  return store.Shelf(root, stage, label, address, members)


def _filled(root, **options):
  """A shelf of two shards without models, which need no Orbax."""
  shelf = _shelf(root, **options)
  for number in range(2):
    shelf.save(
      number,
      arrays={'losses': np.full((2, 3), number), 'failed': np.array([-1, -1])},
      info={'seconds': 1.5},
    )
  return shelf


def test_models_and_arrays_come_back_as_written(tmp_path):
  shelf = _shelf(tmp_path)
  assert shelf.missing() == [0, 1]
  for number in range(2):
    shelf.save(
      number,
      models=_tree(),
      arrays={'losses': np.full(2, number)},
      info={'seconds': 1.5},
    )
  assert shelf.missing() == []
  back = shelf.models(1, _like(_tree()))
  kernel = back['params']['fc']['kernel']
  np.testing.assert_array_equal(kernel, _tree()['params']['fc']['kernel'])
  np.testing.assert_array_equal(shelf.arrays('losses'), [0, 0, 1, 1])
  assert shelf.info(1) == {'seconds': 1.5}
  assert shelf.has(0, 'losses') and not shelf.has(0, 'other')
  # Models of another shape, and those of a folder that is gone.
  with pytest.raises(store.DamagedShard, match='its models'):
    shelf.models(1, _like(_tree(3)))
  shutil.rmtree(shelf.shard(1) / store.MODELS)
  with pytest.raises(store.DamagedShard, match='its models'):
    shelf.models(1, _like(_tree()))
  assert shelf.missing(verify=False) == [1]


def test_a_shard_is_replaced_as_a_whole(tmp_path):
  shelf = _filled(tmp_path)
  shelf.save(0, arrays={'other': np.zeros((2, 1))})
  assert shelf.missing() == []
  assert shelf.has(0, 'other') and not shelf.has(0, 'losses')
  assert sorted(p.name for p in shelf.folder.iterdir()) == [
    'shard_000',
    'shard_001',
  ]


def test_arrays_without_a_row_per_member_are_refused(tmp_path):
  shelf = _shelf(tmp_path)
  with pytest.raises(ValueError, match=r"'x' has shape \(3,\).*2 members"):
    shelf.save(0, arrays={'x': np.zeros(3)})


def test_opening_a_shelf_changes_nothing(tmp_path):
  shelf = _filled(tmp_path)
  with files.atomic_folder(shelf.folder) as draft:
    (draft / 'x').write_text('being written')
    before = sorted(tmp_path.rglob('*'))
    again = _shelf(tmp_path)
    assert again.missing() == [] and again.has(0, 'losses')
    assert sorted(tmp_path.rglob('*')) == before


def _cut(path: pathlib.Path):
  path.write_bytes(path.read_bytes()[:-5])


def _write(text):
  return lambda path: path.write_text(text)


def _edit(*keys, value):
  """Change one value of a record, like an edit or a flipped bit."""

  def act(path):
    record = json.loads(path.read_text())
    place = record
    for key in keys[:-1]:
      place = place[key]
    place[keys[-1]] = value
    path.write_text(json.dumps(record))

  return act


def _drop(*keys):
  def act(path):
    record = json.loads(path.read_text())
    place = record
    for key in keys[:-1]:
      place = place[key]
    del place[keys[-1]]
    path.write_text(json.dumps(record))

  return act


RECORDS = {
  'cut': _cut,
  'empty': _write(''),
  'list': _write('[]'),
  'null': _write('null'),
  'number': _write('3'),
  'text': _write('"record"'),
  'no fields': _write('{}'),
  'only files': _write('{"files": {}}'),
  'half': _write('{"files"'),
  'deep': _write('[' * 100_000),
  'bytes': lambda path: path.write_bytes(b'\xff\xfe'),
  'gone': pathlib.Path.unlink,
  'other info': _edit('info', 'seconds', value=1.25),
  'other shape': _edit('arrays', 'losses', value=['int64', [2, 4]]),
  'other members': _edit('members', value=[[9, 9, -1], [9, 8, -1]]),
  'other hash': _edit('sha256', value='0' * 64),
  'a file less': _drop('files', 'losses.npy'),
  'an array less': _drop('arrays', 'losses'),
  'no hash': _drop('sha256'),
}


@pytest.mark.parametrize('damage', RECORDS)
@pytest.mark.parametrize('verify', [True, False])
def test_a_damaged_record_is_named_and_never_used(
  tmp_path, caplog, damage, verify
):
  shelf = _filled(tmp_path)
  RECORDS[damage](shelf.shard(1) / store.RECORD)
  assert shelf.missing(verify=verify) == [1]
  assert str(shelf.shard(1)) in caplog.text
  for use in (lambda: shelf.info(1), lambda: shelf.arrays('losses')):
    with pytest.raises(store.DamagedShard, match='shard_001 is damaged'):
      use()
  assert not shelf.has(1, 'losses')
  shelf.save(1, arrays={'losses': np.zeros((2, 3))})
  assert shelf.missing() == []


FILES = {
  'cut': _cut,
  'empty': lambda path: path.write_bytes(b''),
  'gone': pathlib.Path.unlink,
  'changed': lambda path: path.write_bytes(path.read_bytes()[:-1] + b'\1'),
  'other shape': lambda path: np.save(path, np.zeros((3, 2), int)),
  'other type': lambda path: np.save(path, np.zeros((2, 3))),
  'pickle': lambda path: np.save(path, np.array([{}]), allow_pickle=True),
}


@pytest.mark.parametrize('damage', FILES)
def test_a_damaged_file_is_named_and_made_again(tmp_path, caplog, damage):
  shelf = _filled(tmp_path)
  FILES[damage](shelf.shard(1) / 'losses.npy')
  assert shelf.missing() == [1]
  assert f'{shelf.shard(1)} is damaged (losses.npy' in caplog.text


@pytest.mark.parametrize('damage', sorted(set(FILES) - {'changed'}))
def test_a_file_of_another_form_is_never_used(tmp_path, damage):
  """Also without verification."""
  shelf = _filled(tmp_path)
  FILES[damage](shelf.shard(1) / 'losses.npy')
  with pytest.raises(store.DamagedShard, match='run.verify=True'):
    shelf.arrays('losses')


def test_equal_sizes_hide_changes_only_without_verification(tmp_path):
  shelf = _filled(tmp_path)
  FILES['changed'](shelf.shard(0) / 'losses.npy')
  assert shelf.missing(verify=False) == []
  assert shelf.missing(verify=True) == [0]


def _swap(a: pathlib.Path, b: pathlib.Path, aside: pathlib.Path):
  a.rename(aside)
  b.rename(a)
  aside.rename(b)


OTHERS = {
  'shard': {},
  'label': {'label': 'retrain'},
  'address': {'address': 'def'},
  'stage': {'stage': 'scores'},
  'members': {'address': 'ghi', 'members': NAMES[::-1]},
}


@pytest.mark.parametrize('what', OTHERS)
def test_swapped_shards_are_damaged_ones(tmp_path, caplog, what):
  one = _filled(tmp_path)
  other = one if what == 'shard' else _filled(tmp_path, **OTHERS[what])
  number = 1 if what == 'shard' else 0
  _swap(one.shard(0), other.shard(number), tmp_path / 'aside')
  assert one.missing(verify=False) == ([0, 1] if what == 'shard' else [0])
  assert other.missing(verify=False) == ([0, 1] if what == 'shard' else [0])
  assert 'belongs elsewhere' in caplog.text
  with pytest.raises(store.DamagedShard, match='belongs elsewhere'):
    one.array(0, 'losses')


def test_a_shard_of_other_members_is_a_damaged_one(tmp_path, caplog):
  _filled(tmp_path)
  assert _shelf(tmp_path, members=NAMES[::-1]).missing() == [0, 1]
  assert 'it holds other members' in caplog.text
  assert _shelf(tmp_path, members=(*NAMES, ((2, 0, -1),))).missing() == [
    0,
    1,
    2,
  ]


def test_a_full_disk_is_said_in_one_line(tmp_path, monkeypatch):
  shelf = _filled(tmp_path)

  def full(*_):
    raise OSError(28, 'No space left on device')

  monkeypatch.setattr(np, 'save', full)
  with pytest.raises(ValueError, match='shard_000 cannot be written.*No space'):
    shelf.save(0, arrays={'losses': np.zeros((2, 3))})
  assert shelf.missing() == []
  assert len([*shelf.folder.iterdir()]) == 2


def test_the_work_directory_is_cleaned_by_who_holds_it(tmp_path):
  shelf = _filled(tmp_path)
  left = shelf.folder / '.draft-x' / 'new'
  left.mkdir(parents=True)
  (tmp_path / '.results.json.abc.tmp').write_text('half')
  before = sorted(tmp_path.rglob('*'))
  with store.hold_workdir(tmp_path):
    with pytest.raises(ValueError, match='in use by another run'):
      with store.hold_workdir(tmp_path):
        pass
    after = sorted(p for p in tmp_path.rglob('*') if p.name != '.lock')
  assert [p for p in before if p not in after] == [
    tmp_path / '.results.json.abc.tmp',
    left.parent,
    left,
  ]
  assert shelf.missing() == []
