"""The contract of unlearning methods.

The method is trained on a tiny problem as a population whose members differ in
one hyper-parameter each, one member at a time and in batches. Rules compare
members and runs. A rule that does not apply to a method is named in
`Card.exempt`, with the reason.
"""

import collections
import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmu import hparams as hp
from jaxmu import method as method_lib
from jaxmu import methods, platforms, population
from jaxmu.draws import Draws
from jaxmu.testing import Findings, Rule, enforce, tiny_problem
from jaxmu.types import Split

BATCH = 8  # 20 retained examples: two full batches and a tail of four
RELATIVE, ABSOLUTE = 2e-3, 2e-4  # rounding between programs, after two epochs


class _Trial:
  """Runs of one method on the tiny problem, made when a rule needs them.

  Members 0 and 1 are equal; each further one differs in one leaf.
  """

  def __init__(self, method: method_lib.Method):
    self.method = method
    self.leaves = [
      f for f in hp.declared(method.Hparams) if not hp.is_static(f)
    ]
    self.narrow = population.Layout(devices=1, chunk=1)
    self.wide = population.Layout(
      devices=min(2, len(platforms.local_devices())), chunk=8
    )
    self._trainers: dict[population.Layout, population.Trainer] = {}
    self._runs: dict[tuple, population.Trained] = {}

  @functools.cached_property
  def base(self) -> dict[str, Any]:
    """Hyper-parameters that suit the tiny problem, as plain values."""
    values = hp.defaults(self.method.Hparams)
    for name, value in values.items():
      if name.endswith('epochs'):
        values[name] = type(value)(2)
      elif 'batch_size' in name:
        values[name] = BATCH
    return {**values, **self.method.card.small}

  @functools.cached_property
  def members(self) -> list[Any]:
    """Hyper-parameters of all members."""
    values = [self.base, self.base]
    for field in self.leaves:
      other = another_value(field, self.base[field.name])
      values.append({**self.base, field.name: other})
    values += [self.base] * (-len(values) % self.wide.width)
    return [hp.from_config(self.method.Hparams, one) for one in values]

  def run(
    self, layout: population.Layout, case: str = 'same'
  ) -> population.Trained:
    """Train all members.

    Args:
      layout: how members are laid out.
      case: 'same' shares data, start and key between members; 'keys' gives
        each its own key; 'nan' starts the last one from NaN; 'unread' changes
        the sets that the method does not read.
    """
    if (layout, case) not in self._runs:
      self._runs[layout, case] = self._train(layout, case)
    return self._runs[layout, case]

  def _train(self, layout: population.Layout, case: str) -> population.Trained:
    if layout not in self._trainers:
      self._trainers[layout] = population.Trainer(
        self.method, tiny_problem.task(), layout
      )
    size = len(self.members)
    keys = _same(tiny_problem.keys(2), size)
    splits = _same(tiny_problem.splits(1), size)
    starts = _same(tiny_problem.originals(1), size)
    if case == 'keys':
      keys = tiny_problem.keys(size)
    if case == 'nan':
      starts = jax.tree.map(lambda x: x.at[-1].set(jnp.nan), starts)
    if case == 'unread':
      splits = self._other_unread_sets(splits)
    return self._trainers[layout].run(self.members, keys, splits, starts)

  def _other_unread_sets(self, splits: Split[np.ndarray]) -> Split[np.ndarray]:
    changes = {
      part: (getattr(splits, part) + 1) % tiny_problem.IMAGES
      for part in tiny_problem.SIZES
      if part not in self.method.card.reads
    }
    return splits.replace(**changes)  # type: ignore[attr-defined]


def another_value(field: dataclasses.Field, value: Any) -> Any:
  """Return another valid value of a hyper-parameter.

  Raises:
    ValueError: there is none near this one.
  """
  if isinstance(value, tuple):
    return tuple(another_value(field, one) for one in value)
  valid = hp.meta(field)['valid']
  near = (value * 0.5, value + 0.25, value - 0.25)
  if isinstance(hp.meta(field)['default'], int):
    near = (value + 1, value - 1)
  for other in near:
    if other != value and other in valid:
      return other
  raise ValueError(
    f'{field.name} = {value!r} has no other valid value near it; widen `valid` '
    'or make it a static'
  )


def _same(tree: Any, size: int) -> Any:
  """Copy the values of the first member to every member."""
  return jax.tree.map(lambda x: x[np.zeros(size, int)], tree)


def _member(tree: Any, index: int) -> list[np.ndarray]:
  return [np.asarray(x[index]) for x in jax.tree.leaves(tree)]


def _equal(a: Sequence[np.ndarray], b: Sequence[np.ndarray]) -> bool:
  return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def _close(a: Any, b: Any) -> bool:
  pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
  return all(np.allclose(x, y, RELATIVE, ABSOLUTE) for x, y in pairs)


def _counted_cost_is_positive(trial: _Trial) -> Findings:
  sizes = method_lib.Sizes(retain=90, forget=10, val=20, classes=10)
  cost = trial.method.card.cost(hp.defaults(trial.method.Hparams), sizes)
  if not cost > 0:
    yield (
      f'card.cost gives {cost} for 90 retained and 10 forgotten examples.',
      'Count forward passes of one example, a backward pass as two.',
    )


def _result_is_like_the_start(trial: _Trial) -> Findings:
  result = trial.run(trial.narrow).variables
  start = _same(tiny_problem.originals(1), len(trial.members))
  remedy = 'Keep the arrays of problem.start, their shapes and types.'
  if jax.tree.structure(result) != jax.tree.structure(start):
    yield 'the result has other arrays than the start.', remedy
    return
  for (path, a), b in zip(
    jax.tree_util.tree_leaves_with_path(result),
    jax.tree.leaves(start),
    strict=True,
  ):
    if (a.shape, a.dtype) != (b.shape, b.dtype):
      name = jax.tree_util.keystr(path, simple=True, separator='/')
      yield (
        f'{name} is {a.dtype}{list(a.shape[1:])} and was '
        f'{b.dtype}{list(b.shape[1:])}.',
        remedy,
      )


def _result_is_finite_and_differs_from_the_start(trial: _Trial) -> Findings:
  result = trial.run(trial.narrow)
  first = _member(result.variables, 0)
  failed = np.flatnonzero(result.failed != -1)
  if failed.size or not all(np.isfinite(x).all() for x in first):
    yield (
      f'members {failed.tolist()} of {len(trial.members)} have losses or '
      'weights that are not finite.',
      'Give gentler values in card.small, such as a lower learning_rate.',
    )
  if _equal(first, _member(tiny_problem.originals(1), 0)):
    yield 'the result equals the start.', 'Return the changed variables.'


def _info_has_a_loss(trial: _Trial) -> Findings:
  problem, draws = tiny_problem.problem(), Draws(tiny_problem.keys(1)[0])
  hparams = trial.method.prepare(trial.members[0], problem)
  state = jax.eval_shape(trial.method.init, hparams, draws.at('init'), problem)
  _, info = jax.eval_shape(
    trial.method.epoch,
    hparams,
    draws.at('epoch', jnp.int32(0)),
    problem,
    state,
    jnp.int32(0),
  )
  flat = isinstance(info, dict) and all(
    hasattr(x, 'shape') and len(x.shape) < 2 for x in info.values()
  )
  if not flat or 'loss' not in info:
    yield (
      f'the info of an epoch is {info!r}.',
      "Return a dict of scalars or arrays [steps] with a 'loss'.",
    )


def _population_agrees_with_one_member_at_a_time(trial: _Trial) -> Findings:
  method = trial.method
  alone, _ = method_lib.run(
    method._replace(init=jax.jit(method.init), epoch=jax.jit(method.epoch)),
    trial.members[0],
    Draws(tiny_problem.keys(1)[0]),
    tiny_problem.problem(),
  )
  for layout in (trial.narrow, trial.wide):
    together = _member(trial.run(layout).variables, 0)
    if not _close(together, jax.tree.leaves(alone)):
      yield (
        f'a member of a population ({layout}) differs from the same model '
        'trained alone.',
        'Use nothing but the arguments: no global state, no NumPy randomness.',
      )


def _chunks_and_devices_do_not_change_the_result(trial: _Trial) -> Findings:
  narrow, wide = (trial.run(x).variables for x in (trial.narrow, trial.wide))
  if not _close(narrow, wide):
    yield (
      'members trained together differ from members trained one by one.',
      'Compute with jax.numpy alone, and draw by name from `draws`.',
    )


def _same_key_gives_the_same_bits(trial: _Trial) -> Findings:
  result = trial.run(trial.narrow).variables
  if not _equal(_member(result, 0), _member(result, 1)):
    yield (
      'two equal members with equal keys end with different weights.',
      'Draw from `draws` alone.',
    )


def _different_keys_differ(trial: _Trial) -> Findings:
  result = trial.run(trial.narrow, 'keys').variables
  if _equal(_member(result, 0), _member(result, 1)):
    yield (
      'members with different keys end with equal weights.',
      "Draw from `draws`, or exempt the method with the reason 'nothing is "
      "drawn'.",
    )


def _every_leaf_matters_or_is_declared_dead(trial: _Trial) -> Findings:
  result = trial.run(trial.narrow).variables
  for index, field in enumerate(trial.leaves, start=2):
    same = _equal(_member(result, 0), _member(result, index))
    dead = hp.meta(field)['dead']
    value = trial.base[field.name]
    if same and not dead:
      yield (
        f'changing {field.name} from {value} to '
        f'{another_value(field, value)} does not change the result.',
        "Read it, remove it, or declare it with dead='the reason'.",
      )
    if dead and not same:
      yield (
        f'{field.name} is declared dead ({dead}) and changes the result.',
        'Remove `dead` from its declaration.',
      )


def _one_trace_serves_all_values(trial: _Trial) -> Findings:
  method, traces = trial.method, collections.Counter()

  def counted(part: str) -> Callable[..., Any]:
    function = getattr(method, part)

    @functools.wraps(function)
    def call(*arguments: Any) -> Any:
      traces[part] += 1
      return function(*arguments)

    return jax.jit(call)

  init, epoch = counted('init'), counted('epoch')
  problem = tiny_problem.problem()
  draws = Draws(tiny_problem.keys(1)[0])
  for member in trial.members:
    member = method.prepare(member, problem)
    state = jax.eval_shape(init, member, draws.at('init'), problem)
    place = draws.at('epoch', jnp.int32(0))
    jax.eval_shape(epoch, member, place, problem, state, jnp.int32(0))
  for part, count in traces.items():
    if count != 1:
      yield (
        f'{part} is compiled {count} times for {len(trial.members)} members '
        'that differ in leaves alone.',
        'Let `prepare` return arrays of one shape and dtype for all values.',
      )


def _nan_in_one_member_stays_there(trial: _Trial) -> Findings:
  last = len(trial.members) - 1
  for layout in (trial.narrow, trial.wide):
    clean, dirty = trial.run(layout), trial.run(layout, 'nan')
    for member in range(last):
      if not _equal(
        _member(clean.variables, member), _member(dirty.variables, member)
      ):
        yield (
          f'member {member} changes when member {last} starts from NaN.',
          'Make each member independent of the others.',
        )
        break
    if not any(np.isnan(x).any() for x in _member(dirty.variables, last)):
      yield (
        'a model that starts from NaN ends without any.',
        'Do not replace numbers that are not finite: failures must show.',
      )


def _sets_it_does_not_read_do_not_matter(trial: _Trial) -> Findings:
  as_is, other = (trial.run(trial.narrow, c) for c in ('same', 'unread'))
  if not _equal(_member(as_is.variables, 0), _member(other.variables, 0)):
    reads = trial.method.card.reads
    yield (
      f'card.reads is {reads}, and a change of the other sets changes the '
      'result.',
      'Name every set that the method reads.',
    )


METHOD_RULES: dict[str, Rule[_Trial]] = {
  function.__name__.lstrip('_'): function
  for function in (
    _counted_cost_is_positive,
    _info_has_a_loss,
    _one_trace_serves_all_values,
    _result_is_like_the_start,
    _result_is_finite_and_differs_from_the_start,
    _population_agrees_with_one_member_at_a_time,
    _chunks_and_devices_do_not_change_the_result,
    _same_key_gives_the_same_bits,
    _different_keys_differ,
    _every_leaf_matters_or_is_declared_dead,
    _nan_in_one_member_stays_there,
    _sets_it_does_not_read_do_not_matter,
  )
}


def check_method(spec: Any, rules: Sequence[str] | None = None) -> None:
  """Check a method against the contract that all methods satisfy.

  Takes about half a minute, mostly compilation.

  Args:
    spec: the method, as for `jaxmu.methods.get`.
    rules: names of rules to check, of `METHOD_RULES`; None for all.

  Raises:
    ValueError: there is no such method or rule, or the method is incomplete.
    ContractError: rules are broken; the message has one line for each with
      what to do.

  Example:
    >>> from jaxmu import testing
    >>> testing.check_method('ft', rules=['counted_cost_is_positive'])
  """
  method = methods.get(spec)
  enforce('method', method, METHOD_RULES, rules, subject=_Trial(method))
