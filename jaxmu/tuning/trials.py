"""Evaluate trials: unlearn with many settings at once and measure the models.

A trial is one setting on one initialisation. Trials that agree in their static
hyper-parameters are members of one population and differ in every other value,
epochs included. They are ordered by their epochs and trained in shards of one
size, so that a method compiles once per static choice. Members whose loss is
not finite stop at once.

Each shard is stored when it is finished, so an interrupted search trains at
most one shard again. The draws of a trial depend on its initialisation alone,
not on its number: all settings are compared on the same noise.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxmu import hparams as hp
from jaxmu import methods
from jaxmu import population as population_lib
from jaxmu.attacks import log_odds, single_model
from jaxmu.metrics import indiscernibility
from jaxmu.population import Predictions, Predictor, Trained, Trainer
from jaxmu.report import progress
from jaxmu.study import execution, stages, store
from jaxmu.study import job as job_lib
from jaxmu.types import Split, Variables


class Trial(NamedTuple):
  """One setting on one initialisation.

  Attributes:
    setting: all hyper-parameters as plain values.
    initialisation: position of the original and the retrained model, from 0.
  """

  setting: Mapping[str, Any]
  initialisation: int


class Outcomes(NamedTuple):
  """What is measured of T models.

  Attributes:
    retain, forget, val: accuracy on the three sets, f64[T].
    indisc: 1 - |2 MIA - 1| of the population attack, forget against validation
      (arXiv 2410.01276), f64[T]; NaN where it cannot be computed.
    failed: epoch in which a model failed, -1 if it did not, i64[T]; the number
      of epochs of its shard if only its outputs are not finite.
    seconds: share of the time of the model's shard, f64[T].
  """

  retain: np.ndarray
  forget: np.ndarray
  val: np.ndarray
  indisc: np.ndarray
  failed: np.ndarray
  seconds: np.ndarray


class Evaluator:
  """Evaluates trials of one method; keeps its compiled programs.

  Args:
    job: opened, with trained originals and retrained models; one member per
      initialisation.
    method: by name or as a plug-in; 'original' trains original models.
    bars: where to say that memory ran out.
  """

  def __init__(self, job: job_lib.Job, method: str, bars: progress.Progress):
    self._job, self._bars = job, bars
    self._spec = method
    self.method = methods.get(method)
    self._trainer = Trainer(self.method, job.task, job.layout)
    self._predictor = Predictor(job.task, job.layout)
    seeds = job.settings.splits.seeds
    self._from_scratch = self.method.name in methods.BASELINES
    if self._from_scratch:
      self._members = job_lib.members_per_split(job.design, seeds)
      self._starts = stages.fresh_models(job, self._members)
      return
    self._members = job_lib.members_per_forget_set(job.design, seeds)
    original = job.populations['original']
    self._starts = stages.read_models(
      job, original, job_lib.originals_of(self._members, original.members)
    )

  @property
  def size(self) -> int:
    """Number of initialisations."""
    return self._members.size

  @property
  def programs(self) -> int:
    """Number of training programs compiled so far."""
    return self._trainer.num_programs

  def originals(self) -> Outcomes:
    """Measure the models that unlearning starts from, one each."""
    return self._measure_all(self._starts)

  def retrained(self) -> Outcomes | None:
    """Measure the retrained models, one per initialisation; None without."""
    population = self._job.populations.get('retrain')
    if population is None:
      return None
    everyone = np.arange(self.size)
    return self._measure_all(
      stages.read_models(self._job, population, everyone)
    )

  def evaluate(
    self,
    trials: Sequence[Trial],
    on_shard: Callable[[np.ndarray, Outcomes | None], None],
  ) -> Outcomes:
    """Train and measure trials, or read what is stored of them.

    Args:
      trials: the trials, in any order.
      on_shard: called with the positions of each shard, and with its outcomes
        if it was trained now.

    Returns:
      Their outcomes in the same order.
    """
    hparams = [
      hp.from_config(self.method.Hparams, trial.setting) for trial in trials
    ]
    order = self._shards(hparams)
    names = tuple(
      tuple((trials[t].initialisation, int(t)) for t in shard)
      for shard in order
    )
    shelf = store.Shelf(
      self._job.folder / 'store',
      'search',
      self.method.name,
      self._address(trials),
      names,
    )
    missing = shelf.missing(verify=self._job.settings.run.verify)
    for number in sorted({*range(shelf.size)} - {*missing}):
      on_shard(order[number], None)
    for number in missing:
      shard = order[number]
      outcomes = self._shard(
        [hparams[t] for t in shard], [trials[t].initialisation for t in shard]
      )
      shelf.save(number, arrays=outcomes._asdict())
      on_shard(shard, outcomes)
    position = np.argsort(np.concatenate(order))
    return Outcomes(*(shelf.arrays(f)[position] for f in Outcomes._fields))

  def _address(self, trials: Sequence[Trial]) -> str:
    job = self._job
    start: Any = job.populations['original'].digest
    if self._from_scratch:  # whatever recipe the job itself has
      start = job_lib.common_inputs(job.settings, job.source, job.split_digest)
    return job_lib.address(
      'search',
      start,
      self.method.name,
      methods.METHODS.fingerprint(self._spec),
      [[dict(t.setting), t.initialisation] for t in trials],
    )

  def _shards(self, hparams: Sequence[Any]) -> list[np.ndarray]:
    """Divide trials into shards of equal statics and similar epochs."""
    size = self._job.settings.run.shard
    one = stages.select_members(self._members, np.zeros(1, np.int32))
    prepared = population_lib.prepare_hparams(
      self.method,
      hparams,
      self._job.task,
      job_lib.index_sets(self._job.design, one),
      stages.model_shapes(self._job, 1),
    )
    epochs = np.array([int(self.method.num_epochs(h)) for h in prepared])
    groups = list(hp.group_by_static(hparams).values())
    return shard_order(epochs, groups, size)

  def _shard(
    self, hparams: Sequence[Any], initialisations: Sequence[int]
  ) -> Outcomes:
    """Train and measure one shard, padded to the size of all shards."""
    begin = time.perf_counter()
    job, count = self._job, len(hparams)
    size = job.settings.run.shard
    # Devices take contiguous members; dealing the members out by turns gives
    # each device the same number of epochs.
    devices = job.layout.devices
    padded = np.minimum(np.arange(size), count - 1)
    dealt = np.concatenate(
      [np.arange(size)[k::devices] for k in range(devices)]
    )
    order, real = padded[dealt], dealt < count
    chosen = np.asarray(initialisations)[order]
    members = stages.select_members(self._members, chosen)
    shared = job.settings.seed_mode == 'reference'

    def attempt() -> Trained:
      loaded = self._trainer.load(
        [hparams[p] for p in order],
        job_lib.draw_keys(job.root, self.method.name, members, shared),
        job_lib.index_sets(job.design, members),
        jax.tree.map(lambda x: x[chosen], self._starts),
      )
      return self._trainer.train(loaded, takes_part=real, stop_failed=True)

    trained = execution.retry_smaller(
      attempt,
      self._trainer,
      on_smaller=stages.on_smaller_chunk(
        job, f'search {self.method.name}', self._bars
      ),
    )
    measured = self._measure(trained.variables, chosen)
    back = np.argsort(dealt)[:count]
    outcomes = Outcomes(*(np.asarray(field)[back] for field in measured))
    failed = np.where(
      (trained.failed[back] < 0) & (outcomes.failed >= 0),
      trained.losses.shape[1],  # after the last epoch
      trained.failed[back],
    )
    seconds = np.full(count, (time.perf_counter() - begin) / count)
    return outcomes._replace(failed=failed, seconds=seconds)

  def _measure_all(self, variables: Variables) -> Outcomes:
    return self._measure(variables, np.arange(self.size))

  def _measure(
    self, variables: Variables, initialisation: np.ndarray
  ) -> Outcomes:
    members = stages.select_members(self._members, initialisation)
    sets = job_lib.index_sets(self._job.design, members)
    # The attack's seeded shuffle depends on the order, which is that of a job.
    forget = np.sort(sets.forget, axis=1)
    index = np.concatenate([sets.retain, forget, sets.val], axis=1)
    return measure(self._predictor.run(variables, index), sets)


def shard_order(
  epochs: np.ndarray, groups: Sequence[Sequence[int]], size: int
) -> list[np.ndarray]:
  """Divide trials into shards, the longest trials of each group first.

  Members of a shard wait for the longest one where they are vmapped, so similar
  numbers of epochs belong together.

  Args:
    epochs: i64[T].
    groups: positions of trials that one program can train.
    size: most trials in a shard.
  """
  shards = []
  for group in groups:
    order = np.argsort(-epochs[list(group)], kind='stable')
    longest_first = np.array(group)[order]
    shards += [
      longest_first[start : start + size]
      for start in range(0, len(longest_first), size)
    ]
  return shards


def measure(predictions: Predictions, sets: Split) -> Outcomes:
  """Return the accuracies and the population attack of each model.

  The predictions are made on the device for all models together. These numbers
  are computed from them on the host in double precision, as in a job's report.

  Args:
    predictions: [T, R + F + V] of the retain, forget and validation sets.
    sets: the index sets of each model, whose sizes are used.
  """
  sizes = [part.shape[1] for part in (sets.retain, sets.forget, sets.val)]
  ends = np.cumsum(sizes)[:-1]
  correct = np.split(np.asarray(predictions.correct), ends, axis=1)
  loss = log_odds.loss_from_log_odds(
    np.asarray(predictions.log_odds, np.float64)
  )
  _, forget, val = np.split(loss, ends, axis=1)
  count = len(loss)
  mia = np.full(count, np.nan)
  if min(sizes[1:]) >= single_model.FOLDS:
    mia = single_model.population_mia(forget, val)
  finite = np.asarray(predictions.finite).all(axis=1)
  return Outcomes(
    *(part.mean(axis=1) for part in correct),
    indisc=indiscernibility.indiscernibility(mia),
    failed=np.where(finite, -1, 0),
    seconds=np.zeros(count),
  )
