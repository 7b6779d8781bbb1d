"""What happened while models were trained that a reader must know.

Which members failed and when; and, for methods that choose or disturb weights,
how many of those weights are dead, that is, only ever meet padding and have no
influence on any output (see `jaxmu.models.live_taps`).
"""

import math

import jax
import numpy as np

from jaxmu.core import method as method_lib
from jaxmu.ops import taps
from jaxmu.pipeline import job as job_lib
from jaxmu.pipeline import roster, train

_LISTED = 5  # failed members that are named one by one


def remarks(job: job_lib.Job) -> list[str]:
  """Return a sentence for each population that there is something to say of."""
  one = train.one_model(job)['params']
  total = sum(math.prod(x.shape) for x in jax.tree.leaves(one))
  dead = sum(taps.count_dead(job.task, one).values())
  found = []
  for name, people in job.populations.items():
    found += failures(name, train.failed(people.models), people.members)
    chosen = people.method.card.chosen
    if not dead or chosen is None:
      continue
    counts = np.full((1, 1), dead)
    if chosen.info:
      counts = people.models.arrays(chosen.info)
    found.append(chosen_dead(name, chosen, counts, dead, total))
  return found


def failures(
  name: str, failed: np.ndarray, members: roster.Roster
) -> list[str]:
  """Say which members failed, and when.

  Args:
    name: of the population.
    failed: epoch of the first loss that was not finite, the number of epochs if
      the result alone is not finite, -1 for members that did not fail; i64[P].
    members: who they are.
  """
  bad = np.flatnonzero(failed >= 0)
  if not bad.size:
    return []
  named = [
    f'epoch {failed[p]} (initialisation {members.seed[p]}, split '
    f'{members.split[p]}'
    + (f', forget set {members.forget_set[p]}' if name != 'original' else '')
    + ')'
    for p in bad[:_LISTED]
  ]
  more = bad.size - len(named)
  tail = f' and {more} more' if more else ''
  return [
    f'{name}: {bad.size} of {len(failed)} models were no longer finite, from '
    f'{"; ".join(named)}{tail}; the others went on undisturbed'
  ]


def chosen_dead(
  name: str,
  chosen: method_lib.Chosen,
  counts: np.ndarray,
  dead: int,
  total: int,
) -> str:
  """Say how many of the weights that a method chose are dead.

  Args:
    name: of the method.
    chosen: what it does to which weights.
    counts: dead weights among those of each epoch, f64[P, E]; NaN where a
      member was done.
    dead: dead weights of the network.
    total: all weights of the network.
  """
  over = np.nansum if chosen.anew else np.nanmax
  return (
    f'{name}: of the weights that it {chosen.verb}, '
    f'{over(counts, axis=1).mean():,.0f} (the mean over models) only ever meet '
    f'padding and have no influence, as do {dead:,} of the {total:,} weights '
    'of this network at this image size'
  )
