"""Locks exclude, outlast a wait and leave no file."""

import threading

from jaxmu import files


def test_holders_take_turns_and_no_file_is_left(tmp_path):
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


def test_file_of_a_killed_holder_does_not_matter(tmp_path):
  (tmp_path / 'lock').write_text('')
  with files.lock(tmp_path / 'lock'):
    assert (tmp_path / 'lock').exists()
  assert not [*tmp_path.iterdir()]
