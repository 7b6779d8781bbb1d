"""A small sweep in an object store, seen from several machines."""

import os
import time

import pytest

import jaxmu.sweep as command
from jaxmu import files, main
from tests import bucket as fake
from tests import servers
from tests.sweeps import processes

pytestmark = pytest.mark.xdist_group('sweep_in_a_store')

FILE = """
from tests.sweeps import small_sweep

def get_config():
  return small_sweep.config('s3://bucket/sweep')
"""


def _files(folder):
  """Content of all files but compiled programs and temporary ones."""
  return {
    path.relative_to(folder).as_posix(): path.read_bytes()
    for path in folder.rglob('*')
    if path.is_file() and 'cache' not in path.parts and path.name[0] != '.'
  }


@pytest.mark.slow
def test_another_machine_goes_on_where_one_stopped(
  tmp_path, monkeypatch, capsys
):
  fake.use(monkeypatch, tmp_path / 'store')
  monkeypatch.setattr(main, 'set_up_jax', lambda config: None)
  monkeypatch.setenv('JAXMU_DATA_DIR', str(tmp_path / 'data'))
  config = tmp_path / 'whole.py'
  config.write_text(FILE)
  argv = [f'--config={config}']
  folders = {}
  for machine in ('a', 'b', 'c', 'd'):
    monkeypatch.setenv('JAXMU_CACHE_DIR', str(tmp_path / machine))
    folders[machine] = files.workdir('s3://bucket/sweep')
    if machine == 'a':  # the search and the table alone
      command.main([*argv, '--only=digits_tiny/main'])
    elif machine == 'b':  # with the setting that the first has chosen
      command.main([*argv, '--only=digits_tiny/main'])
      text = capsys.readouterr().out
      done = '13 of 13 units done\n'
      assert text.endswith(f'{done}starting JAX\n\n{done}')
      first, second = (_files(folders[name]) for name in ('a', 'b'))
      state = {name for name in first if name.startswith('state/')}
      assert state and state <= set(second)
      for name in set(second) - state:
        assert first[name] == second[name], name
    elif machine == 'c':
      command.main(argv)
      capsys.readouterr()
    else:
      command.main([*argv, '--status'])
      text = capsys.readouterr().out
      assert 'no sweep is running in s3://bucket/sweep on this machine' in text
      done, _, total = text.partition(' units done')[0].split()[-3:]
      assert done == total
  stored = _files(tmp_path / 'store' / 'bucket' / 'sweep')
  for name, content in _files(folders['c']).items():
    if '/store/' not in name:
      assert stored[name] == content, name


@pytest.fixture
def server():
  servers.needs('moto.server', 's3fs')
  one = servers.Server()
  yield one
  one.gate.close()
  one.stop()


@pytest.fixture
def start(server, tmp_path):
  """Starts a sweep in the store on a machine."""
  (tmp_path / 'sweep.py').write_text(FILE.replace('()', '(folder)'))

  def go(machine, *flags):
    cache = {'JAXMU_CACHE_DIR': str(tmp_path / machine)}
    where = '--workdir=s3://bucket/sweep'
    return processes.start(
      *(tmp_path, 'sweep', where, *flags), **server.environment, **cache
    )

  return go


@pytest.mark.cluster
def test_a_store_that_is_away_for_a_while(home, alone, server, start, tmp_path):
  """For as many seconds as JAXMU_TEST_OUTAGE says, from the first model on."""
  process = start('a')
  while not server.filesystem().glob('bucket/sweep/**/models/*/*/record.json'):
    assert process.poll() is None, process.communicate()[0]
    time.sleep(0.2)
  server.gate.close()
  time.sleep(float(os.environ.get('JAXMU_TEST_OUTAGE', '5')))
  server.gate.open()
  out = processes.finish(process)
  assert '24 of 24 units done' in out and ' failed: ' not in out
  assert 'cannot be reached' in out
  here = tmp_path / 'a' / 'mirror-of-s3' / 'bucket' / 'sweep'
  processes.assert_equal(here, alone)
  assert '24 of 24 units done' in processes.finish(start('b'))


@pytest.mark.cluster
def test_two_machines_share_a_sweep(tmp_path, start):
  both = [start('a', '--share=1/2'), start('b', '--share=2/2')]
  for out in map(processes.finish, both):
    assert '24 of 24 units done' in out
  out = processes.finish(start('c', '--status'))
  assert '24 of 24 units done' in out
  folders = [
    tmp_path / machine / 'mirror-of-s3' / 'bucket' / 'sweep'
    for machine in ('a', 'b', 'c')
  ]
  for folder in folders[1:]:
    assert repr(processes.numbers(folder)) == repr(
      processes.numbers(folders[0])
    )
  assert len(processes.numbers(folders[2])) > 50
  assert (folders[2] / 'leaderboard.html').is_file()
  # Each has trained models that the other has not read.
  one, other = (
    {p.relative_to(f) for p in f.glob('*/*/store/models/*/*/models')}
    for f in folders[:2]
  )
  assert one - other and other - one
