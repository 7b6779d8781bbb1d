"""Arrays inside a checkpoint file that are read when they are needed.

Weights are often a small part of a file, which may also hold momentum and
averages. Every reader returns a tree (nested dicts and lists) whose leaves are
`Stored`, `Unreadable`, or other contents of the file.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

Tree = Any  # nested dicts and lists


class Stored(NamedTuple):
  """An array in a file.

  Attributes:
    shape: its shape.
    dtype: its dtype; bfloat16 is from `ml_dtypes`.
    load: reads it.
  """

  shape: tuple[int, ...]
  dtype: np.dtype
  load: Callable[[], np.ndarray]


class Unreadable(NamedTuple):
  """An array that cannot become a plain one.

  Attributes:
    reason: why, e.g. 'sparse'.
  """

  reason: str


def stored(array: np.ndarray) -> Stored:
  """Describe an array that is already in memory."""
  return Stored(array.shape, array.dtype, lambda: array)
