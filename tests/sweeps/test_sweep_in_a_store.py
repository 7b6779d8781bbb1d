"""A small sweep in an object store, seen from several machines."""

import pytest

from jaxmu import files, main
from jaxmu import sweep as command
from tests import bucket as fake

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group('sweep_in_a_store')]

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
      assert 'setting in s3://bucket/sweep/digits_tiny/search' in text
      assert 'report: up to date' in text
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
