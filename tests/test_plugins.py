"""Names, paths, modules and objects all lead to the same entry."""

import doctest
import importlib.metadata
import types

import pytest

from jaxmu import plugins, terms
from jaxmu.attacks.registry import ATTACKS
from jaxmu.data import datasets
from jaxmu.methods import METHODS
from jaxmu.metrics import METRICS
from jaxmu.models import MODELS
from jaxmu.study import recipes

BUILTIN = {'one': (1,), 'two': (2,)}


def _check(value):
  if not isinstance(value, tuple):
    raise ValueError(f'{value!r} is not a tuple; give a tuple')
  return value


@pytest.fixture
def registry():
  return plugins.Registry(
    'thing', BUILTIN, check=_check, title=lambda entry: str(entry)
  )


@pytest.fixture
def own_file(tmp_path):
  path = tmp_path / 'own.py'
  path.write_text('THING = (3,)\nOTHER = (4,)\nWRONG = 5\n')
  return path


def test_finds_builtin_file_attribute_module_and_object(registry, own_file):
  module = types.ModuleType('anything')
  module.THING = (6,)
  assert registry.resolve('one') == (1,)
  assert registry.resolve(str(own_file)) == (3,)
  assert registry.resolve(f'{own_file}:OTHER') == (4,)
  assert registry.resolve(module) == (6,)
  assert registry.resolve((7,)) == (7,)


@pytest.mark.parametrize(
  'spec, says',
  [
    ('ome', "did you mean 'one'"),
    ('no.such_module', "module 'no.such_module' cannot be imported"),
    ('nothing.py', "no file 'nothing.py'"),
    ('.relative', "'.relative' is not a module name; write it as my_package"),
    (':THING', "'' is not a module name"),
    ('{own}:MISSING', 'has no MISSING'),
    ('{own}:WRONG', 'give a tuple'),
  ],
)
def test_says_what_is_wrong_in_one_line(registry, own_file, spec, says):
  with pytest.raises(ValueError) as error:
    registry.resolve(spec.format(own=own_file))
  assert says in str(error.value)
  assert '\n' not in str(error.value)


def test_a_file_that_fails_is_named_with_its_error(registry, tmp_path):
  path = tmp_path / 'broken.py'
  path.write_text('1 / 0\n')
  with pytest.raises(ValueError, match='broken.py cannot be imported: ZeroDiv'):
    registry.resolve(str(path))


@pytest.mark.parametrize(
  'code, says',
  [
    ('1 / 0', 'ZeroDivisionError: division by zero'),
    ("import sys; sys.exit('no main guard')", 'SystemExit: no main guard'),
    ("raise KeyError('two\\nlines')", "KeyError: 'two"),
    ("raise RuntimeError('one\\ntwo')", 'RuntimeError: one'),
  ],
)
def test_a_plug_in_that_raises_when_it_is_imported(
  registry, tmp_path, monkeypatch, code, says
):
  (tmp_path / 'troubled.py').write_text(f'{code}\n')
  monkeypatch.syspath_prepend(tmp_path)
  entry = importlib.metadata.EntryPoint('fancy', 'troubled:THING', 'g')
  monkeypatch.setattr(plugins, '_entry_points', lambda group: {'fancy': entry})
  for spec in ('troubled:THING', str(tmp_path / 'troubled.py'), 'fancy'):
    with pytest.raises(ValueError) as error:
      registry.resolve(spec)
    assert f'cannot be imported: {says}' in str(error.value)
    assert '\n' not in str(error.value)


def test_the_place_of_an_error_is_in_the_plug_in(tmp_path):
  path = tmp_path / 'troubled.py'
  path.write_text('def f(x):\n  return {}[x]\n')
  try:
    plugins.load_file(str(path)).f(3)
  except KeyError as error:
    assert plugins.reason(error) == 'KeyError: 3 (troubled.py, line 2)'


def test_a_changed_file_has_another_fingerprint(registry, own_file):
  assert registry.fingerprint('one') == ''
  before = registry.fingerprint(str(own_file))
  assert before == registry.fingerprint(str(own_file))
  own_file.write_text('THING = (8,)\n')
  assert registry.fingerprint(str(own_file)) != before
  assert registry.resolve(str(own_file)) == (8,)


def test_prints_as_a_table(registry):
  assert repr(registry) == 'one  (1,)\ntwo  (2,)'


def test_a_name_in_another_case_gets_a_hint_in_every_registry():
  for builtin, kind in (
    (METHODS, 'method'),
    (ATTACKS, 'attack'),
    (METRICS, 'metric'),
    (MODELS, 'model'),
  ):
    name = next(iter(builtin))
    hint = f"unknown {kind} '{name.upper()}'; did you mean '{name}'?"
    with pytest.raises(ValueError) as error:
      builtin.resolve(name.upper())
    assert str(error.value).startswith(hint)
  with pytest.raises(ValueError, match="'DIGITS'; did you mean 'digits'?"):
    datasets.load('DIGITS')
  with pytest.raises(ValueError, match="'CIFAR10'; did you mean 'cifar10'?"):
    recipes.job_config('ft', scale='CIFAR10')


def test_counts_and_hints_in_words():
  assert not doctest.testmod(terms).failed
  assert terms.nearest('epochs', ['seed', 'num_epochs']) == (
    "did you mean 'num_epochs'? "
  )
  assert terms.nearest('xyz', ['seed']) == ''
  assert terms.choices('sed', ['seed', 'lr']) == (
    "did you mean 'seed'? choose from seed, lr"
  )
