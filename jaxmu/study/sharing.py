"""Take finished work from the jobs beside a job, instead of doing it again.

Shards are stored by the digest of all that they depend on, so jobs that compare
methods on the same splits have the same originals and retrained models. A job
links the shards that the folders beside its work directory hold into its own
store: this takes no room on the disk, and either folder can be moved or removed
without the other. A shard is verified before it is used, as those of the job
itself are. Folders of other users are not looked at.
"""

import collections
import contextlib
import dataclasses
import os
import pathlib
from collections.abc import Callable, Collection, Iterator

from jaxmu import files, remote, terms
from jaxmu.study import job as job_lib
from jaxmu.study import stages, store


def adopt(
  job: job_lib.Job, tell: Callable[[str], None], names: Collection[str] = ()
) -> None:
  """Link the missing shards of a job that other jobs have finished.

  Args:
    job: opened; its work directory must be held.
    tell: receives a line about the models of each folder.
    names: of its populations; empty for all.
  """
  for folder, shelf, numbers in list(_found(job, names)):
    taken = [n for n in numbers if shelf.adopt(n, folder / 'store')]
    if taken and shelf.stage == 'models':
      count = sum(len(shelf.members[n]) for n in taken)
      tell(
        f'{shelf.label}: {terms.count(count, "model")} taken from '
        f'{files.shown(folder)}'
      )


def counts(job: job_lib.Job) -> dict[tuple[str, str], int]:
  """Return how many models `adopt` would take, by stage and population.

  It changes nothing on the disk.
  """
  found: collections.Counter[tuple[str, str]] = collections.Counter()
  seen = set()
  for _, shelf, numbers in _found(job):
    for n in numbers:
      if (shelf.folder, n) not in seen:
        seen.add((shelf.folder, n))
        found[shelf.stage, shelf.label] += max(len(shelf.members[n]), 1)
  return dict(found)


def _found(
  job: job_lib.Job, names: Collection[str] = ()
) -> Iterator[tuple[pathlib.Path, store.Shelf, list[int]]]:
  """Yield work directories, shelves of the job, and shards they have."""
  if not job.settings.run.share or remote.url(job.folder):
    return
  missing = {}
  for name, one in job.populations.items():
    if not names or name in names:
      times = stages.timing_shelf(job, name)
      for shelf in (one.models, one.scores, times):
        missing[shelf] = shelf.missing(verify=False)
  for folder in _beside(job.folder):
    for shelf, numbers in missing.items():
      other = dataclasses.replace(shelf, root=folder / 'store')
      there = [n for n in numbers if other.shard(n).is_dir()]
      if there:
        yield folder, shelf, there


def _beside(folder: pathlib.Path) -> list[pathlib.Path]:
  """Return the user's other work directories in the folder of this one."""
  found = []
  own = folder.resolve()
  with contextlib.suppress(OSError):
    for other in sorted(own.parent.iterdir()):
      with contextlib.suppress(OSError):
        place = other / 'store'
        mine = place.stat().st_uid == os.getuid()
        if other.resolve() != own and mine and place.is_dir():
          found.append(other)
  return found
