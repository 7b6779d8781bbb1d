"""Imports run one way only; outside packages stay in the files that own them.

The layers are those of CONTRIBUTING.md, from the bottom up.
"""

import ast
import functools
import pathlib

import pytest

import jaxmu

ROOT = pathlib.Path(jaxmu.__file__).parent

# What a part of the package may import from the package itself.
MAY_IMPORT = {
  'core': {'core'},
  'plugins': set(),
  'attacks': {'attacks', 'core'},
  'metrics': {'metrics', 'core'},
  'models': {'models', 'core'},
  'data': {'data', 'core'},
  'report': {'report'},
  'ops': {'ops', 'models', 'data', 'core'},
  'methods': {'methods', 'ops', 'models', 'data', 'core'},
  'population': {'core'},
  'training': {'population', 'models', 'core'},
  'prediction': {'population', 'ops', 'data', 'core'},
  'execution': {'execution', 'population', 'core'},
  'pipeline': None,  # everything but the commands
  'main': {'pipeline', 'execution'},
  'attack': {'attacks', 'metrics', 'report', 'core'},
  'prepare': {'data', 'core'},
  'rank': {'metrics', 'report', 'core'},
}
COMMANDS = ('main', 'attack', 'prepare', 'rank')

# Outside packages and where alone they may be imported.
OWNED = {
  'absl': ('main.py', 'attack.py', 'prepare.py', 'rank.py'),
  'flax.linen': ('models/',),
  'matplotlib': ('report/',),
  'ml_collections': ('main.py',),
  'orbax': ('pipeline/store.py',),
  'rich': ('report/',),
  'sklearn': ('data/digits.py', 'attacks/population.py'),
  'tensorflow_datasets': ('data/',),
}

FILES = sorted(ROOT.rglob('*.py'))

every_file = pytest.mark.parametrize(
  'path', FILES, ids=lambda path: str(path.relative_to(ROOT))
)


@functools.cache
def _tree(path: pathlib.Path) -> ast.Module:
  return ast.parse(path.read_text())


def _imports(path: pathlib.Path) -> list[str]:
  """Full names of everything a file imports, modules and what is in them."""
  found = []
  for node in ast.walk(_tree(path)):
    if isinstance(node, ast.Import):
      found += [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
      found += [f'{node.module}.{alias.name}' for alias in node.names]
  return found


def _part(path: pathlib.Path) -> str:
  return path.relative_to(ROOT).parts[0].removesuffix('.py')


@every_file
def test_imports_run_down_the_layers(path):
  part = _part(path)
  if part == '__init__':
    assert not [n for n in _imports(path) if n.startswith('jaxmu')]
    return
  parts = {n.split('.')[1] for n in _imports(path) if n.startswith('jaxmu.')}
  parts -= {'__version__'}
  allowed = MAY_IMPORT[part]
  if allowed is None:
    assert not parts & set(COMMANDS)
  else:
    assert parts <= allowed


@every_file
def test_outside_packages_stay_with_their_owners(path):
  name = str(path.relative_to(ROOT))
  for package, owners in OWNED.items():
    if any(n == package or n.startswith(f'{package}.') for n in _imports(path)):
      assert name.startswith(owners), f'{name} imports {package}'


def test_methods_do_not_import_each_other():
  for path in (ROOT / 'methods').glob('*.py'):
    if path.name != '__init__.py':
      others = [n for n in _imports(path) if n.startswith('jaxmu.methods')]
      assert not others, path.name


@every_file
def test_files_and_functions_are_short(path):
  assert len(path.read_text().splitlines()) <= 400
  for node in ast.walk(_tree(path)):
    if isinstance(node, ast.FunctionDef):
      size = (node.end_lineno or node.lineno) - node.lineno + 1
      assert size <= 60, f'{node.name} has {size} lines'
