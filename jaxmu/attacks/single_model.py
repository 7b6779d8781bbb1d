"""Attacks on one model: one rule for all examples, no shadow models.

Members are the forget set, non-members validation or test examples. These
attacks are weak by design: the accuracy can be one half while single examples
are exposed, so use U-LiRA as well.

`population_mia` is the benchmark's attack: a logistic regression on the raw
loss, ten stratified 90/10 splits. Its target is the *retrained* model's value,
not exactly one half: without any signal it is below one half, as in the
reference, where the held-out tenth is odd (.48 for 32 examples of each kind,
.49 for 64), see `metrics.indiscernibility.noise_floor`. `combined` fits a
classifier on several signals. The other attacks are single signals, see
`log_odds.signals`.

Unlike the reference, the shuffle before truncation is seeded, and non-finite
losses are replaced and counted by the caller instead of raising.
"""

import numpy as np
from jaxtyping import Bool, Float, Float64, Int, Int8, Integer
from scipy import special
from sklearn import model_selection

from jaxmu.attacks import intervals, leave_out, log_odds, roc
from jaxmu.attacks.interface import (
  Attack,
  Card,
  Options,
  Report,
  from_score,
)
from jaxmu.attacks.scores import PopulationScores, Scores
from jaxmu.terms import PROJECT, Term

SEED = 123
FOLDS = 10
TEST_FRACTION = 0.1

COMBINED_FOLDS = 5
_STEPS = 50


def population_mia(
  forget: Float[np.ndarray, '*P F'],
  nonmember: Float[np.ndarray, '*P V'],
) -> Float64[np.ndarray, '*P']:
  """Compute the benchmark's MIA: accuracy of a one-feature classifier.

  Args:
    forget: float[..., F] one feature per example (raw cross-entropy in the
      benchmark); leading axes are models, all attacked at once.
    nonmember: float[..., V], same leading axes.

  Returns:
    Accuracy, f64[...].

  Raises:
    ValueError: a feature is not finite, or fewer than ten examples of either.
  """
  x, target = balanced_sample(forget, nonmember)
  return cross_validated_accuracy(x, target).mean(-1)


def balanced_sample(
  forget: Float[np.ndarray, '*P F'],
  nonmember: Float[np.ndarray, '*P V'],
  *,
  seed: int = SEED,
) -> tuple[Float64[np.ndarray, '*P n'], Int[np.ndarray, ' n']]:
  """Shuffle both and truncate them to the length of the shorter one.

  Returns:
    Feature f64[..., 2n], forget first, and target int[2n]: 1 for non-members,
    as the reference has it (by symmetry it does not matter).
  """
  rng = np.random.RandomState(seed)
  second = rng.permutation(
    nonmember.shape[-1]
  )  # drawn first, as in the reference
  first = rng.permutation(forget.shape[-1])
  n = min(len(first), len(second))
  if n < FOLDS:
    raise ValueError(
      f'{len(first)} forget and {len(second)} non-member examples; the '
      f'population attack needs at least {FOLDS} of each'
    )
  both = [forget[..., first[:n]], nonmember[..., second[:n]]]
  x = np.concatenate([np.asarray(s, np.float64) for s in both], -1)
  return x, np.repeat([0, 1], n)


def cross_validated_accuracy(
  feature: Float[np.ndarray, '*P n'],
  target: Int[np.ndarray, ' n'],
  *,
  seed: int = SEED,
) -> Float64[np.ndarray, '*P folds']:
  """Score logistic regressions on ten stratified random 90/10 splits.

  Args:
    feature: float[..., n].
    target: int[n], 0 or 1.
    seed: of the splits (scikit-learn's `StratifiedShuffleSplit`).

  Returns:
    Accuracy on the held-out tenth, f64[..., 10].
  """
  splitter = model_selection.StratifiedShuffleSplit(
    FOLDS, test_size=TEST_FRACTION, random_state=seed
  )
  scores = []
  for train, test in splitter.split(np.zeros((len(target), 1)), target):
    slope, intercept = fit_logistic(feature[..., train], target[train])
    decision = slope[..., None] * feature[..., test] + intercept[..., None]
    scores.append(((decision > 0) == target[test]).mean(-1))
  return np.stack(scores, -1)


def null_mia(
  forget: Float[np.ndarray, ' F'],
  nonmember: Float[np.ndarray, ' V'],
  *,
  repeats: int = 100,
) -> Float64[np.ndarray, ' repeats']:
  """Compute the MIA of shuffled labels: its noise floor on these features.

  Args:
    forget: f64[F] features of one model.
    nonmember: f64[V].
    repeats: random relabellings.

  Returns:
    f64[repeats] accuracies without any signal.
  """
  rng = np.random.default_rng(SEED)
  pooled = np.concatenate([forget, nonmember])
  shuffled = rng.permuted(np.tile(pooled, (repeats, 1)), axis=1)
  return population_mia(shuffled[:, : len(forget)], shuffled[:, len(forget) :])


def combined(
  features: Float64[np.ndarray, 'n K'],
  member: Bool[np.ndarray, ' n'],
) -> Float64[np.ndarray, ' n']:
  """Compute held-out scores of one model's examples from all signals.

  A logistic regression on standardised features in five-fold cross-validation:
  each example is scored by a classifier that was not trained on it. There is
  still one rule for all examples.

  The scores of a fold are standardised, so that those of five classifiers can
  share a threshold. In one ROC they are nevertheless biased against members: a
  member raises the scores of its like in all other folds, but not its own. The
  mean of the AUCs of the folds has no such bias, see `by_fold`. Without a leak
  (192 examples of four normal features, 64 members, 900 draws) log-odds in one
  ROC have an AUC of .4925 ± .0021, and the mean of folds is .5000 ± .0022; a
  shift of .3 in each feature gives .643 and .648.

  Args:
    features: signals of `log_odds.signals`, finite.
    member: which examples are members.

  Returns:
    Scores of mean 0 and deviation 1 in each fold, larger for members; 0 if all
    scores of a fold are equal. Both classes have equal weight, whatever their
    sizes.

  Raises:
    ValueError: fewer than five members or five others.
  """
  member = np.asarray(member, bool)
  if min(member.sum(), (~member).sum()) < COMBINED_FOLDS:
    raise ValueError(
      f'members: {member.sum()}, others: {(~member).sum()}; at least '
      f'{COMBINED_FOLDS} of each are needed'
    )
  fold = _folds(member)
  weight = np.where(member, 0.5 / member.mean(), 0.5 / (1 - member.mean()))
  out = np.empty(len(member))
  for k in range(COMBINED_FOLDS):
    train, test = np.flatnonzero(fold != k), np.flatnonzero(fold == k)
    score = _logistic(
      features[train], member[train], weight[train], features[test]
    )
    out[test] = _standardised(score)
  return out


def _folds(member: Bool[np.ndarray, ' n']) -> Int[np.ndarray, ' n']:
  """Return the fold of each example; both kinds are divided evenly."""
  folds = model_selection.StratifiedKFold(
    COMBINED_FOLDS, shuffle=True, random_state=0
  )
  out = np.empty(len(member), int)
  for k, (_, test) in enumerate(folds.split(member, member)):
    out[test] = k
  return out


def by_fold(
  score: Float64[np.ndarray, 'P N'],
  state: Int8[np.ndarray, 'P N'],
  group: Integer[np.ndarray, ' P'],
) -> tuple[
  Float64[np.ndarray, 'Q N'],
  Int8[np.ndarray, 'Q N'],
  Integer[np.ndarray, ' Q'],
]:
  """Return scores of `combined` as if each fold were a model (Q = 5 P).

  `roc.roc_report` then compares scores of one fold alone where the counts allow
  it, and averages over folds.

  Args:
    score: f64[P, N], NaN where unscored.
    state: int8[P, N].
    group: int[P].
  """
  fold = np.full(state.shape, -1)
  for m, row in enumerate(state):
    used = np.flatnonzero(np.isfinite(score[m]) & leave_out.scored(row))
    if used.size:
      fold[m, used] = _folds(row[used] == log_odds.FORGOTTEN)
  parts = [np.where(fold == k, score, np.nan) for k in range(COMBINED_FOLDS)]
  repeated = np.tile(state, (COMBINED_FOLDS, 1))
  return np.concatenate(parts), repeated, np.tile(group, COMBINED_FOLDS)


def _standardised(score: np.ndarray) -> np.ndarray:
  """Return scores of mean 0 and deviation 1; 0 where they are all equal."""
  spread = score.std()
  if spread < 1e-9:  # log-odds that differ by rounding alone
    return np.zeros(len(score))
  return (score - score.mean()) / spread


def _logistic(x, member, weight, test) -> np.ndarray:
  """Logistic regression with an L2 penalty of 1/2, by damped Newton steps."""
  middle, scale = x.mean(axis=0), x.std(axis=0)
  scale[scale <= 1e-12 * abs(x).max(axis=0)] = (
    np.inf
  )  # constant but for rounding
  design = _design((x - middle) / scale)
  sign = np.where(member, 1.0, -1.0)
  penalty = np.append(np.ones(x.shape[1]), 0.0)  # the intercept is free
  theta = np.zeros(design.shape[1])

  def objective(theta):
    loss = np.logaddexp(0.0, -sign * (design @ theta))
    return 0.5 * penalty @ theta**2 + weight @ loss

  value = objective(theta)
  for _ in range(_STEPS):
    wrong = special.expit(-sign * (design @ theta))
    gradient = penalty * theta - design.T @ (weight * sign * wrong)
    curvature = weight * wrong * (1 - wrong)
    hessian = (design.T * curvature) @ design + np.diag(penalty + 1e-9)
    step = np.linalg.solve(hessian, gradient)
    length = 1.0
    while objective(theta - length * step) > value and length > 1e-9:
      length *= 0.5
    theta = theta - length * step
    before, value = value, objective(theta)
    if before - value <= 1e-12 * abs(value):
      break
  return _design((test - middle) / scale) @ theta


def _design(x: np.ndarray) -> np.ndarray:
  return np.column_stack([x, np.ones(len(x))])


_LOGISTIC_STEPS = 100
_HALVINGS = 40


def fit_logistic(
  feature: Float[np.ndarray, '*P n'],
  target: Int[np.ndarray, '*P n'],
) -> tuple[Float64[np.ndarray, '*P'], Float64[np.ndarray, '*P']]:
  """Fit slope and intercept of each problem, with scikit-learn's C = 1.

  Args:
    feature: float[..., n], finite.
    target: int[..., n], 0 or 1, both present in every problem.

  Returns:
    Slope and intercept, f64[...] each.

  Raises:
    ValueError: a feature is not finite or a class is absent.
  """
  x = np.asarray(feature, np.float64)
  sign = 2.0 * np.broadcast_to(target, x.shape) - 1
  if not np.isfinite(x).all():
    raise ValueError(
      'the feature of the logistic regression is not finite; replace such '
      'scores with log_odds.replace_non_finite and report their count'
    )
  if (abs(sign.sum(-1)) == x.shape[-1]).any():
    raise ValueError('logistic regression needs both classes in every fit')
  shape = x.shape[:-1]
  x, sign = x.reshape(-1, x.shape[-1]), sign.reshape(-1, x.shape[-1])
  # The intercept is free, so centring changes nothing but the conditioning;
  # scaling is undone in the penalty.
  middle = x.mean(-1)
  scale = np.maximum(x.std(-1), 1e-300)
  theta = _newton((x - middle[:, None]) / scale[:, None], sign, scale)
  slope = theta[:, 0] / scale
  intercept = theta[:, 1] - slope * middle
  return slope.reshape(shape), intercept.reshape(shape)


def _objective(theta, x, sign, penalty):
  margin = sign * (theta[:, :1] * x + theta[:, 1:])
  loss = np.logaddexp(0.0, -margin).sum(-1)
  return 0.5 * penalty * theta[:, 0] ** 2 + loss


def _newton(x, sign, scale) -> np.ndarray:
  """Return f64[problems, 2]: slope and intercept of the scaled feature."""
  with np.errstate(over='ignore', divide='ignore'):
    penalty = np.minimum(scale**-2.0, 1e300)
  theta = np.zeros((len(x), 2))
  value = _objective(theta, x, sign, penalty)
  for _ in range(_LOGISTIC_STEPS):
    step = _step(theta, x, sign, penalty)
    theta, value, moved = _line_search(theta, step, value, x, sign, penalty)
    if (moved < 1e-12).all():
      break
  return theta


def _step(theta, x, sign, penalty):
  margin = sign * (theta[:, :1] * x + theta[:, 1:])
  wrong = special.expit(-margin)
  pull = sign * wrong
  weight = wrong * (1 - wrong)
  gradient = np.stack(
    [penalty * theta[:, 0] - (pull * x).sum(-1), -pull.sum(-1)], -1
  )
  ww = penalty + (weight * x * x).sum(-1)
  wb = (weight * x).sum(-1)
  bb = weight.sum(-1) + 1e-12  # nearly 0 where all margins are huge
  determinant = np.maximum(ww * bb - wb * wb, 1e-300)
  return -np.stack(
    [
      (bb * gradient[:, 0] - wb * gradient[:, 1]) / determinant,
      (ww * gradient[:, 1] - wb * gradient[:, 0]) / determinant,
    ],
    -1,
  )


def _line_search(theta, step, value, x, sign, penalty):
  """Halve the steps of the problems whose objective would grow."""
  length = np.ones(len(theta))
  new = theta + step
  new_value = _objective(new, x, sign, penalty)
  for _ in range(_HALVINGS):
    worse = ~(new_value <= value + 1e-12 * abs(value))
    if not worse.any():
      break
    length[worse] *= 0.5
    new[worse] = theta[worse] + length[worse, None] * step[worse]
    new_value[worse] = _objective(
      new[worse], x[worse], sign[worse], penalty[worse]
    )
  worse = ~(new_value <= value + 1e-12 * abs(value))
  new[worse], new_value[worse] = theta[worse], value[worse]
  return new, new_value, abs(new - theta).max(-1)


def _population_report(
  population: PopulationScores, data: Scores, options: Options
) -> Report:
  """Report the accuracy of the benchmark's classifier on the loss."""
  del data, options
  by_model = np.full(len(population.state), np.nan)
  loss = log_odds.loss_from_log_odds(population.mean)
  for m, (values, state) in enumerate(
    zip(loss, population.audited_state, strict=True)
  ):
    forget = values[state == log_odds.FORGOTTEN]
    unseen = values[state == log_odds.NEVER_SEEN]
    if min(len(forget), len(unseen)) >= FOLDS:
      by_model[m] = population_mia(forget, unseen)
  note = '' if np.isfinite(by_model).any() else 'fewer than 10 forgotten each'
  means = intervals.group_means(by_model, population.group)
  return {'mia': intervals.over_splits(means, bounds=(0.0, 1.0), note=note)}


def _combined_score(
  population: PopulationScores, data: Scores, options: Options
) -> Float64[np.ndarray, 'P N']:
  """Return held-out scores of a classifier on all signals, per model."""
  del data, options
  features = np.stack([*population.signals.values()], axis=-1)  # f64[P, N, K]
  correctness = np.array([name == 'correctness' for name in population.signals])
  out = np.full(population.state.shape, np.nan)
  for m, row in enumerate(population.audited_state):
    used = np.flatnonzero(leave_out.scored(row))
    member = row[used] == log_odds.FORGOTTEN
    if min(member.sum(), (~member).sum()) < COMBINED_FOLDS:
      continue
    seen = features[m, used]
    if not np.ptp(seen[:, ~correctness], axis=0).any():
      # The outputs are constant; correctness says which class wins ties.
      seen = seen[:, ~correctness]
    out[m, used] = combined(seen, member)
  return out


_BY_PLACE = 'examples are assigned to folds by their position in the data set'
POPULATION = Attack(
  'population',
  _population_report,
  Card(
    title='Population attack',
    subject='one threshold on the loss for all examples',
    source='Yeom et al. 2018',
    terms={
      'mia': Term(
        'accuracy of the fitted attack',
        'How often a threshold fitted to the score tells forgotten from unseen '
        'examples. Guessing gives 0.5, or a little less if a tenth of the '
        'examples is an odd number; only the difference from the retrained '
        'models is a finding.',
        'fraction',
        'retrained',
        source='',
      ),
    },
    exempt={'example_order': _BY_PLACE},
  ),
)


def _combined_report(
  population: PopulationScores, data: Scores, options: Options
) -> Report:
  score = _combined_score(population, data, options)
  parts = by_fold(score, population.audited_state, population.group)
  return roc.roc_report(*parts, fprs=options.fprs, threshold=None)


COMBINED = Attack(
  'combined',
  _combined_report,
  Card(
    title='Classifier on all signals',
    subject='a classifier on all signals of one model',
    source=PROJECT,
    needs=('logits',),
    cost='costly',
    exempt={'example_order': _BY_PLACE},
  ),
  _combined_score,
)


def _signal(
  name: str, title: str, subject: str, source: str, *, need: str = 'logits'
) -> Attack:
  return from_score(
    name,
    lambda population, data, options: population.signals[name],
    Card(
      title=title,
      subject=subject,
      source=source,
      needs=(need,),
    ),
  )


LOSS = from_score(
  'loss',
  lambda population, data, options: population.mean,
  Card(
    title='Loss attack',
    subject='one threshold on the loss for all examples',
    source='Yeom et al. 2018',
  ),
)
# Signals that log-odds do not determine. Confidence ranks as the loss does.
ENTROPY = _signal(
  'entropy',
  'Entropy attack',
  'one threshold on the entropy of the prediction',
  'Song & Mittal 2021',
)
MODIFIED_ENTROPY = _signal(
  'modified_entropy',
  'Modified entropy attack',
  'one threshold on the modified entropy of the prediction',
  'Song & Mittal 2021',
)
CORRECTNESS = _signal(
  'correctness',
  'Correctness attack',
  'the rule that every correctly classified example is forgotten',
  'Yeom et al. 2018',
  need='correctness',
)
