"""Compiled programs are checked when they are read, and compiled again."""

import subprocess
import sys

import pytest

from jaxmu.study import programs


def _cache(folder):
  cache = programs.CheckedCache(folder)
  cache.put('one', b'program 1' * 9)
  cache.put('two', b'program 2' * 9)
  return cache


def test_programs_come_back_and_the_newest_counts(tmp_path):
  cache = _cache(tmp_path / 'programs')
  assert cache.get('one') == b'program 1' * 9
  assert cache.get('none') is None
  cache.put('one', b'new')
  assert cache.get('one') == b'new'
  names = sorted(path.name for path in (tmp_path / 'programs').iterdir())
  assert names == ['one-cache', 'two-cache']


@pytest.mark.parametrize(
  'damage', ['flipped', 'cut', 'empty', 'swapped', 'old']
)
def test_a_damaged_program_is_named_and_never_used(tmp_path, damage):
  cache = _cache(tmp_path)
  path, whole = tmp_path / 'one-cache', (tmp_path / 'one-cache').read_bytes()
  contents = {
    'flipped': [
      whole[:k] + bytes([whole[k] ^ 1]) + whole[k + 1 :]
      for k in range(len(whole))
    ],
    'cut': [whole[:k] for k in range(1, len(whole))],
    'empty': [b''],
    'swapped': [(tmp_path / 'two-cache').read_bytes()],
    'old': [b'program 1' * 9],  # as JAX itself writes it
  }[damage]
  for content in contents:
    path.write_bytes(content)
    with pytest.warns(UserWarning, match='one-cache is damaged'):
      assert cache.get('one') is None
    assert not path.exists()


# Compiles one program in a folder of jaxmu's and says how often it was read.
SCRIPT = """
import jax, sys
from jaxmu.study import execution
for name, value in execution.open_program_cache().items():
  jax.config.update(name, value)
jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)
read = []
jax.monitoring.register_event_listener(lambda event, **_: read.append(event))
print(jax.jit(lambda x: x @ x + 1)(jax.numpy.ones((3, 3))).sum())
print('hits', read.count('/jax/compilation_cache/cache_hits'))
"""


@pytest.mark.xdist_group('programs')
def test_jax_uses_the_cache_and_compiles_damaged_programs_again(
  tmp_path, job_environment
):
  environment = {**job_environment, 'JAXMU_CACHE_DIR': str(tmp_path)}
  del environment['JAX_COMPILATION_CACHE_DIR']

  def run():
    done = subprocess.run(
      [sys.executable, '-c', SCRIPT],
      env=environment,
      capture_output=True,
      text=True,
      check=True,
    )
    return done.stdout.split(), done.stderr

  (total, _, hits), _ = run()
  paths = sorted((tmp_path / 'programs').iterdir())
  assert hits == '0' and paths
  (_, _, hits), _ = run()
  assert int(hits) == len(paths)
  paths[0].write_bytes(paths[-1].read_bytes()[:-1])
  (again, _, hits), errors = run()
  assert again == total and int(hits) == len(paths) - 1
  assert f'{paths[0]} is damaged' in errors
  assert run()[0][2] == str(len(paths))
