"""Finds out before training what would fail after it.

Every method's program is traced for one member, which takes a second or two and
no memory, and the room on the disk is compared with what will be written.
"""

import jax
import jax.numpy as jnp
import numpy as np

from jaxmu.core.draws import Draws
from jaxmu.core.types import Problem, Split
from jaxmu.pipeline import job as job_lib
from jaxmu.pipeline import plan, roster, train, workdir


def check(job: job_lib.Job, stages: list[plan.Step]) -> None:
  """Refuse a job that cannot come to its end.

  Raises:
    ValueError: a model does not fit a method, or the disk is too small.
  """
  for people in job.populations.values():
    _trace(job, people)
  workdir.check_room(job.folder, plan.bytes_to_write(stages))


def _trace(job: job_lib.Job, people: job_lib.Population) -> None:
  """Trace a member's program without running it, to find what does not fit.

  Raises:
    ValueError: from the method or the model, with the population's name.
  """
  one = train.select(people.members, np.zeros(1, np.int32))
  split = jax.tree.map(lambda x: x[0], roster.index_sets(job.design, one))
  shapes = train.one_model(job)
  method = people.method

  def member(hparams, key, split, original):
    problem = Problem(job.task, split, original)
    state = method.init(hparams, Draws(key).at('init'), problem)
    draws = Draws(key).at('epoch', jnp.int32(0))
    method.epoch(hparams, draws, problem, state, jnp.int32(0))

  try:
    hparams = train.prepared(job, people, job_lib.hyper_parameters(people))
    jax.eval_shape(member, hparams, job.root, Split(*_leaves(split)), shapes)
  except ValueError as error:
    raise ValueError(f'{people.name}: {error}') from error


def _leaves(split: Split) -> tuple[jax.Array, ...]:
  return tuple(jnp.asarray(x) for x in (split.retain, split.forget, split.val))
