"""What every method must satisfy, checked over the whole registry.

A method's exemptions are data beside the method (`Card.exempt`), each with its
reason; there is no list of names here.
"""

import collections
import dataclasses
import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmu import hparams as hp
from jaxmu import method as method_lib
from jaxmu import population
from jaxmu.draws import Draws
from jaxmu.methods import METHODS
from jaxmu.types import Problem
from tests import tiny_problem

BATCH = 8  # 20 retained examples: two full batches and a tail of four
NARROW = population.Layout(devices=1, chunk=1)
WIDE = population.Layout(devices=2, chunk=8)


def _small(name: str) -> dict:
  """Defaults of a method, scaled to the tiny problem."""
  defaults = hp.defaults(METHODS[name].Hparams)
  small = {k: v for k, v in defaults.items()}
  for key, value in defaults.items():
    if key.endswith('epochs'):
      small[key] = type(value)(2)
    elif 'batch_size' in key:
      small[key] = BATCH
  return {**small, **METHODS[name].card.small}


def _changed(field: dataclasses.Field, value):
  """Another value of a leaf, inside its valid range."""
  if isinstance(value, tuple):
    return tuple(_changed(field, one) for one in value)
  if isinstance(hp.meta(field)['default'], int):
    return value + 1 if value + 1 in hp.meta(field)['valid'] else value - 1
  for other in (value * 0.5, value + 0.25):
    if other != value and other in hp.meta(field)['valid']:
      return other
  raise AssertionError(f'no other value for {field.name}')


def _leaves(name: str) -> list[dataclasses.Field]:
  fields = hp.declared(METHODS[name].Hparams)
  return [f for f in fields if not hp.is_static(f)]


@functools.cache
def _variants(name: str) -> tuple:
  """Hyper-parameters: twice the base, then one variant per leaf."""
  base = _small(name)
  values = [base, base]
  for field in _leaves(name):
    values.append({**base, field.name: _changed(field, base[field.name])})
  values += [base] * (-len(values) % WIDE.width)
  return tuple(hp.from_config(METHODS[name].Hparams, v) for v in values)


@functools.cache
def _trainer(name: str, layout: population.Layout) -> population.Trainer:
  return population.Trainer(METHODS[name], tiny_problem.task(), layout)


def _same(tree, size: int, member: int = 0):
  """Give every member of a population what `member` has."""
  index = np.full(size, member)
  return jax.tree.map(lambda x: x[index], tree)


@functools.cache
def _run(name: str, layout: population.Layout, case: str = 'same'):
  """Train the variants; all members share data, start and key."""
  size = len(_variants(name))
  keys = _same(tiny_problem.keys(2), size)
  splits = _same(tiny_problem.splits(1), size)
  originals = _same(tiny_problem.originals(1), size)
  if case == 'keys':
    keys = tiny_problem.keys(size)
  if case == 'nan':
    originals = jax.tree.map(lambda x: x.at[-1].set(jnp.nan), originals)
  if case == 'unread':
    splits = _scramble_unread(name, splits)
  return _trainer(name, layout).run(_variants(name), keys, splits, originals)


def _scramble_unread(name: str, splits):
  reads = METHODS[name].card.reads
  changes = {
    field: (getattr(splits, field) + 1) % 48
    for field in ('retain', 'forget', 'val')
    if field not in reads
  }
  return splits.replace(**changes)


def _one_problem() -> Problem:
  split = jax.tree.map(lambda x: jnp.asarray(x[0]), tiny_problem.splits(1))
  original = jax.tree.map(lambda x: x[0], tiny_problem.originals(1))
  return Problem(tiny_problem.task(), split, original)


def _member(tree, index: int):
  return [np.asarray(x[index]) for x in jax.tree.leaves(tree)]


def _equal(tree, a: int, b: int) -> bool:
  pairs = zip(_member(tree, a), _member(tree, b), strict=True)
  return all(np.array_equal(x, y) for x, y in pairs)


names = pytest.mark.parametrize(
  'name',
  [pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in METHODS],
)


def _skip_if_exempt(name: str, property_name: str):
  reason = METHODS[name].card.exempt.get(property_name)
  if reason:
    pytest.skip(f'{name} is exempt: {reason}')


def test_exemptions_name_properties_of_this_file():
  known = {n.removeprefix('test_') for n in globals() if n.startswith('test_')}
  for method in METHODS.values():
    assert set(method.card.exempt) <= known, method.name


def test_registry_is_alphabetical_and_named_by_its_keys():
  assert list(METHODS) == sorted(METHODS)
  assert all(method.name == name for name, method in METHODS.items())


@names
def test_arguments_have_the_agreed_names(name):
  method = METHODS[name]
  common = ['hparams', 'draws', 'problem']
  assert list(inspect.signature(method.init).parameters) == common
  epoch = list(inspect.signature(method.epoch).parameters)
  assert epoch == [*common, 'state', 'epoch']
  assert list(inspect.signature(method.prepare).parameters) == [
    'hparams',
    'problem',
  ]


@names
def test_docstring_gives_the_source(name):
  module = inspect.getmodule(METHODS[name].epoch)
  assert module is not None and module.__doc__ is not None
  assert 'Source:' in module.__doc__
  assert 'arXiv' in METHODS[name].card.citation or 'doi' in (
    METHODS[name].card.citation
  )


@names
def test_counted_cost_is_positive(name):
  method = METHODS[name]
  sizes = method_lib.Sizes(retain=90, forget=10, val=20, classes=10)
  assert method.card.cost(hp.defaults(method.Hparams), sizes) > 0


@names
def test_result_has_the_shapes_and_types_of_the_original(name):
  result = _run(name, NARROW).variables
  start = _same(tiny_problem.originals(1), len(_variants(name)))
  assert jax.tree.structure(result) == jax.tree.structure(start)
  for a, b in zip(jax.tree.leaves(result), jax.tree.leaves(start), strict=True):
    assert (a.shape, a.dtype) == (b.shape, b.dtype)


@names
def test_result_is_finite_and_differs_from_the_start(name):
  result = _run(name, NARROW)
  assert all(np.isfinite(x).all() for x in _member(result.variables, 0))
  assert (result.failed == -1).all()
  start = tiny_problem.originals(1)
  pairs = zip(_member(result.variables, 0), _member(start, 0), strict=True)
  assert any(not np.array_equal(a, b) for a, b in pairs)


@names
def test_population_agrees_with_one_member_at_a_time(name):
  method = METHODS[name]
  alone, _ = method_lib.run(
    method._replace(init=jax.jit(method.init), epoch=jax.jit(method.epoch)),
    _variants(name)[0],
    Draws(tiny_problem.keys(1)[0]),
    _one_problem(),
  )
  for layout in (NARROW, WIDE):
    together = _member(_run(name, layout).variables, 0)
    for a, b in zip(together, jax.tree.leaves(alone), strict=True):
      np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-4)


@names
def test_chunks_and_devices_do_not_change_the_result(name):
  narrow, wide = _run(name, NARROW), _run(name, WIDE)
  pairs = zip(
    jax.tree.leaves(narrow.variables),
    jax.tree.leaves(wide.variables),
    strict=True,
  )
  for a, b in pairs:
    np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-4)


@names
def test_same_key_gives_the_same_bits(name):
  result = _run(name, NARROW).variables
  assert _equal(result, 0, 1)


@names
def test_different_keys_differ(name):
  _skip_if_exempt(name, 'different_keys_differ')
  result = _run(name, NARROW, 'keys').variables
  assert not _equal(result, 0, 1)


@names
def test_every_leaf_matters_or_is_declared_dead(name):
  result = _run(name, NARROW).variables
  for index, field in enumerate(_leaves(name), start=2):
    same = _equal(result, 0, index)
    dead = hp.meta(field)['dead']
    assert same == bool(dead), (field.name, dead)


@names
def test_one_trace_serves_all_values(name):
  method, traces = METHODS[name], collections.Counter()

  def counted(part):
    @functools.wraps(part)
    def call(*arguments):
      traces[part] += 1
      return part(*arguments)

    return call

  init, epoch = jax.jit(counted(method.init)), jax.jit(counted(method.epoch))
  problem = _one_problem()
  for variant in _variants(name):
    variant = method.prepare(variant, problem)
    draws = Draws(tiny_problem.keys(1)[0])
    state = jax.eval_shape(init, variant, draws.at('init'), problem)
    place = draws.at('epoch', jnp.int32(0))
    jax.eval_shape(epoch, variant, place, problem, state, jnp.int32(0))
  assert set(traces.values()) == {1}


@names
def test_nan_in_one_member_stays_there(name):
  for layout in (NARROW, WIDE):
    clean, dirty = _run(name, layout), _run(name, layout, 'nan')
    for member in range(len(_variants(name)) - 1):
      pairs = zip(
        _member(clean.variables, member),
        _member(dirty.variables, member),
        strict=True,
      )
      assert all(np.array_equal(a, b) for a, b in pairs)
    assert any(np.isnan(x).any() for x in _member(dirty.variables, -1))


@names
def test_sets_it_does_not_read_do_not_matter(name):
  as_is, scrambled = _run(name, NARROW), _run(name, NARROW, 'unread')
  pairs = zip(
    _member(as_is.variables, 0), _member(scrambled.variables, 0), strict=True
  )
  assert all(np.array_equal(a, b) for a, b in pairs)
