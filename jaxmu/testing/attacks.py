"""The contract of attacks.

The attack is run on simulated populations: with a leak and without one, with
models and examples in another order, and with values that real models give now
and then.
"""

import math
import operator
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxmu.attacks import interface, registry, scores, simulation
from jaxmu.attacks.interface import Attack
from jaxmu.terms import EXCLUDED, RETAINED
from jaxmu.testing import Findings, Rule, enforce

_FPR = 0.2
_REPEATS = 8
_EXAMPLES, _FEW_EXAMPLES = 60, 24  # few for costly attacks
_SLACK = 0.01  # allowed in addition to five standard errors

Arrays = Mapping[str, np.ndarray]
# Value and interval by population and statistic.
Numbers = dict[tuple[str, str], tuple[float, float, float]]


def _simulated(
  attack: Attack, *, shift: float = 0.0, seed: int = 0, classes: int = 3
) -> dict[str, np.ndarray]:
  examples = _FEW_EXAMPLES if attack.card.cost == 'costly' else _EXAMPLES
  return simulation.arrays(
    shift=shift, seed=seed, examples=examples, classes=classes
  )


def _results(attack: Attack, arrays: Arrays) -> list[registry.AttackResult]:
  data = scores.from_arrays(arrays)
  return registry.run(data, [attack], fprs=(_FPR,))


def _numbers(attack: Attack, arrays: Arrays) -> Numbers:
  ends = operator.attrgetter('value', 'low', 'high')
  return {
    (r.population, r.statistic): ends(r.estimate)
    for r in _results(attack, arrays)
  }


def _compare(
  first: Numbers,
  second: Numbers,
  reason: str,
  remedy: str,
  *,
  tolerance: float = 0.0,
) -> Findings:
  """Find the first of the numbers of two runs that differ but should not."""
  if first.keys() != second.keys():
    odd = sorted(first.keys() ^ second.keys())
    yield f'{odd} are given only once though {reason}.', remedy
    return
  for (population, statistic), one in first.items():
    other = second[population, statistic]
    if not np.allclose(one, other, tolerance, tolerance, equal_nan=True):
      yield (
        f'{statistic} of {population} models is {one[0]!r} and {other[0]!r} '
        f'though {reason}.',
        remedy,
      )
      return


def _card(attack: Attack) -> Findings:
  """Every number has a term, every text is there."""
  card = attack.card
  for field in ('title', 'subject', 'source'):
    if not getattr(card, field).strip():
      yield f'its {field} is empty.', 'Fill it in on the card.'
  results = _results(attack, _simulated(attack))
  if not results:
    yield 'it reports no number.', 'Return a dict of estimates from `report`.'
  for statistic in sorted({result.statistic for result in results}):
    term = attack.term(statistic)
    if term is None:
      yield f'{statistic!r} has no term.', 'Add it to the terms of the card.'
    elif not term.sentence.endswith('.') or '{' in term.sentence:
      yield (
        f'{term.sentence!r} is not a sentence.',
        'End it with a full stop; the only braces are those of {attack}.',
      )
  if attack.score is not None:
    data = scores.from_arrays(_simulated(attack))
    for name, value in registry.score(attack, data).items():
      if value.shape != data.populations[name].state.shape:
        yield (
          f'its score has shape {value.shape}.',
          'Return a score for each [models, examples], NaN where none is.',
        )


def _null(attack: Attack) -> Findings:
  """Without a leak, numbers are at chance or like those of retrained models."""
  for statistic, gap in _gaps(attack).items():
    known = np.array(gap)[np.isfinite(gap)]
    if len(known) < 2:
      continue
    mean = known.mean()
    error = known.std(ddof=1) / math.sqrt(len(known))
    if abs(mean) > 5 * error + _SLACK:
      yield (
        f'{statistic} is off by {mean:.3f} ± {error:.3f} on populations '
        'without a leak.',
        'Fit without the scored model and the other models of its `group`.',
      )


def _gaps(attack: Attack) -> dict[str, list[float]]:
  """Return distances from what is expected without a leak, by statistic."""
  gaps: dict[str, list[float]] = {}
  chance = {'half': 0.5, 'one': 1.0, 'zero': 0.0}
  for seed in range(_REPEATS):
    found = _numbers(attack, _simulated(attack, seed=seed))
    for (population, statistic), (value, _, _) in found.items():
      term = attack.term(statistic)
      if population != 'unlearned' or term is None:
        continue
      if term.better in chance:
        expected = chance[term.better]
      elif ('retrained', statistic) in found:
        expected = found['retrained', statistic][0]
      else:
        continue
      gaps.setdefault(statistic, []).append(value - expected)
    if not gaps:  # no number has an expected value
      break
  return gaps


def _order(attack: Attack, axis: int, thing: str) -> Findings:
  """Numbers do not change if models (axis 0) or examples (1) are permuted."""
  arrays = _simulated(attack, shift=1.0)
  rng = np.random.default_rng(axis + 1)
  place = rng.permutation(arrays['state'].shape[axis])
  fixed = ('labels', 'split')[axis]
  moved = {
    key: value if key == fixed else value.take(place, min(axis, value.ndim - 1))
    for key, value in arrays.items()
  }
  yield from _compare(
    _numbers(attack, arrays),
    _numbers(attack, moved),
    f'only the order of the {thing} differs',
    'Do not use the position of a row or column.',
    tolerance=1e-8,
  )


def _model_order(attack: Attack) -> Findings:
  yield from _order(attack, 0, 'models')


def _example_order(attack: Attack) -> Findings:
  yield from _order(attack, 1, 'examples')


def _range(attack: Attack, found: Numbers, given: str) -> Findings:
  """Find numbers that are infinite, or shares outside [0, 1]."""
  for (population, statistic), (value, _, _) in found.items():
    term = attack.term(statistic)
    share = term is not None and term.unit == 'fraction'
    if np.isinf(value) or (share and not (np.isnan(value) or 0 <= value <= 1)):
      yield (
        f'{statistic} of {population} models is {value} with {given}.',
        'Give NaN where a number cannot be computed.',
      )


def _two_classes(attack: Attack) -> Findings:
  found = _numbers(attack, _simulated(attack, shift=1.0, classes=2))
  yield from _range(attack, found, 'logits of two classes')


def _constant(attack: Attack) -> Findings:
  arrays = _simulated(attack)
  same = {k: np.zeros_like(v) for k, v in arrays.items() if 'logits' in k}
  found = _numbers(attack, {**arrays, **same})
  yield from _range(attack, found, 'constant scores')
  for (population, statistic), (value, _, _) in found.items():
    term = attack.term(statistic)
    half = term is not None and term.better == 'half'
    if half and not (np.isnan(value) or abs(value - 0.5) < 1e-9):
      yield (
        f'{statistic} of {population} models is {value} with constant scores.',
        'Count ties as one half.',
      )


def _non_finite(attack: Attack) -> Findings:
  arrays = _simulated(attack, shift=1.0)
  rng = np.random.default_rng(3)
  for key in ('logits', 'retrained_logits'):
    logits = arrays[key].copy()
    at = rng.random(logits.shape[:2]) < 0.05
    logits[at] = rng.choice([np.nan, np.inf, -np.inf], (at.sum(), 1))
    arrays[key] = logits
  found = _numbers(attack, arrays)
  yield from _range(attack, found, 'scores that are not finite')


def _unread(
  attack: Attack, arrays: Arrays, hidden: np.ndarray, thing: str, remedy: str
) -> Findings:
  """Numbers do not depend on the scores of hidden entries, bool[P, N]."""
  nan, huge = (
    _numbers(
      attack,
      {
        **arrays,
        **{
          key: np.where(hidden[..., None], value, arrays[key]).astype('f')
          for key in ('logits', 'retrained_logits')
        },
      },
    )
    for value in (np.nan, 1e30)
  )
  yield from _compare(nan, huge, f'only scores of {thing} differ', remedy)


def _excluded(attack: Attack) -> Findings:
  """Entries of state 3 that are not excluded in every model are not read."""
  arrays = _simulated(attack, shift=1.0)
  state = arrays['state'].copy()
  hidden = np.zeros(state.shape, bool)
  hidden[::2] = state[::2] == RETAINED
  hidden &= np.random.default_rng(4).random(state.shape) < 0.5
  state[hidden] = EXCLUDED
  arrays['state'] = state
  remedy = 'Leave out the entries whose state is 3.'
  yield from _unread(attack, arrays, hidden, 'excluded entries', remedy)


def _failed(attack: Attack) -> Findings:
  """Scores of failed models are not read; nothing is given if all failed."""
  arrays = _simulated(attack, shift=1.0)
  failed = np.zeros(len(arrays['split']), bool)
  failed[[3, 8]] = True
  arrays['failed'] = arrays['retrained_failed'] = failed
  hidden = np.broadcast_to(failed[:, None], arrays['state'].shape)
  remedy = 'Leave out the models whose state is 3 everywhere.'
  yield from _unread(attack, arrays, hidden, 'failed models', remedy)
  del arrays['retrained_failed']
  arrays['failed'] = np.ones_like(failed)
  for result in _results(attack, arrays):
    estimate = result.estimate
    if result.population == 'unlearned' and not (
      np.isnan(estimate.value) and 'failed' in estimate.note
    ):
      yield (
        f'{result.statistic} is {estimate.value} though all models failed.',
        'Give NaN.',
      )


def _repeat(attack: Attack) -> Findings:
  arrays = _simulated(attack, shift=1.0)
  before = {key: value.copy() for key, value in arrays.items()}
  yield from _compare(
    _numbers(attack, arrays),
    _numbers(attack, arrays),
    'the scores are the same',
    'Keep no state between calls, and seed what is random.',
  )
  for key, value in before.items():
    if not np.array_equal(value, arrays[key]):
      yield f'it changes {key!r} of its input.', 'Write to a copy.'


ATTACK_RULES: dict[str, Rule[Attack]] = {
  'card': _card,
  'null': _null,
  'model_order': _model_order,
  'example_order': _example_order,
  'two_classes': _two_classes,
  'constant': _constant,
  'non_finite': _non_finite,
  'excluded': _excluded,
  'failed': _failed,
  'repeat': _repeat,
}
assert tuple(ATTACK_RULES) == ('card', *interface.RULES)


def check_attack(spec: Any, rules: Sequence[str] | None = None) -> None:
  """Check an attack against the contract that all attacks satisfy.

  Takes seconds, for a costly attack up to a minute. jax is not imported.

  Args:
    spec: the attack, as for `jaxmu.attacks.registry.resolve`.
    rules: names of rules to check, of `ATTACK_RULES`; None for all.

  Raises:
    ValueError: there is no such attack or rule, or it is not an attack.
    ContractError: rules are broken; the message has one line for each with
      what to do.

  Example:
    >>> from jaxmu import testing
    >>> testing.check_attack('loss')
  """
  attack = registry.resolve(spec)
  enforce('attack', attack, ATTACK_RULES, rules)
