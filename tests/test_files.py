"""Files and folders appear complete or not at all; locks exclude."""

import errno
import os
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest

from jaxmu import cli, files


def _run_until_killed(code):
  done = subprocess.run(
    [sys.executable, '-c', code],
    env={**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path)},
  )
  assert done.returncode == -signal.SIGKILL


def test_published_folder_replaces_the_old_one(tmp_path):
  target = tmp_path / 'set'
  target.mkdir()
  (target / 'old').write_text('')
  with files.atomic_folder(tmp_path) as draft:
    (draft / 'new').write_text('')
    assert (target / 'old').exists()
    files.publish_folder(draft, target)
  assert [path.name for path in target.iterdir()] == ['new']
  assert [path.name for path in tmp_path.iterdir()] == ['set']


@pytest.mark.parametrize('part', ['', 'set/1.0'])
def test_published_folder_may_lie_deeper(tmp_path, part):
  target = tmp_path / 'set' / '1.0'
  for content in ('first', 'second'):
    with files.atomic_folder(tmp_path) as draft:
      (draft / part).mkdir(parents=True, exist_ok=True)
      (draft / part / 'file').write_text(content)
      files.publish_folder(draft / part, target)
    assert (target / 'file').read_text() == content
  assert [path.name for path in tmp_path.iterdir()] == ['set']


def test_old_folder_is_put_back_if_the_new_one_cannot_take_its_place(tmp_path):
  target = tmp_path / 'a' / 'set'
  target.mkdir(parents=True)
  (target / 'old').write_text('')
  with pytest.raises(FileNotFoundError), files.atomic_folder(tmp_path) as draft:
    files.publish_folder(draft / 'absent', target)
  assert [path.name for path in target.iterdir()] == ['old']
  assert [path.name for path in tmp_path.iterdir()] == ['a']


@pytest.mark.parametrize('count, kept', [(0, 'old'), (1, 'old'), (2, 'new')])
def test_kill_while_publishing_loses_nothing(tmp_path, count, kept):
  target = tmp_path / 'set'
  target.mkdir()
  (target / 'old').write_text('')
  code = (
    'import os, pathlib, signal\n'
    'from jaxmu import files\n'
    f'folder = pathlib.Path({str(tmp_path)!r})\n'
    'done, rename = [], pathlib.Path.rename\n'
    'def killed(*args):\n'
    f'  if len(done) == {count}:\n'
    '    os.kill(os.getpid(), signal.SIGKILL)\n'
    '  done.append(rename(*args))\n'
    'pathlib.Path.rename = killed\n'
    'with files.atomic_folder(folder) as draft:\n'
    '  (draft / "new").write_text("")\n'
    '  files.publish_folder(draft, folder / "set")\n'
    '  os.kill(os.getpid(), signal.SIGKILL)\n'
  )
  _run_until_killed(code)
  with files.atomic_folder(tmp_path):
    pass
  assert [path.name for path in tmp_path.iterdir()] == ['set']
  assert [path.name for path in target.iterdir()] == [kept]


def test_failure_leaves_nothing(tmp_path):
  with pytest.raises(KeyError), files.atomic_folder(tmp_path / 'new') as draft:
    (draft / 'half').write_text('')
    raise KeyError
  assert not list((tmp_path / 'new').iterdir())


def test_drafts_of_others_stay_while_they_are_written(tmp_path):
  with (
    files.atomic_folder(tmp_path) as first,
    files.atomic_folder(tmp_path) as second,
  ):
    assert first.exists()
    assert second.exists()


def test_draft_of_a_killed_writer_is_removed_by_the_next(tmp_path):
  code = (
    'import os, pathlib, signal\n'
    'from jaxmu import files\n'
    f'with files.atomic_folder(pathlib.Path({str(tmp_path)!r})) as draft:\n'
    '  (draft / "half").write_text("")\n'
    '  os.kill(os.getpid(), signal.SIGKILL)\n'
  )
  _run_until_killed(code)
  [left] = tmp_path.iterdir()
  assert (left / 'new' / 'half').exists()
  with files.atomic_folder(tmp_path) as draft:
    assert [*tmp_path.iterdir()] == [draft.parent]


def test_arrays_come_back_and_replace_the_old_file(tmp_path):
  for size in (2, 3):
    path = files.write_arrays(tmp_path / 'new' / 'a.npz', {'x': np.ones(size)})
    np.testing.assert_array_equal(np.load(path)['x'], np.ones(size))
  assert [p.name for p in path.parent.iterdir()] == ['a.npz']


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
  path = files.write_text(tmp_path / 'r', 'old')
  with pytest.raises(KeyError), files.replacing(path) as file:
    file.write(b'new')
    raise KeyError
  assert path.read_text() == 'old'
  assert [p.name for p in tmp_path.iterdir()] == ['r']


def test_sweeping_removes_what_killed_writers_left_and_nothing_else(tmp_path):
  deep = tmp_path / 'a' / 'b'
  files.write_text(deep / 'kept', 'kept')
  (deep / '.hidden').write_text('kept')
  for code in (
    'with files.replacing(folder / "r") as file:\n',
    'with files.atomic_folder(folder) as draft:\n  (draft / "x").mkdir()\n',
    'with files.lock(folder / ".drafts.lock"):\n',
  ):
    _run_until_killed(
      'import os, pathlib, signal\n'
      'from jaxmu import files\n'
      f'folder = pathlib.Path({str(deep)!r})\n'
      f'{code}  os.kill(os.getpid(), signal.SIGKILL)\n'
    )
  assert len([*deep.iterdir()]) > 2
  with files.replacing(deep / 'open') as file, files.atomic_folder(deep) as new:
    files.remove_leftovers(tmp_path)
    file.write(b'x')
    assert new.exists()
  files.remove_leftovers(tmp_path)
  assert {p.name for p in deep.iterdir()} == {'kept', '.hidden', 'open'}


def test_a_folder_to_write_is_swept_and_nothing_deeper(tmp_path):
  names = ('.a.1.tmp', 'plots/.b.2.tmp', 'a/b/.c.3.tmp', 'kept.tmp')
  for name in names:
    files.write_text(tmp_path / name, 'x')
  files.writable_folder(tmp_path, '--out')
  there = [name for name in names if (tmp_path / name).exists()]
  assert there == ['a/b/.c.3.tmp', 'kept.tmp']


def test_errors_of_the_system_say_where_and_what_to_do(tmp_path, capsys):
  (tmp_path / 'file').write_text('')
  (tmp_path / 'folder').mkdir()
  (tmp_path / 'loop').symlink_to(tmp_path / 'loop')
  full = OSError(errno.ENOSPC, 'No space left on device')
  quota = OSError('Disk quota exceeded')  # as TensorStore says it

  def raises(error):
    raise error

  cases = [
    (
      lambda: files.write_text(tmp_path / 'file' / 'x', ''),
      'file',
      'a file is',
    ),
    (
      lambda: files.write_text(tmp_path / 'folder', ''),
      'folder',
      'a folder is',
    ),
    (lambda: (tmp_path / 'gone').read_text(), 'gone', 'removed meanwhile'),
    (lambda: (tmp_path / 'loop').read_text(), 'loop', 'leads to itself'),
    (lambda: raises(full), 'No space left', f'make room, and {files.KEPT}'),
    (lambda: raises(quota), 'exceeded', f'make room, and {files.KEPT}'),
  ]
  for call, place, remedy in cases:
    with pytest.raises(SystemExit) as end, cli.one_line_errors():
      call()
    line = str(end.value.code)
    assert line.startswith('error: ') and len(line.splitlines()) == 1, line
    assert place in line and remedy in line and 'Errno' not in line, line


def test_json_that_is_no_object_is_refused(tmp_path):
  path = tmp_path / 'x.json'
  for text in ('[]', 'null', '3', '', '{', '"x"', '[' * 100_000, '{"a": 1'):
    path.write_text(text)
    with pytest.raises(ValueError):
      files.read_json(path)
  for content in (b'\xff\xfe\0', b'{"a": ' + b'9' * 5000 + b'}'):
    path.write_bytes(content)
    with pytest.raises(ValueError):
      files.read_json(path)
  path.write_text('{"a": 1}', encoding='utf-8-sig')
  assert files.read_json(path) == {'a': 1}


def test_a_replaced_file_has_another_version(tmp_path):
  place = tmp_path / 'a' / 'x'
  files.write_text(place, 'one')
  first = files.versions_below(tmp_path)
  assert [path for path, *_ in first] == [str(place)]
  assert files.versions_below(tmp_path) == first
  files.write_text(place, 'two')
  os.utime(place, ns=(first[0][2], first[0][2]))
  assert files.versions_below(tmp_path) != first
  place.unlink()
  assert files.versions([place]) == ()


def test_holders_of_a_lock_take_turns_and_no_file_is_left(tmp_path):
  path, inside, most = tmp_path / 'lock', [], []

  def work():
    for _ in range(50):
      with files.lock(path):
        inside.append(1)
        most.append(len(inside))
        inside.pop()

  threads = [threading.Thread(target=work) for _ in range(4)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert most == [1] * 200
  assert not [*tmp_path.iterdir()]


def test_a_lock_that_is_held_raises_where_one_does_not_wait(tmp_path):
  with files.lock(tmp_path / 'lock'):
    with pytest.raises(BlockingIOError):
      with files.lock(tmp_path / 'lock', wait=False):
        pass
  with files.lock(tmp_path / 'lock', wait=False):
    pass


def test_whether_a_lock_is_held_is_seen_without_a_change(tmp_path):
  path = tmp_path / 'lock'
  assert not files.is_locked(path) and not path.exists()
  with files.lock(path):
    assert files.is_locked(path)
  path.write_text('')  # of a killed holder
  assert not files.is_locked(path) and path.exists()


def test_file_of_a_killed_holder_does_not_matter(tmp_path):
  (tmp_path / 'lock').write_text('')
  with files.lock(tmp_path / 'lock'):
    assert (tmp_path / 'lock').exists()
  assert not [*tmp_path.iterdir()]


def test_hash_of_a_folder_depends_on_names_and_contents(tmp_path):
  hashes = set()
  for number, (name, content) in enumerate(['ab', 'ac', 'cb', 'ab']):
    folder = tmp_path / str(number)
    files.write_text(folder / 'in' / name, content)
    hashes.add(files.sha256(folder))
  assert len(hashes) == 3
  path = files.write_bytes(tmp_path / 'file', b'abc')
  assert files.sha256(path).startswith('ba7816bf8f01cfea')


def test_digest_depends_on_content_not_on_order():
  a = files.digest('train', 1, {'x': 1, 'y': 2.0}, np.arange(3))
  assert a == files.digest('train', 1, {'y': 2.0, 'x': 1}, np.arange(3))
  others = [
    files.digest('train', 2, {'x': 1, 'y': 2.0}, np.arange(3)),
    files.digest('predict', 1, {'x': 1, 'y': 2.0}, np.arange(3)),
    files.digest('train', 1, {'x': 1, 'y': 2.5}, np.arange(3)),
    files.digest('train', 1, {'x': 1, 'y': 2.0}, np.arange(3)[::-1]),
    files.digest('train', 1, {'x': 1, 'y': 2.0}, np.arange(3.0)),
  ]
  assert len({a, *others}) == 6
  assert len(files.digest(1, digits=64)) == 64
