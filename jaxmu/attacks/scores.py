"""The scores that attacks read, and their validation.

The scores of a population are one array of log-odds and the role of each
example in the training of each model. They may come from any framework:
`from_arrays` takes the contents of an .npz file, in which rows of the
populations belong together; `from_populations` takes populations of unequal
size.

Three kinds of entries never enter a number: those that `state` excludes; all
of a model that failed; and, in single-example attacks, unseen examples that no
model forgets. A score that is not finite is replaced by the most wrong finite
one and counted, unless the model failed.
"""

import dataclasses
import functools
from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float, Float64, Int8, Integer

from jaxmu import terms
from jaxmu.attacks import log_odds
from jaxmu.attacks.log_odds import EXCLUDED, FORGOTTEN, NEVER_SEEN, RETAINED

MIN_SPLITS = 4  # the fit leaves one out and needs a variance
CALIBRATED_SPLITS = 16  # fewer splits distort the error rates
MIN_MODELS = 8  # per example compared with retrained models
PREFIXES = ('', 'retrained_', 'original_')
KEYS = (
  'labels',
  'state',
  'split',
  *(
    f'{p}{k}'
    for p in PREFIXES
    for k in ('log_odds', 'logits', 'probabilities', 'failed')
  ),
)


@dataclasses.dataclass(frozen=True, eq=False)
class PopulationScores:
  """Scores of one population; made by `population`.

  Attributes:
    log_odds: log-odds of the true class, [P, N] or [P, N, A] for A
      augmentations. Finite, except that excluded entries and failed models may
      have NaN.
    state: 0 retained, 1 forgotten, 2 never seen, 3 excluded; 3 in all entries
      of a failed model.
    split: the training set that each model comes from.
    group: models that are left out together, and the unit of intervals: the
      split, or the pair of complementary splits.
    failed: models that diverged. No attack fits or scores them.
    signals: other one-model scores by name, larger for more member-like; empty
      without logits.
    non_finite: how many scores were replaced by the most wrong finite one.
    population_examples: examples excluded in every model, which serve as the
      population of RMIA.
    all_unseen: whether never-seen entries of examples that no model forgets
      count as well, see `audited_state`.
  """

  log_odds: Float[np.ndarray, 'P N *A']
  state: Int8[np.ndarray, 'P N']
  split: Integer[np.ndarray, ' P']
  group: Integer[np.ndarray, ' P']
  failed: Bool[np.ndarray, ' P']
  signals: Mapping[str, Float64[np.ndarray, 'P N']]
  non_finite: int
  population_examples: Bool[np.ndarray, ' N']
  all_unseen: bool = False

  @functools.cached_property
  def mean(self) -> Float[np.ndarray, 'P N']:
    """Log-odds averaged over augmentations."""
    values = self.log_odds
    return values if values.ndim == 2 else values.mean(axis=2)

  @functools.cached_property
  def audited_state(self) -> Int8[np.ndarray, 'P N']:
    """The states, without never-seen entries of examples that no model forgets.

    Where only some of the examples are ever forgotten, the others may be easier
    or harder; as negatives they would show a difference without a leak. With
    `all_unseen` the states are returned unchanged.
    """
    if self.all_unseen:
      return self.state
    forgotten = (self.state == FORGOTTEN).any(axis=0)
    unaudited = (self.state == NEVER_SEEN) & ~forgotten
    return np.where(unaudited, EXCLUDED, self.state).astype(np.int8)

  @property
  def failures(self) -> str:
    """How many models failed, in words; '' if none did."""
    count, models = int(self.failed.sum()), len(self.failed)
    if not count:
      return ''
    if count == models:
      return f'all {models} models failed'
    return f'{count} of {models} models failed and are left out'


@dataclasses.dataclass(frozen=True, eq=False)
class Scores:
  """Everything that the attacks read.

  Attributes:
    unlearned: the audited population.
    retrained: models retrained without the same forget sets, row by row, or
      None.
    original: models before unlearning, or None.
    warnings: limitations of the numbers, as sentences for the report.
  """

  unlearned: PopulationScores
  retrained: PopulationScores | None
  original: PopulationScores | None
  warnings: tuple[str, ...]

  @property
  def populations(self) -> dict[str, PopulationScores]:
    """The populations that are present, by name."""
    return _present(self.original, self.retrained, self.unlearned)

  @property
  def state(self) -> Int8[np.ndarray, 'P N']:
    """States of the unlearned models."""
    return self.unlearned.state

  @property
  def split(self) -> Integer[np.ndarray, ' P']:
    """Splits of the unlearned models."""
    return self.unlearned.split

  @property
  def group(self) -> Integer[np.ndarray, ' P']:
    """Groups of the unlearned models."""
    return self.unlearned.group


def _present(
  original: PopulationScores | None,
  retrained: PopulationScores | None,
  unlearned: PopulationScores,
) -> dict[str, PopulationScores]:
  every = {
    'original': original,
    'retrained': retrained,
    'unlearned': unlearned,
  }
  return {name: one for name, one in every.items() if one is not None}


def population(
  log_odds: Float[np.ndarray, 'P N *A'],
  state: Integer[np.ndarray, 'P N'],
  split: Integer[np.ndarray, ' P'],
  group: Integer[np.ndarray, ' P'] | None = None,
  *,
  failed: Bool[np.ndarray, ' P'] | None = None,
  signals: Mapping[str, Float64[np.ndarray, 'P N']] | None = None,
  all_unseen: bool = False,
) -> PopulationScores:
  """Make the scores of one population.

  A model also counts as failed if more than half of its scores are not finite.
  The most negative float32, which older files store in place of such scores,
  counts as not finite.

  Args:
    log_odds: of the true class.
    state: 0 retained, 1 forgotten, 2 never seen, 3 excluded.
    split: the training set that each model comes from.
    group: models that are left out together; the split if None.
    failed: models that diverged.
    signals: see `log_odds.signals`.
    all_unseen: see `PopulationScores`.

  Raises:
    ValueError: shapes that do not fit together.
  """
  group = split if group is None else group
  given = np.zeros(len(split), bool) if failed is None else failed
  _check_shapes(log_odds, state, split, group, given)
  used = state != EXCLUDED
  good = _usable(log_odds)
  wrong = ~good if good.ndim == 2 else ~good.all(axis=2)
  lost = given | (2 * (wrong & used).sum(1) > used.sum(1))
  finite, non_finite = _replaced(log_odds, good, used, lost)
  return PopulationScores(
    log_odds=finite,
    state=np.where(lost[:, None], EXCLUDED, state).astype(np.int8),
    split=np.asarray(split),
    group=np.asarray(group),
    failed=lost,
    signals={
      name: _replaced(value, np.isfinite(value), used, lost)[0]
      for name, value in (signals or {}).items()
    },
    non_finite=non_finite,
    population_examples=~used.any(axis=0),
    all_unseen=all_unseen,
  )


# No log-odds are beyond these. Older files have the most negative float32 in
# place of scores that were not finite.
_LOWEST, _HIGHEST = -3e38, float(np.finfo(np.float32).max)


def _usable(score: np.ndarray) -> np.ndarray:
  """Say which scores are finite and not placeholders for others."""
  with np.errstate(invalid='ignore'):
    return (score > _LOWEST) & (score <= _HIGHEST)


def _replaced(
  score: np.ndarray, good: np.ndarray, used: np.ndarray, failed: np.ndarray
) -> tuple[np.ndarray, int]:
  """Replace bad scores that are used by the most wrong good one.

  Bad scores of excluded entries and all of failed models become NaN.

  Returns:
    The array, the same object if nothing changes, and how many scores were
    replaced.
  """
  if good.all() and not failed.any():
    return score, 0
  counted = used & ~failed[:, None]
  if score.ndim == 3:
    counted = np.broadcast_to(counted[..., None], score.shape)
  kept = good & counted
  worst = score[kept].min() if kept.any() else log_odds.MOST_WRONG
  out = np.where(good, score, np.where(counted, worst, np.nan))
  out[failed] = np.nan
  return out.astype(score.dtype), int((counted & ~good).sum())


def _check_shapes(log_odds, state, split, group, failed) -> None:
  models = (len(split),)
  if log_odds.ndim not in (2, 3) or log_odds.shape[:2] != state.shape:
    raise ValueError(
      f'log_odds have shape {log_odds.shape} and state {state.shape}; expected '
      '[models, examples] or, for log_odds, [models, examples, augmentations]'
    )
  for name, value in (('state', state[:, :1]), ('group', group)):
    if value.shape[:1] != models:
      raise ValueError(
        f'{name} has {terms.count(len(value), "model")} and split has '
        f'{models[0]}; give one split and one group for each model'
      )
  _check_failed('failed', failed, len(split))


def _check_failed(name: str, failed: np.ndarray, models: int) -> None:
  if failed.shape != (models,) or failed.dtype != np.bool_:
    raise ValueError(
      f'{name} is {failed.dtype}{list(failed.shape)}; expected one boolean for '
      f'each of the {models} models'
    )


def from_populations(
  unlearned: PopulationScores,
  retrained: PopulationScores | None = None,
  original: PopulationScores | None = None,
) -> Scores:
  """Combine populations.

  Args:
    unlearned: the audited population.
    retrained: row p is retrained without the forget set of row p of
      `unlearned`.
    original: any number of models, for example one per split with the examples
      of all its forget sets as forgotten.

  Raises:
    ValueError: populations with different examples or signals, or retrained
      models that do not correspond to the unlearned ones row by row.
  """
  for name, other in _present(original, retrained, unlearned).items():
    rows = slice(1 if name == 'original' else 0, 2)
    shapes = other.state.shape[rows], unlearned.state.shape[rows]
    if shapes[0] != shapes[1]:
      raise ValueError(
        f'{name} scores have shape {other.state.shape}, those of unlearned '
        f'models {unlearned.state.shape}; '
        + (
          'expected the same examples'
          if name == 'original'
          else 'row p must belong to the split and forget set of row p'
        )
      )
    if other.signals.keys() != unlearned.signals.keys():
      raise ValueError(
        f'{name} models have the signals {sorted(other.signals)}, unlearned '
        f'ones {sorted(unlearned.signals)}; expected the same'
      )
  data = Scores(unlearned, retrained, original, ())
  return dataclasses.replace(data, warnings=tuple(_warnings(data)))


def from_arrays(arrays: Mapping[str, np.ndarray]) -> Scores:
  """Check the arrays of a file and turn them into scores.

  Args:
    arrays: 'log_odds' float[P, N] or [P, N, A], or 'logits' (log-probabilities
      serve as well) or 'probabilities' float[P, N, C] or [P, N, A, C] with
      'labels' int[N]; 'state' int[P, N] (0 retained, 1 forgotten, 2 never seen,
      3 excluded); 'split' int[P]; optionally 'failed' bool[P], models that
      diverged. Optionally also 'retrained_log_odds' or 'retrained_logits' of
      the same form, row p retrained without the forget set of row p,
      'original_log_odds' or 'original_logits', row p before unlearning, and
      'retrained_failed' and 'original_failed'. Without 'failed', a model counts
      as failed if most of its scores are not finite or are the most negative
      float32.

  Raises:
    ValueError: an array is missing, unknown or too small, or has a wrong shape,
      type or range; the message says what was expected.

  Example:
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> state = np.tile([[0, 1, 2], [2, 2, 1]], (4, 1))
    >>> data = from_arrays({
    ...   'log_odds': rng.normal(size=(8, 3)),
    ...   'state': state,
    ...   'split': np.arange(8),
    ... })
    >>> data.unlearned.log_odds.shape
    (8, 3)
  """
  arrays = {key: np.asarray(value) for key, value in arrays.items()}
  unknown = sorted(set(arrays) - set(KEYS))
  if unknown:
    raise ValueError(f'unknown keys {unknown}; the known ones are {KEYS}')
  arrays = with_logits(arrays)
  for key in ('state', 'split'):
    if key not in arrays:
      raise ValueError(f'key {key!r} is missing; there are {sorted(arrays)}')
  _check_not_empty(arrays)
  given = {prefix: _given(arrays, prefix) for prefix in PREFIXES}
  if given[''] is None:
    raise ValueError(
      "neither 'log_odds' nor 'logits' nor 'probabilities' is there, only "
      f'{sorted(arrays)}'
    )
  state, split = _checked_states(arrays, given[''][0].shape)
  pairs = log_odds.complementary_pairs(state, split)
  group = split if pairs is None else pairs
  populations = {}
  for prefix, one in given.items():
    if one is None:
      if f'{prefix}failed' in arrays:
        raise ValueError(
          f'{prefix}failed is given without {prefix}log_odds or {prefix}logits'
        )
      populations[prefix] = None
      continue
    score, signals = one
    _check_beside(prefix, one, given[''])
    failed = arrays.get(f'{prefix}failed')
    if failed is not None:
      _check_failed(f'{prefix}failed', failed, len(split))
    populations[prefix] = population(
      score, state, split, group, failed=failed, signals=signals
    )
  return from_populations(*(populations[prefix] for prefix in PREFIXES))


def with_logits(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Turn probabilities of a file into logits, which are their logarithms.

  Log-odds and all other scores depend on differences of logits alone. Scores
  from probabilities are less exact: float32 does not separate those near 1.

  Raises:
    ValueError: `probabilities` are not probabilities, `logits` are, or both are
      given.
  """
  found = dict(arrays)
  for prefix in PREFIXES:
    key, named = f'{prefix}logits', f'{prefix}probabilities'
    if key in arrays and _are_probabilities(arrays[key]):
      raise ValueError(
        f'{key} are probabilities (no entry is below 0 and each row sums to 1);'
        f' give the outputs before the softmax, or name the array {named!r}'
      )
    if named not in arrays:
      continue
    if key in arrays:
      raise ValueError(f'both {key} and {named} are given; keep {key}')
    given = found.pop(named)
    _require_float(named, given)
    if not _are_probabilities(given):
      raise ValueError(
        f'{named} must be at least 0 and sum to 1 over the classes; name '
        f'logits {key!r}'
      )
    tiny = np.finfo(given.dtype).tiny
    found[key] = np.log(np.maximum(given, tiny, dtype=np.float64))
  return found


def _are_probabilities(values: np.ndarray) -> bool:
  if values.ndim not in (3, 4) or values.dtype.kind != 'f' or not values.size:
    return False
  if (values < 0).any():
    return False
  sums = values.sum(axis=-1, dtype=np.float64)
  sums = sums[np.isfinite(sums)]
  return bool(sums.size and np.all(abs(sums - 1) < 1e-3))


def _check_not_empty(arrays: Mapping[str, np.ndarray]) -> None:
  """Refuse axes of length 0, and populations of different classes."""
  classes = {}
  for key, value in arrays.items():
    if key not in ('labels', 'state', 'split') and not value.size:
      raise ValueError(
        f'{key} has shape {value.shape}; each axis needs at least one entry'
      )
    if key.endswith('logits') and value.ndim:
      classes[key] = value.shape[-1]
  if len(set(classes.values())) > 1:
    raise ValueError(
      f'the numbers of classes differ: {classes}; give logits of the same '
      'classes'
    )


Given = tuple[np.ndarray, dict[str, np.ndarray]]  # log-odds and signals


def _check_beside(prefix: str, other: Given, unlearned: Given) -> None:
  """Check that another population fits the unlearned one."""
  if other[0].shape != unlearned[0].shape:
    raise ValueError(
      f'{prefix}scores have shape {other[0].shape}, those of unlearned '
      f'models {unlearned[0].shape}; row p must belong to the split and '
      'forget set of row p'
    )
  if bool(other[1]) != bool(unlearned[1]):
    raise ValueError(
      f'unlearned and {prefix}scores must both be logits or both log-odds'
    )


def _given(arrays: Mapping[str, np.ndarray], prefix: str) -> Given | None:
  """Return log-odds and signals of one population, None if it is absent."""
  score, logits = (arrays.get(prefix + k) for k in ('log_odds', 'logits'))
  if score is None and logits is None:
    return None
  if score is not None and logits is not None:
    raise ValueError(
      f'both {prefix}log_odds and {prefix}logits are given; keep one'
    )
  signals = {}
  if logits is not None:
    _require_float(prefix + 'logits', logits)
    if logits.ndim not in (3, 4):
      raise ValueError(
        f'{prefix}logits have shape {logits.shape}; expected [models, examples,'
        ' classes] or [models, examples, augmentations, classes]'
      )
    if 'labels' not in arrays:
      raise ValueError(f"{prefix}logits need 'labels', one per example")
    score = log_odds.log_odds(logits, arrays['labels'])
    clean = logits[:, :, 0] if logits.ndim == 4 else logits
    signals = log_odds.signals(clean, arrays['labels'])
  assert score is not None
  _require_float(prefix + 'log_odds', score)
  if score.ndim not in (2, 3):
    raise ValueError(
      f'{prefix}log_odds have shape {score.shape}; expected [models, examples]'
      ' or [models, examples, augmentations]'
    )
  return score, signals


def _require_float(name: str, value: np.ndarray) -> None:
  if value.dtype.kind != 'f':
    raise ValueError(
      f'{name} are {value.dtype}; expected floating-point numbers (convert '
      'bfloat16 to float32 before saving)'
    )


def _checked_states(
  arrays: Mapping[str, np.ndarray], shape: tuple[int, ...]
) -> tuple[Int8[np.ndarray, 'P N'], Integer[np.ndarray, ' P']]:
  state, split = arrays['state'], arrays['split']
  if state.shape != shape[:2] or state.dtype.kind not in 'iu':
    raise ValueError(
      f'state is {state.dtype}{list(state.shape)}; expected integers '
      f'[models, examples] = {list(shape[:2])}'
    )
  if split.shape != shape[:1] or split.dtype.kind not in 'iu':
    raise ValueError(
      f'split is {split.dtype}{list(split.shape)}; expected one integer for '
      f'each of the {shape[0]} models'
    )
  wrong = np.setdiff1d(state, [0, 1, 2, 3])
  if wrong.size:
    raise ValueError(
      f'state holds {wrong[:5].tolist()}; allowed are 0 retained, 1 forgotten, '
      '2 never seen, 3 excluded'
    )
  for code, name in ((1, 'forgotten'), (2, 'never seen')):
    if not (state == code).any():
      raise ValueError(
        f'no entry of state is {code} ({name}); there is nothing to attack'
      )
  splits = len(np.unique(split))
  if splits < MIN_SPLITS:
    raise ValueError(
      f'{terms.count(splits, "split")}; at least {MIN_SPLITS} are needed, and '
      f'{CALIBRATED_SPLITS} for calibrated attacks. A split is a draw of the '
      'training set; give models with the same training set the same number'
    )
  for s in np.unique(split):
    of_split = state[split == s]
    unseen = (of_split == NEVER_SEEN).any(axis=0)
    seen = ((of_split == RETAINED) | (of_split == FORGOTTEN)).any(axis=0)
    if (seen & unseen).any():
      raise ValueError(
        f'example {np.argmax(seen & unseen)} is never seen by one model of '
        f'split {s} and trained on by another; models of one split have the '
        'same training set, so give the others another split number'
      )
  return state.astype(np.int8), split


def _warnings(data: Scores) -> list[str]:
  return [
    *_scores_warnings(data.populations),
    *_design_warnings(data.unlearned),
    *(
      []
      if data.retrained is not None
      else [
        'There are no scores of retrained models, so it is not known how far '
        'from chance these attacks are when there is no leak.'
      ]
    ),
  ]


def _scores_warnings(populations: Mapping[str, PopulationScores]) -> list[str]:
  warnings = []
  for name, one in populations.items():
    if one.failures:
      warnings.append(f'{name.capitalize()} models: {one.failures}.')
    if one.non_finite:
      warnings.append(
        f'{terms.count(one.non_finite, "non-finite score")} of {name} models, '
        'replaced by the most wrong finite score.'
      )
  return warnings


def _design_warnings(one: PopulationScores) -> list[str]:
  warnings = []
  groups, splits = len(np.unique(one.group)), len(np.unique(one.split))
  if splits < CALIBRATED_SPLITS:
    warnings.append(
      f'There are {groups} independent groups of models; attacks are reliably '
      f'calibrated with at least {CALIBRATED_SPLITS} splits.'
    )
  if groups < splits:
    warnings.append(
      'Splits come in complementary pairs; each pair is left out together and '
      'counts as one in the intervals.'
    )
  forgotten = (one.state == FORGOTTEN).sum(axis=0)
  few = int(((forgotten > 0) & (forgotten < 3)).sum())
  if few:
    warnings.append(
      f'{terms.count(few, "example")} forgotten by fewer than 3 models: '
      'per-example attacks cannot score them.'
    )
  return warnings


def observations(
  one: PopulationScores, retrained: PopulationScores
) -> tuple[Float[np.ndarray, 'M S'], Float[np.ndarray, 'M S']]:
  """Collect log-odds of forgotten examples, equally many of each example.

  Returns:
    Log-odds of both populations, row by row of the same split and forget set
    and without models that failed in either; empty if no example is forgotten
    by eight models.
  """
  forgotten = (one.state == FORGOTTEN) & (retrained.state == FORGOTTEN)
  counts = forgotten.sum(axis=0)
  counts = counts[counts >= MIN_MODELS]
  if not len(counts):
    return np.zeros((0, 0)), np.zeros((0, 0))
  common = int(np.quantile(counts, 0.1))
  first, _ = log_odds.gather(one.mean, forgotten, common)
  second, _ = log_odds.gather(retrained.mean, forgotten, common)
  return first, second
