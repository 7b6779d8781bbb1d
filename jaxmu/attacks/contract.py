"""What every attack must satisfy, built in or a plug-in.

    from jaxmu.attacks import contract

    contract.check_attack('my_attack.py')

runs the attack on simulated populations and raises an AssertionError that names
the rule and what is wrong. Rules that do not apply to an attack are listed with
reasons on its card (`interface.Card.exempt`).
"""

import math
from collections.abc import Callable, Mapping

import numpy as np

from jaxmu.attacks import interface, registry, scores, simulation
from jaxmu.attacks.interface import Attack
from jaxmu.attacks.log_odds import EXCLUDED, RETAINED

_FPR = 0.2
_REPEATS = 8
_EXAMPLES, _FEW_EXAMPLES = 60, 24  # the latter for costly attacks
_SLACK = 0.01  # beyond five standard errors over the repeats

Arrays = Mapping[str, np.ndarray]
# Value and interval by population and statistic.
Numbers = dict[tuple[str, str], tuple[float, float, float]]


def check_attack(spec: registry.Spec) -> None:
  """Check an attack against all rules.

  Args:
    spec: a name, path, module or `Attack`.

  Raises:
    ValueError: there is no such attack, or what is there is not one.
    AssertionError: a rule is broken; one line that names it.

  Example:
    >>> check_attack('loss')
  """
  attack = registry.resolve(spec)
  _card(attack)
  for rule, check in _CHECKS.items():
    if rule not in attack.card.exempt:
      check(attack)


def _simulated(
  attack: Attack, *, shift: float = 0.0, seed: int = 0, classes: int = 3
) -> dict[str, np.ndarray]:
  examples = _FEW_EXAMPLES if attack.card.cost == 'costly' else _EXAMPLES
  return simulation.arrays(
    shift=shift, seed=seed, examples=examples, classes=classes
  )


def _fail(attack: Attack, rule: str, problem: str) -> None:
  raise AssertionError(
    f'attack {attack.name!r} breaks the rule {rule!r}: {problem}'
  )


def _results(attack: Attack, arrays: Arrays) -> list[registry.AttackResult]:
  data = scores.from_arrays(arrays)
  return registry.run(data, [attack], fprs=(_FPR,))


def _numbers(attack: Attack, arrays: Arrays) -> Numbers:
  return {
    (r.population, r.statistic): (
      r.estimate.value,
      r.estimate.low,
      r.estimate.high,
    )
    for r in _results(attack, arrays)
  }


def _compare(
  attack: Attack,
  rule: str,
  first: Numbers,
  second: Numbers,
  reason: str,
  *,
  tolerance: float = 0.0,
) -> None:
  if first.keys() != second.keys():
    odd = sorted(first.keys() ^ second.keys())
    _fail(attack, rule, f'{odd} are given only once though {reason}')
  for key in first:
    if not np.allclose(
      first[key], second[key], rtol=tolerance, atol=tolerance, equal_nan=True
    ):
      _fail(
        attack,
        rule,
        f'{key[1]} of {key[0]} models is {first[key][0]!r} and '
        f'{second[key][0]!r} though {reason}',
      )


def _card(attack: Attack) -> None:
  """Every number has a term, every text is there."""
  card = attack.card
  for field in ('title', 'subject', 'source'):
    if not getattr(card, field).strip():
      _fail(attack, 'card', f'its {field} is empty')
  for rule, reason in card.exempt.items():
    if not reason.strip():
      _fail(attack, 'card', f'its exemption from {rule!r} has no reason')
  results = _results(attack, _simulated(attack))
  if not results:
    _fail(attack, 'card', 'it reports no number')
  for statistic in {result.statistic for result in results}:
    term = attack.term(statistic)
    if term is None:
      _fail(
        attack,
        'card',
        f'{statistic!r} has no term; add it to the terms of the card',
      )
    elif not term.sentence.endswith('.') or '{' in term.sentence:
      _fail(attack, 'card', f'{term.sentence!r} is not a sentence')
  if attack.score is not None:
    data = scores.from_arrays(_simulated(attack))
    for name, value in registry.score(attack, data).items():
      if value.shape != data.populations[name].state.shape:
        _fail(
          attack,
          'card',
          f'its score has shape {value.shape}; expected [models, examples]',
        )


def _null(attack: Attack) -> None:
  """Without a leak, numbers are at chance or like those of retrained models."""
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
      return
  for statistic, gap in gaps.items():
    known = np.array(gap)[np.isfinite(gap)]
    if len(known) < 2:
      continue
    mean = known.mean()
    error = known.std(ddof=1) / math.sqrt(len(known))
    if abs(mean) > 5 * error + _SLACK:
      _fail(
        attack,
        'null',
        f'{statistic} is off by {mean:.3f} ± {error:.3f} on populations '
        'without a leak; the scored model or its siblings may be part of a fit',
      )


def _model_order(attack: Attack) -> None:
  arrays = _simulated(attack, shift=1.0)
  order = np.random.default_rng(1).permutation(len(arrays['split']))
  moved = {k: v if k == 'labels' else v[order] for k, v in arrays.items()}
  _compare(
    attack,
    'model_order',
    _numbers(attack, arrays),
    _numbers(attack, moved),
    'only the order of the models differs',
    tolerance=1e-8,
  )


def _example_order(attack: Attack) -> None:
  arrays = _simulated(attack, shift=1.0)
  order = np.random.default_rng(2).permutation(len(arrays['labels']))
  moved = {
    k: v[order] if k == 'labels' else v if k == 'split' else v[:, order]
    for k, v in arrays.items()
  }
  _compare(
    attack,
    'example_order',
    _numbers(attack, arrays),
    _numbers(attack, moved),
    'only the order of the examples differs',
    tolerance=1e-8,
  )


def _in_range(attack: Attack, rule: str, arrays: Arrays, what: str) -> Numbers:
  """Return numbers after checking that they are NaN or in their range."""
  try:
    found = _numbers(attack, arrays)
  except Exception as error:
    raise AssertionError(
      f'attack {attack.name!r} breaks the rule {rule!r}: {what} end in '
      f'{type(error).__name__}: {error}'
    ) from error
  for (population, statistic), (value, _, _) in found.items():
    term = attack.term(statistic)
    share = term is not None and term.unit == 'fraction'
    if np.isinf(value) or (share and not (np.isnan(value) or 0 <= value <= 1)):
      _fail(
        attack,
        rule,
        f'{statistic} of {population} models is {value} with {what}',
      )
  return found


def _two_classes(attack: Attack) -> None:
  arrays = _simulated(attack, shift=1.0, classes=2)
  _in_range(attack, 'two_classes', arrays, 'logits of two classes')


def _constant(attack: Attack) -> None:
  arrays = _simulated(attack)
  same = {k: np.zeros_like(v) for k, v in arrays.items() if 'logits' in k}
  arrays = {**arrays, **same}
  found = _in_range(attack, 'constant', arrays, 'constant scores')
  for (population, statistic), (value, _, _) in found.items():
    term = attack.term(statistic)
    half = term is not None and term.better == 'half'
    if half and not (np.isnan(value) or abs(value - 0.5) < 1e-9):
      _fail(
        attack,
        'constant',
        f'{statistic} of {population} models is {value} with constant scores; '
        'expected 0.5',
      )


def _non_finite(attack: Attack) -> None:
  arrays = _simulated(attack, shift=1.0)
  rng = np.random.default_rng(3)
  for key in ('logits', 'retrained_logits'):
    logits = arrays[key].copy()
    at = rng.random(logits.shape[:2]) < 0.05
    logits[at] = rng.choice([np.nan, np.inf, -np.inf], (at.sum(), 1))
    arrays[key] = logits
  _in_range(attack, 'non_finite', arrays, 'scores that are not finite')


def _excluded(attack: Attack) -> None:
  """Entries of state 3 that are not excluded in every model are not read."""
  arrays = _simulated(attack, shift=1.0)
  state = arrays['state'].copy()
  hidden = np.zeros(state.shape, bool)
  hidden[::2] = state[::2] == RETAINED
  hidden &= np.random.default_rng(4).random(state.shape) < 0.5
  state[hidden] = EXCLUDED
  found = []
  for value in (np.nan, 1e30):
    changed = {**arrays, 'state': state}
    for key in ('logits', 'retrained_logits'):
      changed[key] = np.where(hidden[..., None], value, arrays[key]).astype('f')
    found.append(_numbers(attack, changed))
  for other in found[1:]:
    _compare(
      attack,
      'excluded',
      found[0],
      other,
      'only scores of excluded entries differ',
    )


def _failed(attack: Attack) -> None:
  """Scores of failed models are not read; nothing is given if all failed."""
  arrays = _simulated(attack, shift=1.0)
  failed = np.zeros(len(arrays['split']), bool)
  failed[[3, 8]] = True
  found = []
  for value in (np.nan, 1e30):
    changed = {**arrays, 'failed': failed, 'retrained_failed': failed}
    for key in ('logits', 'retrained_logits'):
      changed[key] = np.where(failed[:, None, None], value, arrays[key]).astype(
        'f'
      )
    found.append(_numbers(attack, changed))
  for other in found[1:]:
    _compare(
      attack, 'failed', found[0], other, 'only scores of failed models differ'
    )
  arrays['failed'] = np.ones_like(failed)
  for result in _results(attack, arrays):
    estimate = result.estimate
    if result.population == 'unlearned' and not (
      np.isnan(estimate.value) and 'failed' in estimate.note
    ):
      _fail(
        attack,
        'failed',
        f'{result.statistic} is {estimate.value} though all models failed',
      )


def _repeat(attack: Attack) -> None:
  arrays = _simulated(attack, shift=1.0)
  before = {key: value.copy() for key, value in arrays.items()}
  first = _numbers(attack, arrays)
  _compare(
    attack,
    'repeat',
    first,
    _numbers(attack, arrays),
    'the scores are the same',
  )
  for key, value in before.items():
    if not np.array_equal(value, arrays[key]):
      _fail(attack, 'repeat', f'it changes {key!r} of its input')


_CHECKS: dict[str, Callable[[Attack], None]] = {
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
assert tuple(_CHECKS) == interface.RULES
