"""`~` and `$NAME` mean the same wherever a path is accepted."""

import json
import pathlib

import jax
import numpy as np
import pytest

from jaxmu import files, plugins
from jaxmu.api import audits, inputs
from jaxmu.cli import arguments
from jaxmu.data import datasets, splits
from jaxmu.models import checkpoint_files, checkpoints
from jaxmu.study import execution, originals, store, tuned
from tests.attacks import test_suite


@pytest.fixture(name='home')
def _home(tmp_path, monkeypatch):
  """A home folder with a file for every door, and another working folder."""
  home = tmp_path / 'home'
  (home / 'set').mkdir(parents=True)
  (tmp_path / 'here').mkdir()
  monkeypatch.chdir(tmp_path / 'here')
  monkeypatch.setenv('HOME', str(home))
  monkeypatch.setenv('WHERE', str(home))
  np.savez(home / 'scores.npz', **test_suite.make_arrays())
  np.save(home / 'memorised.npy', np.arange(5.0))
  (home / 'ids.txt').write_text('1\n')
  (home / 'mine.py').write_text('def get_config(): return {}\n')
  (home / 'settings.json').write_text(json.dumps({}))
  image = np.random.default_rng(0).integers(0, 256, (8, 6, 6, 3), np.uint8)
  for part in ('train', 'test'):
    np.savez(home / 'set' / f'{part}.npz', image=image, label=np.arange(8) % 2)
  np.savez(home / 'seed0.npz', x=np.zeros(2))
  return home


def _settings(path):
  """Return the settings file that an error of reading one names."""
  with pytest.raises(ValueError, match="has no 'method'") as caught:
    tuned.read(path)
  return str(caught.value).partition(' ')[0]


DOORS = {
  'scores.npz': (audits.read_scores,),
  'memorised.npy': (
    lambda path: splits.read_scores(path, num_examples=5),
    lambda path: splits.main_split(np.zeros(5, int), 5, how=f'most:{path}'),
  ),
  'ids.txt': (
    lambda path: splits.read_indices(path, 9),
    lambda path: splits.main_split(np.zeros(9, int), 9, how=f'file:{path}'),
  ),
  'mine.py': (plugins.load_file, lambda path: arguments.from_file(path, ())),
  'settings.json': (_settings,),
  'set': (inputs.load_data, lambda path: inputs.load_data(path + '/train.npz')),
  'seed*.npz': (checkpoints._files, originals.expand),
  'seed0.npz': (
    lambda path: checkpoint_files.read(files.path(path)),
    originals.expand,
  ),
  'new/work': (
    files.workdir,
    store.check_workdir,
    lambda path: files.writable_folder(path, '--out'),
  ),
}


@pytest.mark.filterwarnings('ignore:.*exact cop')
@pytest.mark.parametrize('start', ['~', '$WHERE', '${WHERE}'])
def test_functions(home, start, monkeypatch):
  monkeypatch.setenv('JAXMU_CACHE_DIR', f'{start}/cache')
  for name, calls in DOORS.items():
    for call in calls:
      found = call(f'{start}/{name}')
      if isinstance(found, str | pathlib.Path):
        assert str(found).startswith(str(home)), name
  assert not list(pathlib.Path().iterdir())
  assert (home / 'cache').is_dir() and (home / 'new' / 'work').is_dir()


@pytest.mark.parametrize('start', ['~', '$WHERE', '${WHERE}'])
def test_the_environment(home, start, monkeypatch):
  for name, folder in (
    ('XDG_CACHE_HOME', files.cache_dir),
    ('JAXMU_CACHE_DIR', files.cache_dir),
    ('TFDS_DATA_DIR', datasets.find_data_dir),
    ('JAXMU_DATA_DIR', datasets.find_data_dir),
  ):
    for other in ('JAXMU_CACHE_DIR', 'JAXMU_DATA_DIR'):
      monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv(name, f'{start}/x')
    assert folder().is_relative_to(home / 'x'), name


def test_the_folder_of_compiled_programs(home, monkeypatch):
  """JAX reads this variable itself, and takes `~` literally."""
  folder = property(lambda self: '~/programs')
  monkeypatch.setattr(type(jax.config), 'jax_compilation_cache_dir', folder)
  assert execution.open_program_cache() == {
    'jax_compilation_cache_dir': str(home / 'programs')
  }
