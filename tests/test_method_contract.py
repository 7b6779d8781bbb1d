"""All methods satisfy the contract, and the check reports violations.

Exemptions are data beside a method (`Card.exempt`), each with its reason; there
is no list of names here.
"""

import dataclasses
import inspect
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from jaxmu import hparams as hp
from jaxmu import method as method_lib
from jaxmu import testing
from jaxmu.methods import METHODS
from jaxmu.methods.parts import training, weights
from jaxmu.types import Array

# The others, which cover the same parts, take 5 to 20 s each with `-m slow`.
QUICK = {'ff', 'ft', 'msg', 'original', 'salun'}


def _marks(name: str) -> list:
  group = pytest.mark.xdist_group(name)
  return [group] if name in QUICK else [group, pytest.mark.slow]


@pytest.mark.parametrize(
  'name', [pytest.param(name, marks=_marks(name)) for name in METHODS]
)
def test_method_satisfies_the_contract(name):
  testing.check_method(name)


def test_registry_is_alphabetical_and_named_by_its_keys():
  assert list(METHODS) == sorted(METHODS)
  assert all(method.name == name for name, method in METHODS.items())


def test_methods_are_complete():
  for method in METHODS.values():
    assert method_lib.as_method(method) is method


def test_docstrings_give_the_source():
  missing = []
  for name, method in METHODS.items():
    # The `epoch` of some methods is a shared one; their classes never are.
    module = inspect.getmodule(method.Hparams)
    text = module.__doc__ or ''
    if 'Source:' not in text or not {'arXiv', 'doi'} & set(
      method.card.citation.split()
    ):
      missing.append(name)
  assert not missing


def test_exemptions_have_reasons():
  for method in METHODS.values():
    assert all(method.card.exempt.values()), method.name


@struct.dataclass
class Hparams:
  noise: Array = hp.leaf(0.1, valid=hp.POSITIVE)
  num_epochs: Array = hp.leaf(1, valid=hp.COUNT)


def _shifted(variables, amount):
  params = weights.edit(lambda path, leaf: leaf + amount, variables['params'])
  return {**variables, 'params': params}


def _init(hparams, draws, problem):
  amount = hparams.noise * draws.normal('noise', ())
  return training.Edited(_shifted(problem.start, amount))


def _epoch(hparams, draws, problem, state, epoch):
  amount = hparams.noise * draws.normal('noise', ()) / (1 + epoch)
  loss = amount * jnp.mean(problem.split.retain)
  state = training.Edited(_shifted(state.variables, amount + loss))
  return state, {'loss': loss}


GOOD = method_lib.Method(
  name='shift',
  Hparams=Hparams,
  init=_init,
  epoch=_epoch,
  card=method_lib.Card(
    title='Shifts all weights by a random number',
    citation='nowhere',
    cost=lambda h, n: n.retain,
    reads=('retain',),
  ),
)


def test_a_method_from_outside_passes():
  testing.check_method(GOOD)


def _card(**changes):
  return GOOD._replace(card=dataclasses.replace(GOOD.card, **changes))


def _one_draw_for_all(hparams, draws, problem):
  del draws
  amount = hparams.noise * jax.random.normal(jax.random.key(0), ())
  return training.Edited(_shifted(problem.start, amount))


def _deaf(hparams, draws, problem, state, epoch):
  del hparams, draws, epoch
  return state, {'loss': jnp.float32(problem.split.retain.size)}


_CALLS = []


def _counts_calls(hparams, draws, problem):
  _CALLS.append(time.perf_counter())
  amount = hparams.noise * draws.normal('noise', ()) + len(_CALLS)
  return training.Edited(_shifted(problem.start, amount))


def _hides_nan(hparams, draws, problem):
  state = _init(hparams, draws, problem)
  return jax.tree.map(jnp.nan_to_num, state)


def _reads_others(hparams, draws, problem):
  # The mean over a named axis would need one; a callback sees all members.
  seen = jax.pure_callback(
    lambda x: np.float32(_SEEN.append(float(np.sum(x))) or sum(_SEEN)),
    jax.ShapeDtypeStruct((), jnp.float32),
    problem.start['params']['fc']['kernel'],
    vmap_method='sequential',
  )
  state = _init(hparams, draws, problem)
  return training.Edited(_shifted(state.variables, 1e-3 * seen))


_SEEN: list[float] = []


@struct.dataclass
class _Retraced:
  noise: Array = hp.leaf(0.1, valid=hp.POSITIVE)
  num_epochs: Array = hp.leaf(1, valid=hp.COUNT)
  table: Array | None = hp.derived()


def _table(hparams, problem):
  del problem
  size = 2 + int(hparams.num_epochs)
  return hparams.replace(table=np.zeros(size, np.float32))


@struct.dataclass
class _Dead(Hparams):
  noise: Array = hp.leaf(0.1, valid=hp.POSITIVE, dead='nobody reads it')


BROKEN = {
  'counted_cost_is_positive': (
    _card(cost=lambda h, n: 0),
    'card.cost gives 0',
  ),
  'info_has_a_loss': (
    GOOD._replace(
      epoch=lambda hparams, draws, problem, state, epoch: (state, {})
    ),
    "with a 'loss'",
  ),
  'one_trace_serves_all_values': (
    GOOD._replace(Hparams=_Retraced, prepare=_table),
    'init is compiled 2 times',
  ),
  'result_is_like_the_start': (
    GOOD._replace(finish=lambda hparams, state: state.variables['params']),
    'other arrays than the start',
  ),
  'result_is_finite_and_differs_from_the_start': (
    GOOD._replace(
      init=lambda hparams, draws, problem: training.Edited(problem.start),
      epoch=_deaf,
    ),
    'the result equals the start',
  ),
  'population_agrees_with_one_member_at_a_time': (
    GOOD._replace(init=_counts_calls),
    'differs from the same model trained alone',
  ),
  'chunks_and_devices_do_not_change_the_result': (
    GOOD._replace(init=_counts_calls),
    'differ from members trained one by one',
  ),
  'same_key_gives_the_same_bits': (
    GOOD._replace(init=_reads_others),
    'two equal members with equal keys',
  ),
  'different_keys_differ': (
    GOOD._replace(init=_one_draw_for_all, epoch=_deaf),
    "'nothing is drawn'",
  ),
  'every_leaf_matters_or_is_declared_dead': (
    GOOD._replace(epoch=_deaf),
    'changing num_epochs from 2 to 3 does not change the result',
  ),
  'nan_in_one_member_stays_there': (
    GOOD._replace(init=_hides_nan),
    'ends without any',
  ),
  'sets_it_does_not_read_do_not_matter': (
    _card(reads=('forget',)),
    "card.reads is ('forget',)",
  ),
}


def test_every_rule_is_broken_by_some_method_here():
  assert list(BROKEN) == list(testing.METHOD_RULES)


@pytest.mark.parametrize('rule', BROKEN)
def test_a_broken_rule_is_named_with_what_to_do(rule):
  method, says = BROKEN[rule]
  with pytest.raises(testing.ContractError) as error:
    testing.check_method(method, rules=[rule])
  (first, *_) = error.value.faults
  assert first.rule == rule
  assert says in str(error.value)
  assert "method 'shift' breaks" in str(error.value)


def test_a_dead_hyper_parameter_that_acts_is_named():
  with pytest.raises(testing.ContractError, match='noise is declared dead'):
    testing.check_method(
      GOOD._replace(Hparams=_Dead),
      rules=['every_leaf_matters_or_is_declared_dead'],
    )


def test_unknown_rules_are_refused():
  with pytest.raises(ValueError, match="no rules .'no_such'"):
    testing.check_method(_card(exempt={'no_such': 'because'}))
