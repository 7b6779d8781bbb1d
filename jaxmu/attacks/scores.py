"""The stored scores of a population, checked before any attack sees them.

A population is one array of log-odds and what each model did with each example;
it may come from any framework. `from_arrays` takes the contents of an .npz file
and refuses what cannot be attacked, saying what was expected.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np

from jaxmu.attacks import log_odds as log_odds_lib
from jaxmu.attacks import single_model

MIN_SPLITS = 4  # to fit without one and still estimate a spread
CALIBRATED_SPLITS = 16  # from here on attacks keep their promised error rates
KEYS = (
  'log_odds',
  'logits',
  'labels',
  'state',
  'split',
  'retrained_log_odds',
  'retrained_logits',
  'original_log_odds',
  'original_logits',
)


@dataclasses.dataclass(frozen=True)
class PopulationScores:
  """Scores of one population.

  Attributes:
    log_odds: f64[P, N] or f64[P, N, A], finite.
    signals: other one-model scores f64[P, N] by name, larger for more
      member-like; empty without logits.
    non_finite: how many log-odds were replaced by the most wrong finite one.
  """

  log_odds: np.ndarray
  signals: Mapping[str, np.ndarray]
  non_finite: int

  @property
  def mean(self) -> np.ndarray:
    """Log-odds averaged over augmentations, f64[P, N]."""
    z = self.log_odds
    return z if z.ndim == 2 else z.mean(axis=2)


@dataclasses.dataclass(frozen=True)
class Scores:
  """Everything that the attacks read.

  Attributes:
    unlearned: the audited population.
    retrained: models retrained without the same forget sets, or None.
    original: models before unlearning, row by row, or None.
    state: int8[P, N].
    split: int[P].
    group: int[P], what is left out together and what intervals are over: the
      split, or the pair of complementary splits.
    warnings: what a reader must know before believing a number.
  """

  unlearned: PopulationScores
  retrained: PopulationScores | None
  original: PopulationScores | None
  state: np.ndarray
  split: np.ndarray
  group: np.ndarray
  warnings: tuple[str, ...]

  @property
  def audited_state(self) -> np.ndarray:
    """The states with never-seen entries only of examples that are forgotten.

    Where only a part of the examples is ever forgotten, the others may be
    easier or harder; as negatives they would show a difference without a leak.
    """
    forgotten = (self.state == log_odds_lib.FORGOTTEN).any(axis=0)
    idle = (self.state == log_odds_lib.NEVER_SEEN) & ~forgotten
    return np.where(idle, log_odds_lib.EXCLUDED, self.state).astype(np.int8)

  @property
  def sides(self) -> dict[str, PopulationScores]:
    """The populations that are there, by name."""
    found = {
      'original': self.original,
      'retrained': self.retrained,
      'unlearned': self.unlearned,
    }
    return {name: side for name, side in found.items() if side is not None}


def from_arrays(arrays: Mapping[str, np.ndarray]) -> Scores:
  """Check arrays and turns them into scores.

  Args:
    arrays: 'log_odds' float[P, N] or [P, N, A], or 'logits' float[P, N, C] or
      [P, N, A, C] with 'labels' int[N]; 'state' int[P, N] (0 retained, 1
      forgotten, 2 never seen, 3 excluded); 'split' int[P]; optionally
      'retrained_log_odds' or 'retrained_logits' of the same form, row p
      retrained without the forget set of row p, and 'original_log_odds' or
      'original_logits', row p before unlearning.

  Raises:
    ValueError: anything missing, unknown, of a wrong shape, type or range, or
      too little of it; the message says what was expected.
  """
  arrays = {key: np.asarray(value) for key, value in arrays.items()}
  unknown = sorted(set(arrays) - set(KEYS))
  if unknown:
    raise ValueError(f'unknown keys {unknown}; the known ones are {KEYS}')
  for key in ('state', 'split'):
    if key not in arrays:
      raise ValueError(f'key {key!r} is missing; found {sorted(arrays)}')
  unlearned = _side(arrays, '')
  if unlearned is None:
    raise ValueError(
      f"neither 'log_odds' nor 'logits' is there; found {sorted(arrays)}"
    )
  state, split = _checked_states(arrays, unlearned.log_odds.shape)
  retrained, original = (
    _beside(unlearned, _side(arrays, prefix), prefix)
    for prefix in ('retrained_', 'original_')
  )
  pairs = log_odds_lib.complementary_pairs(state, split)
  group = split if pairs is None else pairs
  data = Scores(unlearned, retrained, original, state, split, group, ())
  warnings = _warnings(data, paired=pairs is not None)
  return dataclasses.replace(data, warnings=tuple(warnings))


def _beside(
  unlearned: PopulationScores, other: PopulationScores | None, prefix: str
) -> PopulationScores | None:
  """Check that another population fits the unlearned one."""
  if other is None:
    return None
  if other.log_odds.shape != unlearned.log_odds.shape:
    raise ValueError(
      f'{prefix}scores have shape {other.log_odds.shape}, those of unlearned '
      f'models {unlearned.log_odds.shape}; row p must belong to the split and '
      'forget set of row p'
    )
  if bool(other.signals) != bool(unlearned.signals):
    raise ValueError(
      f'unlearned and {prefix}scores must both be logits or both log-odds'
    )
  return other


def _side(arrays, prefix: str) -> PopulationScores | None:
  scores, logits = (arrays.get(prefix + k) for k in ('log_odds', 'logits'))
  if scores is None and logits is None:
    return None
  if scores is not None and logits is not None:
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
    scores = log_odds_lib.log_odds(logits, arrays['labels'])
    clean = logits[:, :, 0] if logits.ndim == 4 else logits
    signals = {
      name: log_odds_lib.replace_non_finite(value)[0]
      for name, value in single_model.signals(clean, arrays['labels']).items()
    }
  assert scores is not None
  _require_float(prefix + 'log_odds', scores)
  if scores.ndim not in (2, 3):
    raise ValueError(
      f'{prefix}log_odds have shape {scores.shape}; expected [models, examples]'
      ' or [models, examples, augmentations]'
    )
  finite, count = log_odds_lib.replace_non_finite(scores)
  return PopulationScores(finite, signals, count)


def _require_float(name: str, value: np.ndarray) -> None:
  if value.dtype.kind != 'f':
    raise ValueError(
      f'{name} are {value.dtype}; expected floating-point numbers (convert '
      'bfloat16 to float32 before saving)'
    )


def _checked_states(arrays, shape) -> tuple[np.ndarray, np.ndarray]:
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
      f'{splits} splits; at least {MIN_SPLITS} are needed, and '
      f'{CALIBRATED_SPLITS} for calibrated attacks. A split is a draw of the '
      'training set; models that share one share its number'
    )
  for s in np.unique(split):
    of_split = state[split == s]
    unseen = (of_split == log_odds_lib.NEVER_SEEN).any(axis=0)
    seen = (of_split < log_odds_lib.NEVER_SEEN).any(axis=0)
    if (seen & unseen).any():
      raise ValueError(
        f'example {np.argmax(seen & unseen)} is never seen by one model of '
        f'split {s} and trained on by another; models of one split share their '
        'training set, give the others another split number'
      )
  return state.astype(np.int8), split


def _warnings(data: Scores, *, paired: bool) -> list[str]:
  found = []
  for name, side in data.sides.items():
    if side.non_finite:
      found.append(
        f'{side.non_finite} scores of {name} models were not finite and count '
        'as the most wrong finite score.'
      )
  groups = len(np.unique(data.group))
  if groups * (2 if paired else 1) < CALIBRATED_SPLITS:
    found.append(
      f'{groups} independent groups of models: attacks are reliably calibrated '
      f'from {CALIBRATED_SPLITS} splits on.'
    )
  if paired:
    found.append(
      'Splits come in complementary pairs; each pair is left out together and '
      'counts as one in the intervals.'
    )
  forgotten = (data.state == log_odds_lib.FORGOTTEN).sum(axis=0)
  lonely = int(((forgotten > 0) & (forgotten < 3)).sum())
  if lonely:
    found.append(
      f'{lonely} examples are forgotten by fewer than 3 models and cannot be '
      'scored by per-example attacks.'
    )
  if data.retrained is None:
    found.append(
      'Without scores of retrained models nothing shows how far from chance '
      'these attacks fall when there is nothing to find.'
    )
  return found
