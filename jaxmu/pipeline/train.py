"""The training stages: originals, retrained and unlearned models, by shard."""

import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxmu import methods, models, training
from jaxmu.core.types import Variables
from jaxmu.execution import fallback, hardware, memory
from jaxmu.pipeline import curve, notes, roster, store
from jaxmu.pipeline import job as job_lib
from jaxmu.report import progress


def train(
  job: job_lib.Job,
  name: str,
  trainer: training.Trainer,
  bars: progress.Progress,
) -> None:
  """Train the missing shards of a population.

  Args:
    job: the job.
    name: which of its populations.
    trainer: for the population's method.
    bars: where to show progress.
  """
  people = job.populations[name]
  missing = people.models.missing(verify=job.settings.run.verify)
  if not missing:
    bars.line(f'{name}: {people.members.size} models found, nothing to train')
    return
  hparams = job_lib.hyper_parameters(people)
  epochs = int(people.method.num_epochs(prepared(job, people, hparams)))
  count = sum(len(people.positions(n)) for n in missing)
  recorder = curve.recorder(job, people)
  with bars.stage(
    f'train {name}', count * max(epochs, 1), unit='epochs'
  ) as stage:
    stage.note('compiling')
    show = _Show(stage, notes.on_smaller(job, f'train {name}', bars))
    for shard in missing:
      _train_shard(job, people, trainer, hparams, shard, recorder, show)
      if not epochs:
        stage.advance(len(people.positions(shard)))


class _Show:
  """Counts the epochs of a shard, and takes them back if it starts again."""

  def __init__(self, stage: progress.Stage, smaller: Callable[[int], None]):
    self._stage, self._smaller = stage, smaller
    self._counted = 0

  def epoch(self, members: int) -> None:
    self._stage.note('')
    self._stage.advance(members)
    self._counted += members

  def again(self, chunk: int) -> None:
    self._stage.advance(-self._counted)
    self._counted = 0
    self._stage.note('compiling')
    self._smaller(chunk)

  def done(self) -> None:
    self._counted = 0


def _train_shard(
  job: job_lib.Job,
  people: job_lib.Population,
  trainer: training.Trainer,
  hparams: Any,
  shard: int,
  recorder: curve.Recorder | None,
  show: _Show,
) -> None:
  members = select(people.members, people.positions(shard))
  shared = job.settings.seed_mode == 'reference'

  def attempt() -> tuple[training.Trained, float]:
    begin = time.perf_counter()
    loaded = trainer.load(
      [hparams] * members.size,
      roster.draw_keys(job.root, people.name, members, shared),
      roster.index_sets(job.design, members),
      starting_models(job, people, members),
    )
    devices = trainer.layout.devices
    memory.check(
      loaded.programs,
      held=memory.size_of(loaded.members) / devices,
      shared=memory.size_of(job.task.dataset),
      allowance=hardware.limit(devices, job.settings.run.memory),
    )
    trained = trainer.train(
      loaded,
      on_epoch=show.epoch,
      watch=recorder and recorder.start(members),
    )
    jax.block_until_ready(trained.variables)
    return trained, time.perf_counter() - begin

  def on_smaller(chunk: int) -> None:
    show.again(chunk)
    if recorder:
      recorder.narrow()

  trained, seconds = fallback.attempt(attempt, trainer, on_smaller=on_smaller)
  show.done()
  people.models.save(
    shard,
    models=trained.variables,
    arrays={
      'failed': trained.failed,
      **trained.infos,
      **(recorder.arrays() if recorder else {}),
    },
    info={
      'seconds': seconds,
      'members': [
        [int(x) for x in name]
        for name in zip(
          members.seed, members.split, members.forget_set, strict=True
        )
      ],
    },
  )


def starting_models(
  job: job_lib.Job, people: job_lib.Population, members: roster.Roster
) -> Variables:
  """Return fresh models for the baselines, trained originals for methods."""
  if people.name in methods.BASELINES:
    shared = job.settings.seed_mode == 'reference'
    keys = roster.weight_keys(job.root, members, shared)
    return training.fresh(job.task, keys)
  originals = job.populations['original']
  return read_models(
    job, originals, roster.originals_of(members, originals.members)
  )


def read_models(
  job: job_lib.Job, people: job_lib.Population, positions: np.ndarray
) -> Variables:
  """Read chosen members of a population from their shards, leaves [P, ...]."""
  shard_of = np.concatenate(
    [np.full(len(people.positions(n)), n) for n in range(people.models.size)]
  )
  first = np.searchsorted(shard_of, np.arange(people.models.size))
  chosen: list[Any] = [None] * len(positions)
  for shard in np.unique(shard_of[positions]):
    stacked = people.models.models(
      int(shard), shapes(job, len(people.positions(int(shard))))
    )
    for k in np.flatnonzero(shard_of[positions] == shard):
      local = positions[k] - first[shard]
      chosen[k] = jax.tree.map(lambda x, i=local: x[i], stacked)
  return jax.tree.map(lambda *leaves: np.stack(leaves), *chosen)


def shapes(job: job_lib.Job, size: int) -> Variables:
  """Return shapes and dtypes of `size` stacked models."""
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct((size, *x.shape), x.dtype), one_model(job)
  )


def one_model(job: job_lib.Job) -> Variables:
  """Return shapes and dtypes of a single model."""
  shape = job.task.dataset.image.shape[1:]
  return jax.eval_shape(
    lambda key: models.init(job.task.model, key, shape), job.root
  )


def select(members: roster.Roster, positions: np.ndarray) -> roster.Roster:
  """Return the members at the given positions."""
  return roster.Roster(*(field[positions] for field in members))


def prepared(job: job_lib.Job, people: job_lib.Population, hparams: Any) -> Any:
  """Return hyper-parameters after the method's exact counting."""
  one = select(people.members, np.zeros(1, np.int32))
  (counted,) = training.prepare(
    people.method,
    [hparams],
    job.task,
    roster.index_sets(job.design, one),
    shapes(job, 1),
  )
  return counted


def bytes_per_model(job: job_lib.Job) -> int:
  """Return the size of one model, parameters and running statistics."""
  return memory.size_of(one_model(job))


def failed(shelf: store.Shelf) -> np.ndarray:
  """Return the epoch in which each member failed, -1 if it did not, i64[P]."""
  return shelf.arrays('failed')
