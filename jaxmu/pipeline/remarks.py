"""What happened while models were trained that a reader must know.

Which members failed and when; and, for methods that choose or disturb weights,
how many of those weights are dead, that is, only ever meet padding and have no
influence on any output (see `jaxmu.models.live_taps`).
"""

import jax
import numpy as np

from jaxmu.ops import taps
from jaxmu.pipeline import job as job_lib
from jaxmu.pipeline import roster, train

# What methods call the dead weights among those that they choose.
_CHOSEN = {
  'dead_in_mask': 'selected for training',
  'dead_noised': 'added noise to',
  'dead_pruned': 'pruned',
  'dead_renewed': 'replaced',
}
# Has no epochs to report from; its noise falls on every weight.
_DISTURBS_ALL = ('ff',)
_LISTED = 5  # failed members that are named one by one


def remarks(job: job_lib.Job) -> list[str]:
  """Return a sentence for each population that there is something to say of."""
  params = train.shapes(job, 1)['params']
  one = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), params
  )
  total = sum(int(np.prod(x.shape)) for x in jax.tree.leaves(one))
  dead = sum(taps.count_dead(job.task, one).values())
  found = []
  for name, people in job.populations.items():
    found += failures(name, train.failed(people.models), people.members)
    if not dead:
      continue
    for info, verb in _CHOSEN.items():
      if people.models.has(0, info):
        counts = people.models.arrays(info)
        found.append(chosen_dead(name, verb, counts, dead, total))
    if name in _DISTURBS_ALL:
      counts = np.full((1, 1), dead)
      verb = _CHOSEN['dead_noised']
      found.append(chosen_dead(name, verb, counts, dead, total))
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
  name: str, verb: str, counts: np.ndarray, dead: int, total: int
) -> str:
  """Say how many of the weights that a method chose are dead.

  Args:
    name: of the method.
    verb: what it did to them.
    counts: dead weights among those of each epoch, f64[P, E]; NaN where a
      member was done.
    dead: dead weights of the network.
    total: all weights of the network.
  """
  highest = np.nanmax(counts, axis=1)  # a mask is reported in every epoch
  return (
    f'{name}: of the weights that it {verb}, {highest.mean():,.0f} (the mean '
    f'over models) only ever meet padding and have no influence, as do '
    f'{dead:,} of the {total:,} weights of this network at this image size'
  )
