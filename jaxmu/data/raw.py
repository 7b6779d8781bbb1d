"""A data set as it is found on disk, before it is brought to model input."""

import dataclasses
import hashlib
from collections.abc import Callable, Iterator

import numpy as np

Block = tuple[np.ndarray, np.ndarray]  # u8[n, H, W, C], integer [n]

_NAMED = 5  # absent classes that are named one by one


@dataclasses.dataclass(frozen=True)
class Raw:
  """Images and labels in their native form, read block by block.

  Attributes:
    num_dev: examples of the development part, which come first.
    num_test: examples of the test part.
    blocks: starts an iteration over blocks that join to all examples; images
      within one block have one shape.
    size: height and width of the model input, in pixels.
    num_classes: number of labels, C.
    origin: where it was read, for messages.
  """

  num_dev: int
  num_test: int
  blocks: Callable[[], Iterator[Block]]
  size: int
  num_classes: int
  origin: str

  @property
  def num_examples(self) -> int:
    return self.num_dev + self.num_test


def check_labels(
  label: np.ndarray, *, num_classes: int | None, origin: str
) -> None:
  """Raise ValueError unless labels are integers in [0, num_classes).

  With None, any upper limit will do.
  """
  if label.ndim != 1 or label.dtype.kind not in 'iu':
    raise ValueError(
      f'{origin}: labels have dtype {label.dtype} and shape {label.shape}, '
      'expected one integer per image'
    )
  most = int(label.max(initial=0)) if num_classes is None else num_classes - 1
  wrong = np.flatnonzero((label < 0) | (label > most))
  if wrong.size:
    raise ValueError(
      f'{origin}: {wrong.size} labels lie outside 0..{most}, first '
      f'at position {wrong[0]} with value {label[wrong[0]]}: count classes '
      'from 0, or correct num_classes'
    )


def count_classes(label: np.ndarray, *, origin: str) -> int:
  """Return the largest label + 1, C, unless that cannot be meant.

  Args:
    label: non-negative integers [N].
    origin: where they were read, for the message.

  Raises:
    ValueError: there would be more classes than examples.
  """
  num_classes = int(label.max()) + 1
  if num_classes > len(label):
    raise ValueError(
      f'{origin}: label {num_classes - 1} at position {label.argmax()} makes '
      f'{num_classes} classes of {len(label)} examples: count labels from 0 '
      'without gaps, or confirm with num_classes (--num_classes in `python -m '
      'jaxmu.prepare`)'
    )
  return num_classes


def absent_classes(label: np.ndarray, *, num_classes: int) -> str:
  """Say which of the classes have no label, or return an empty string."""
  seen = set(np.unique(label).tolist())
  count = num_classes - len(seen)
  if not count:
    return ''
  # No more numbers than these need be tried, however many classes there are.
  tried = range(min(num_classes, len(seen) + _NAMED))
  named = [str(c) for c in tried if c not in seen][:_NAMED]
  more = f' and {count - len(named)} more' * (count > len(named))
  return (
    f'{count} of {num_classes} classes never occur among the {len(label)} '
    f'training examples: {", ".join(named)}{more}; number labels from 0 '
    'without gaps if that is not meant'
  )


def label_digest(label: np.ndarray) -> str:
  """Return 16 hex digits of the sha256 of labels as little-endian int32."""
  return hashlib.sha256(label.astype('<i4').tobytes()).hexdigest()[:16]
