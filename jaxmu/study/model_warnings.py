"""Warnings of a report about trained models: failures and dead weights."""

import math

import jax
import numpy as np

from jaxmu import method
from jaxmu.methods.parts import weights
from jaxmu.study import job as job_lib
from jaxmu.study import stages

_LISTED = 5  # failed members that are named


def of_training(job: job_lib.Job) -> list[str]:
  """Return which members failed, and which chosen weights have no effect."""
  one = stages.one_model_shapes(job)['params']
  total = sum(math.prod(x.shape) for x in jax.tree.leaves(one))
  dead = sum(weights.count_dead(job.task, one).values())
  sentences = []
  for name, population in job.populations.items():
    sentences += failures(
      name, stages.failed_epochs(population.models), population.members
    )
    chosen = population.method.card.chosen
    if not dead or chosen is None:
      continue
    counts = np.full((1, 1), dead)
    if chosen.info:
      counts = population.models.arrays(chosen.info)
    if np.isfinite(counts).any():
      sentences.append(dead_weights(name, chosen, counts, dead, total))
  return sentences


def failures(
  name: str, failed: np.ndarray, members: job_lib.Members
) -> list[str]:
  """Say which members failed, and when.

  Args:
    name: of the population.
    failed: epoch of the first loss that was not finite, the number of epochs if
      the result alone is not finite, -1 for members that did not fail; i64[P].
    members: their names.
  """
  bad = np.flatnonzero(failed >= 0)
  if not bad.size:
    return []
  if bad.size == len(failed):
    first, last = int(failed.min()), int(failed.max())
    when = f'epoch {first}' if first == last else f'epochs {first} to {last}'
    which = f'all {bad.size} models' if bad.size > 1 else 'the only model'
    return [
      f'{name}: {which} failed, at {when}: losses or weights became non-finite.'
      ' Nothing can be concluded from these numbers'
    ]
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
    f'{name}: {bad.size} of {len(failed)} models became non-finite, at '
    f'{"; ".join(named)}{tail}; the others were not affected'
  ]


_DONE_TO_WEIGHTS = {
  'replaced': 'replaced',
  'selected': 'selected for training',
  'pruned': 'pruned',
  'noised': 'added noise to',
}


def dead_weights(
  name: str,
  chosen: method.Chosen,
  counts: np.ndarray,
  dead: int,
  total: int,
) -> str:
  """Say how many of the weights that a method chose are dead.

  Args:
    name: of the method.
    chosen: the weights, and what it does to them.
    counts: dead weights among those of each epoch, f64[P, E]; NaN where a
      member was done.
    dead: dead weights of the network.
    total: all weights of the network.
  """
  over = np.nansum if chosen.every_epoch else np.nanmax
  return (
    f'{name}: of the weights that it {_DONE_TO_WEIGHTS[chosen.action]}, '
    f'{over(counts, axis=1).mean():,.0f} (the mean over models) only multiply '
    f'padding and have no effect, as do {dead:,} of the {total:,} weights '
    'of this network at this image size'
  )
