"""The training stages: originals, retrained and unlearned models, by shard.

What is remembered of a job's model on this machine, and what it is used for.

The notes lie in the cache folder of data sets, so that work directories share
them.

Learning curves: how accuracy grows while models are trained.

The driver scores between epochs, on the test set and on as many retained
examples; methods know nothing of it. A curve lies with the shard of its models
and is no part of their address.

The prediction stage: log-odds of every example under every model.

The timing stage: how long one member takes, compilation apart.

A population run says nothing about the run time of a method, since many models
share the machine. Here one member runs alone on one device, several times, in
the program that trained the population; surgery and all epochs are in the
clock, data are already on the device. The clock stops when the result is there.
"""

import csv
import dataclasses
import functools
import io
import pathlib
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxmu import __version__, files, methods, models, population
from jaxmu.data import datasets
from jaxmu.report import progress
from jaxmu.study import execution, store
from jaxmu.study import job as job_lib
from jaxmu.types import Variables


def measurement_cache(job: job_lib.Job) -> execution.MeasurementCache:
  """Open the notes on this model and this machine."""
  return execution.MeasurementCache(
    datasets.default_cache_dir(), measurement_facts(job)
  )


def measurement_facts(job: job_lib.Job) -> dict[str, Any]:
  """Return everything a measurement depends on."""
  machine = job_lib.hardware_facts()
  versions = job_lib.versions()
  return {
    'model': job.settings.model,
    'options': job.settings.all_model_options,
    'precision': job.settings.precision,
    'classes': job.source.num_classes,
    'image': list(job.task.dataset.image.shape[1:]),
    'transform': dataclasses.asdict(job.task.transform),
    'batch_size': job.settings.train['batch_size'],
    'hardware': {k: machine[k] for k in ('backend', 'device', 'processor')},
    'cores': execution.cores(),
    'jax': [versions['jax'], versions['jaxlib']],
    'jaxmu': __version__,
  }


def stage_layout(job: job_lib.Job, stage: str) -> population.Layout:
  """Return the layout of a stage, with chunks that fitted into memory before.

  Args:
    job: the job.
    stage: e.g. 'train scrub'.
  """
  if job.layout.chunk == 1 or job.settings.run.chunk:
    return job.layout
  most = measurement_cache(job).read().most_chunk.get(stage, job.layout.chunk)
  return dataclasses.replace(job.layout, chunk=min(job.layout.chunk, most))


def on_smaller_chunk(
  job: job_lib.Job, stage: str, bars: progress.Progress
) -> Callable[[int], None]:
  """Return what is to be done when a stage runs out of memory.

  It says so beside the progress and remembers the chunk that is left.
  """

  def act(chunk: int) -> None:
    bars.line(f'{stage}: memory ran out; again in chunks of {chunk}')
    measurement_cache(job).ran_out(stage, chunk)

  return act


CURVE_SETS = ('test', 'retain')
CURVE_FILE = 'curves.csv'
Curves = dict[str, np.ndarray]  # by set, f64[P, E], NaN where not scored


class CurveRecorder:
  """Scores the models of one shard after another while they are trained."""

  def __init__(self, job: job_lib.Job, people: job_lib.Population):
    self._design = job.design
    self._every = job.settings.curve.every
    self._epochs = int(people.hparams['num_epochs'])
    self._test = np.arange(
      job.source.num_dev, len(job.source.label), dtype=np.int32
    )
    self._predictor = population.Predictor(job.task, job.layout)
    self._index = np.zeros((0, 0), np.int32)
    self._curves: Curves = {}

  def start(self, members: job_lib.Members) -> population.Watch:
    """Begin a shard; give the result to `training.Trainer.train`."""
    retain = evenly(self._design.retain[members.row], len(self._test))
    test = np.tile(self._test, (members.size, 1))
    self._index = np.concatenate([test, retain], axis=1)
    empty = np.full((members.size, self._epochs), np.nan)
    self._curves = {name: empty.copy() for name in CURVE_SETS}
    return self._watch

  def _watch(self, epoch: int, models: Callable[[], Variables]) -> None:
    done = epoch + 1
    if done % self._every and done < self._epochs:
      return
    correct = self._predictor.run(models(), self._index).correct
    parts = np.split(correct, [len(self._test)], axis=1)
    for name, part in zip(CURVE_SETS, parts, strict=True):
      self._curves[name][:, epoch] = part.mean(axis=1)

  def narrow(self) -> None:
    """Score in smaller chunks, after memory ran out."""
    self._predictor.narrow()

  def arrays(self) -> dict[str, np.ndarray]:
    """Return the curves of the shard under the names they are stored by."""
    return {_stored(name): curve for name, curve in self._curves.items()}


def curve_recorder(
  job: job_lib.Job, people: job_lib.Population
) -> CurveRecorder | None:
  """Return a recorder where the settings ask for curves, else None."""
  asked = job.settings.curve.every and people.name in methods.BASELINES
  return CurveRecorder(job, people) if asked else None


def evenly(index: np.ndarray, count: int) -> np.ndarray:
  """Take `count` of [P, n] columns at even distances, or all if n is less.

  Evenly, because the examples of a set may stand in the order of their classes.
  """
  size = index.shape[1]
  count = min(count, size)
  return index[:, np.arange(count) * size // count].astype(np.int32)


def shards_with_curves(people: job_lib.Population) -> list[int]:
  """Return the shards that hold curves."""
  shards = range(people.models.size)
  return [n for n in shards if people.models.has(n, _stored(CURVE_SETS[0]))]


def read_curves(people: job_lib.Population) -> Curves | None:
  """Return the curves of all members, NaN for shards without; None if all."""
  with_curves = shards_with_curves(people)
  if not with_curves:
    return None
  epochs = int(people.hparams['num_epochs'])

  def of(shard: int, name: str) -> np.ndarray:
    if shard in with_curves:
      return people.models.array(shard, _stored(name))
    return np.full((len(people.positions(shard)), epochs), np.nan)

  shards = range(people.models.size)
  return {
    name: np.concatenate([of(n, name) for n in shards]) for name in CURVE_SETS
  }


def curve_warnings(job: job_lib.Job) -> list[str]:
  """Say which models have no curve although the settings ask for them."""
  if not job.settings.curve.every:
    return []
  found = []
  for name in methods.BASELINES:
    people = job.populations[name]
    shards = set(range(people.models.size)) - set(shards_with_curves(people))
    without = sum(len(people.positions(n)) for n in shards)
    if without:
      found.append(
        f'{name}: no learning curve of {without} of {people.members.size} '
        'models, which were trained without; they are not trained again '
        '(choose another config.workdir for that)'
      )
  return found


def write_curves(job: job_lib.Job) -> list[pathlib.Path]:
  """Write all curves as CSV, one row per member and scored epoch.

  Returns:
    The path, or nothing where no curves are recorded; a file of an earlier job
    is then removed.
  """
  path = job.folder / CURVE_FILE
  text = _csv(job)
  if text:
    return [files.write_text(path, text)]
  path.unlink(missing_ok=True)
  return []


def _csv(job: job_lib.Job) -> str:
  out = io.StringIO()
  writer = csv.writer(out, lineterminator='\n')
  writer.writerow(
    ['method', 'seed', 'split', 'forget_set', 'epoch', *CURVE_SETS]
  )
  rows = 0
  for name, people in job.populations.items():
    curves = read_curves(people)
    if curves is None:
      continue
    member = people.members
    for p, e in np.argwhere(np.isfinite(curves['test'])):
      names = (member.seed[p], member.split[p], member.forget_set[p])
      values = [f'{curves[k][p, e]:.6g}' for k in CURVE_SETS]
      writer.writerow([name, *names, e + 1, *values])
      rows += 1
  return out.getvalue() if rows else ''


def _stored(name: str) -> str:
  return f'curve_{name}'


def train(
  job: job_lib.Job,
  name: str,
  trainer: population.Trainer,
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
  epochs = int(people.method.num_epochs(counted_hparams(job, people, hparams)))
  count = sum(len(people.positions(n)) for n in missing)
  recorder = curve_recorder(job, people)
  with bars.stage(
    f'train {name}', count * max(epochs, 1), unit='epochs'
  ) as stage:
    stage.note('compiling')
    show = _Show(stage, on_smaller_chunk(job, f'train {name}', bars))
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
  trainer: population.Trainer,
  hparams: Any,
  shard: int,
  recorder: CurveRecorder | None,
  show: _Show,
) -> None:
  members = select_members(people.members, people.positions(shard))
  shared = job.settings.seed_mode == 'reference'

  def attempt() -> tuple[population.Trained, float]:
    begin = time.perf_counter()
    loaded = trainer.load(
      [hparams] * members.size,
      job_lib.draw_keys(job.root, people.name, members, shared),
      job_lib.index_sets(job.design, members),
      starting_models(job, people, members),
    )
    devices = trainer.layout.devices
    execution.check_memory(
      loaded.programs,
      held=execution.bytes_of(loaded.members) / devices,
      shared=execution.bytes_of(job.task.dataset),
      allowance=execution.memory_limit(devices, job.settings.run.memory),
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

  trained, seconds = execution.retry_smaller(
    attempt, trainer, on_smaller=on_smaller
  )
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
  job: job_lib.Job, people: job_lib.Population, members: job_lib.Members
) -> Variables:
  """Return fresh models for the baselines, trained originals for methods."""
  if people.name in methods.BASELINES:
    shared = job.settings.seed_mode == 'reference'
    keys = job_lib.weight_keys(job.root, members, shared)
    return population.initial_variables(job.task, keys)
  originals = job.populations['original']
  return read_models(
    job, originals, job_lib.originals_of(members, originals.members)
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
      int(shard), model_shapes(job, len(people.positions(int(shard))))
    )
    for k in np.flatnonzero(shard_of[positions] == shard):
      local = positions[k] - first[shard]
      chosen[k] = jax.tree.map(lambda x, i=local: x[i], stacked)
  return jax.tree.map(lambda *leaves: np.stack(leaves), *chosen)


def model_shapes(job: job_lib.Job, size: int) -> Variables:
  """Return shapes and dtypes of `size` stacked models."""
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct((size, *x.shape), x.dtype),
    one_model_shapes(job),
  )


def one_model_shapes(job: job_lib.Job) -> Variables:
  """Return shapes and dtypes of a single model."""
  shape = job.task.dataset.image.shape[1:]
  return jax.eval_shape(
    lambda key: models.init(job.task.model, key, shape), job.root
  )


def select_members(
  members: job_lib.Members, positions: np.ndarray
) -> job_lib.Members:
  """Return the members at the given positions."""
  return job_lib.Members(*(field[positions] for field in members))


def counted_hparams(
  job: job_lib.Job, people: job_lib.Population, hparams: Any
) -> Any:
  """Return hyper-parameters after the method's exact counting."""
  one = select_members(people.members, np.zeros(1, np.int32))
  (counted,) = population.prepare_hparams(
    people.method,
    [hparams],
    job.task,
    job_lib.index_sets(job.design, one),
    model_shapes(job, 1),
  )
  return counted


def bytes_per_model(job: job_lib.Job) -> int:
  """Return the size of one model, parameters and running statistics."""
  return execution.bytes_of(one_model_shapes(job))


def failed_epochs(shelf: store.Shelf) -> np.ndarray:
  """Return the epoch in which each member failed, -1 if it did not, i64[P]."""
  return shelf.arrays('failed')


def predict(
  job: job_lib.Job,
  name: str,
  bars: progress.Progress,
  predictors: dict[population.Layout, population.Predictor] | None = None,
) -> None:
  """Score all examples with the missing shards of a population.

  Args:
    job: the job.
    name: which of its populations.
    bars: where to show progress.
    predictors: the compiled programs so far, to which a new one is added; all
      populations of a layout share one.
  """
  people = job.populations[name]
  missing = people.scores.missing(verify=job.settings.run.verify)
  if not missing:
    bars.line(f'{name}: predictions found')
    return
  label = f'predict {name}'
  predictors = {} if predictors is None else predictors
  layout = stage_layout(job, label)
  if layout not in predictors:
    predictors[layout] = population.Predictor(job.task, layout)
  predictor = predictors[layout]
  count = sum(len(people.positions(n)) for n in missing)
  with bars.stage(label, count, unit='models') as stage:
    for shard in missing:
      positions = people.positions(shard)
      variables = people.models.models(shard, model_shapes(job, len(positions)))
      found = execution.retry_smaller(
        functools.partial(predictor.run, variables),
        predictor,
        on_smaller=on_smaller_chunk(job, label, bars),
      )
      people.scores.save(shard, arrays=found._asdict())
      stage.advance(len(positions))


def read_predictions(people: job_lib.Population) -> population.Predictions:
  """Read the predictions of a whole population."""
  fields = population.Predictions._fields
  arrays = {field: people.scores.arrays(field) for field in fields}
  return population.Predictions(
    log_odds=np.asarray(arrays['log_odds']),
    correct=np.asarray(arrays['correct']),
    finite=np.asarray(arrays['finite']),
  )


def timing_shelf(job: job_lib.Job, name: str) -> store.Shelf:
  """Return where the times of a population lie."""
  address = files.digest(
    'timing',
    job_lib.STAGE_VERSIONS['timing'],
    job.populations[name].digest,
    dataclasses.asdict(job.settings.timing),
    jax.devices()[0].device_kind,
  )
  return job.shelf('timing', name, address)


def measure_time(
  job: job_lib.Job,
  name: str,
  trainer: population.Trainer,
  bars: progress.Progress,
) -> None:
  """Time one member of a population, unless that was done before.

  Args:
    job: the job.
    name: which population.
    trainer: that of the population; compiles only what is new to it.
    bars: where to show progress.
  """
  place = timing_shelf(job, name)
  if not place.missing():
    bars.line(f'{name}: run time found')
    return
  repeats = job.settings.timing.repeats
  with bars.stage(f'time {name}', repeats + 1, unit='runs') as stage:
    trainer, loaded, only = _load(job, name, trainer)
    seconds = []
    for _ in range(repeats + 1):
      begin = time.perf_counter()
      jax.block_until_ready(trainer.train(loaded, only=only).variables)
      seconds.append(time.perf_counter() - begin)
      stage.advance(1)
  # The first run warms caches; it is not counted.
  place.save(
    0,
    info={
      'warm_seconds': seconds[1:],
      'compile_seconds': trainer.compile_seconds,
    },
  )


def _load(
  job: job_lib.Job, name: str, trainer: population.Trainer
) -> tuple[population.Trainer, population.Loaded, int | None]:
  people = job.populations[name]
  # A program of its own where members are vmapped; else one of a shard, so
  # that the shard's program serves.
  alone = trainer.layout.chunk > 1
  if alone:
    trainer = population.Trainer(
      people.method, job.task, population.Layout(1, 1)
    )
  positions = np.zeros(1, np.int32) if alone else people.positions(0)
  members = select_members(people.members, positions)
  loaded = trainer.load(
    [job_lib.hyper_parameters(people)] * members.size,
    job_lib.draw_keys(job.root, name, members, shared=False),
    job_lib.index_sets(job.design, members),
    starting_models(job, people, members),
  )
  return trainer, loaded, None if alone else 0


def warm_seconds(job: job_lib.Job, name: str) -> float:
  """Return the median of the warm runs, in seconds."""
  return float(np.median(timing_shelf(job, name).info()['warm_seconds']))


def cold_seconds(job: job_lib.Job, name: str) -> float:
  """Return the time of a run including compilation, in seconds."""
  info = timing_shelf(job, name).info()
  return warm_seconds(job, name) + float(info['compile_seconds'])
