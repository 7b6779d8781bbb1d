"""Reports of the attacks that are not one ROC: against retrained models, or
released as they are.

Where a number is positive by chance alone, its null comes from two halves of
the retrained models, and the audited number is then computed on as many models.
"""

from collections.abc import Sequence

import numpy as np

from jaxmu.attacks import (
  arrange,
  competition,
  intervals,
  klom,
  lira,
  log_odds,
  reference_ulira,
  roc_report,
  scores,
)

MIN_MODELS = 8  # four in each half
MAX_EXAMPLES = 1000  # of the competition's grid, milliseconds each

Report = dict[str, intervals.Estimate]


def report(name: str, data: scores.Scores, fprs: Sequence[float]) -> Report:
  """Return the numbers of 'lira_forget', 'competition' or 'klom'.

  Raises:
    ValueError: there are no retrained models.
  """
  if data.retrained is None:
    raise ValueError(
      f'{name} needs scores of retrained models; give them or leave it out'
    )
  if name == 'lira_forget':
    return _lira_forget(data.unlearned, data.retrained, data, fprs)
  unlearned, retrained = observations(data.unlearned, data.retrained, data)
  if not unlearned.size:
    note = f'no example is forgotten by {MIN_MODELS} models'
    keys = _COMPETITION if name == 'competition' else _KLOM
    return {key: intervals.point(np.nan, 0, note) for key in keys}
  if name == 'klom':
    return _klom(unlearned, retrained)
  found = _competition(unlearned, retrained)
  return found | _final_score(found['forget_score'], data)


def observations(
  unlearned: scores.Side, retrained: scores.Side, data: scores.Scores
) -> tuple[np.ndarray, np.ndarray]:
  """Collect scores of forgotten examples, equally many of each example.

  Returns:
    f64[M, S] of unlearned and of retrained models, row by row of the same split
    and forget set; empty if no example is forgotten by eight models.
  """
  forgotten = data.state == arrange.FORGOTTEN
  counts = forgotten.sum(axis=0)
  counts = counts[counts >= MIN_MODELS]
  if not len(counts):
    return np.zeros((0, 0)), np.zeros((0, 0))
  common = int(np.quantile(counts, 0.1))
  first, _ = arrange.gather(unlearned.mean, forgotten, common)
  second, _ = arrange.gather(retrained.mean, forgotten, common)
  return first, second


def reference_report(side: scores.Side, data: scores.Scores) -> Report:
  """Report the membership score of the released code, such as it is.

  'member_rate' is the share of scored forgotten observations with P > 1/2: a
  true-positive rate without a false-positive rate.
  """
  score = reference_ulira.reference_ulira(
    side.signals['correctness'] > 0.5, data.state
  )
  forgotten = score[data.state == arrange.FORGOTTEN]
  known = forgotten[~np.isnan(forgotten)]
  rate = float((known > 0.5).mean()) if len(known) else np.nan
  return {
    'member_rate': intervals.point(rate, len(known)),
    'unscored': intervals.point(len(forgotten) - len(known), len(forgotten)),
  }


def _lira_forget(unlearned, retrained, data, fprs) -> Report:
  ratio, states, groups = lira.lira_forget(
    log_odds.log_confidence(unlearned.log_odds),
    log_odds.log_confidence(retrained.log_odds),
    data.state,
    data.group,
  )
  report = roc_report.roc_report(ratio, states, groups, fprs=fprs)
  return {k: intervals.cross_fitted(v) for k, v in report.items()}


_COMPETITION = (
  'forget_score',
  'relative_score',
  'epsilon',
  'lower_bound',
)


def _competition(unlearned, retrained) -> Report:
  models, examples = unlearned.shape
  if examples > MAX_EXAMPLES:
    some = np.linspace(0, examples - 1, MAX_EXAMPLES).round().astype(int)
    unlearned, retrained = unlearned[:, some], retrained[:, some]
  n = unlearned.shape[1]
  epsilon = competition.epsilon_per_example(unlearned, retrained)
  half = (models // 2) * 2
  first, second = retrained[:half:2], retrained[1:half:2]
  sides = unlearned[:half:2], first
  audited, null = (
    competition.forget_score(
      competition.epsilon_per_example(side, second), half // 2
    )
    for side in sides
  )
  bound = competition.lower_bound(unlearned, retrained)
  values = (
    competition.forget_score(epsilon, models),
    competition.relative_score(audited, null),
    float(np.median(epsilon)),
    float((bound > 0).mean()),
  )
  return {
    key: intervals.point(value, n)
    for key, value in zip(_COMPETITION, values, strict=True)
  }


def _final_score(score: intervals.Estimate, data: scores.Scores) -> Report:
  """Weigh the forgetting score by accuracies, which need logits."""
  assert data.retrained is not None
  sides = data.unlearned, data.retrained
  if not all('correctness' in side.signals for side in sides):
    return {}
  ratios = []
  for seen in (True, False):
    where = data.state == arrange.RETAINED
    if not seen:
      where = data.state >= arrange.NEVER_SEEN
    new, reference = (
      float((side.signals['correctness'] > 0.5)[where].mean())
      if where.any()
      else np.nan
      for side in sides
    )
    ratios.append(new / reference if reference else np.nan)
  value = competition.final_score(score.value, *ratios)
  return {'final_score': intervals.point(value, score.n)}


_KLOM = (
  'mean',
  'quantile_0.5',
  'quantile_0.95',
  'quantile_0.99',
  'retrained_mean',
  'retrained_quantile_0.5',
  'retrained_quantile_0.95',
  'retrained_quantile_0.99',
)


def _klom(unlearned, retrained) -> Report:
  half = (len(unlearned) // 2) * 2
  values: list[float] = []
  for side in (unlearned, retrained):
    divergence = klom.klom(side[:half:2], retrained[1:half:2])
    summary = klom.summarise(divergence)
    values += [summary.mean, *summary.quantiles]
  return {
    key: intervals.point(value, unlearned.shape[1])
    for key, value in zip(_KLOM, values, strict=True)
  }
