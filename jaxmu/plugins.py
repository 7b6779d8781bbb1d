"""Registries of methods, attacks, metrics and models that accept plug-ins.

A plug-in is named wherever a built-in name is accepted: in Python, in a
configuration and on a command line.

  msg                    a built-in entry
  fancy                  an entry point of an installed package
  my_package.my_method   a module, whose `METHOD` is taken
  my_package.nets:Net    a named attribute of a module
  my_method.py           a file, whose `METHOD` is taken
  path/to/nets.py:Net    a named attribute of a file

In Python the object itself, or the module that holds it, is accepted as well.
"""

import contextlib
import functools
import importlib
import importlib.metadata
import importlib.util
import inspect
import pathlib
import sys
import traceback
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Generic, TypeVar

from jaxmu import files, terms

T = TypeVar('T')


class Registry(Mapping[str, T], Generic[T]):
  """Built-in entries by name, and plug-ins.

  As a mapping it contains the built-in entries; `resolve` also loads plug-ins.

  Example:
    >>> from jaxmu import methods
    >>> methods.METHODS.resolve('msg').card.title
    'Masked Small Gradients'
  """

  def __init__(
    self,
    kind: str,
    builtin: Mapping[str, T],
    *,
    check: Callable[[Any], T],
    title: Callable[[T], str],
  ):
    """Make a registry.

    Args:
      kind: 'method', 'attack', 'metric' or 'model'. A module's attribute is
        the kind in capitals; the group of entry points is `jaxmu.<kind>s`.
      builtin: the built-in entries.
      check: returns the object of a plug-in as an entry, or raises a
        ValueError that says what is wrong with it.
      title: returns the text to print beside a name.
    """
    self.kind = kind
    self.attribute = kind.upper()
    self.group = f'jaxmu.{kind}s'
    self._builtin = dict(builtin)
    self._check = check
    self._title = title

  def __getitem__(self, name: str) -> T:
    return self._builtin[name]

  def __iter__(self) -> Iterator[str]:
    return iter(self._builtin)

  def __len__(self) -> int:
    return len(self._builtin)

  def __repr__(self) -> str:
    width = max(map(len, self), default=0)
    lines = [f'{n:<{width}}  {self._title(e)}' for n, e in self.items()]
    lines += [f'{n:<{width}}  (installed plug-in)' for n in self.installed()]
    return '\n'.join(lines)

  def installed(self) -> list[str]:
    """Return the names of entry points of installed packages, sorted."""
    return sorted(set(_entry_points(self.group)) - set(self._builtin))

  def resolve(self, spec: Any) -> T:
    """Return the entry that a name, path, module or object refers to.

    Args:
      spec: see the module's docstring.

    Raises:
      ValueError: there is nothing of this name, or it is not an entry; the
        message is one line that names the value and the remedy.
    """
    if isinstance(spec, str) and spec in self._builtin:
      return self._builtin[spec]
    entry = self._load(spec) if isinstance(spec, str) else spec
    if isinstance(entry, types.ModuleType):
      entry = self._attribute_of(entry, self.attribute, spec)
    try:
      return self._check(entry)
    except ValueError as error:
      raise ValueError(f'{self.kind} {describe(spec)}: {error}') from error

  def fingerprint(self, spec: Any) -> str:
    """Return a hash of an entry's code, for the addresses of results.

    Args:
      spec: as for `resolve`.

    Returns:
      '' for a built-in entry; else the SHA-256 of the source files of the
      plug-in's package, or of its file if it is not in a package, in hex.

    Raises:
      ValueError: the source cannot be read, as for a function typed into an
        interpreter.
    """
    if isinstance(spec, str) and spec in self._builtin:
      return ''
    entry = self.resolve(spec)
    if any(entry is one for one in self._builtin.values()):
      return ''
    return _source_digest(spec, entry, self.kind)

  def _load(self, spec: str) -> Any:
    place, _, attribute = spec.partition(':')
    if place.endswith('.py'):
      module = load_file(place)
    elif spec in _entry_points(self.group):
      return self._load_installed(spec)
    elif '.' in place or attribute:
      module = self._import(place, spec)
    else:
      raise ValueError(self._unknown(spec))
    if not attribute:
      return module
    return self._attribute_of(module, attribute, spec)

  def _import(self, place: str, spec: str) -> types.ModuleType:
    if not all(part.isidentifier() for part in place.split('.')):
      raise ValueError(
        f'{self.kind} {spec!r}: {place!r} is not a module name; write it as '
        f'my_package.my_{self.kind}, or give the path of its file, which ends '
        'in .py'
      )
    with _importing(place, f'{self.kind} {spec!r}: ', missing=_MISSING):
      return importlib.import_module(place)

  def _load_installed(self, spec: str) -> Any:
    entry = _entry_points(self.group)[spec]
    remedy = '; install its package again, or correct it'
    with _importing(entry.value, f'{self.kind} {spec!r}: ', remedy):
      return entry.load()

  def _attribute_of(
    self, module: types.ModuleType, attribute: str, spec: Any
  ) -> Any:
    if not hasattr(module, attribute):
      raise ValueError(
        f'{self.kind} {describe(spec)}: {module.__name__} has no {attribute}; '
        f'define {attribute} = ... in it, or name another attribute after a '
        'colon'
      )
    return getattr(module, attribute)

  def _unknown(self, name: str) -> str:
    known = [*self._builtin, *self.installed()]
    hint = terms.nearest(name, known)
    return (
      f'unknown {self.kind} {name!r}; {hint}choose one of {", ".join(known)}, '
      f'or a plug-in such as my_{self.kind}.py or my_package.my_{self.kind}'
    )


def load_file(path: str) -> types.ModuleType:
  """Import a Python file as a module; once for each content.

  Raises:
    ValueError: there is no such file, or it cannot be imported.
  """
  place = files.path(path)
  if not place.is_file():
    raise ValueError(f'no file {path!r} (looked in {pathlib.Path.cwd()})')
  place = place.resolve()
  code = files.sha256_of(place.read_bytes())[:12]
  name = f'jaxmu_plugin_{place.stem}_{code}'
  if name in sys.modules:
    return sys.modules[name]
  spec = importlib.util.spec_from_file_location(name, place)
  assert spec is not None and spec.loader is not None
  module = importlib.util.module_from_spec(spec)
  sys.modules[name] = module
  with _importing(path):
    try:
      spec.loader.exec_module(module)
    except BaseException:
      del sys.modules[name]
      raise
  return module


# What a plug-in may raise; `sys.exit` in a script without a main guard too.
_TROUBLE = (Exception, SystemExit)


_MISSING = 'install it, or give the path of its file, which ends in .py'


@contextlib.contextmanager
def _importing(
  place: str, kind: str = '', remedy: str = '', missing: str = ''
) -> Iterator[None]:
  """Turn whatever a plug-in raises when it is imported into one line."""
  try:
    yield
  except _TROUBLE as error:
    text = f'{place} cannot be imported: {_first_line(error)}{remedy}'
    if missing and isinstance(error, ImportError):
      text = f'module {place!r} cannot be imported ({error}); {missing}'
    raise ValueError(f'{kind}{text}') from error


def reason(error: BaseException) -> str:
  """Say in one line what a plug-in raised, and where.

  Args:
    error: as it was caught.

  Returns:
    Type and first line of the message, with file and line of the innermost
    frame outside of jaxmu and of installed packages, if there is one.
  """
  package = str(pathlib.Path(__file__).parent)
  frames = traceback.extract_tb(error.__traceback__)
  own = [
    f'{pathlib.Path(frame.filename).name}, line {frame.lineno}'
    for frame in frames
    if not frame.filename.startswith((package, '<'))
    and 'site-packages' not in frame.filename
  ]
  return f'{_first_line(error)} ({own[-1]})' if own else _first_line(error)


def _first_line(error: BaseException) -> str:
  text = str(error).partition('\n')[0]
  return f'{type(error).__name__}: {text}' if text else type(error).__name__


def _source_digest(spec: Any, entry: Any, kind: str) -> str:
  """Hash the source of a plug-in: its whole package, or its file."""
  owner = _defining_module(spec, entry)
  file = getattr(owner, '__file__', None)
  if file is None:
    raise ValueError(
      f'{kind} {describe(spec)}: its source cannot be read, so changes of it '
      'could not be detected; define it in a file'
    )
  package = owner.__name__.partition('.')[0] if owner.__package__ else ''
  root = getattr(sys.modules.get(package), '__file__', None)
  sources = [pathlib.Path(file)]
  if root and pathlib.Path(root).name == '__init__.py':
    sources = sorted(pathlib.Path(root).parent.rglob('*.py'))
  return files.sha256_of(
    *(
      path.name.encode() + b'\0' + path.read_bytes() + b'\0' for path in sources
    )
  )


def _defining_module(spec: Any, entry: Any) -> Any:
  if isinstance(spec, types.ModuleType):
    return spec
  if isinstance(spec, str) and spec.partition(':')[0].endswith('.py'):
    return load_file(spec.partition(':')[0])
  # The module of a NamedTuple or dataclass is that of one of its functions.
  candidates = [entry, *(entry if isinstance(entry, tuple) else ())]
  candidates += list(getattr(entry, '__dict__', {}).values())
  for one in candidates:
    if inspect.isfunction(one) or inspect.isclass(one):
      module = inspect.getmodule(one)
      if module is not None and not module.__name__.startswith('jaxmu.'):
        return module
  return inspect.getmodule(type(entry))


@functools.cache
def _entry_points(group: str) -> dict[str, importlib.metadata.EntryPoint]:
  return {e.name: e for e in importlib.metadata.entry_points(group=group)}


def describe(spec: Any) -> str:
  """Return a name in quotes, or the type of an object."""
  return repr(spec) if isinstance(spec, str) else type(spec).__name__
