"""A job: its data, its populations and where their results lie.

Opening a job loads the data and computes addresses; it trains nothing. What an
output depends on is what goes into its address, so that equal work is found
again and changed work is not mistaken for it.
"""

import dataclasses
import pathlib
from typing import Any

import jax
import numpy as np

from jaxmu import methods, models, population
from jaxmu.core import hparams as hp
from jaxmu.core.method import Method, Sizes
from jaxmu.core.types import Dataset, Task
from jaxmu.data import forget_sets, sources
from jaxmu.data import splits as splits_lib
from jaxmu.pipeline import digest, roster, store
from jaxmu.pipeline.settings import Settings

# Raised by hand when a stage's results change meaning.
VERSION = {'train': 1, 'predict': 2, 'timing': 1, 'report': 4}


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
  members: roster.Roster
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
  source: sources.Source
  design: splits_lib.Design
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
  source = sources.load(
    settings.data.name, data_dir=settings.data.folder or None
  )
  design = cut(settings, source)
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
  split_digest = digest.digest(
    'splits', 1, source.fingerprint, _plain(settings.splits), *_cuts(design)
  )
  return Job(
    settings=settings,
    source=source,
    design=design,
    task=task,
    layout=layout(settings),
    root=jax.random.key(settings.seed),
    folder=folder,
    split_digest=split_digest,
    populations=_populations(settings, design, folder, split_digest),
  )


def cut(settings: Settings, source: sources.Source) -> splits_lib.Design:
  """Cut the development part of a data set as the settings say."""
  cuts = settings.splits
  if cuts.design == 'main':
    return forget_sets.main_split(
      source.label,
      source.num_dev,
      how=cuts.forget,
      forget_fraction=cuts.forget_fraction,
    )
  if cuts.design == 'reference':
    return splits_lib.ulira_splits_reference(
      source.num_dev,
      num_splits=cuts.num_splits,
      forget_sets=cuts.forget_sets,
      forget_fraction=cuts.forget_fraction,
    )
  return splits_lib.audit_design(
    source.num_dev,
    num_splits=cuts.num_splits,
    forget_sets=cuts.forget_sets,
    forget_fraction=cuts.forget_fraction,
    pool=cuts.pool or None,
    seed=cuts.seed,
  )


def layout(settings: Settings) -> population.Layout:
  """Choose devices and chunk where the settings leave them open."""
  on_cpu = jax.default_backend() == 'cpu'
  return population.Layout(
    devices=settings.run.devices or len(jax.devices()),
    chunk=settings.run.chunk or (1 if on_cpu else 8),
  )


def _populations(
  settings: Settings,
  design: splits_lib.Design,
  folder: pathlib.Path,
  split_digest: str,
) -> dict[str, Population]:
  seeds = settings.splits.seeds
  everyone = roster.everyone(design, seeds)
  per_split = roster.per_split(design, seeds)
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
    address = digest.digest(
      name, VERSION['train'], *common, dict(hparams), *upstream
    )
    seen = digest.digest('predict', VERSION['predict'], address)
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


def _cuts(design: splits_lib.Design) -> tuple[np.ndarray, ...]:
  return design.retain, design.forget, design.val
