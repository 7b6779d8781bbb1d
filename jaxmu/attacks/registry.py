"""All attacks on one population, as a list of numbers.

    data = scores.from_arrays(numpy.load('file.npz'))
    for finding in suite.run(data):
      print(finding.attack, finding.metric, finding.estimate.value)

With scores of retrained models every attack is also run on those, where there
is nothing to find ('retrained_*': the null), and the paired difference is
given ('excess_*'). With scores of the models before unlearning it is run on
those as well ('original_*').
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from jaxmu.attacks import density as density_lib
from jaxmu.attacks import (
  intervals,
  likelihood,
  log_odds,
  per_example,
  rmia,
  roc,
  scores,
  single_model,
  versus_retrained,
)

Report = dict[str, intervals.Estimate]


@dataclasses.dataclass(frozen=True)
class AttackResult:
  """One number of one attack."""

  attack: str
  metric: str
  estimate: intervals.Estimate


def run(
  data: scores.Scores,
  *,
  attacks: Sequence[str] | None = None,
  fprs: Sequence[float] = roc.FPRS,
  advance: Callable[[str], None] = lambda name: None,
) -> list[AttackResult]:
  """Run attacks and returns their numbers.

  Args:
    data: of `scores.from_arrays`.
    attacks: names out of `names(data)`; all if None.
    fprs: false-positive rates at which to give the TPR.
    advance: called with the name of each attack that is done.

  Raises:
    ValueError: an attack that does not exist or cannot run on these scores.
  """
  findings: list[AttackResult] = []
  for name in choose(data, attacks):
    report = _one(name, data, fprs)
    findings += [
      AttackResult(name, key, value) for key, value in report.items()
    ]
    advance(name)
  return findings


def choose(
  data: scores.Scores, attacks: Sequence[str] | None
) -> tuple[str, ...]:
  """Return the attacks to run, all that can if None.

  Raises:
    ValueError: an attack that does not exist or cannot run on these scores.
  """
  possible = possible_attacks(data)
  for name in attacks or ():
    if name not in possible:
      reason = _NEEDS.get(name, 'there is no such attack')
      raise ValueError(
        f'attack {name!r} cannot run on these scores: {reason}. Possible are '
        f'{", ".join(possible)}'
      )
  return possible if attacks is None else tuple(attacks)


def possible_attacks(data: scores.Scores) -> tuple[str, ...]:
  """Return the attacks that these scores allow, cheap ones first."""
  found = ['ulira', 'population', *_present_signals(data)]
  found += ['lira_online', 'lira_offline', 'per_example']
  if _population_examples(data).any():
    found.append('rmia')
  if data.unlearned.signals:
    found += ['combined', 'ulira_reference']
  if data.retrained is not None:
    found += ['lira_forget', 'competition', 'klom']
  return (*found, 'histogram', 'kde')


_NEEDS = {
  'rmia': 'it needs examples of state 3 in every model',
  'ulira_reference': "it needs 'logits'",
  'combined': "it needs 'logits'",
  'lira_forget': 'it needs scores of retrained models',
  'competition': 'it needs scores of retrained models',
  'klom': 'it needs scores of retrained models',
  **{name: "it needs 'logits'" for name in single_model.LOGIT_SIGNALS},
}


def ratios(data: scores.Scores) -> Mapping[str, np.ndarray]:
  """Return U-LiRA's log-likelihood ratios f64[P, N] of each population."""
  return {
    name: _score('ulira', side, data) for name, side in data.sides.items()
  }


def _one(name: str, data: scores.Scores, fprs) -> Report:
  if name in ('competition', 'klom', 'lira_forget'):
    return versus_retrained.report(name, data, fprs)
  own = _report(name, data.unlearned, data, fprs)
  if name == 'ulira_reference':
    return own
  found = dict(own)
  for other in ('retrained', 'original'):
    if other not in data.sides:
      continue
    beside = _report(name, data.sides[other], data, fprs)
    found |= {f'{other}_{key}': value for key, value in beside.items()}
    if other == 'retrained':
      found |= {
        f'excess_{key}': intervals.paired_difference(value, beside[key])
        for key, value in own.items()
        if value.by_split.size
      }
  return found


def _report(
  name: str, side: scores.PopulationScores, data: scores.Scores, fprs
) -> Report:
  if name == 'population':
    return _population(side, data)
  if name == 'per_example':
    return _per_example(side, data)
  if name == 'ulira_reference':
    return versus_retrained.reference_report(side, data)
  score, state = _score(name, side, data), data.audited_state
  threshold = 0.0 if name in _LIKELIHOOD_RATIOS else None
  report = roc.roc_report(
    score, state, data.group, fprs=fprs, threshold=threshold
  )
  if name in _CROSS_FITTED:
    report = {k: intervals.cross_fitted(v) for k, v in report.items()}
  if name in ('ulira', 'rmia'):
    unscored = np.isnan(score) & (
      (state == log_odds.FORGOTTEN) | (state == log_odds.NEVER_SEEN)
    )
    report['unscored'] = intervals.point(int(unscored.sum()), score.size)
  if name == 'ulira':
    report['retain_auc'] = _retain_auc(side, data)
    report['non_finite'] = intervals.point(side.non_finite, side.log_odds.size)
  return report


_LIKELIHOOD_RATIOS = ('ulira', 'lira_online', 'kde', 'histogram')
# Fitted on both kinds of the other groups; offline attacks never see a
# forgotten score and their plain intervals hold.
_CROSS_FITTED = _LIKELIHOOD_RATIOS


def _score(
  name: str, side: scores.PopulationScores, data: scores.Scores
) -> np.ndarray:
  """Return the score f64[P, N] of an attack that gives one."""
  if name in side.signals:
    return side.signals[name]
  if name == 'loss':
    return side.mean
  if name == 'combined':
    return _combined(side, data.audited_state)
  z, state, group = side.log_odds, data.audited_state, data.group
  if name == 'ulira':
    return likelihood.ulira(z, state, group)[0]
  if name == 'lira_online':  # its options, on forgotten against never seen
    return likelihood.ulira(
      z, state, group, variance='per_example', location='median'
    )[0]
  if name == 'lira_offline':
    return likelihood.lira_offline(z, state, group)[0]
  if name == 'rmia':
    z_population = _population_examples(data)
    return rmia.rmia(z, state, group, population=z_population)[0]
  density = {'kde': density_lib.kde, 'histogram': density_lib.histogram}[name]
  return density(z, state, group)[0]


def _combined(side: scores.PopulationScores, state: np.ndarray) -> np.ndarray:
  """Held-out scores of a classifier on all signals, model by model."""
  features = np.stack([*side.signals.values()], axis=-1)  # f64[P, N, K]
  out = np.full(state.shape, np.nan)
  for m, row in enumerate(state):
    used = np.flatnonzero(
      (row == log_odds.FORGOTTEN) | (row == log_odds.NEVER_SEEN)
    )
    member = row[used] == log_odds.FORGOTTEN
    if min(member.sum(), (~member).sum()) >= single_model.COMBINED_FOLDS:
      out[m, used] = single_model.combined(features[m, used], member)
  return out


def _population(side: scores.PopulationScores, data: scores.Scores) -> Report:
  """The benchmark's classifier on the loss, model by model."""
  by_model = np.full(len(data.state), np.nan)
  loss = log_odds.loss_from_log_odds(side.mean)
  for m, (values, state) in enumerate(
    zip(loss, data.audited_state, strict=True)
  ):
    forget = values[state == log_odds.FORGOTTEN]
    unseen = values[state == log_odds.NEVER_SEEN]
    if min(len(forget), len(unseen)) >= single_model.FOLDS:
      by_model[m] = single_model.population_mia(forget, unseen)
  note = '' if np.isfinite(by_model).any() else 'fewer than 10 forgotten each'
  return {
    'mia': intervals.over_splits(
      intervals.group_means(by_model, data.group),
      bounds=(0.0, 1.0),
      note=note,
    )
  }


def exposure(
  data: scores.Scores,
) -> dict[str, per_example.PerExample]:
  """Return the exposure of each example, per population."""
  return {
    name: per_example.per_example(side.mean, data.state, data.split)
    for name, side in data.sides.items()
  }


def _per_example(side: scores.PopulationScores, data: scores.Scores) -> Report:
  found = per_example.per_example(side.mean, data.state, data.split)
  summary = per_example.summarise(found)
  shares = {
    'mean': summary.mean,
    'above': summary.above,
    'below': summary.below,
    'exposed': summary.exposed,
    'over_unlearned': summary.over_unlearned,
  }
  n = summary.examples
  report = {name: intervals.point(v, n) for name, v in shares.items()}
  levels = ('0.01', '0.25', '0.5', '0.75', '0.99')
  for level, value in zip(levels, summary.quantiles, strict=True):
    report[f'quantile_{level}'] = intervals.point(value, n)
  return report


def _retain_auc(
  side: scores.PopulationScores, data: scores.Scores
) -> intervals.Estimate:
  """Leakage of the retain set, which unlearning is not meant to reduce."""
  state = log_odds.retained(data.state)
  if not (state == log_odds.FORGOTTEN).any():
    return intervals.point(np.nan, 0, 'no retained examples (state 0)')
  ratio, _ = likelihood.ulira(side.log_odds, state, data.group)
  report = roc.roc_report(ratio, state, data.group, fprs=())
  return intervals.cross_fitted(report['auc'])


def _present_signals(data: scores.Scores) -> list[str]:
  return [
    'loss',
    *(single_model.LOGIT_SIGNALS if data.unlearned.signals else ()),
  ]


def _population_examples(data: scores.Scores) -> np.ndarray:
  return np.all(data.state == log_odds.EXCLUDED, axis=0)
