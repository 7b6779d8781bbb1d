"""Imports follow the layers; outside packages are imported only where allowed.

The layers are those of CONTRIBUTING.md, from the bottom up.
"""

import ast
import functools
import pathlib
from collections.abc import Iterator

import jaxmu

ROOT = pathlib.Path(jaxmu.__file__).parent

# What a part of the package may import from the package itself.
_BASE = {
  'types',
  'draws',
  'hparams',
  'method',
  'precision',
  'plugins',
  'terms',
  'files',
  'remote',
  'platforms',
}
MAY_IMPORT = {
  'types': set(),
  'plugins': {'files', 'terms'},
  'terms': set(),
  'files': {'remote'},
  'remote': set(),
  'hparams': set(),
  'platforms': {'terms'},
  'precision': {'platforms'},
  'draws': {'types'},
  'method': {'types', 'draws', 'precision', 'hparams'},
  'attacks': {'attacks', *_BASE},
  'metrics': {'metrics', 'attacks', *_BASE},
  'models': {'models', *_BASE},
  'data': {'data', *_BASE},
  # Cards of methods, attacks and metrics hold what a report says of them.
  'report': {'report', 'methods', 'attacks', 'metrics', *_BASE},
  'methods': {'methods', 'models', 'data', *_BASE},
  'layout': {'platforms', 'types'},
  'population': {'population', 'layout', 'methods', 'models', 'data', *_BASE},
  # The contracts of all kinds of plug-ins.
  'testing': {
    'testing',
    'population',
    'methods',
    'models',
    'data',
    'attacks',
    'metrics',
    *_BASE,
  },
  # Claims about results; `variants` are methods and a metric of theirs.
  'claims': {
    *('claims', 'published', 'report', 'methods', 'data', 'attacks'),
    'metrics',
    *_BASE,
  },
  'study': None,  # everything but the commands
  'tuning': None,
  'sweeps': None,
  'api': None,
  'published': None,
  '__main__': {'cli'},
  'cli': {'cli', 'study', 'methods', *_BASE},
  'main': {'cli', 'study', 'files', 'platforms'},
  'search': {'main', 'cli', 'study', 'tuning', 'api'},
  'sweep': {'main', 'cli', 'study', 'sweeps', 'api', 'terms', 'files'},
  'store': {
    *('main', 'sweep', 'cli', 'report', 'study', 'sweeps', 'terms', 'files'),
  },
  'unlearn': {'cli', 'api', 'files'},
  'attack': {'cli', 'api', 'report', *_BASE},
  'prepare': {'cli', 'data', *_BASE},
  'rank': {'cli', 'metrics', 'report', *_BASE},
  'reproduce': {'main', 'cli', 'published', 'report', *_BASE},
}
COMMANDS = (
  *('__main__', 'cli', 'main', 'search', 'attack', 'prepare', 'rank'),
  *('unlearn', 'sweep', 'store', 'reproduce'),
)
# What `jaxmu/__init__.py` names for type checkers.
FRONT_DOOR = {'api', 'methods', 'models', 'attacks', 'metrics', 'data'}
# The front door, which the rooms below it do not use.
ABOVE = {
  'study': ('api', 'tuning', 'sweeps', 'published'),
  'tuning': ('api', 'sweeps', 'published'),
  'sweeps': ('api', 'published'),
  'published': ('api',),
}

# Outside packages and where alone they may be imported.
OWNED = {
  'absl': ('main.py', 'sweep.py', 'reproduce.py'),
  'flax.linen': ('models/',),
  'fsspec': ('remote.py',),
  'hashlib': ('files.py',),
  'matplotlib': ('report/',),
  'ml_collections': (),
  'optuna': ('tuning/',),
  'orbax': ('study/store.py', 'models/checkpoint_files.py'),
  'ray': ('sweeps/ray_engine.py',),
  'rich': ('report/',),
  'safetensors': (),
  'sklearn': ('data/catalog.py', 'attacks/single_model.py'),
  'tensorflow_datasets': ('data/',),
  'torch': (),
}

FILES = sorted(ROOT.rglob('*.py'))


@functools.cache
def _tree(path: pathlib.Path) -> ast.Module:
  return ast.parse(path.read_text())


@functools.cache
def _imports(path: pathlib.Path) -> list[str]:
  """Full names of all imports of a file, modules and their attributes."""
  found = []
  for node in ast.walk(_tree(path)):
    if isinstance(node, ast.Import):
      found += [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
      found += [f'{node.module}.{alias.name}' for alias in node.names]
  return found


def _is_public(node: ast.AST) -> bool:
  kinds = (ast.FunctionDef, ast.ClassDef)
  return isinstance(node, kinds) and not node.name.startswith('_')


def _name(path: pathlib.Path) -> str:
  return str(path.relative_to(ROOT))


def _part(path: pathlib.Path) -> str:
  return path.relative_to(ROOT).parts[0].removesuffix('.py')


def test_imports_run_down_the_layers():
  upwards = []
  for path in FILES:
    names = {n for n in _imports(path) if n.startswith('jaxmu.')}
    parts = {n.split('.')[1] for n in names} - {'__version__'}
    allowed = MAY_IMPORT.get(_part(path), FRONT_DOOR)
    above = {*COMMANDS, *ABOVE.get(_part(path), ())}
    wrong = parts & above if allowed is None else parts - allowed
    upwards += [f'{_name(path)} imports {part}' for part in sorted(wrong)]
  assert not upwards


def test_every_part_has_its_place_in_the_layers():
  assert {_part(path) for path in FILES} - {'__init__'} == set(MAY_IMPORT)


def test_outside_packages_stay_with_their_owners():
  strays = [
    f'{_name(path)} imports {package}'
    for path in FILES
    for package, owners in OWNED.items()
    if any(n == package or n.startswith(f'{package}.') for n in _imports(path))
    and not _name(path).startswith(owners)
  ]
  assert not strays


def _unannotated(
  body: list[ast.stmt], owner: str = ''
) -> Iterator[tuple[str, list[str]]]:
  """Yield public functions with the names of what they leave untyped."""
  for node in body:
    if not _is_public(node):
      continue
    if isinstance(node, ast.ClassDef):
      yield from _unannotated(node.body, f'{node.name}.')
    elif isinstance(node, ast.FunctionDef):
      names = node.args
      given = [*names.posonlyargs, *names.args, *names.kwonlyargs]
      bare = [
        one.arg
        for one in given
        if one.annotation is None and one.arg not in ('self', 'cls')
      ]
      if node.returns is None:
        bare.append('return')
      if bare:
        yield f'{owner}{node.name}', bare


def test_public_functions_are_annotated():
  untyped = [
    f'{_name(path)}: {function} ({", ".join(bare)})'
    for path in FILES
    for function, bare in _unannotated(_tree(path).body)
  ]
  assert not untyped


def test_paths_of_users_are_expanded_in_one_place():
  """`~` and `$NAME` mean the same at every door, see `files.path`."""
  others = [
    _name(path)
    for path in FILES
    if _name(path) != 'files.py' and 'expanduser' in path.read_text()
  ]
  assert not others


# Only `platforms` calls these.
_QUESTIONS = (
  *('jax.default_backend', 'jax.device_count', 'jax.devices'),
  *('jax.local_device_count', 'jax.local_devices'),
)


def test_the_platform_is_asked_in_one_place():
  """So that programs can be traced for another platform than this machine's."""
  benchmarks = (ROOT.parent / 'benchmarks').rglob('*.py')
  others = [
    f'{path.name}: {ast.unparse(node)}'
    for path in (*FILES, *benchmarks)
    if path != ROOT / 'platforms.py'
    for node in ast.walk(_tree(path))
    if isinstance(node, ast.Attribute)
    and (
      ast.unparse(node) in _QUESTIONS
      or node.attr == 'memory_stats'
      and ast.unparse(node.value) != 'platforms'
    )
  ]
  assert not others


def test_methods_do_not_import_each_other():
  for path in (ROOT / 'methods').glob('*.py'):
    if path.name != '__init__.py':
      others = {n for n in _imports(path) if n.startswith('jaxmu.methods.')}
      parts = {n for n in others if n.startswith('jaxmu.methods.parts')}
      assert others == parts, path.name


# Modules that hold tables and texts rather than code.
TEXTS = ('report/glossary.py',)


def test_files_and_functions_have_a_readable_length():
  long = []
  for path in FILES:
    name = _name(path)
    lines = len(path.read_text().splitlines())
    if lines > 800 and name not in TEXTS:
      long.append(f'{name}: {lines} lines')
    for node in ast.walk(_tree(path)):
      if isinstance(node, ast.FunctionDef):
        size = (node.end_lineno or node.lineno) - node.lineno + 1
        if size > 80:
          long.append(f'{name}: {node.name} has {size} lines')
  assert not long


# What is the one idea of its file, and bears its name for good reason.
ALONE = (
  'attacks/per_example.py',
  'attacks/rmia.py',
  'models/conv/depthwise.py',
  'study/run.py',
)


def test_no_module_only_wraps_one_function():
  """A module whose only public function has its name belongs elsewhere."""
  envelopes = []
  for path in FILES:
    public = [n.name for n in _tree(path).body if _is_public(n)]
    name = _name(path)
    if public == [path.stem] and name not in ALONE:
      envelopes.append(name)
  assert not envelopes
