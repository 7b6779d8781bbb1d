"""Numbers that a function computes from other published results.

The record of such a folder names the function, the study whose tables it reads,
and the SHA-256 of the list of checksums (SHA256SUMS) of each table, which
covers all files of the table. Nothing is trained.
"""

import importlib
import pathlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from jaxmu import files
from jaxmu.published import record
from jaxmu.published.record import Published
from jaxmu.report import checksums, results


class Computed(NamedTuple):
  """What such a function returns.

  Attributes:
    numbers: the numbers.
    verdicts: what follows from numbers, such as 'holds', by METHOD/METRIC.
    meanings: what numbers stand for, in words, by METRIC.
  """

  numbers: Sequence[results.Row]
  verdicts: Mapping[str, str] = {}
  meanings: Mapping[str, str] = {}


def call(place: str, root: pathlib.Path) -> Computed:
  """Call a function on published results.

  Args:
    place: MODULE:FUNCTION in this package. It takes the root.
    root: folder of all published results.

  Raises:
    ValueError: it is of another package, or there is no such function.
  """
  module, _, name = place.partition(':')
  if module.partition('.')[0] != 'jaxmu':
    raise ValueError(f'function = {place!r}; expected one of jaxmu')
  try:
    function = getattr(importlib.import_module(module), name)
  except (ImportError, AttributeError) as error:
    raise ValueError(
      f'function = {place!r} cannot be found ({error}); use the version of '
      'jaxmu that published the numbers'
    ) from None
  return function(root)


def tables(root: files.Path, study: str) -> list[Published]:
  """Return the tables of a study, whose names begin with its name."""
  return [
    one
    for one in record.find(root).values()
    if one.kind == 'table' and one.name.startswith(f'{study}/')
  ]


def sources(root: files.Path, study: str) -> dict[str, str]:
  """Return the SHA-256 of the checksums of each table of a study, by name."""
  return {
    one.name: files.sha256(one.folder / checksums.FILE)
    for one in tables(root, study)
  }


def changes(one: Published) -> list[str]:
  """Say how the tables differ from those that numbers were computed from.

  Args:
    one: computed numbers.

  Returns:
    A text per table, as 'laptop/digits_resnet18/main has changed'.
  """
  theirs = one.record['sources']
  ours = sources(one.root, one.record['study'])
  return [
    *(f'{name} is missing' for name in theirs if name not in ours),
    *(f'{name} is new' for name in ours if name not in theirs),
    *(
      f'{name} has changed'
      for name in theirs
      if name in ours and ours[name] != theirs[name]
    ),
  ]
