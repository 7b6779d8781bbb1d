"""Shared set-up: eight CPU devices, strict promotion, a compile cache."""

import os
import pathlib

import jax
import pytest

_CACHE = pathlib.Path(__file__).parent.parent / '.jax_cache'

jax.config.update('jax_num_cpu_devices', 8)
jax.config.update('jax_numpy_rank_promotion', 'raise')
jax.config.update('jax_compilation_cache_dir', str(_CACHE))
jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.2)


def pytest_addoption(parser):
  parser.addoption(
    '--golden',
    default=str(pathlib.Path(__file__).parent / 'golden' / 'set_a'),
    help='folder of recorded runs to compare with',
  )


@pytest.fixture
def golden_folder(request) -> pathlib.Path:
  return pathlib.Path(request.config.getoption('--golden'))


@pytest.fixture
def real_data() -> pathlib.Path:
  """Folder with real data sets; skips where there is none."""
  folder = os.environ.get('JAXMU_DATA_DIR', '')
  if not folder:
    pytest.skip('JAXMU_DATA_DIR is not set: no real data sets here')
  return pathlib.Path(folder)
