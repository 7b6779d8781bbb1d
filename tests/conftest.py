"""Shared set-up: eight CPU devices, strict promotion, a compile cache."""

import importlib.metadata
import os
import pathlib

import jax
import pytest

# Programs of tests run a few times, so compilation must be short too.
_QUICK = ['--xla_backend_optimization_level=1']
# XLA ends the process on a flag that it does not know (any more).
if importlib.metadata.version('jaxlib').startswith('0.10.'):
  _QUICK.append('--xla_cpu_use_fusion_emitters=false')
os.environ['XLA_FLAGS'] = ' '.join([*_QUICK, os.environ.get('XLA_FLAGS', '')])

_CACHE = pathlib.Path(__file__).parent.parent / '.jax_cache'

jax.config.update('jax_num_cpu_devices', 8)
jax.config.update('jax_numpy_rank_promotion', 'raise')
jax.config.update('jax_compilation_cache_dir', str(_CACHE))
jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.2)


def pytest_collection_modifyitems(items):
  """Run the tests of a group together, with any number of workers."""
  first: dict[str, int] = {}
  for index, item in enumerate(items):
    first.setdefault(_group(item) or item.nodeid, index)
  items.sort(key=lambda item: first[_group(item) or item.nodeid])


def _group(item) -> str:
  mark = item.get_closest_marker('xdist_group')
  return str(mark.args[0]) if mark else ''


# Tests that run jobs, searches and attacks, which take three times as long
# without any optimisation. In all others compilation takes longer, which is a
# third shorter without.
_OPTIMISED = {
  'attacks',
  'benchmarks',
  'metrics',
  'published',
  'study',
  'sweeps',
  'tuning',
  'test_api.py',
  'test_compiled_ahead.py',
  'test_docs.py',
  'test_examples.py',
  'test_notebook.py',
}
# Their programs are compiled and never run.
_NOT_RUN = {'study/test_forecast.py'}


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
  place = item.path.relative_to(pathlib.Path(__file__).parent)
  optimised = place.parts[0] in _OPTIMISED and str(place) not in _NOT_RUN
  jax.config.update('jax_disable_most_optimizations', not optimised)


_last_group = ['']


@pytest.fixture(autouse=True)
def _few_programs(request):
  """Forget compiled programs when the group changes.

  Each holds memory mappings, whose number per process is limited.
  """
  group = _group(request.node) or request.node.path.name
  if group != _last_group[0]:
    _last_group[0] = group
    jax.clear_caches()


def pytest_addoption(parser):
  parser.addoption(
    '--golden',
    default=str(pathlib.Path(__file__).parent / 'golden' / 'set_a'),
    help='folder of recorded runs to compare with',
  )
  parser.addoption(
    '--recordings',
    choices=('few', 'others', 'all'),
    help='which recorded runs to replay: a few, which is the default; all, '
    'which is the default where their folder is named; or all but the few',
  )


@pytest.fixture(scope='session')
def job_environment() -> dict[str, str]:
  """Environment of a process that runs a whole job: on two devices."""
  return {
    **os.environ,
    'JAX_NUM_CPU_DEVICES': '2',
    'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0.2',
    'JAX_COMPILATION_CACHE_DIR': str(_CACHE),
    'PYTHONPATH': str(_CACHE.parent),
  }


@pytest.fixture
def golden_folder(request) -> pathlib.Path:
  return pathlib.Path(request.config.getoption('--golden'))


@pytest.fixture
def real_data() -> pathlib.Path:
  """Folder with real data sets; skips if there is none."""
  folder = os.environ.get('JAXMU_DATA_DIR', '')
  if not folder:
    pytest.skip('JAXMU_DATA_DIR is not set: no real data sets here')
  return pathlib.Path(folder)
