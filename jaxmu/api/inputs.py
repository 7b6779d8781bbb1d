"""Data sets, and their division into splits.

data = jaxmu.load_data('digits')
design = jaxmu.split(data, forget=0.1, splits=16)
"""

import dataclasses
import os
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxmu import files, terms
from jaxmu.api import printing
from jaxmu.data import catalog, custom, datasets, formats
from jaxmu.data import splits as splits_lib
from jaxmu.types import Transform

_SEED = 123  # of test and validation parts that are split off at random
_DIGITS_POOL = 1280


class Programs(dict[Any, Any]):
  """Compiled programs by what they depend on; a dict with weak references."""


_programs: weakref.WeakValueDictionary[Any, Programs] = (
  weakref.WeakValueDictionary()
)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Data(datasets.Source):
  """A data set on the host; made by `load_data`.

  It has the attributes of `jaxmu.data.datasets.Source` and:

  Attributes:
    programs: compiled programs for these images; equal data sets share them.
  """

  programs: 'Programs' = dataclasses.field(default_factory=lambda: Programs())

  def __repr__(self) -> str:
    height, width = self.image.shape[1:3]
    return (
      f'{self.name}: {self.num_dev:,} images to train on and '
      f'{len(self.label) - self.num_dev:,} test images of {height} x {width} '
      f'pixels, {self.num_classes} classes'
    )


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Design(splits_lib.Design, printing.Tabular):
  """Which examples each model retains and forgets; made by `split`.

  The attributes are those of `jaxmu.data.splits.Design`: index arrays with one
  row per forget set.
  """

  def columns(self) -> dict[str, list[Any]]:
    """Return one line per forget set."""
    size = len(self.split)
    return {
      'split': self.split.tolist(),
      'forget set': self.forget_set.tolist(),
      'retain': [self.retain.shape[1]] * size,
      'forget': [self.forget.shape[1]] * size,
      'never seen': [self.unseen.shape[1]] * size,
    }

  def __repr__(self) -> str:
    size, count = len(self.split), len(np.unique(self.split))
    heading = (
      f'{terms.count(count, "split")}, {terms.count(size, "forget set")}, '
      f'{terms.count(len(self.val), "validation example")}'
    )
    return printing.summary(heading, self.columns())


def load_data(
  source: Any = 'digits',
  *,
  test: tuple[Any, Any] | None = None,
  test_fraction: float | None = None,
  image_size: int | None = None,
  num_classes: int | None = None,
  mean: float | Sequence[float] | None = None,
  std: float | Sequence[float] | None = None,
  flip: bool | None = None,
  crop_padding: int | None = None,
  data_dir: str | os.PathLike | None = None,
) -> Data:
  """Load images and labels.

  Args:
    source: one of

      a name: 'digits' (no download), 'cifar10' or any other of
        `jaxmu.DATASETS`;
      arrays: `(images, labels)` with images [N, H, W], [N, H, W, 1] or
        [N, H, W, 3], uint8 in 0..255 or float in [0, 1], and labels int[N] in
        0..C-1;
      a folder: one sub-folder of pictures per class, below `train/` and
        `test/` or alone; or a folder that `python -m jaxmu.prepare` wrote;
      a file: `.npz` with `image` and `label`, and possibly `test_image` and
        `test_label`.
    test: `(images, labels)` of the test part, where `source` is arrays.
    test_fraction: share of the examples to set aside for testing, at random,
      where there is no test part; default 0.2.
    image_size: height and width of the model's input in pixels, for arrays,
      pictures and files; default that of the images.
    num_classes: C, for arrays and files; default the largest label + 1.
    mean: per-channel mean of the pixels in [0, 1] for normalisation, 3 numbers
      or 1; default that of a named set, or measured on the training part.
    std: per-channel standard deviation, as `mean`.
    flip: mirror training images at random; default as published for a named
      set, else False.
    crop_padding: pad training images by this many pixels and crop at random;
      default as published for a named set, else 0.
    data_dir: folder of prepared data sets; default $JAXMU_DATA_DIR, then
      `~/tensorflow_datasets`.

  Returns:
    The data set, images uint8[N, S, S, 3] with the training part first.

  Raises:
    ValueError: there is no such data set, or arrays, pictures or labels are
      not of this form; the message says what to do.

  Example:
    >>> import jaxmu
    >>> jaxmu.load_data('digits')
    digits: 1,437 images to train on and 360 test images of 32 x 32 pixels, \
10 classes
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> images = rng.integers(0, 256, (100, 8, 8), np.uint8)
    >>> labels = np.arange(100) % 4
    >>> jaxmu.load_data((images, labels))
    custom: 80 images to train on and 20 test images of 8 x 8 pixels, 4 classes
  """
  form = dict(
    test_fraction=test_fraction, size=image_size, num_classes=num_classes
  )
  if isinstance(source, datasets.Source):
    loaded = source
  elif isinstance(source, tuple | list):
    loaded = _of_arrays(source, test, **form)
  elif isinstance(source, str | os.PathLike):
    loaded = _of_path_or_name(source, data_dir, **form)
  else:
    raise ValueError(
      f'data is a {type(source).__name__}; give a name, (images, labels), a '
      'folder or an .npz file'
    )
  changes = dict(mean=mean, std=std, flip=flip, crop_padding=crop_padding)
  return _as_data(loaded, {k: v for k, v in changes.items() if v is not None})


def _of_arrays(
  arrays: Sequence[Any], test: tuple[Any, Any] | None, **form: Any
) -> datasets.Source:
  if len(arrays) != 2:
    raise ValueError(
      f'{terms.count(len(arrays), "array")}; give (images, labels), and the '
      'test part as test=(images, labels)'
    )
  images, labels = test or (None, None)
  return datasets.from_arrays(
    *arrays, test_images=images, test_labels=labels, **form
  )


def _of_path_or_name(
  source: str | os.PathLike, data_dir: str | os.PathLike | None, **form: Any
) -> datasets.Source:
  path = files.path(source)
  if str(source) in catalog.CATALOG or not path.exists():
    return datasets.load(str(source), data_dir=data_dir)
  if formats.is_plain(path) or formats.find_prepared(path):
    return datasets.load(path.name, data_dir=path.resolve().parent)
  if path.is_dir():
    del form['num_classes']  # one per folder
    return datasets.from_folder(path, **form)
  given = custom.read_arrays([path])
  return _of_arrays(given.train, given.test, **form)


def _as_data(source: datasets.Source, changes: dict[str, Any]) -> Data:
  if isinstance(source, Data) and not changes:
    return source
  fields = _fields(source, datasets.Source)
  fields['transform'] = custom.transform_of(
    source.image.shape[1], **{**dataclasses.asdict(source.transform), **changes}
  )
  key = source.fingerprint, source.num_dev, source.num_classes
  programs = _programs.setdefault(key, Programs())
  return Data(**fields, programs=programs)


def _fields(one: Any, kind: type) -> dict[str, Any]:
  """Return the fields that a dataclass has in common with a base class."""
  return {f.name: getattr(one, f.name) for f in dataclasses.fields(kind)}


def split(
  data: Any,
  *,
  forget: Any = 0.1,
  splits: int | None = None,
  forget_sets: int = 1,
  pool: int | None = None,
  val: Any = None,
  seed: int = 0,
) -> Design:
  """Divide a data set into what models retain, forget and never see.

  Args:
    data: what `load_data` returns or takes.
    forget: a share of the training set, such as 0.1; or a choice that makes one
      split: 'class:3,5', 'file:ids.txt', 'most:scores.npz' or
      'least:scores.npz' (see docs/data.md), or the indices of the examples,
      int[F].
    splits: number of training sets, each one half of the pool, in complementary
      pairs, so that attacks can compare models that saw an example with models
      that did not; default 16 for a share. With 1 there is one training set.
    forget_sets: disjoint forget sets per training set, at most 1/forget.
    pool: number of examples that training sets are drawn from; the rest are for
      validation. Default 1,280 of the digits, else 95%. Of a single split, the
      number of examples to use, validation included; default all.
    val: validation examples of a single split, not trained on: a share of the
      training part or indices int[V]; default 0.15, and none where `forget`
      holds indices.
    seed: seed of the random division into several splits.

  Returns:
    The design, one row per forget set.

  Raises:
    ValueError: a set would be empty, an index is out of range or repeated, or a
      number is out of range; the message names one that works.

  Example:
    >>> import jaxmu
    >>> data = jaxmu.load_data('digits')
    >>> jaxmu.split(data, forget=0.1, splits=2)
    2 splits, 2 forget sets, 157 validation examples
    split  forget set  retain  forget  never seen
        0           0     576      64         640
        1           0     576      64         640
    >>> jaxmu.split(data, forget=[3, 14, 159])
    1 split, 1 forget set, 0 validation examples
    split  forget set  retain  forget  never seen
        0           0    1434       3           0
  """
  data = load_data(data)
  if isinstance(forget, bool) or not isinstance(forget, float | int | str):
    return _of_indices(data, np.asarray(forget), val, splits, forget_sets)
  if splits is None:
    splits = 1 if isinstance(forget, str) else 16
  if splits == 1:
    return _single(data, forget, val, forget_sets, pool)
  return _several(data, forget, splits, forget_sets, pool, val, seed)


def _several(
  data: Data,
  forget: float | str,
  count: int,
  forget_sets: int,
  pool: int | None,
  val: Any,
  seed: int,
) -> Design:
  if isinstance(forget, str):
    raise ValueError(
      f'forget = {forget!r} chooses the examples of one training set; '
      f'give splits=1 instead of {count}, or a share such as forget=0.1'
    )
  if val is not None:
    raise ValueError(
      'val belongs to a single split; with several splits, give pool: examples '
      'outside it are for validation'
    )
  if pool is None and data.name == 'digits':
    pool = _DIGITS_POOL
  return as_design(
    splits_lib.audit_design(
      data.num_dev,
      num_splits=count,
      forget_sets=forget_sets,
      forget_fraction=float(forget),
      pool=pool,
      seed=seed,
    )
  )


def as_design(design: splits_lib.Design) -> Design:
  """Return any design as one that prints."""
  if isinstance(design, Design):
    return design
  return Design(**_fields(design, splits_lib.Design))


def _single(
  data: Data,
  forget: float | str,
  val: Any,
  forget_sets: int,
  pool: int | None,
) -> Design:
  if forget_sets != 1:
    raise ValueError(
      f'forget_sets = {forget_sets} needs several splits; give splits=2'
    )
  share = 0.15 if val is None else val
  if isinstance(share, bool) or not isinstance(share, float):
    raise ValueError(f'val = {val!r}; give a share such as val=0.15')
  how = forget if isinstance(forget, str) else 'random'
  fraction = 0.1 if isinstance(forget, str) else float(forget)
  return as_design(
    splits_lib.main_split(
      data.label,
      data.num_dev,
      how=how,
      val_fraction=share,
      forget_fraction=fraction,
      pool=pool,
    )
  )


def _of_indices(
  data: Data, forget: np.ndarray, val: Any, count: Any, forget_sets: int
) -> Design:
  if count not in (None, 1) or forget_sets != 1:
    raise ValueError(
      'indices to forget make one split with one forget set; leave out splits '
      'and forget_sets, or give a share such as forget=0.1'
    )
  forget = np.sort(splits_lib.check_indices(forget, data.num_dev, 'forget'))
  train = np.arange(data.num_dev)
  if val is None:
    val = np.zeros(0, np.int64)
  elif isinstance(val, float):
    # Drawn from the other examples, since the forget set was trained on.
    stay = np.setdiff1d(train, forget)
    _, val = splits_lib.holdout(stay, fraction=val, seed=_SEED)
  val = np.asarray(val)
  if val.size:
    val = splits_lib.check_indices(val, data.num_dev, 'val')
    both = np.intersect1d(val, forget)
    if both.size:
      raise ValueError(
        f'{terms.count(both.size, "example")} in val and in forget, first '
        f'{both[0]}; validation examples are not trained on, so leave them out '
        'of forget'
      )
  train = np.setdiff1d(train, val)
  return as_design(
    splits_lib.with_forget(train, forget=forget, val=np.sort(val))
  )


def unsplit(image: Any, label: Any, *, size: int, num_classes: int) -> Data:
  """Return arrays as data without a test part, for prediction alone.

  Args:
    image: [N, H, W], [N, H, W, 1] or [N, H, W, 3]; uint8, or float in [0, 1].
    label: int[N] in 0..num_classes - 1.
    size: height and width to resize to, in pixels.
    num_classes: C.

  Raises:
    ValueError: arrays that are not of this form.
  """
  image = custom.as_images(image, origin='images')
  label = custom.as_labels(label, count=len(image), origin='labels')
  formats.check_labels(label, num_classes=num_classes, origin='labels')
  image = catalog.to_model_input(image, size=size)
  return Data(
    name='images',
    image=image,
    label=label.astype(np.int32),
    num_dev=len(label),
    num_classes=num_classes,
    transform=Transform(
      (0.0,) * 3, (1.0,) * 3
    ),  # the transform of the models is used
    fingerprint='',
  )
