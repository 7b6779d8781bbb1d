"""The stages of a job that compute: train, time, predict; shard by shard.

Each stage computes only what is missing in the store. `stage_layout` gives the
number of members that run at once; when memory runs out, a stage continues in
smaller chunks, which are stored for later jobs on this machine.

Learning curves give the accuracy while originals and retrained models are
trained. Models are scored between epochs, outside the methods, on the test set
and on the same number of retained examples. A curve is stored with the shard of
its models and does not change their address.
"""

import csv
import dataclasses
import functools
import io
import pathlib
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any

import jax
import numpy as np

from jaxmu import __version__, files, methods, models, terms
from jaxmu.population import (
  Layout,
  Loaded,
  Predictions,
  Predictor,
  Trained,
  Trainer,
  Watch,
  initial_variables,
  prepare_hparams,
)
from jaxmu.report import progress
from jaxmu.study import execution, originals, store
from jaxmu.study import job as job_lib
from jaxmu.study.settings import Settings
from jaxmu.types import Key, Split, Transform, Variables

CURVE_SETS = ('test', 'retain')
CURVES_FILE = 'curves.csv'
Curves = dict[str, np.ndarray]  # by set, f64[P, E], NaN where not scored


def train(
  job: job_lib.Job,
  name: str,
  trainer: Trainer,
  bars: progress.Progress,
  shards: Collection[int] | None = None,
) -> None:
  """Train the missing shards of a population, or read them from checkpoints.

  Args:
    job: the job.
    name: which of its populations.
    trainer: for the population's method.
    bars: where to show progress.
    shards: which of the missing shards; None for all.
  """
  population = job.populations[name]
  missing = _missing(job, population.models, shards)
  if not missing:
    count = population.count(_chosen(population.models, shards))
    bars.line(f'{name}: {terms.count(count, "model")} in the store')
  elif population.checkpoints:
    _read_checkpoints(job, population, missing, bars)
  else:
    _train_shards(job, population, missing, trainer, bars)
  failed = [
    population.models.array(n, 'failed')
    for n in _chosen(population.models, shards)
  ]
  line = failure_line(name, np.concatenate(failed))
  if line:
    bars.line(line)


def trainer(job: job_lib.Job, name: str) -> Trainer:
  """Return the trainer of a population; programs are compiled when needed."""
  layout = stage_layout(job, f'train {name}')
  return Trainer(job.populations[name].method, job.task, layout)


def _chosen(shelf: store.Shelf, shards: Collection[int] | None) -> list[int]:
  return [n for n in range(shelf.size) if shards is None or n in shards]


def _missing(
  job: job_lib.Job, shelf: store.Shelf, shards: Collection[int] | None
) -> list[int]:
  """Return the missing ones of some shards."""
  verify = job.settings.run.verify
  return shelf.missing(verify=verify, among=_chosen(shelf, shards))


class CurveRecorder:
  """Scores the models of each shard while they are trained."""

  def __init__(self, job: job_lib.Job, population: job_lib.Population):
    self._design = job.design
    self._every = job.settings.curve.every
    self._epochs = int(population.hparams['num_epochs'])
    self._test = np.arange(
      job.source.num_dev, len(job.source.label), dtype=np.int32
    )
    self._predictor = Predictor(job.task, job.layout)
    self._index = np.zeros((0, 0), np.int32)
    self._curves: Curves = {}

  def start(self, members: job_lib.Members) -> Watch:
    """Begin a shard; give the result to `Trainer.train`."""
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
    return {_curve_name(name): curve for name, curve in self._curves.items()}


def curve_recorder(
  job: job_lib.Job, population: job_lib.Population
) -> CurveRecorder | None:
  """Return a recorder where the settings ask for curves, else None."""
  wanted = job.settings.curve.every and population.name in methods.BASELINES
  return CurveRecorder(job, population) if wanted else None


def evenly(index: np.ndarray, count: int) -> np.ndarray:
  """Take `count` of [P, n] columns at even distances, or all if n is less.

  The columns are spread evenly, since examples may be sorted by class.
  """
  size = index.shape[1]
  count = min(count, size)
  return index[:, np.arange(count) * size // count].astype(np.int32)


def _train_shards(
  job: job_lib.Job,
  population: job_lib.Population,
  missing: list[int],
  trainer: Trainer,
  bars: progress.Progress,
) -> None:
  name = population.name
  hparams = job_lib.hyper_parameters(population)
  counted = counted_hparams(job, population, hparams)
  epochs = int(population.method.num_epochs(counted))
  count = population.count(missing)
  recorder = curve_recorder(job, population)
  unit = f'epochs of {terms.count(count, "model")}' if epochs else 'models'
  with bars.stage(
    f'train {name}',
    count * max(epochs, 1),
    unit=unit,
    per=count if epochs else 1,
  ) as stage:
    stage.note('compiling')
    counter = _Counter(stage, on_smaller_chunk(job, f'train {name}', bars))
    for shard in missing:
      _train_shard(job, population, trainer, shard, recorder, counter)
      if not epochs:
        stage.advance(population.count([shard]))


class _Counter:
  """Counts the epochs of a shard, and resets if the shard starts again."""

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
  population: job_lib.Population,
  trainer: Trainer,
  shard: int,
  recorder: CurveRecorder | None,
  counter: _Counter,
) -> None:
  members = select_members(population.members, population.positions(shard))
  shared = job.settings.seed_mode == 'reference'
  inputs = training_inputs(job, population, members, shared=shared)

  def attempt() -> tuple[Trained, float]:
    begin = time.perf_counter()
    starts = starting_models(job, population, members)
    loaded = trainer.load(*inputs, starts)
    devices = trainer.layout.devices
    execution.check_memory(
      loaded.programs,
      resident=execution.bytes_of(loaded.members) / devices,
      shared=execution.shared_bytes(devices, job.task.dataset),
      allowance=execution.memory_limit(devices, job.settings.run.memory),
    )
    trained = trainer.train(
      loaded,
      on_epoch=counter.epoch,
      watch=recorder and recorder.start(members),
    )
    jax.block_until_ready(trained.variables)
    return trained, time.perf_counter() - begin

  def on_smaller(chunk: int) -> None:
    counter.again(chunk)
    if recorder:
      recorder.narrow()

  trained, seconds = execution.retry_smaller(
    attempt, trainer, on_smaller=on_smaller
  )
  counter.done()
  population.models.save(
    shard,
    models=trained.variables,
    arrays={
      'failed': trained.failed,
      **trained.infos,
      **(recorder.arrays() if recorder else {}),
    },
    info={'seconds': seconds},
  )


def _read_checkpoints(
  job: job_lib.Job,
  population: job_lib.Population,
  missing: list[int],
  bars: progress.Progress,
) -> None:
  like = one_model_shapes(job)
  count = population.count(missing)
  with bars.stage(f'read {population.name}', count, unit='models') as stage:
    for shard in missing:
      positions = population.positions(shard)
      paths = [population.checkpoints[p] for p in positions]
      variables = originals.read(job.task.model, paths, like)
      finite = originals.all_finite(variables)
      population.models.save(
        shard,
        models=variables,
        arrays={'failed': np.where(finite, -1, 0)},
        info={'checkpoints': [str(path) for path in paths]},
      )
      stage.advance(len(positions))


def failed_epochs(shelf: store.Shelf) -> np.ndarray:
  """Return the epoch in which each member failed, -1 if it did not, i64[P]."""
  return shelf.arrays('failed')


def failure_line(name: str, failed: np.ndarray) -> str:
  """Say how many models of a population failed, and when; '' if none did.

  Args:
    name: of the population.
    failed: as `failed_epochs` returns it.

  Example:
    >>> failure_line('msg', np.array([2, 2]))
    'all models of msg failed, at epoch 2'
  """
  epochs = failed[failed >= 0]
  if not epochs.size:
    return ''
  every = len(epochs) == len(failed)
  which = 'all models' if every else f'{len(epochs)} of {len(failed)} models'
  first, last = epochs.min(), epochs.max()
  when = f'epoch {first}' if first == last else f'epochs {first} to {last}'
  return f'{which} of {name} failed, at {when}'


def starting_models(
  job: job_lib.Job, population: job_lib.Population, members: job_lib.Members
) -> Variables:
  """Return fresh models for the baselines, trained originals for methods."""
  if population.name in methods.BASELINES:
    return fresh_models(job, members)
  start = job.populations['original']
  return read_models(job, start, job_lib.originals_of(members, start.members))


def fresh_models(job: job_lib.Job, members: job_lib.Members) -> Variables:
  """Return the initial models of members, leaves [P, ...]."""
  shared = job.settings.seed_mode == 'reference'
  keys = job_lib.weight_keys(job.root, members, shared)
  return initial_variables(job.task, keys)


def read_models(
  job: job_lib.Job, population: job_lib.Population, positions: np.ndarray
) -> Variables:
  """Read chosen members of a population from their shards, leaves [P, ...].

  Raises:
    store.DamagedShard: a shard was changed after it was written.
  """
  shards = range(population.models.size)
  shard_of = np.concatenate([np.full(population.count([n]), n) for n in shards])
  first = np.searchsorted(shard_of, np.arange(len(shards)))
  chosen: list[Any] = [None] * len(positions)
  for shard in np.unique(shard_of[positions]):
    stacked = population.models.models(
      int(shard), model_shapes(job, population.count([shard]))
    )
    for k in np.flatnonzero(shard_of[positions] == shard):
      local = positions[k] - first[shard]
      chosen[k] = jax.tree.map(lambda x, i=local: x[i], stacked)
  return jax.tree.map(lambda *leaves: np.stack(leaves), *chosen)


def training_inputs(
  job: job_lib.Job,
  population: job_lib.Population,
  members: job_lib.Members,
  *,
  shared: bool = False,
) -> tuple[list[Any], Key, Split[np.ndarray]]:
  """Return hyper-parameters, keys and index sets, as `Trainer.load` takes them.

  Args:
    job: the job.
    population: whose method trains.
    members: P of its members.
    shared: whether all members have the same draws, as in the reference.

  Returns:
    P hyper-parameters, keys [P], and index sets with leaves [P, ...].
  """
  return (
    [job_lib.hyper_parameters(population)] * members.size,
    job_lib.draw_keys(job.root, population.name, members, shared),
    job_lib.index_sets(job.design, members),
  )


def select_members(
  members: job_lib.Members, positions: np.ndarray
) -> job_lib.Members:
  """Return the members at the given positions."""
  return job_lib.Members(*(field[positions] for field in members))


def one_model_shapes(job: job_lib.Job) -> Variables:
  """Return shapes and dtypes of a single model."""
  shape = job.task.dataset.image_shape
  return jax.eval_shape(
    lambda key: models.init(job.task.model, key, shape), job.root
  )


def model_shapes(job: job_lib.Job, size: int) -> Variables:
  """Return shapes and dtypes of `size` stacked models."""
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct((size, *x.shape), x.dtype),
    one_model_shapes(job),
  )


def bytes_per_model(job: job_lib.Job) -> int:
  """Return the size of one model, parameters and running statistics."""
  return execution.bytes_of(one_model_shapes(job))


def counted_hparams(
  job: job_lib.Job, population: job_lib.Population, hparams: Any
) -> Any:
  """Return hyper-parameters after the method's exact counting."""
  one = select_members(population.members, np.zeros(1, np.int32))
  (counted,) = prepare_hparams(
    population.method,
    [hparams],
    job.task,
    job_lib.index_sets(job.design, one),
    model_shapes(job, 1),
  )
  return counted


def is_timed(job: job_lib.Job, name: str) -> bool:
  """Return whether the job measures the training time of a population."""
  return not job.populations[name].checkpoints


def timing_shelf(job: job_lib.Job, name: str) -> store.Shelf:
  """Return the shelf of the run times of a population."""
  machine, versions = job_lib.hardware_facts(), job_lib.versions()
  address = job_lib.address(
    'timing',
    job.populations[name].digest,
    dataclasses.asdict(job.settings.timing),
    {key: machine[key] for key in ('device', 'processor', 'cores')},
    [versions['jax'], versions['jaxlib']],
    job.settings.run.cache_teacher,
  )
  return job.shelf('timing', name, address)


def measure_time(
  job: job_lib.Job,
  name: str,
  trainer: Trainer,
  bars: progress.Progress,
) -> None:
  """Time one member of a population, unless its time is stored.

  Training a population does not measure the run time of a method, since many
  models share the machine. Here one member runs alone on one device, several
  times, in the program that trained the population. The time includes the
  changes before training and all epochs; the data are already on the device.

  Args:
    job: the job.
    name: which population.
    trainer: the trainer of the population, whose programs are reused.
    bars: where to show progress.
  """
  place = timing_shelf(job, name)
  if not is_timed(job, name):
    return
  if not place.missing():
    bars.line(f'{name}: run time in the store')
    return
  repeats = job.settings.timing.repeats
  # A first run warms caches and is not counted. It is not needed where the same
  # program has just trained the population.
  extra = 0 if trainer.num_programs and trainer.layout.chunk == 1 else 1
  with bars.stage(f'time {name}', repeats + extra, unit='runs') as stage:
    trainer, loaded, first = _load_one(job, name, trainer)
    seconds = []
    for _ in range(repeats + extra):
      begin = time.perf_counter()
      jax.block_until_ready(trainer.train(loaded, takes_part=first).variables)
      seconds.append(time.perf_counter() - begin)
      stage.advance(1)
  place.save(
    0,
    info={
      'warm_seconds': seconds[extra:],
      'compile_seconds': trainer.compile_seconds,
    },
  )


def _load_one(
  job: job_lib.Job, name: str, trainer: Trainer
) -> tuple[Trainer, Loaded, np.ndarray | None]:
  """Load the inputs of one member.

  Returns:
    The trainer, the loaded population, and which member to run; None for all.
  """
  population = job.populations[name]
  # Use a program for one member if members are vmapped, else the program of a
  # shard, which is already compiled.
  alone = trainer.layout.chunk > 1
  if alone:
    trainer = Trainer(population.method, job.task, Layout(1, 1))
  positions = np.zeros(1, np.int32) if alone else population.positions(0)
  members = select_members(population.members, positions)
  loaded = trainer.load(
    *training_inputs(job, population, members),
    starting_models(job, population, members),
  )
  first = None if alone else np.arange(members.size) == 0
  return trainer, loaded, first


def warm_seconds(job: job_lib.Job, name: str) -> float:
  """Return the median of the warm runs, in seconds."""
  return float(np.median(timing_shelf(job, name).info()['warm_seconds']))


def cold_seconds(job: job_lib.Job, name: str) -> float:
  """Return the time of a run including compilation, in seconds."""
  info = timing_shelf(job, name).info()
  return warm_seconds(job, name) + float(info['compile_seconds'])


def predictor_of(
  job: job_lib.Job, name: str, predictors: dict[Layout, Predictor]
) -> Predictor:
  """Return the predictor of a population from those by layout, or a new one."""
  layout = stage_layout(job, f'predict {name}')
  if layout not in predictors:
    predictors[layout] = Predictor(job.task, layout)
  return predictors[layout]


def predict(
  job: job_lib.Job,
  name: str,
  bars: progress.Progress,
  predictors: dict[Layout, Predictor] | None = None,
  shards: Collection[int] | None = None,
) -> None:
  """Score all examples with the missing shards of a population.

  Args:
    job: the job.
    name: which of its populations.
    bars: where to show progress.
    predictors: cache of compiled programs by layout, shared by populations.
    shards: which of the missing shards; None for all.
  """
  population = job.populations[name]
  missing = _missing(job, population.scores, shards)
  if not missing:
    bars.line(f'{name}: predictions in the store')
    return
  predictor = predictor_of(job, name, {} if predictors is None else predictors)
  count = population.count(missing)
  with bars.stage(f'predict {name}', count, unit='models') as stage:
    for shard in missing:
      scores = score(job, name, shard, predictor, bars)
      population.scores.save(shard, arrays=scores._asdict())
      stage.advance(len(population.positions(shard)))


def score(
  job: job_lib.Job,
  name: str,
  shard: int,
  predictor: Predictor,
  bars: progress.Progress,
  index: np.ndarray | None = None,
) -> Predictions:
  """Score examples with the models of one shard, and store nothing.

  Args:
    job: the job.
    name: which of its populations.
    shard: the shard, whose models are in the store.
    predictor: runs them, in smaller chunks if memory runs out.
    bars: where to say so.
    index: i32[N] the examples; None for all of the data set in order.

  Returns:
    Predictions [P, N] of the P models of the shard.
  """
  population = job.populations[name]
  size = len(population.positions(shard))
  variables = population.models.models(shard, model_shapes(job, size))
  chosen = None if index is None else np.tile(index, (size, 1))
  return execution.retry_smaller(
    functools.partial(predictor.run, variables, chosen),
    predictor,
    on_smaller=on_smaller_chunk(job, f'predict {name}', bars),
  )


def read_predictions(population: job_lib.Population) -> Predictions:
  """Read the predictions of a whole population."""
  return Predictions(*map(population.scores.arrays, Predictions._fields))


def checkpoints_line(job: job_lib.Job) -> str:
  """Return the accuracy of originals that were read from files, as text."""
  population = job.populations['original']
  correct = read_predictions(population).correct
  seen = job.design.retain[population.members.row]
  trained = np.mean(np.take_along_axis(correct, seen, axis=1))
  val = np.mean(correct[:, job.design.val])
  return (
    f'original: the models from files have an accuracy of {trained:.1%} on the '
    'images that they should have been trained on, and of '
    f'{val:.1%} on the validation images; if both are low, their classes or '
    f'normalisation differ from those of {job.source.name}; if they are equal, '
    'their training images may differ'
  )


def measurement_cache(job: job_lib.Job) -> execution.MeasurementCache:
  """Open the measurements of this job's model on this machine.

  They are in the cache folder of data sets and shared by work directories.
  """
  return open_measurements(
    job.settings,
    classes=job.source.num_classes,
    image=job.task.dataset.image_shape,
    transform=job.task.transform,
  )


def open_measurements(
  settings: Settings,
  *,
  classes: int,
  image: Sequence[int],
  transform: Transform,
) -> execution.MeasurementCache:
  """Open the measurements of a model on this machine, without its data.

  Args:
    settings: of the job.
    classes: of the data set.
    image: height, width and channels.
    transform: of the data set.
  """
  machine = job_lib.hardware_facts()
  versions = job_lib.versions()
  facts = {
    'model': settings.model,
    'model_code': models.fingerprint(settings.model),
    'options': settings.all_model_options,
    'precision': settings.precision,
    'classes': classes,
    'image': list(image),
    'transform': dataclasses.asdict(transform),
    'batch_size': settings.train['batch_size'],
    'hardware': {k: machine[k] for k in ('backend', 'device', 'processor')},
    'cores': execution.cores(),
    'jax': [versions['jax'], versions['jaxlib']],
    'jaxmu': __version__,
  }
  return execution.MeasurementCache(files.cache_dir(), facts)


def stage_layout(job: job_lib.Job, stage: str) -> Layout:
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
  """Return the callback for a stage that runs out of memory.

  It prints a line and stores the new chunk for later jobs.
  """

  def act(chunk: int) -> None:
    bars.line(f'{stage}: memory ran out; retrying in chunks of {chunk}')
    measurement_cache(job).ran_out(stage, chunk)

  return act


def shards_with_curves(population: job_lib.Population) -> list[int]:
  """Return the shards that hold curves."""
  shards = range(population.models.size)
  return [
    n for n in shards if population.models.has(n, _curve_name(CURVE_SETS[0]))
  ]


def read_curves(population: job_lib.Population) -> Curves | None:
  """Return the curves of all members, NaN for shards without curves.

  Returns:
    The curves by set, or None if no shard has any.
  """
  with_curves = shards_with_curves(population)
  if not with_curves:
    return None
  epochs = int(population.hparams['num_epochs'])

  def of(shard: int, name: str) -> np.ndarray:
    if shard in with_curves:
      return population.models.array(shard, _curve_name(name))
    return np.full((population.count([shard]), epochs), np.nan)

  shards = range(population.models.size)
  return {
    name: np.concatenate([of(n, name) for n in shards]) for name in CURVE_SETS
  }


def curve_warnings(job: job_lib.Job) -> list[str]:
  """Say which models have no curve although the settings ask for them."""
  if not job.settings.curve.every:
    return []
  sentences = []
  for name in methods.BASELINES:
    population = job.populations.get(name)
    if population is None or population.checkpoints:
      continue
    shards = set(range(population.models.size)) - set(
      shards_with_curves(population)
    )
    without = population.count(shards)
    if without:
      sentences.append(
        f'{name}: no learning curve of {without} of {population.members.size} '
        'models, which were trained before curves were requested; they are not '
        'trained again (choose another config.workdir to do so)'
      )
  return sentences


def write_curves(job: job_lib.Job) -> list[pathlib.Path]:
  """Write all curves as CSV, one row per member and scored epoch.

  Returns:
    The path, or nothing where no curves are recorded; a file of an earlier job
    is then removed.
  """
  path = job.folder / CURVES_FILE
  text = _curves_csv(job)
  if text:
    return [files.write_text(path, text)]
  files.remove(path)
  return []


def _curves_csv(job: job_lib.Job) -> str:
  out = io.StringIO()
  writer = csv.writer(out, lineterminator='\n')
  writer.writerow(
    ['method', 'seed', 'split', 'forget_set', 'epoch', *CURVE_SETS]
  )
  rows = 0
  for name, population in job.populations.items():
    curves = read_curves(population)
    if curves is None:
      continue
    member = population.members
    for p, e in np.argwhere(np.isfinite(curves['test'])):
      names = (member.seed[p], member.split[p], member.forget_set[p])
      values = [f'{curves[k][p, e]:.6g}' for k in CURVE_SETS]
      writer.writerow([name, *names, e + 1, *values])
      rows += 1
  return out.getvalue() if rows else ''


def _curve_name(name: str) -> str:
  return f'curve_{name}'
