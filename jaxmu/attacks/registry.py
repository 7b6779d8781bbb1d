"""All attacks, and how to run them on the populations of a file or a job.

    data = scores.from_arrays(numpy.load('file.npz'))
    for result in registry.run(data):
      print(result.population, result.metric, result.estimate.value)

Every attack runs on the unlearned models, on the retrained models (the null,
with nothing to detect) and on the original models, as far as their scores are
given. `AttackResult.excess` is the difference from the retrained models, paired
by group.
"""

import dataclasses
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64

from jaxmu import plugins
from jaxmu.attacks import (
  density,
  intervals,
  likelihood,
  per_example,
  rmia,
  roc,
  single_model,
  versus_retrained,
)
from jaxmu.attacks.interface import Attack, Options, Report, checked
from jaxmu.attacks.scores import PopulationScores, Scores
from jaxmu.terms import nearest

Spec = Any  # a name, a path, a module or an `Attack`, see `jaxmu.plugins`

_BUILTIN = (
  likelihood.ULIRA,
  single_model.POPULATION,
  single_model.LOSS,
  single_model.ENTROPY,
  single_model.MODIFIED_ENTROPY,
  single_model.CORRECTNESS,
  likelihood.LIRA_ONLINE,
  likelihood.LIRA_OFFLINE,
  per_example.PER_EXAMPLE,
  rmia.RMIA,
  single_model.COMBINED,
  likelihood.ULIRA_REFERENCE,
  likelihood.LIRA_FORGET,
  versus_retrained.COMPETITION,
  versus_retrained.KLOM,
  versus_retrained.KLOM_AUDIT,
  versus_retrained.KLOM_BENCH,
  density.HISTOGRAM,
  density.KDE,
)

_plugins: dict[str, Attack] = {}  # plug-ins that were resolved, by name


def _check(entry: Any) -> Attack:
  attack = checked(entry)
  builtin = {one.name: one for one in _BUILTIN}
  if builtin.get(attack.name, attack) is not attack:
    raise ValueError(
      f'its name {attack.name!r} is that of a built-in attack; choose another'
    )
  if attack.name not in builtin:
    _plugins[attack.name] = attack
  return attack


ATTACKS: plugins.Registry[Attack] = plugins.Registry(
  'attack',
  {attack.name: attack for attack in _BUILTIN},
  check=_check,
  title=lambda attack: attack.card.title,
)


@dataclasses.dataclass(frozen=True)
class AttackResult:
  """One number of one attack on one population.

  Attributes:
    population: 'original', 'retrained' or 'unlearned'.
    attack: its name.
    statistic: for example 'auc'; `metric` is '<attack>_<statistic>'.
    estimate: the number with its interval.
    excess: the paired difference from the retrained models; None for the
      retrained models, and for numbers without a value per group.
  """

  population: str
  attack: str
  statistic: str
  estimate: intervals.Estimate
  excess: intervals.Estimate | None = None

  @property
  def metric(self) -> str:
    return f'{self.attack}_{self.statistic}'


# Reports by attack name and population, shared between calls of `run`.
Known = MutableMapping[tuple[str, PopulationScores], Report]


def run(
  data: Scores,
  attacks: Sequence[Spec] | None = None,
  *,
  fprs: Sequence[float] = roc.FPRS,
  settings: Mapping[str, Mapping[str, Any]] | None = None,
  known: Known | None = None,
) -> list[AttackResult]:
  """Run attacks and return their numbers, attack by attack.

  Args:
    data: from `scores.from_arrays` or `scores.from_populations`.
    attacks: names in `ATTACKS`, or plug-ins; all that can run if None.
    fprs: false-positive rates at which to give the TPR.
    settings: by name of an attack, the settings that differ from its defaults,
      such as {'ulira': {'variance': 'global'}}.
    known: cache of reports on retrained and original models, so that they are
      attacked once for several methods with the same `fprs` and `settings`.

  Raises:
    ValueError: an attack that does not exist or cannot run on these scores, or
      a setting that does not exist.

  Example:
    >>> import numpy as np
    >>> from jaxmu.attacks import scores
    >>> state = np.tile([[1, 2, 2, 1], [2, 1, 1, 2]], (8, 4))
    >>> z = np.random.default_rng(0).normal(size=state.shape)
    >>> data = scores.from_arrays(
    ...   {'log_odds': z + 5 * (state == 1), 'state': state,
    ...    'split': np.arange(16)}
    ... )
    >>> result = run(data, ['ulira'], fprs=())[0]
    >>> result.metric, result.estimate.value > 0.9
    ('ulira_auc', True)
  """
  chosen = choose(data, attacks)
  options = {
    attack.name: Options(tuple(fprs), _settings(attack, settings or {}))
    for attack in chosen
  }
  return [
    result
    for attack in chosen
    for result in _run_one(attack, data, options[attack.name], known)
  ]


def choose(data: Scores, attacks: Sequence[Spec] | None) -> tuple[Attack, ...]:
  """Return the attacks to run, all that can if None.

  Raises:
    ValueError: an attack does not exist, or needs something that the scores do
      not have; the message names it and the attacks that can run.
  """
  if attacks is None:
    return tuple(ATTACKS[name] for name in possible_attacks(data))
  possible = [name for name, one in ATTACKS.items() if not one.lacks(data)]
  chosen = resolve_all(attacks)
  for attack in chosen:
    lacking = attack.lacks(data)
    if lacking:
      raise ValueError(
        f'attack {attack.name!r} needs {" and ".join(lacking)}, which these '
        f'scores do not have; {nearest(attack.name, possible)}'
        f'possible are {", ".join(possible)}'
      )
  return chosen


def resolve(spec: Spec) -> Attack:
  """Return the attack that a name, path, module or object refers to.

  Raises:
    ValueError: there is no such attack; see `plugins.Registry.resolve`.
  """
  if isinstance(spec, str) and spec in _plugins:
    return _plugins[spec]
  return ATTACKS.resolve(spec)


def resolve_all(specs: Sequence[Spec]) -> tuple[Attack, ...]:
  """Return attacks, each once, in the order in which they are named.

  Raises:
    ValueError: as for `resolve`; or two attacks have the same name, by which
      their numbers could not be told apart.
  """
  found: dict[str, Attack] = {}
  for spec in specs:
    attack = resolve(spec)
    if found.setdefault(attack.name, attack) is not attack:
      raise ValueError(
        f'attack {plugins.describe(spec)}: another attack is named '
        f'{attack.name!r} too; give one of them another name'
      )
  return tuple(found.values())


def known_attacks() -> dict[str, Attack]:
  """Return the built-in attacks and the resolved plug-ins, by name."""
  return {**ATTACKS, **_plugins}


def possible_attacks(data: Scores, *, costly: bool = True) -> tuple[str, ...]:
  """Return the built-in attacks that run by default where scores allow it.

  Args:
    data: the scores.
    costly: whether to include attacks that take minutes on large populations.
  """
  return tuple(
    name
    for name, attack in ATTACKS.items()
    if attack.card.by_default
    and (costly or attack.card.cost == 'cheap')
    and not attack.lacks(data)
  )


def score(spec: Spec, data: Scores) -> dict[str, Float64[np.ndarray, 'P N']]:
  """Return the scores of every entry by an attack, for each population.

  Args:
    spec: an attack that gives a score.
    data: the scores.

  Raises:
    ValueError: the attack gives no score, or cannot run on these scores.
  """
  (attack,) = choose(data, [spec])
  if attack.score is None:
    raise ValueError(f'attack {attack.name!r} gives no score to single entries')
  return {
    name: attack.score(population, data, Options())
    for name, population in data.populations.items()
    if name in attack.card.populations
  }


def _settings(
  attack: Attack, settings: Mapping[str, Mapping[str, Any]]
) -> Mapping[str, Any]:
  chosen = settings.get(attack.name, {})
  for name in chosen:
    if name not in attack.card.settings:
      allowed = ', '.join(attack.card.settings) or 'none'
      raise ValueError(
        f'attack {attack.name!r} has no setting {name!r}; it has {allowed}'
      )
  return chosen


def _run_one(
  attack: Attack, data: Scores, options: Options, known: Known | None
) -> list[AttackResult]:
  reports: dict[str, Report] = {}
  for name in ('retrained', 'unlearned', 'original'):  # null first
    if name in data.populations and name in attack.card.populations:
      population = data.populations[name]
      reports[name] = _report(
        attack,
        population,
        data,
        options,
        None if name == 'unlearned' else known,
      )
  null = reports.get('retrained', {})
  results = []
  for name in ('unlearned', 'retrained', 'original'):
    for key, estimate in reports.get(name, {}).items():
      excess = None
      if name != 'retrained' and key in null:
        groups = (data.populations[n].group for n in (name, 'retrained'))
        excess = _excess(estimate, null[key], *groups)
      results.append(AttackResult(name, attack.name, key, estimate, excess))
  return results


def _report(
  attack: Attack,
  population: PopulationScores,
  data: Scores,
  options: Options,
  known: Known | None,
) -> Report:
  """Return the report on one population, with failed models in its notes."""
  if known is not None and (attack.name, population) in known:
    return known[attack.name, population]
  report = attack.report(population, data, options)
  if population.failures:
    all_failed = bool(population.failed.all())
    report = {
      key: _noted(estimate, population.failures, all_failed)
      for key, estimate in report.items()
    }
  if known is not None:
    known[attack.name, population] = report
  return report


def _noted(
  estimate: intervals.Estimate, failures: str, all_failed: bool
) -> intervals.Estimate:
  """Add to the note that models failed; without a value if all did."""
  if all_failed:
    return intervals.Estimate(
      np.nan,
      np.nan,
      np.nan,
      0,
      np.full_like(estimate.by_split, np.nan),
      estimate.pooling,
      f'not available: {failures}',
    )
  note = '; '.join(part for part in (estimate.note, failures) if part)
  return dataclasses.replace(estimate, note=note)


def _excess(
  estimate: intervals.Estimate,
  null: intervals.Estimate,
  group: np.ndarray,
  null_group: np.ndarray,
) -> intervals.Estimate | None:
  if not estimate.by_split.size:
    return None
  if not np.array_equal(np.unique(group), np.unique(null_group)):
    return None
  if estimate.by_split.shape != null.by_split.shape:
    return None
  return intervals.paired_difference(estimate, null)
