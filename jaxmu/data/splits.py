"""Which examples each member of a population retains, forgets and never sees.

Three designs, all exact index arithmetic in NumPy:

  `main_split`             one member: the fixed split of the benchmark
  `ulira_splits_reference` the benchmark's U-LiRA splits, forget sets at random
  `audit_design`           complementary pairs, forget sets that partition

Sizes are equal over all members of a design by construction, so that members
can be stacked. Indices refer to the development part, 0..num_dev-1; no design
uses the official test set.

The forget set of the main split is chosen by a string: `random`, `class:3,5`,
`file:forget.txt`, `most:scores.npz` or `least:scores.npz`.
"""

import dataclasses
import math
import pathlib
import re
import warnings
import zlib
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Float64, Int8, Int32, Int64, Integer

from jaxmu import files, terms
from jaxmu import hparams as hp
from jaxmu.data import formats
from jaxmu.terms import EXCLUDED, FORGOTTEN, NEVER_SEEN, RETAINED

FORGET_CHOICES = ('random', 'class', 'file', 'most', 'least')


@dataclasses.dataclass(frozen=True, eq=False)
class Design:
  """Index arrays of P members.

  The members of one split share their training set (`retain` and `forget`
  together), and therefore one original model. Splits of one pair are
  complementary and so not independent: an interval resamples pairs, not splits.

  Attributes:
    retain: i32[P, R] trained on and kept.
    forget: i32[P, F] trained on and to be unlearned.
    val: i32[V] validation, the same for all members, in no training set.
    unseen: i32[P, U] in the pool, but not in this member's training set.
    split: i32[P] number of the split, ascending.
    forget_set: i32[P] number of the forget set within the split.
    audit: i32[A] the examples that are forgotten by some member, ascending.
    pair: i32[P] number of the pair of complementary splits.
    dropped: examples of the requested pool that moved to `val`, because equal
      sizes need a pool that divides evenly.
  """

  retain: Int32[np.ndarray, 'P R']
  forget: Int32[np.ndarray, 'P F']
  val: Int32[np.ndarray, ' V']
  unseen: Int32[np.ndarray, 'P U']
  split: Int32[np.ndarray, ' P']
  forget_set: Int32[np.ndarray, ' P']
  audit: Int32[np.ndarray, ' A']
  pair: Int32[np.ndarray, ' P']
  dropped: int = 0


# Fewer examples leave the training, the forget or the validation set empty.
_SMALLEST_MAIN = 3


def holdout(
  index: Integer[np.ndarray, ' n'], *, fraction: float, seed: int = 123
) -> tuple[Integer[np.ndarray, ' r'], Integer[np.ndarray, ' k']]:
  """Split `index` into a kept and a held-out part, unstratified.

  Equals scikit-learn's `train_test_split(index, test_size=fraction,
  random_state=seed)` in content and order.

  Args:
    index: [n] anything.
    fraction: of the examples to hold out, in (0, 1).
    seed: of `np.random.RandomState`.

  Returns:
    The kept part [n - k] and the held-out part [k] with k = ceil(fraction n).
  """
  if not 0 < fraction < 1:
    raise ValueError(f'fraction is {fraction}: choose one between 0 and 1')
  hp.check_whole('seed', seed)
  count = math.ceil(fraction * len(index))  # as scikit-learn rounds
  if count >= len(index):
    raise ValueError(
      f'fraction {fraction} of {len(index)} examples leaves nothing: choose a '
      'smaller fraction'
    )
  order = np.random.RandomState(seed).permutation(len(index))
  return index[order[count:]], index[order[:count]]


def single(
  *,
  retain: Integer[np.ndarray, ' R'],
  forget: Integer[np.ndarray, ' F'],
  val: Integer[np.ndarray, ' V'],
) -> Design:
  """Return the design of one member with the given sets."""
  zero = np.zeros(1, np.int32)
  return Design(
    retain=_i32(retain)[None],
    forget=_i32(forget)[None],
    val=_i32(val),
    unseen=np.zeros((1, 0), np.int32),
    split=zero,
    forget_set=zero,
    audit=np.sort(_i32(forget)),
    pair=zero,
  )


def ulira_splits_reference(
  num_dev: int = 50_000,
  *,
  num_splits: int = 64,
  forget_sets: int = 10,
  forget_fraction: float = 0.1,
  val_fraction: float = 0.05,
) -> Design:
  """Return the U-LiRA splits of arXiv 2410.01276, in their order.

  Every split trains on a random half of the pool, and its forget sets are drawn
  independently: they overlap, some examples are forgotten by more members than
  others, and some by none. Splits are independent of each other, so each is its
  own pair.

  Raises:
    ValueError: a fraction leaves a part empty.
  """
  order = np.random.default_rng(123).permutation(num_dev)
  num_val = int(val_fraction * num_dev)
  pool, val = order[: num_dev - num_val], order[num_dev - num_val :]
  if not num_val:
    raise ValueError(
      f'the development part has {num_dev} examples, too few for design '
      "'reference': no example would be left for validation; choose design "
      "'audit' (config.splits.design)"
    )
  num_train = len(pool) // 2
  num_forget = int(forget_fraction * num_train)
  if not 0 < num_forget < num_train:
    raise ValueError(
      f'forget_fraction {forget_fraction} of {num_train} training examples is '
      f'{num_forget}: choose a fraction that forgets some but not all'
    )
  members = []
  for split in range(num_splits):
    shuffled = np.random.default_rng(split).permutation(pool)
    train, unseen = shuffled[:num_train], shuffled[num_train:]
    for forget_set in range(forget_sets):
      drawn = np.random.default_rng(forget_set).permutation(train)
      retain, forget = np.split(drawn, [num_train - num_forget])
      members.append((retain, forget, unseen, split, forget_set, split))
  return _stack(members, val=val)


def audit_design(
  num_dev: int,
  *,
  num_splits: int = 16,
  forget_fraction: float = 0.1,
  forget_sets: int = 10,
  pool: int | None = None,
  seed: int = 0,
) -> Design:
  """Return complementary split pairs with forget sets that partition.

  A pool is drawn from the development part, the rest is validation. Splits 2i
  and 2i + 1 train on complementary halves of the pool. With J = `forget_sets`
  and f = `forget_fraction`, a random audit set of J f |pool| examples is fixed
  once; each half takes exactly half of it, shuffles it and cuts it into J
  disjoint forget sets of f |train| examples. So every audited example is

    forgotten by exactly one member of each split that trains on it, that is
      num_splits / 2 members, each unlearned from another original;
    never seen by exactly J num_splits / 2 members,

  at a cost of J models per split. With J = 1/f the audit set is the whole pool.

  Unlike the reference, which draws splits and forget sets independently, no
  example is left without observations and none has more than another.

  Args:
    num_dev: size of the development part.
    num_splits: number of training sets, even.
    forget_fraction: f, share of a training set that one member forgets.
    forget_sets: J, at most 1/f.
    pool: examples to draw training sets from; default 95% of `num_dev`. Made a
      few examples smaller where equal sizes need it, see `Design.dropped`.
    seed: of all draws.

  Raises:
    ValueError: a parameter is out of range; the message names one that works.
  """
  pool = default_pool(num_dev) if pool is None else pool
  most = int(hp.FEW.high)
  hp.check_whole('num_splits', num_splits, most=most)
  hp.check_whole('forget_sets', forget_sets, most=most)
  hp.check_whole('pool', pool)
  hp.check_whole('seed', seed)
  if num_splits < 2 or num_splits % 2:
    raise ValueError(
      f'num_splits is {num_splits}: splits come in complementary pairs, choose '
      f'{max(2, num_splits + 1)}'
    )
  if num_splits * forget_sets > hp.MOST_MEMBERS:
    raise ValueError(
      f'{num_splits} splits with {forget_sets} forget sets each make more than '
      f'{hp.MOST_MEMBERS:,} models: choose fewer'
    )
  num_pool, num_forget = _sizes(num_dev, pool, forget_fraction, forget_sets)
  order = _generator(seed, 'pool').permutation(num_dev)
  points, val = order[:num_pool], order[num_pool:]
  # `points` is in random order, so its head is a random subset.
  audit, others = np.split(points, [2 * forget_sets * num_forget])

  members = []
  for split in range(num_splits):
    trained, left = _halves(seed, split, audit, others)
    shuffled = _generator(seed, 'forget', split).permutation(trained[0])
    train, unseen = np.append(shuffled, trained[1]), np.append(*left)
    for forget_set in range(forget_sets):
      forget = np.s_[forget_set * num_forget : (forget_set + 1) * num_forget]
      sets = np.delete(train, forget), train[forget], unseen
      members.append((*map(np.sort, sets), split, forget_set, split // 2))
  return _stack(members, val=np.sort(val), dropped=pool - num_pool)


def membership(design: Design, num_examples: int) -> Int8[np.ndarray, 'P N']:
  """Return the role of each example for each member, i8[P, N].

  0 retained, 1 forgotten, 2 in the pool but never seen, 3 excluded: the
  validation examples and all examples in no set, such as the official test set.

  Args:
    design: of P members.
    num_examples: N, development and test part together.

  Raises:
    ValueError: the design refers to examples beyond N.
  """
  out = np.full((len(design.split), num_examples), EXCLUDED, np.int8)
  for code, index in (
    (RETAINED, design.retain),
    (FORGOTTEN, design.forget),
    (NEVER_SEEN, design.unseen),
  ):
    if index.size and index.max() >= num_examples:
      raise ValueError(
        f'the design refers to example {index.max()}, but there are only '
        f'{num_examples}: use the data set that it was made for'
      )
    np.put_along_axis(out, index, np.int8(code), axis=1)
  return out


def _sizes(
  num_dev: int, pool: int, forget_fraction: float, forget_sets: int
) -> tuple[int, int]:
  """Return the size of the pool, evened out, and of a forget set."""
  if not 0 < forget_fraction < 1:
    raise ValueError(
      f'forget_fraction is {forget_fraction}: choose one between 0 and 1, for '
      'example 0.1'
    )
  most = int(1 / forget_fraction + 1e-9)
  if not 1 <= forget_sets <= most:
    raise ValueError(
      f'forget_sets is {forget_sets}: disjoint sets of a fraction '
      f'{forget_fraction} allow 1 to {most}'
    )
  num_pool, num_forget = _evened(pool, forget_fraction, forget_sets)
  if not 0 < num_forget < num_pool // 2:
    what = 'no' if num_forget < 1 else 'every'
    reason = f'each split would forget {what} example'
  elif pool > num_dev:
    reason = f'the development part has {num_dev} examples'
  elif num_pool == num_dev:
    reason = 'no example would be left for validation'
  else:
    return num_pool, num_forget
  raise ValueError(
    f'pool is {pool}: {reason}; '
    f'{_possible(num_dev, forget_fraction, forget_sets)}'
  )


def _evened(
  pool: int, forget_fraction: float, forget_sets: int
) -> tuple[int, int]:
  """Return the size of the pool that divides evenly, and of a forget set."""
  whole = abs(forget_sets * forget_fraction - 1) < 1e-6
  unit = 2 * forget_sets if whole else 2
  num_pool = pool // unit * unit
  num_train = num_pool // 2
  num_forget = num_train // forget_sets if whole else 0
  num_forget = num_forget or round(forget_fraction * num_train)
  return num_pool, min(num_forget, num_train // forget_sets)


def _possible(num_dev: int, forget_fraction: float, forget_sets: int) -> str:
  """Return the remedy for a pool that leaves a set empty."""

  def works(pool: int, fraction: float) -> bool:
    num_pool, num_forget = _evened(pool, fraction, forget_sets)
    return 0 < num_forget < num_pool // 2 and 0 < num_pool < num_dev

  wrong = [p for p in range(num_dev) if not works(p, forget_fraction)]
  low, high = max(wrong, default=-1) + 1, num_dev - 1
  if low <= high:
    usual = default_pool(num_dev)
    remedy = f'choose one from {low} to {high}'
    if low <= usual:
      remedy += f', or none for {usual} (config.splits.pool=0)'
    return remedy
  for fraction in (0.1, 0.2, 0.5):
    fits = forget_sets <= int(1 / fraction + 1e-9)
    if fits and works(default_pool(num_dev), fraction):
      return (
        f'with forget_fraction {forget_fraction} no pool works; choose '
        f'another fraction, such as {fraction}, and config.splits.pool=0'
      )
  return 'the data set is too small for this design'


def default_pool(num_dev: int) -> int:
  """Return the size of the pool where none is given: all but 5%.

  Example:
    >>> default_pool(50_000), default_pool(12)
    (47500, 11)
  """
  return num_dev - max(1, int(0.05 * num_dev))


Halves = tuple[np.ndarray, np.ndarray]  # of the audit set, of the others


def _halves(
  seed: int, split: int, audit: np.ndarray, others: np.ndarray
) -> tuple[Halves, Halves]:
  """Return what a split trains on and what it never sees.

  Each is a pair of halves, of the audit set and of the others. The two
  splits of a pair get the same halves, swapped.
  """
  generator = _generator(seed, 'pair', split // 2)
  first, second = zip(
    np.split(generator.permutation(audit), 2),
    np.split(generator.permutation(others), 2),
    strict=True,
  )
  return (second, first) if split % 2 else (first, second)


def _stack(
  members: list[tuple[Any, ...]], *, val: np.ndarray, dropped: int = 0
) -> Design:
  retain, forget, unseen, split, forget_set, pair = zip(*members, strict=True)
  forget = _i32(np.stack(forget))
  return Design(
    retain=_i32(np.stack(retain)),
    forget=forget,
    val=_i32(val),
    unseen=_i32(np.stack(unseen)),
    split=_i32(np.array(split)),
    forget_set=_i32(np.array(forget_set)),
    audit=np.unique(forget),
    pair=_i32(np.array(pair)),
    dropped=dropped,
  )


def _generator(seed: int, *path: str | int) -> np.random.Generator:
  """Return a generator addressed by seed, name and counters."""
  words = [p if isinstance(p, int) else zlib.crc32(p.encode()) for p in path]
  return np.random.default_rng([seed, *words])


def _i32(array: Integer[np.ndarray, '*M']) -> Int32[np.ndarray, '*M']:
  return np.asarray(array, dtype=np.int32)


def check_forget_choice(how: str) -> None:
  """Raise ValueError unless `how` is a choice that `main_split` understands."""
  kind, _, rest = how.partition(':')
  if (
    kind not in FORGET_CHOICES
    or bool(rest) != (kind != 'random')
    or (kind == 'class' and not all(map(_is_class, _numbers(rest))))
  ):
    raise ValueError(
      f'forget set {how!r}: choose random, class:3,5 (class numbers), '
      'file:forget.txt (indices), most:scores.npz or least:scores.npz '
      '(memorisation in an earlier run)'
    )


def main_split(
  label: Integer[np.ndarray, ' N'],
  num_dev: int,
  *,
  how: str = 'random',
  val_fraction: float = 0.15,
  forget_fraction: float = 0.1,
  pool: int | None = None,
  seed: int = 123,
) -> Design:
  """Return the fixed split of the main benchmark, a design of one member.

  The development part is cut into train and validation, and for `random` train
  into retain and forget, both times from the same seed and without
  stratification (arXiv 2410.01276; scikit-learn's `train_test_split` twice).
  Train and validation do not depend on `how`, so that runs with different
  forget sets can be compared.

  Args:
    label: i32[N] of all examples.
    num_dev: size of the development part.
    how: `random`; `class:` and numbers; `file:` and a file (`read_indices`);
      `most:` or `least:` and a file of scores (`read_scores`).
    val_fraction: of the development part.
    forget_fraction: of the training part, for `random`, `most` and `least`.
    pool: how many examples of the development part to use, drawn at random;
      default all, as in the benchmark.
    seed: of the random cuts.

  Raises:
    ValueError: the choice is unknown or impossible.
  """
  check_forget_choice(how)
  kind, _, rest = how.partition(':')
  development = np.arange(num_dev, dtype=np.int32)
  if pool is not None:
    development = _drawn(development, pool, seed)
  train, val = holdout(development, fraction=val_fraction, seed=seed)
  if kind == 'random':
    retain, forget = holdout(train, fraction=forget_fraction, seed=seed)
    return single(retain=retain, forget=forget, val=val)
  if kind == 'class':
    classes = [int(number) for number in _numbers(rest)]
    forget = by_class(train, label=label, classes=classes)
  elif kind == 'file':
    forget = read_indices(rest, num_dev)
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


def _drawn(index: np.ndarray, pool: int, seed: int) -> np.ndarray:
  """Return a random part of the development part."""
  hp.check_whole('pool', pool)
  if not _SMALLEST_MAIN <= pool <= len(index):
    raise ValueError(
      f'pool is {pool}: the development part has {len(index)} examples; choose '
      f'{_SMALLEST_MAIN} to {len(index)}, or none for all of them '
      '(config.splits.pool=0)'
    )
  return np.random.RandomState(seed).permutation(index)[:pool]


def with_forget(
  train: Integer[np.ndarray, ' n'],
  *,
  forget: Integer[np.ndarray, ' F'],
  val: Integer[np.ndarray, ' V'],
) -> Design:
  """Return the design of one member that forgets the given examples.

  Args:
    train: i32[n] training indices, retain and forget together.
    forget: i32[F] the part to forget.
    val: i32[V] validation indices.

  Raises:
    ValueError: the forget set is empty or all of `train`, repeats an example
      or holds one that is not in `train`.
  """
  train, known = np.asarray(train), max(map(int, [*train, *val]), default=0)
  forget = check_indices(forget, known + 1, 'the forget set')
  untrained = np.sort(forget[~np.isin(forget, train)])
  if untrained.size:
    raise ValueError(
      f'the forget set holds {terms.count(untrained.size, "example")} outside '
      f'the training part, which has {len(train)}; first {untrained[0]}: '
      'nothing was learned from it, so leave it out'
    )
  if len(forget) == len(train):
    raise ValueError(
      f'the forget set is all {len(train)} training examples: nothing is left '
      'to retain; choose fewer'
    )
  retain = train[~np.isin(train, forget)]
  return single(retain=retain, forget=forget, val=val)


def by_class(
  train: Integer[np.ndarray, ' n'],
  *,
  label: Integer[np.ndarray, ' N'],
  classes: Sequence[int],
) -> Integer[np.ndarray, ' F']:
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


def read_indices(path: files.Path, num_dev: int) -> Int64[np.ndarray, ' n']:
  """Read indices of training examples, int64[n] in the order of the file.

  Indices count the examples of the training part in its own order.

  Args:
    path: `.npy` with integers [n], or text with one integer per line, in which
      `#` starts a comment; whole numbers may be written as `numpy.savetxt`
      writes them.
    num_dev: number of training examples.

  Raises:
    ValueError: there is no such file, or it holds something else; the message
      names the line and the value.

  Example:
    >>> import pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / 'ids.txt'
    >>> _ = path.write_text('# request 7\\n14\\n3\\n')
    >>> read_indices(path, num_dev=100)
    array([14,  3])
  """
  path = files.path(path)
  if not path.is_file():
    what = 'is no regular file' if path.exists() else 'does not exist'
    raise ValueError(f'the index file {path} {what}; give a text file')
  try:
    if path.suffix == '.npy':
      index = formats.read_array(path)
    else:
      index = _parse_lines(path.read_text(encoding='utf-8-sig'))
  except (ValueError, OSError) as error:
    raise ValueError(
      f'the index file {path} cannot be read ({error}); write one integer per '
      'line, or an integer array with np.save'
    ) from error
  return check_indices(index, num_dev, f'the index file {path}')


def _parse_lines(text: str) -> np.ndarray:
  numbers = []
  for number, line in enumerate(text.splitlines(), 1):
    value = line.partition('#')[0].strip()
    if not value:
      continue
    # Checked by hand, since int() also reads '1_0' as 10. numpy.savetxt writes
    # 7.000000000000000000e+00.
    whole = re.fullmatch(r'[-+]?\d{1,18}(\.\d*)?(e[-+]?\d{1,2})?', value, re.A)
    if whole is None or not float(value).is_integer():
      raise ValueError(f'line {number}: {value[:40]!r} is not an integer')
    numbers.append(int(value) if value.lstrip('-+').isdigit() else float(value))
  return np.clip(numbers, -(2**62), 2**62).astype(np.int64)


def check_indices(index: np.ndarray, num_dev: int, name: str) -> np.ndarray:
  """Return indices of training examples as int64[n].

  Args:
    index: the indices, or bool[num_dev].
    num_dev: number of training examples.
    name: what an error calls them.

  Raises:
    ValueError: they are not a list of integers, or empty, out of range or
      repeated.
  """
  index = np.asarray(index)
  if index.dtype == bool and index.shape == (num_dev,):
    index = np.flatnonzero(index)
  if not index.size:
    raise ValueError(f'{name} is empty; name at least one example by its index')
  if index.ndim != 1 or index.dtype.kind not in 'iu':
    raise ValueError(
      f'{name} holds {index.dtype} of shape {index.shape}; give a list of '
      'integers, the positions of the examples in the training part from 0'
    )
  wrong = index[(index < 0) | (index >= num_dev)]
  if wrong.size:
    noun = 'index' if wrong.size == 1 else 'indices'
    raise ValueError(
      f'{name} holds {wrong.size} {noun} outside 0..{num_dev - 1}, first '
      f'{wrong[0]}; indices count the training examples from 0'
    )
  values, counts = np.unique(index, return_counts=True)
  if (counts > 1).any():
    raise ValueError(
      f'{name} repeats {values[counts > 1][0]} '
      f'({(counts > 1).sum()} repeated in all); name each example once'
    )
  return index.astype(np.int64)


def by_difficulty(
  train: Integer[np.ndarray, ' n'],
  *,
  memorised: Float[np.ndarray, ' N'],
  count: int,
  end: Literal['most', 'least'],
) -> Integer[np.ndarray, ' F']:
  """Return the most or the least memorised training examples.

  Examples without a finite score are never chosen; a warning gives their
  number. In the scores of an earlier run these are its validation examples.

  Args:
    train: i32[n] training indices.
    memorised: f[N] score of every example, larger if the model's output depends
      more on having trained on it; see `memorisation`.
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


def read_scores(
  path: files.Path, *, num_examples: int
) -> Float64[np.ndarray, ' N']:
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
  path = files.path(path)
  if not path.is_file():
    what = 'is no regular file' if path.exists() else 'does not exist'
    raise ValueError(f'the score file {path} {what}; give .npy or .npz')
  if path.suffix == '.npy':
    try:
      score = formats.read_array(path)
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
  arrays = formats.read_archive(path, needed=('log_odds', 'state'))
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


def memorisation(
  log_odds: Float[np.ndarray, 'P N'], state: Int8[np.ndarray, 'P N']
) -> Float64[np.ndarray, ' N']:
  """Return how much training on an example raises its mean log-odds.

  score[n] = mean of log_odds[p, n] over originals p that trained on n, minus
  the mean over originals that have never seen it: the memorisation of Feldman
  (arXiv 1906.05271) in log-odds instead of accuracy.

  Args:
    log_odds: f[P, N] of the true class under original models.
    state: i8[P, N], see `membership`.

  Returns:
    f64[N]; NaN where no model has trained on the example, or all have.
  """
  trained = (state == RETAINED) | (state == FORGOTTEN)
  return _masked_mean(log_odds, trained) - _masked_mean(
    log_odds, state == NEVER_SEEN
  )


def _masked_mean(
  values: Float[np.ndarray, 'P N'], mask: Bool[np.ndarray, 'P N']
) -> Float64[np.ndarray, ' N']:
  count = mask.sum(axis=0)
  total = np.where(mask, values, 0).sum(axis=0, dtype=np.float64)
  return np.divide(
    total, count, out=np.full(len(count), np.nan), where=count > 0
  )


def _is_class(text: str) -> bool:
  return re.fullmatch('[0-9]{1,9}', text) is not None


def _numbers(text: str) -> list[str]:
  """Split `3, 5,` at commas; spaces and one trailing comma are allowed."""
  return [number.strip() for number in text.removesuffix(',').split(',')]
