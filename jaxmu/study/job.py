"""A job: its data, its populations and the addresses of their results.

Opening a job loads the data and computes addresses; it trains nothing and
changes nothing on the disk. The address of a result is a digest of everything
that it depends on, so that equal work is reused and changed work is repeated.
`tests/study/test_addresses.py` checks all settings and inputs.

A member is identified by its name (seed, split, forget set), not by its
position: the keys of its draws depend on the name alone.
"""

import dataclasses
import pathlib
import platform
from collections.abc import Callable, Iterable, Mapping
from importlib import metadata
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxmu import __version__, files, methods, models, platforms, plugins
from jaxmu import hparams as hp
from jaxmu import layout as layout_lib
from jaxmu.data import datasets, splits
from jaxmu.draws import derive
from jaxmu.method import Method, Sizes
from jaxmu.population import Layout, device_dataset
from jaxmu.study import execution, originals, store, tuned
from jaxmu.study.settings import Settings
from jaxmu.types import Key, Split, Task

# Increase a version when the results of its stage change.
STAGE_VERSIONS = {
  'train': 2,
  'predict': 2,
  'timing': 2,
  'report': 10,
  'search': 1,
}


class Members(NamedTuple):
  """The members of a population, in order; all i32[P].

  `forget_set` is -1 where a member serves all forget sets of its split, as the
  original models do. `row` is the member's row in the design; with forget set
  -1, the row of the split's first forget set.
  """

  seed: np.ndarray
  split: np.ndarray
  forget_set: np.ndarray
  row: np.ndarray

  @property
  def size(self) -> int:
    """Number of members P."""
    return len(self.seed)

  @property
  def names(self) -> list[store.Name]:
    """Seed, split and forget set of each member."""
    return [
      (int(seed), int(split), int(forget_set))
      for seed, split, forget_set in zip(*self[:3], strict=True)
    ]


def members_per_forget_set(design: splits.Design, seeds: int) -> Members:
  """Return one member per seed and row of the design: retrained, unlearned."""
  rows = len(design.split)
  row = np.tile(np.arange(rows), seeds)
  seed = np.repeat(np.arange(seeds), rows)
  return Members(seed, design.split[row], design.forget_set[row], row)


def members_per_split(design: splits.Design, seeds: int) -> Members:
  """Return one member per seed and split: the originals.

  Unlike the reference, which trains the same original again for every forget
  set of a split, all forget sets of a split share one original.
  """
  _, first = np.unique(design.split, return_index=True)
  row = np.tile(first, seeds)
  seed = np.repeat(np.arange(seeds), len(first))
  return Members(seed, design.split[row], np.full(len(row), -1), row)


def originals_of(members: Members, originals: Members) -> np.ndarray:
  """Return the position of each member's original, i32[P]."""
  names = zip(originals.seed, originals.split, strict=True)
  position = {name: index for index, name in enumerate(names)}
  wanted = zip(members.seed, members.split, strict=True)
  return np.array([position[name] for name in wanted], np.int32)


def index_sets(design: splits.Design, members: Members) -> Split[np.ndarray]:
  """Return the index sets of each member, leaves i32[P, ...]."""
  val = np.tile(design.val, (members.size, 1))
  return Split(design.retain[members.row], design.forget[members.row], val)


def weight_keys(root: Key, members: Members, shared: bool) -> Key:
  """Return the keys of the initial weights, [P]; equal for O and R.

  Args:
    root: key of the job.
    members: the members.
    shared: give all splits of a seed the same weights, as the reference does.
  """
  split = np.zeros_like(members.split) if shared else members.split
  return jax.vmap(
    lambda seed, split: derive(root, 'weights', seed, 'split', split)
  )(members.seed, split)


def draw_keys(root: Key, name: str, members: Members, shared: bool) -> Key:
  """Return the keys of all draws during training, [P].

  Args:
    root: key of the job.
    name: of the population, e.g. 'original' or 'msg'.
    members: the members.
    shared: give all members the same draws, as the reference does.
  """
  zero = np.zeros_like(members.seed)
  seed, split, forget_set = (
    (zero, zero, zero)
    if shared
    else (members.seed, members.split, members.forget_set + 1)
  )
  return jax.vmap(
    lambda seed, split, forget: derive(
      root, name, 'seed', seed, 'split', split, 'forget_set', forget
    )
  )(seed, split, forget_set)


@dataclasses.dataclass(frozen=True)
class Population:
  """One population of models and where its results are stored.

  Attributes:
    name: 'original', 'retrain' or the name of the unlearning method.
    method: the method that trains it.
    hparams: hyper-parameters as plain numbers.
    members: its members.
    digest: address of the models.
    models: shelf of trained models.
    scores: shelf of predictions.
    checkpoints: the file of each member, where models are read instead of
      trained; else empty.
  """

  name: str
  method: Method
  hparams: dict[str, Any]
  members: Members
  digest: str
  models: store.Shelf
  scores: store.Shelf
  checkpoints: tuple[pathlib.Path, ...] = ()

  def positions(self, shard: int) -> np.ndarray:
    """Return the positions of the members of a shard, i64[members]."""
    sizes = [len(names) for names in self.models.members]
    start = sum(sizes[:shard])
    return np.arange(start, start + sizes[shard])

  def count(self, shards: Iterable[int]) -> int:
    """Return how many members some shards have."""
    return sum(len(self.models.members[shard]) for shard in shards)


@dataclasses.dataclass(frozen=True)
class Job:
  """Everything a stage needs; see `open_job`.

  Attributes:
    settings: checked settings.
    source: the data set on the host.
    design: index sets of every split and forget set.
    task: data, model and transform on the device.
    layout: devices and chunk.
    root: key of all draws.
    folder: the work directory.
    split_digest: digest of the index sets.
    populations: by name, in the order of training. 'original' is always there,
      'retrain' unless the settings leave it out.
  """

  settings: Settings
  source: datasets.Source
  design: splits.Design
  task: Task
  layout: Layout
  root: jax.Array  # key
  folder: pathlib.Path
  split_digest: str
  populations: dict[str, Population]

  @property
  def unlearned(self) -> list[Population]:
    """The populations that unlearning methods made."""
    names = [n for n in self.populations if n not in methods.BASELINES]
    return [self.populations[n] for n in names]

  @property
  def sizes(self) -> Sizes:
    """Sizes of the sets of one member."""
    return sizes(self.design, self.source.num_classes)

  def counted_cost(self, name: str) -> float:
    """Return the work of one member in forward passes of one example.

    Raises:
      ValueError: the function of a plug-in fails.
    """
    population = self.populations[name]
    return counted_cost(population.method, population.hparams, self.sizes)

  def shelf(self, stage: str, label: str, address: str) -> store.Shelf:
    """Return a shelf of one shard."""
    return store.Shelf(self.folder / 'store', stage, label, address)


def sizes(design: splits.Design, classes: int) -> Sizes:
  """Return the sizes of the sets of one member."""
  return Sizes(
    retain=design.retain.shape[1],
    forget=design.forget.shape[1],
    val=len(design.val),
    classes=classes,
  )


def counted_cost(
  method: Method, hparams: Mapping[str, Any], sizes: Sizes
) -> float:
  """Return the work of one model in forward passes of one example.

  Raises:
    ValueError: the function of a plug-in fails.
  """
  try:
    return float(method.card.cost(hparams, sizes))
  except Exception as error:
    if method.name in methods.METHODS:
      raise
    raise ValueError(
      f'method {method.name!r}: card.cost raises {plugins.reason(error)}; it '
      'takes hyper-parameters as plain numbers by name, and the sizes of '
      'the sets'
    ) from error


def open_job(
  settings: Settings,
  design: Callable[[Settings, datasets.Source], splits.Design] | None = None,
) -> Job:
  """Load the data, make the splits and compute all addresses.

  Args:
    settings: checked settings.
    design: divides the data; `make_design` by default.

  Raises:
    ValueError: the settings do not fit the data, checkpoints of originals are
      missing, JAX has no device of the chosen platform, or `jax.distributed`
      joins this process to others; nothing has been trained.
  """
  platforms.check_devices()
  if jax.process_count() > 1:  # Orbax would wait for the others
    raise ValueError(
      f'jax.distributed joins {jax.process_count()} processes, and jaxmu works '
      'in each alone: leave out jax.distributed.initialize, and divide a sweep '
      'with --share=INDEX/COUNT'
    )
  source = datasets.load(
    settings.data.name, data_dir=settings.data.folder or None
  )
  source = dataclasses.replace(
    source, transform=source.transform.augmented(settings.data.augment)
  )
  divided = (design or make_design)(settings, source)
  folder = files.workdir(settings.workdir)
  split_digest = files.digest('splits', dataclasses.asdict(divided))
  return Job(
    settings=settings,
    source=source,
    design=divided,
    task=_task(settings, source),
    layout=default_layout(settings),
    root=jax.random.key(settings.seed),
    folder=folder,
    split_digest=split_digest,
    populations=_populations(settings, source, divided, folder, split_digest),
  )


def _task(settings: Settings, source: datasets.Source) -> Task:
  return Task(
    device_dataset(source.image, source.label),
    models.build(
      settings.model,
      num_classes=source.num_classes,
      image_shape=tuple(source.image.shape[1:]),
      options=settings.all_model_options,
    ),
    source.transform,
    settings.precision,
    cache_teacher=settings.run.cache_teacher,
  )


def make_design(settings: Settings, source: datasets.Source) -> splits.Design:
  """Divide the development part of a data set according to the settings."""
  chosen = settings.splits
  if chosen.design == 'main':
    return splits.main_split(
      source.label,
      source.num_dev,
      how=chosen.forget,
      forget_fraction=chosen.forget_fraction,
      pool=chosen.pool or None,
    )
  if chosen.design == 'reference':
    return splits.ulira_splits_reference(
      source.num_dev,
      num_splits=chosen.num_splits,
      forget_sets=chosen.forget_sets,
      forget_fraction=chosen.forget_fraction,
    )
  return splits.audit_design(
    source.num_dev,
    num_splits=chosen.num_splits,
    forget_sets=chosen.forget_sets,
    forget_fraction=chosen.forget_fraction,
    pool=chosen.pool or None,
    seed=chosen.seed,
  )


def default_layout(
  settings: Settings, given: tuple[platforms.Device, ...] = ()
) -> Layout:
  """Choose devices and chunk where the settings leave them open.

  Args:
    settings: of the job.
    given: devices to choose from; empty for those of this process.
  """
  return Layout(
    devices=settings.run.devices or len(given or platforms.local_devices()),
    chunk=settings.run.chunk or layout_lib.default_chunk(),
    given=given,
  )


def _populations(
  settings: Settings,
  source: datasets.Source,
  design: splits.Design,
  folder: pathlib.Path,
  split_digest: str,
) -> dict[str, Population]:
  seeds = settings.splits.seeds
  per_forget_set = members_per_forget_set(design, seeds)
  per_split = members_per_split(design, seeds)
  common = common_inputs(settings, source, split_digest)

  def make(
    spec: Any,
    hparams: Any,
    members: Members,
    *upstream: Any,
    checkpoints: tuple[pathlib.Path, ...] = (),
  ) -> Population:
    method = methods.get(spec)
    code = methods.METHODS.fingerprint(spec)
    inputs = common, members.names, code, dict(hparams), *upstream
    models_address = address('train', method.name, *inputs)
    places = {
      'models': models_address,
      'scores': address('predict', models_address),
    }
    names = store.shards(members.names, settings.run.shard)
    shelves = {
      stage: store.Shelf(folder / 'store', stage, method.name, place, names)
      for stage, place in places.items()
    }
    return Population(
      name=method.name,
      method=method,
      hparams=dict(hparams),
      members=members,
      digest=models_address,
      checkpoints=checkpoints,
      **shelves,
    )

  train, chosen = settings.train, settings.originals.checkpoints
  if chosen:
    paths = originals.find(chosen, per_split.names)
    hashes = [files.sha256(path) for path in paths]
    original = make('original', {}, per_split, hashes, checkpoints=paths)
    # They are not trained here; these values give the cost of training them.
    original = dataclasses.replace(original, hparams=dict(train))
  else:
    original = make('original', train, per_split)
  made = [original]
  if settings.retrained.train:
    made.append(make('retrain', train, per_forget_set))
  made += [
    make(one.method, one.hparams, per_forget_set, original.digest)
    for one in settings.unlearners
  ]
  return {population.name: population for population in made}


def common_inputs(
  settings: Settings, source: datasets.Source, split_digest: str
) -> dict[str, Any]:
  """Return what the models of every population depend on."""
  return {
    'data': source.identity(),
    'splits': split_digest,
    'seed': settings.seed,
    'seed_mode': settings.seed_mode,
    'model': settings.model,
    'model_options': dict(settings.model_options),
    'model_code': models.fingerprint(settings.model),
    'precision': settings.precision,
    'shard': settings.run.shard,
  }


def address(stage: str, *inputs: Any) -> str:
  """Return the address of a stage's output, 12 hex digits.

  Args:
    stage: a key of `STAGE_VERSIONS`.
    *inputs: everything that the output depends on; see `files.digest`.
  """
  return files.digest(__version__, stage, STAGE_VERSIONS[stage], *inputs)


def hyper_parameters(population: Population) -> Any:
  """Return the checked hyper-parameters of a population."""
  return hp.from_config(population.method.Hparams, population.hparams)


_PACKAGES = (
  'flax',
  'jax',
  'jaxlib',
  'numpy',
  'optax',
  'orbax-checkpoint',
  'scipy',
)


def provenance(job: Job) -> dict[str, Any]:
  """Return the configuration, versions, hardware and data of a run.

  Also where the hyper-parameters of each method come from.
  """
  settings = dataclasses.asdict(job.settings)
  return {
    'configuration': settings,
    'versions': versions(),
    'hardware': hardware_facts(),
    'data': {
      'name': job.source.name,
      'fingerprint': job.source.fingerprint,
      'examples': len(job.source.label),
      'classes': job.source.num_classes,
      'splits': job.split_digest,
    },
    'checkpoints': {
      str(path): files.sha256(path)
      for path in job.populations['original'].checkpoints
    },
    'hyper_parameters': {
      population.name: tuned.origin(
        population.method, population.hparams, job.folder
      )
      for population in job.unlearned
    },
    'layout': {'devices': job.layout.devices, 'chunk': job.layout.chunk},
    'results': {n: p.digest for n, p in job.populations.items()},
  }


def versions() -> dict[str, str]:
  """Return the versions of Python, jaxmu and the packages it depends on."""
  packages = {name: metadata.version(name) for name in _PACKAGES}
  return {'python': platform.python_version(), 'jaxmu': __version__, **packages}


def hardware_facts() -> dict[str, Any]:
  """Describe the machine."""
  devices = platforms.local_devices()
  return {
    'backend': platforms.name(),
    'device': devices[0].device_kind,
    'devices': len(devices),
    'processor': execution.processor(),
    'cores': execution.cores(),
    'system': platform.platform(),
  }
