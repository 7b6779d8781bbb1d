"""Examples in docstrings and pages run unchanged, on a tiny network."""

import doctest
import importlib
import pathlib
import pkgutil
import re
import runpy

import pytest

import jaxmu
import jaxmu.api

ROOT = pathlib.Path(__file__).parents[1]

# Pages that another test runs.
ELSEWHERE = {
  'docs/attacks.md': 'tests/test_attack_cli.py',
  'docs/methods.md': 'tests/methods/test_registry.py',
  'docs/own_model.md': 'tests/models/test_own_model_page.py',
}

pytestmark = pytest.mark.xdist_group('docs')


@pytest.fixture(scope='module', autouse=True)
def _compiled_once():
  """Keep the digits, and with them the programs that examples share."""
  data = jaxmu.load_data('digits')
  yield data


def _modules():
  names = [m.name for m in pkgutil.iter_modules(jaxmu.api.__path__)]
  return [importlib.import_module(f'jaxmu.api.{name}') for name in names]


def test_public_functions_have_examples():
  lacking = [
    name
    for name in jaxmu.__all__
    if name.islower() and '>>> ' not in (getattr(jaxmu.api, name).__doc__ or '')
  ]
  assert not lacking


@pytest.mark.parametrize(
  'module', _modules(), ids=lambda m: m.__name__.rpartition('.')[2]
)
def test_examples_in_docstrings_run(module):
  result = doctest.testmod(module, optionflags=doctest.ELLIPSIS)
  assert not result.failed


def blocks(page: str) -> list[str]:
  """Return the Python blocks of a page."""
  text = (ROOT / page).read_text()
  return re.findall(r'^```python\n(.*?)^```$', text, re.M | re.S)


def every_page() -> list[str]:
  """Return all documents, relative to the root."""
  folders = ('.', 'docs', 'docs/*', 'examples/*')
  paths = [path for one in folders for path in ROOT.glob(f'{one}/*.md')]
  return sorted(path.relative_to(ROOT).as_posix() for path in paths)


def _pages() -> list[str]:
  return [page for page in every_page() if blocks(page)]


# Seconds instead of minutes; the code is otherwise unchanged.
SMALLER = {
  "model='resnet18'": "model='tiny', num_epochs=1",
  "  workdir='work',": "  model='tiny', workdir='work',",
  'splits=16)': 'splits=8, pool=400)',
  "unlearn('msg', original)": "unlearn('msg', original, num_epochs=1)",
  'learning_rate=[0.005, 0.01, 0.02])': (
    'learning_rate=[0.005, 0.01, 0.02], num_epochs=1)'
  ),
  "splits={'num_splits': 8}": "splits={'num_splits': 8, 'pool': 640}",
  "search('msg', trials=100)": (
    "search('msg', model='tiny', trials=2, initialisations=1, judges=1, "
    "overrides={'model.options': {}, 'train.num_epochs': 1, "
    "'splits.pool': 640, 'splits.num_splits': 2})"
  ),
}


def smaller(block: str) -> str:
  """Return a block that trains tiny networks on few images."""
  for text, other in SMALLER.items():
    block = block.replace(text, other)
  return block


SLOW = ('docs/python.md', 'docs/search.md')


def _marked(page: str):
  return pytest.param(page, marks=[pytest.mark.slow] if page in SLOW else [])


@pytest.mark.parametrize(
  'page', [_marked(page) for page in sorted({*_pages()} - {*ELSEWHERE})]
)
def test_examples_of_pages_run(page, tmp_path, monkeypatch):
  script = tmp_path / 'page.py'
  script.write_text(
    '\n'.join(
      f'# Block {number}.\n{smaller(block)}'
      for number, block in enumerate(blocks(page))
    )
  )
  monkeypatch.chdir(tmp_path)
  runpy.run_path(str(script), run_name='page')


def test_replacements_of_pages_are_used():
  text = '\n'.join(block for page in _pages() for block in blocks(page))
  assert not [one for one in SMALLER if one not in text]


def test_all_code_is_in_blocks_that_are_run():
  """But for the example that tests/metrics/test_contract.py runs."""
  found = [
    (page, line)
    for page in every_page()
    for line in re.findall(
      r'^    (?:import|from \S+ import) .*$',
      re.sub('^```.*?^```$', '', (ROOT / page).read_text(), flags=re.M | re.S),
      re.M,
    )
  ]
  assert {page for page, _ in found} == {'docs/attacks.md'}, found
  assert len(found) == 3


def test_the_first_example_is_short():
  first = blocks('docs/python.md')[0]
  assert len(first.splitlines()) <= 10
  assert "'resnet18'" in first and "'digits'" in first


def test_pages_that_run_elsewhere_are_run():
  for page, test in ELSEWHERE.items():
    assert pathlib.Path(page).name in (ROOT / test).read_text()
