"""Ways to choose whom to forget in the main split.

`main_split` understands a line of configuration: `random`, `class:3,5`,
`file:forget.txt`, `most:scores.npz` or `least:scores.npz`. The other functions
are its parts. U-LiRA has forget sets of its own, see `splits.audit_design`.
"""

import math
import os
import pathlib
import warnings
from collections.abc import Sequence
from typing import Literal

import numpy as np

from jaxmu.data import plain, splits

CHOICES = ('random', 'class', 'file', 'most', 'least')


def check(how: str) -> None:
  """Raise ValueError unless `how` is a choice that `main_split` understands."""
  kind, _, rest = how.partition(':')
  if (
    kind not in CHOICES
    or bool(rest) != (kind != 'random')
    or (kind == 'class' and not all(n.isdecimal() for n in _numbers(rest)))
  ):
    raise ValueError(
      f'forget set {how!r}: choose random, class:3,5 (class numbers), '
      'file:forget.txt (indices), most:scores.npz or least:scores.npz '
      '(memorisation in an earlier run)'
    )


def main_split(
  label: np.ndarray,
  num_dev: int,
  *,
  how: str = 'random',
  val_fraction: float = 0.15,
  forget_fraction: float = 0.1,
  seed: int = 123,
) -> splits.Design:
  """Return the main split with a forget set of choice.

  Train and validation are always those of `splits.main_split`, so that runs
  with different forget sets can be compared. `random` is `splits.main_split`
  itself, in its order.

  Args:
    label: i32[N] of all examples.
    num_dev: size of the development part.
    how: `random`; `class:` and numbers; `file:` and a file (`from_file`);
      `most:` or `least:` and a file of scores (`read_scores`).
    val_fraction: of the development part.
    forget_fraction: of the training part, for `random`, `most` and `least`.
    seed: of the random cuts.

  Raises:
    ValueError: the choice is unknown or impossible.
  """
  check(how)
  kind, _, rest = how.partition(':')
  if kind == 'random':
    return splits.main_split(
      num_dev,
      val_fraction=val_fraction,
      forget_fraction=forget_fraction,
      seed=seed,
    )
  train, val = splits.holdout(
    np.arange(num_dev, dtype=np.int32), fraction=val_fraction, seed=seed
  )
  if kind == 'class':
    classes = [int(number) for number in _numbers(rest)]
    forget = by_class(train, label=label, classes=classes)
  elif kind == 'file':
    forget = from_file(rest, num_dev=num_dev)
  else:
    forget = by_difficulty(
      train,
      memorised=read_scores(rest, num_examples=len(label)),
      count=math.ceil(forget_fraction * len(train)),
      end='most' if kind == 'most' else 'least',
    )
  try:
    return with_forget(train, forget=forget, val=val)
  except ValueError as error:
    raise ValueError(f'forget set {how!r}: {error}') from None


def with_forget(
  train: np.ndarray, *, forget: np.ndarray, val: np.ndarray
) -> splits.Design:
  """Return the design of one member that forgets the given examples.

  Args:
    train: i32[n] training indices, retain and forget together.
    forget: i32[F] the part to forget.
    val: i32[V] validation indices.

  Raises:
    ValueError: the forget set is empty or everything, repeats a point or holds
      one that is not in `train`.
  """
  train, forget = np.asarray(train), np.asarray(forget)
  if forget.ndim != 1 or forget.dtype.kind not in 'iu':
    if forget.size:
      raise ValueError(
        f'the forget set has dtype {forget.dtype} and shape {forget.shape}: '
        'give one list of integer indices'
      )
  if not forget.size:
    raise ValueError('the forget set is empty: choose at least one example')
  values, counts = np.unique(forget, return_counts=True)
  if (counts > 1).any():
    raise ValueError(
      f'the forget set repeats {(counts > 1).sum()} indices, first '
      f'{values[counts > 1][0]}: name each once'
    )
  strangers = values[~np.isin(values, train)]
  if strangers.size:
    raise ValueError(
      f'{strangers.size} indices of the forget set are not in the training '
      f'part of {len(train)} examples, first {strangers[0]}: nothing was '
      'learned from them, leave them out'
    )
  if len(forget) == len(train):
    raise ValueError(
      f'the forget set is all {len(train)} training examples: nothing is left '
      'to retain, choose fewer'
    )
  retain = train[~np.isin(train, forget)]
  return splits.single(retain=retain, forget=forget, val=val)


def by_class(
  train: np.ndarray, *, label: np.ndarray, classes: Sequence[int]
) -> np.ndarray:
  """Return all training examples of the given classes.

  Args:
    train: i32[n] training indices.
    label: i32[N] of all examples.
    classes: to forget.

  Raises:
    ValueError: a class has no training example.
  """
  present = np.unique(label[train])
  absent = sorted(set(classes) - set(present.tolist()))
  if absent or not classes:
    raise ValueError(
      f'classes {list(classes)} to forget, but the training part has none of '
      f'{absent}: choose among {present.tolist()}'
    )
  return train[np.isin(label[train], list(classes))]


def from_file(path: str | os.PathLike, *, num_dev: int) -> np.ndarray:
  """Read an explicit forget set: `.npy`, or text with one index per line.

  Indices count over the development part of the data set in its own order. In
  text files, `#` starts a comment.

  Args:
    path: the file.
    num_dev: size of the development part.

  Raises:
    ValueError: the file is missing or holds something else than integers in
      0..num_dev - 1.
  """
  path = pathlib.Path(path)
  if not path.is_file():
    raise ValueError(f'the index file {path} does not exist, or is a folder')
  try:
    if path.suffix == '.npy':
      index = plain.read_array(path)
    else:
      lines = [line.partition('#')[0] for line in path.read_text().splitlines()]
      index = np.array([int(line) for line in lines if line.strip()])
  except (ValueError, OSError) as error:
    raise ValueError(
      f'the index file {path} cannot be read ({error}): write one integer per '
      'line, or an integer array with np.save'
    ) from error
  if index.size and (index.ndim != 1 or index.dtype.kind not in 'iu'):
    raise ValueError(
      f'the index file {path} holds {index.dtype} of shape {index.shape}: save '
      'a one-dimensional integer array'
    )
  wrong = index[(index < 0) | (index >= num_dev)]
  if wrong.size:
    raise ValueError(
      f'the index file {path} holds {wrong.size} indices outside '
      f'0..{num_dev - 1}, first {wrong[0]}: they count the examples of the '
      'development part from 0'
    )
  return index.astype(np.int64)


def by_difficulty(
  train: np.ndarray,
  *,
  memorised: np.ndarray,
  count: int,
  end: Literal['most', 'least'],
) -> np.ndarray:
  """Return the most or the least memorised training examples.

  Examples without a finite score are not ranked, hence never chosen; a warning
  says how many. In an earlier run those are its validation points.

  Args:
    train: i32[n] training indices.
    memorised: f[N] score of every example, larger where the model's answer
      depends more on having seen it; see `memorisation`.
    count: F, how many to forget.
    end: which end of the ranking to take. Ties go to the smaller index.

  Raises:
    ValueError: a parameter is out of range, or no more than `count` training
      examples have a finite score.
  """
  if end not in ('most', 'least'):
    raise ValueError(f"end is {end!r}: choose 'most' or 'least'")
  if not 0 < count < len(train):
    raise ValueError(
      f'count is {count}: choose one between 1 and {len(train) - 1}, as '
      f'{len(train)} examples are trained on'
    )
  score = memorised[train].astype(np.float64)
  scored = np.flatnonzero(np.isfinite(score))
  if len(scored) <= count:
    raise ValueError(
      f'{len(scored)} of {len(train)} training examples have a finite score, '
      f'too few to choose {count} of them: take scores of an earlier run with '
      "config.splits.design='audit', where some models trained on an example "
      'and others never saw it, or forget a smaller fraction'
    )
  if len(scored) < len(train):
    warnings.warn(
      f'{len(train) - len(scored)} of {len(train)} training examples have no '
      f'score and were not ranked; the {count} {end} memorised were chosen '
      f'among the other {len(scored)}',
      stacklevel=3,
    )
  rank = score[scored] if end == 'least' else -score[scored]
  ascending = scored[np.lexsort((train[scored], rank))]
  return train[np.sort(ascending[:count])]


def read_scores(path: str | os.PathLike, *, num_examples: int) -> np.ndarray:
  """Read how much each example is memorised, f64[N].

  Args:
    path: `.npy` with a score per example, or the `.npz` of a job's folder
      `scores`, from whose `original_log_odds` [P, N] (or [P, N, A]) and `state`
      [P, N] `memorisation` is computed. A file with neither these nor
      `retrained_log_odds` may give those of original models as `log_odds`.
    num_examples: N, development and test part together.

  Raises:
    ValueError: the file is missing, damaged or of another data set.
  """
  path = pathlib.Path(path)
  if not path.is_file():
    raise ValueError(f'the score file {path} does not exist, or is a folder')
  if path.suffix == '.npy':
    try:
      score = plain.read_array(path)
    except ValueError as error:
      raise ValueError(
        f'the score file {path} cannot be read ({error}): write one number per '
        'example with np.save'
      ) from error
    _check_numbers(path, 'scores', score)
  else:
    score = memorisation(*_read_originals(path))
  if score.shape != (num_examples,):
    raise ValueError(
      f'{path} holds scores of shape {score.shape}, expected one for each of '
      f'the {num_examples} examples: it belongs to another data set'
    )
  return score.astype(np.float64)


def _read_originals(path: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
  """Return log-odds f[P, N] of original models and their state [P, N]."""
  arrays = plain.read_archive(path, needed=('log_odds', 'state'))
  # Beside these, `log_odds` are of the unlearned models.
  name = 'original_log_odds'
  if name not in arrays:
    if 'retrained_log_odds' in arrays:
      raise ValueError(
        f'{path} holds unlearned and retrained models, but no {name}: add '
        'them, since memorisation is measured on models before unlearning'
      )
    name = 'log_odds'
  log_odds, state = arrays[name], arrays['state']
  _check_numbers(path, name, log_odds)
  _check_numbers(path, 'state', state)
  if log_odds.ndim == 3:  # several augmentations
    log_odds = log_odds.mean(axis=-1)
  if log_odds.ndim != 2 or log_odds.shape != state.shape:
    raise ValueError(
      f'{path}: {name} have shape {log_odds.shape}, state {state.shape}: '
      'both need one row per model, one column per example'
    )
  return log_odds, state


def _check_numbers(path: pathlib.Path, name: str, values: np.ndarray) -> None:
  if values.dtype.kind not in 'fiu':
    raise ValueError(
      f'{path}: {name} have dtype {values.dtype}: save an array of numbers'
    )


def memorisation(log_odds: np.ndarray, state: np.ndarray) -> np.ndarray:
  """Return how much training on an example raises its mean log-odds.

  score[n] = mean of log_odds[p, n] over originals p that trained on n, minus
  the mean over those that have never seen it: the memorisation of Feldman
  (arXiv 1906.05271) in log-odds instead of accuracy.

  Args:
    log_odds: f[P, N] of the true class under original models.
    state: i8[P, N] of `splits.state`.

  Returns:
    f64[N]; NaN where no model has trained on the example, or all have.
  """
  trained = (state == splits.RETAINED) | (state == splits.FORGOTTEN)
  return _masked_mean(log_odds, trained) - _masked_mean(
    log_odds, state == splits.NEVER_SEEN
  )


def _masked_mean(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
  count = mask.sum(axis=0)
  total = np.where(mask, values, 0).sum(axis=0, dtype=np.float64)
  return np.divide(
    total, count, out=np.full(len(count), np.nan), where=count > 0
  )


def _numbers(text: str) -> list[str]:
  """Split `3, 5,` at commas; spaces and one comma at the end do no harm."""
  return [number.strip() for number in text.removesuffix(',').split(',')]
