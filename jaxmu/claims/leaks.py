"""Claims about attacks on single examples."""

import numpy as np
from scipy import stats

from jaxmu.attacks import intervals, likelihood, per_example, roc
from jaxmu.attacks.scores import PopulationScores
from jaxmu.claims import cells as cells_lib
from jaxmu.claims import evidence
from jaxmu.claims.cells import ORIGINAL, REFERENCE, CannotAnswer, Cell, Job
from jaxmu.claims.evidence import Evidence, Number
from jaxmu.claims.interface import Claim, Finding, per_cell
from jaxmu.metrics import ranking
from jaxmu.report import results
from jaxmu.terms import FORGOTTEN, NEVER_SEEN

SIX = ('msg', 'cfw', 'prmq', 'ct', 'kde', 'ft')
# An AUC this near to chance, or to that of retrained models, is no leak.
TOLERANCE = 0.01
# An AUC of one example this much larger matters.
_MORE_EXPOSED = 0.05
_SHARE = 0.01
_EXCESS = 'excess_ulira_auc'


def _compare(job: Job, method: str, metric: str, threshold: float) -> Evidence:
  """Say whether a number is above a threshold, by its interval."""
  row = job.row(method, metric)
  number = Number(row.value, row.low, row.high)
  return evidence.compare(number, threshold, n=row.n, below=False)


def _difference(job: Job, method: str, first: str, second: str) -> Number:
  """Return the difference of two AUCs, the first of a fitted attack."""
  values = job.clusters(method, first) - job.clusters(method, second)
  return evidence.mean(values, fitted=True)


def _stronger(cell: Cell) -> Finding:
  job = cell.job('ulira')
  gain = _difference(job, ORIGINAL, 'ulira_auc', 'population_auc')
  clusters = len(job.clusters(ORIGINAL, 'ulira_auc'))
  found = evidence.compare(gain, 0.0, n=clusters, below=False)
  room = 2 * results.deviation(job.clusters(REFERENCE, 'mia_test'))
  null = job.clusters(REFERENCE, 'mia_test').mean()
  hidden = [
    name
    for name in job.unlearners
    if abs(job.clusters(name, 'mia_test').mean() - null) < room
  ]
  leaks = [_compare(job, name, _EXCESS, 0.0) for name in hidden]
  # No leak: below the tolerance, since zero can never be shown.
  none = [_compare(job, name, _EXCESS, TOLERANCE).true for name in hidden]
  adjusted = ranking.holm(np.array([one.false for one in leaks]))
  exposed = [
    name
    for name, p in zip(hidden, adjusted, strict=True)
    if p <= evidence.LEVEL
  ]
  missed = Evidence(
    float(min(adjusted, default=1.0)), float(max(none, default=1.0))
  )
  return Finding(
    cell.name,
    'U-LiRA AUC minus population AUC on originals',
    gain,
    evidence.every([found, missed]),
    f'On the original models U-LiRA has AUC '
    f'{job.row(ORIGINAL, "ulira_auc").value:.3f} and the population attack '
    f'{job.row(ORIGINAL, "population_auc").value:.3f}; the difference is '
    f'{cells_lib.text(gain)}. On retrained models they have '
    f'{job.row(REFERENCE, "ulira_auc").value:.3f} and '
    f'{job.row(REFERENCE, "population_auc").value:.3f}. The MIA of '
    f'{len(hidden)} of {len(job.unlearners)} methods is within two deviations '
    f'of retrained models; of these, U-LiRA exposes {len(exposed)} '
    f'({cells_lib.labels(exposed)}).',
    {'hidden': len(hidden), 'exposed': len(exposed)},
  )


def _six_methods(cell: Cell) -> Finding:
  job = cell.job('ulira')
  names = [name for name in SIX if name in job.unlearners]
  if not names:
    raise CannotAnswer(f'one of {cells_lib.labels(SIX)} in ulira')
  tests = [_compare(job, name, _EXCESS, 0.0) for name in names]
  adjusted = ranking.holm(np.array([one.false for one in tests]))
  parts = [
    f'{results.label(name)} {cells_lib.text(job.number(name, _EXCESS))}'
    + ('*' if p <= evidence.LEVEL else '')
    for name, p in zip(names, adjusted, strict=True)
  ]
  missing = [name for name in SIX if name not in names]
  original = job.number(ORIGINAL, _EXCESS)
  sentence = (
    'Excess of the AUC of U-LiRA over retrained models: '
    f'{", ".join(parts)}; original {cells_lib.text(original)} '
    "(* above 0 with Holm's correction)."
  )
  if missing:
    sentence += f' Without {cells_lib.labels(missing)}.'
  return Finding(
    cell.name,
    'largest excess of the six methods',
    max(job.number(name, _EXCESS) for name in names),
    None,
    sentence,
    {name: job.row(name, _EXCESS).value for name in (ORIGINAL, *names)},
  )


def _null(cell: Cell) -> Finding:
  job = cell.job('ulira')
  auc = job.row(REFERENCE, 'ulira_auc')
  number = job.number(REFERENCE, 'ulira_auc')
  parts = [evidence.within(number, 0.49, 0.51, n=auc.n)]
  sentence = f'U-LiRA has AUC {cells_lib.text(number)} on retrained models'
  tpr = job.rows.get((REFERENCE, 'ulira_tpr_0.01'))
  numbers = {}
  if tpr is None or not np.isfinite(tpr.value):
    parts.append(evidence.NONE)
    sentence += '; there are too few unseen examples for a TPR at 1% FPR'
  else:
    rate = Number(tpr.value, tpr.low, tpr.high)
    parts.append(evidence.within(rate, 0.007, 0.013, n=tpr.n))
    sentence += f' and TPR {cells_lib.text(rate, 4)} at 1% FPR'
    numbers['tpr'] = tpr.value
  scored = job.scored()
  if not scored:
    raise CannotAnswer('the scores of a method in ulira')
  retrained = job.scores(scored[0]).retrained
  if retrained is None:
    raise CannotAnswer('the scores of retrained models in ulira')
  in_sample = in_sample_auc(retrained)
  found = Number(in_sample.value, in_sample.low, in_sample.high)
  parts.append(evidence.compare(found, 0.55, n=in_sample.n, below=False))
  sentence += (
    f'. Fitted on the scored models too, it has {cells_lib.text(found)}.'
  )
  numbers['in_sample_auc'] = found.value
  return Finding(
    cell.name,
    'AUC of U-LiRA on retrained models',
    number,
    evidence.every(parts),
    sentence,
    numbers,
  )


def in_sample_auc(population: PopulationScores) -> intervals.Estimate:
  """Return the AUC of U-LiRA if every model stays in its own fit.

  Args:
    population: of models.
  """
  state = population.audited_state
  ratio, _ = likelihood.ulira(
    population.log_odds, state, population.group, mode='in_sample'
  )
  return roc.roc_report(ratio, state, population.group, fprs=())['auc']


def _originals(cell: Cell) -> Finding:
  job = cell.job('ulira')
  row = job.row(ORIGINAL, _EXCESS)
  excess = job.number(ORIGINAL, _EXCESS)
  return Finding(
    cell.name,
    'AUC of U-LiRA on originals minus that on retrained models',
    excess,
    evidence.compare(excess, 0.0, n=row.n, below=False),
    f'U-LiRA has AUC {cells_lib.text(job.number(ORIGINAL, "ulira_auc"))} on '
    f'the original models, {cells_lib.text(excess)} above that on retrained '
    'models.',
    {'auc': job.row(ORIGINAL, 'ulira_auc').value},
  )


def _points(cell: Cell) -> Finding:
  job = cell.job('ulira')
  names = job.scored()
  if not names:
    raise CannotAnswer('the scores of a method in ulira')
  wider: dict[str, Number] = {}
  shares: dict[str, tuple[float, float]] = {}
  clusters = 0
  for name in names:
    data = job.scores(name)
    if data.retrained is None or data.original is None:
      raise CannotAnswer(f'the scores of both baselines with {name} in ulira')
    own, null, before = (
      leave_one_out_aucs(one)
      for one in (data.unlearned, data.retrained, data.original)
    )
    clusters = len(own) - 1
    wider[name] = _width(own, null)
    shares[name] = more_exposed(own, before)
  widest = max(wider, key=lambda name: wider[name].value)
  most = max(shares, key=lambda name: shares[name][0])
  sure, possible = shares[most][0], max(one[1] for one in shares.values())
  both = [
    evidence.every(
      [
        evidence.compare(wider[name], 0.0, n=clusters, below=False),
        _share_above(*shares[name]),
      ]
    )
    for name in names
  ]
  return Finding(
    cell.name,
    'deviation of AUC over examples minus that of retrained models',
    wider[widest],
    evidence.at_least(1, both),
    f'The AUCs of single examples spread most for {results.label(widest)}: '
    f'their deviation exceeds that of retrained models by '
    f'{cells_lib.text(wider[widest])}. {sure:.1%} of the examples are more '
    f'exposed under {results.label(most)} than under the original models (at a '
    f'false-discovery rate of 5%), the most of {len(names)} methods; for up to '
    f'{possible:.1%} it cannot be excluded.',
    {'more_exposed': sure, 'possibly': possible},
  )


def _share_above(sure: float, possible: float) -> Evidence:
  """Say whether enough examples are more exposed, from `more_exposed`."""
  return Evidence(
    0.0 if sure >= _SHARE else 1.0, 0.0 if possible < _SHARE else 1.0
  )


def leave_one_out_aucs(population: PopulationScores) -> np.ndarray:
  """Return the AUC of each example without each group of models.

  Args:
    population: of models.

  Returns:
    f64[1 + G, N]: of all models, then without each group; NaN where a kind of
    observation is missing.
  """
  state, score = population.audited_state, population.mean
  groups = np.unique(population.group)
  member = population.group == groups[:, None]
  forgotten = np.where(state == FORGOTTEN, 1.0, 0.0)
  unseen = np.where(state == NEVER_SEEN, 1.0, 0.0)
  score = np.where(np.isfinite(score), score, 0.0)
  # Won comparisons of each group's forgotten models with all unseen ones, of
  # all forgotten with the group's unseen ones, and of both within the group.
  size = len(groups), state.shape[1]
  first, second, both = np.zeros(size), np.zeros(size), np.zeros(size)
  counts = [member @ kind for kind in (forgotten, unseen)]
  for p in np.flatnonzero(forgotten.any(axis=1)):
    won = (score[p] > score) + 0.5 * (score[p] == score)
    won = won * forgotten[p] * unseen
    by_group = member @ won
    g = int(np.flatnonzero(member[:, p])[0])
    first[g] += by_group.sum(axis=0)
    second += by_group
    both[g] += by_group[g]
  totals = [kind.sum(axis=0) for kind in counts]
  won = np.concatenate(
    [first.sum(0)[None], first.sum(0) - first - second + both]
  )
  pairs = np.concatenate(
    [
      (totals[0] * totals[1])[None],
      (totals[0] - counts[0]) * (totals[1] - counts[1]),
    ]
  )
  with np.errstate(invalid='ignore', divide='ignore'):
    return np.where(pairs > 0, won / pairs, np.nan)


def _width(own: np.ndarray, null: np.ndarray) -> Number:
  """Return the difference of deviations over examples, by the jackknife."""
  wide = np.nanstd(own, axis=1) - np.nanstd(null, axis=1)
  size = len(wide) - 1
  pseudo = size * wide[0] - (size - 1) * wide[1:]
  estimate = intervals.over_splits(pseudo, value=float(wide[0]))
  return Number(estimate.value, estimate.low, estimate.high)


def more_exposed(own: np.ndarray, before: np.ndarray) -> tuple[float, float]:
  """Return the shares of examples more exposed than before.

  Args:
    own: f64[1 + G, N] of `leave_one_out_aucs`, after unlearning.
    before: the same of the original models.

  Returns:
    The share with a significantly larger AUC, at a false-discovery rate of 5%,
    and the share whose AUC may be larger by .05: the 95% interval does not
    exclude it. Intervals are those of the jackknife over groups.
  """
  difference = own - before
  known = np.isfinite(difference).all(axis=0)
  if not known.any():
    raise CannotAnswer('examples with scores of both kinds in ulira')
  difference = difference[:, known]
  size = len(difference) - 1
  value, without = difference[0], difference[1:]
  centre = without.mean(axis=0)
  error = np.sqrt((size - 1) / size * ((without - centre) ** 2).sum(axis=0))
  with np.errstate(invalid='ignore', divide='ignore'):
    p_value = 2 * stats.t.sf(abs(value) / error, size - 1)
  p_value = np.where(error > 0, p_value, np.where(value == 0, 1.0, 0.0))
  found = per_example.benjamini_hochberg(p_value, 0.05) & (value > 0)
  upper = value + stats.t.ppf(1 - evidence.LEVEL, size - 1) * error
  return float(found.mean()), float((upper > _MORE_EXPOSED).mean())


def _over_unlearned(cell: Cell) -> Finding:
  job = cell.job('large_rate')
  named = [name for name in ('ga', 'neggrad_plus') if name in job.unlearners]
  names = [name for name in named if _has(job, name, 'ulira_auc')]
  if not names:
    raise CannotAnswer('GA or NG+ in large_rate')
  lost = [name for name in named if name not in names]
  parts: list[Evidence] = [evidence.NONE] * len(lost)
  words = [
    f'{results.label(name)} has no AUC by U-LiRA, since its models failed'
    for name in lost
  ]
  for name in names:
    row = job.row(name, 'rmia_auc')
    one_sided = job.number(name, 'rmia_auc')
    parts += [
      evidence.compare(one_sided, 0.5, n=row.n, below=True),
      _compare(job, name, 'ulira_auc', 0.5),
    ]
    words.append(
      f'{results.label(name)} has AUC {cells_lib.text(one_sided)} by RMIA and '
      f'{cells_lib.text(job.number(name, "ulira_auc"))} by U-LiRA'
    )
  return Finding(
    cell.name,
    f'AUC of RMIA on {results.label(names[0])}',
    job.number(names[0], 'rmia_auc'),
    evidence.every(parts),
    f'With ten times the searched learning rate, {"; ".join(words)}.',
    {f'ulira_{name}': job.row(name, 'ulira_auc').value for name in names},
  )


def _has(job: Job, method: str, metric: str) -> bool:
  try:
    job.row(method, metric)
  except CannotAnswer:
    return False
  return True


_NEEDS = 'the study of U-LiRA'
CLAIMS = (
  Claim(
    6,
    'U-LiRA is stronger than the population attack.',
    'On the original models the AUC of U-LiRA is above that of the population '
    'attack, and at least one method whose MIA is within two deviations of '
    'retrained models has an AUC of U-LiRA above theirs.',
    _NEEDS,
    per_cell(_stronger),
  ),
  Claim(
    7,
    'Six methods were carried to U-LiRA: MSG, CFW, PRMQ, CT, KDE and FT.',
    'Their excess over retrained models is reported, without a threshold.',
    f'{_NEEDS} with one of them',
    per_cell(_six_methods),
  ),
  Claim(
    8,
    'U-LiRA is valid where nothing leaks.',
    'On retrained models U-LiRA has an AUC in [.49, .51] and a TPR at 1% FPR '
    'in [.007, .013], and above .55 if models stay in their own fit.',
    f'{_NEEDS} with scores',
    per_cell(_null),
  ),
  Claim(
    9,
    'Original models leak.',
    'The AUC of U-LiRA on the original models is above that on retrained ones.',
    _NEEDS,
    per_cell(_originals),
  ),
  Claim(
    10,
    'Examples differ in how much they leak.',
    'For some method the AUCs of single examples spread more than those of '
    'retrained models, and at least 1% of the examples are more exposed under '
    'the method than under the original models.',
    f'{_NEEDS} with scores',
    per_cell(_points),
  ),
  Claim(
    11,
    'Only a two-sided attack sees over-unlearning.',
    'For GA and NG+ with a large learning rate, one-sided RMIA has an AUC '
    'below one half and U-LiRA one above it.',
    'the job large_rate',
    per_cell(_over_unlearned),
  ),
)
