"""A job: its data, its populations and where their results lie.

Opening a job loads the data and computes addresses; it trains nothing. What an
output depends on is what goes into its address, so that equal work is found
again and changed work is not mistaken for it.

Who is in a population: seeds x splits x forget sets, and their keys.

A member is known by its name (seed, split, forget set), never by its position:
the keys of its draws follow from the name alone.

Where numbers come from: versions, hardware, seeds, data.
"""

import dataclasses
import pathlib
import platform
from importlib import metadata
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxmu import __version__, files, methods, models, population
from jaxmu import hparams as hp
from jaxmu.data import datasets, splits
from jaxmu.data import splits as splits_lib
from jaxmu.draws import derive
from jaxmu.method import Method, Sizes
from jaxmu.study import execution, store
from jaxmu.study.settings import Settings
from jaxmu.types import Dataset, Key, Split, Task


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


def members_per_forget_set(design: splits_lib.Design, seeds: int) -> Members:
  """Return one member per seed and row of the design: retrained, unlearned."""
  rows = len(design.split)
  row = np.tile(np.arange(rows), seeds)
  seed = np.repeat(np.arange(seeds), rows)
  return Members(seed, design.split[row], design.forget_set[row], row)


def members_per_split(design: splits_lib.Design, seeds: int) -> Members:
  """Return one member per seed and split: the originals.

  Unlike the reference, which trains the same original anew for every forget
  set of a split, one original serves them all; it does not depend on them.
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


def index_sets(design: splits_lib.Design, members: Members) -> Split:
  """Return the index sets of each member, leaves i32[P, ...]."""
  val = np.tile(design.val, (members.size, 1))
  return Split(design.retain[members.row], design.forget[members.row], val)


def weight_keys(root: Key, members: Members, shared: bool) -> Key:
  """Return the keys of the initial weights, [P]; equal for O and R.

  Args:
    root: key of the job.
    members: who.
    shared: give all splits of a seed the same weights, as the reference does.
  """
  split = np.zeros_like(members.split) if shared else members.split
  return jax.vmap(
    lambda seed, split: derive(root, 'weights', seed, 'split', split)
  )(members.seed, split)


def draw_keys(root: Key, name: str, members: Members, shared: bool) -> Key:
  """Return the keys of everything drawn while training, [P].

  Args:
    root: key of the job.
    name: of the population, e.g. 'original' or 'msg'.
    members: who.
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


# Raised by hand when a stage's results change meaning.
STAGE_VERSIONS = {'train': 1, 'predict': 2, 'timing': 1, 'report': 5}


@dataclasses.dataclass(frozen=True)
class Population:
  """One population of models and where its results lie.

  Attributes:
    name: 'original', 'retrain' or the unlearning method.
    method: what trains it.
    hparams: hyper-parameters as plain numbers.
    members: who is in it.
    digest: address of the models.
    models: shelf of trained models.
    scores: shelf of predictions.
  """

  name: str
  method: Method
  hparams: dict[str, Any]
  members: Members
  digest: str
  models: store.Shelf
  scores: store.Shelf

  def positions(self, shard: int) -> np.ndarray:
    """Return which members are in a shard; shards differ by one at most."""
    return np.array_split(np.arange(self.members.size), self.models.size)[shard]


@dataclasses.dataclass(frozen=True)
class Job:
  """Everything a stage needs; see `open_job`."""

  settings: Settings
  source: datasets.Source
  design: splits.Design
  task: Task
  layout: population.Layout
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
    return Sizes(
      retain=self.design.retain.shape[1],
      forget=self.design.forget.shape[1],
      val=len(self.design.val),
      classes=self.source.num_classes,
    )

  def shelf(self, stage: str, label: str, address: str) -> store.Shelf:
    """Return a shelf of one shard."""
    return store.open_shelf(self.folder / 'store', stage, label, address, 1)


def open_job(settings: Settings) -> Job:
  """Load data, cut splits and address all results.

  Raises:
    ValueError: the settings do not fit the data; nothing has been trained.
  """
  source = datasets.load(
    settings.data.name, data_dir=settings.data.folder or None
  )
  design = make_design(settings, source)
  task = Task(
    Dataset(jax.numpy.asarray(source.image), jax.numpy.asarray(source.label)),
    models.build(
      settings.model,
      num_classes=source.num_classes,
      options=settings.all_model_options,
    ),
    source.transform,
    settings.precision,
  )
  folder = pathlib.Path(settings.workdir).expanduser()
  split_digest = files.digest(
    'splits', 1, source.fingerprint, _plain(settings.splits), *_cuts(design)
  )
  return Job(
    settings=settings,
    source=source,
    design=design,
    task=task,
    layout=default_layout(settings),
    root=jax.random.key(settings.seed),
    folder=folder,
    split_digest=split_digest,
    populations=_populations(settings, design, folder, split_digest),
  )


def make_design(settings: Settings, source: datasets.Source) -> splits.Design:
  """Cut the development part of a data set as the settings say."""
  cuts = settings.splits
  if cuts.design == 'main':
    return splits.main_split(
      source.label,
      source.num_dev,
      how=cuts.forget,
      forget_fraction=cuts.forget_fraction,
    )
  if cuts.design == 'reference':
    return splits.ulira_splits_reference(
      source.num_dev,
      num_splits=cuts.num_splits,
      forget_sets=cuts.forget_sets,
      forget_fraction=cuts.forget_fraction,
    )
  return splits.audit_design(
    source.num_dev,
    num_splits=cuts.num_splits,
    forget_sets=cuts.forget_sets,
    forget_fraction=cuts.forget_fraction,
    pool=cuts.pool or None,
    seed=cuts.seed,
  )


def default_layout(settings: Settings) -> population.Layout:
  """Choose devices and chunk where the settings leave them open."""
  on_cpu = jax.default_backend() == 'cpu'
  return population.Layout(
    devices=settings.run.devices or len(jax.devices()),
    chunk=settings.run.chunk or (1 if on_cpu else 8),
  )


def _populations(
  settings: Settings,
  design: splits.Design,
  folder: pathlib.Path,
  split_digest: str,
) -> dict[str, Population]:
  seeds = settings.splits.seeds
  everyone = members_per_forget_set(design, seeds)
  per_split = members_per_split(design, seeds)
  common = (
    split_digest,
    settings.seed,
    settings.seed_mode,
    settings.model,
    dict(settings.model_options),
    settings.precision,
    settings.run.shard,
  )

  def make(name, hparams, members, *upstream):
    address = files.digest(
      name, STAGE_VERSIONS['train'], *common, dict(hparams), *upstream
    )
    seen = files.digest('predict', STAGE_VERSIONS['predict'], address)
    shards = -(-members.size // settings.run.shard)
    shelf = folder / 'store'
    return Population(
      name=name,
      method=methods.get(name),
      hparams=dict(hparams),
      members=members,
      digest=address,
      models=store.open_shelf(shelf, 'models', name, address, shards),
      scores=store.open_shelf(shelf, 'scores', name, seen, shards),
    )

  original = make('original', settings.train, per_split)
  found = {
    'original': original,
    'retrain': make('retrain', settings.train, everyone),
  }
  for unlearner in settings.unlearners:
    found[unlearner.method] = make(
      unlearner.method, unlearner.hparams, everyone, original.digest
    )
  return found


def hyper_parameters(member: Population) -> Any:
  """Return the checked hyper-parameters of a population."""
  return hp.from_config(member.method.Hparams, member.hparams)


def _plain(section: Any) -> dict[str, Any]:
  return dataclasses.asdict(section)


def _cuts(design: splits.Design) -> tuple[np.ndarray, ...]:
  return design.retain, design.forget, design.val


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
  """Return everything a reader needs to judge and repeat a run."""
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
    'layout': dataclasses.asdict(job.layout),
    'results': {n: p.digest for n, p in job.populations.items()},
  }


def versions() -> dict[str, str]:
  """Return the versions of Python, jaxmu and the packages it rests on."""
  found = {name: metadata.version(name) for name in _PACKAGES}
  return {'python': platform.python_version(), 'jaxmu': __version__, **found}


def hardware_facts() -> dict[str, Any]:
  """Describe the machine."""
  devices = jax.devices()
  return {
    'backend': jax.default_backend(),
    'device': devices[0].device_kind,
    'devices': len(devices),
    'processor': execution.processor(),
    'cores': execution.cores(),
    'system': platform.platform(),
  }
