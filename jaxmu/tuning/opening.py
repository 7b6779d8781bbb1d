"""Open the job of a search: its settings, data, spaces and budget.

A search has the data, model and training recipe of its job but other random
draws, and, for design 'audit', other splits. Unlike the reference, which
reports on initialisations that it searched, final tables are made on others.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxmu import files, methods
from jaxmu import hparams as hp
from jaxmu.attacks import single_model
from jaxmu.data import datasets, splits
from jaxmu.method import Method, Sizes
from jaxmu.study import job as job_lib
from jaxmu.study import planner
from jaxmu.study.settings import Settings, Unlearner
from jaxmu.tuning import samplers, spaces

Tell = Callable[[str], None]


RECIPE = 'original'  # whose space is that of the training recipe


class Opened(NamedTuple):
  """A search that is ready to train.

  Attributes:
    job: with its layout.
    spaces: of each of `targets`.
    steps: training of its original and retrained models.
    work: forward passes of one example of the search.
  """

  job: job_lib.Job
  spaces: list[spaces.Space]
  steps: list[planner.Step]
  work: float


class Budget(NamedTuple):
  """How many models the search of one method trains.

  Attributes:
    per_study: trials of each initialisation.
    trials: of all initialisations.
    finalists: settings that are judged again.
    judged: models that are trained to judge them and the default setting, and
      to measure the regret.
  """

  per_study: int
  trials: int
  finalists: int
  judged: int

  @property
  def models(self) -> int:
    """Number of models in all."""
    return self.trials + self.judged


def open_search(
  settings: Settings, tell: Tell, *, probe: bool = True
) -> Opened:
  """Open the job of a search with its layout; trains nothing.

  Args:
    settings: checked settings of the job, with those of the search.
    tell: receives a line about each probe of the machine.
    probe: measure the machine where the work is large and nothing is known.

  Raises:
    ValueError: a space does not fit its method, the search is too large, or
      the sets are too small for the objectives.
  """
  _check(settings)
  wanted = targets(settings)
  found = [method_space(settings, one) for one in wanted]
  for one, space in zip(wanted, found, strict=True):
    _check_budget(one, budget(settings, space))
  job = job_lib.open_job(search_settings(settings), search_design)
  recipe = settings.search.training
  if not recipe and min(job.sizes.forget, job.sizes.val) < single_model.FOLDS:
    raise ValueError(
      f'the design has {job.sizes.forget} forgotten and {job.sizes.val} '
      f'validation examples; a search needs {single_model.FOLDS} of each for '
      'its population attack: change config.splits'
    )
  steps = [] if recipe else planner.training_steps(job)
  work = planner.training_work(steps) + sum(
    planned_work(job.sizes, settings, one, space)
    for one, space in zip(wanted, found, strict=True)
  )
  job = planner.choose_plan(job, work, tell, probe=probe)
  return Opened(job, found, steps, work)


def targets(settings: Settings) -> tuple[Unlearner, ...]:
  """Return what is searched: the methods of a job, or its training recipe."""
  if settings.search.training:
    return (Unlearner(RECIPE, settings.train),)
  return settings.unlearners


def _check(settings: Settings) -> None:
  search = settings.search
  if search.training and settings.originals.checkpoints:
    raise ValueError(
      'the training recipe cannot be searched, because '
      f'config.originals.checkpoints = {settings.originals.checkpoints!r} '
      'replaces training; leave it empty'
    )
  if search.training and search.sampler == 'reference':
    raise ValueError(
      "config.search.sampler = 'reference' searches methods only, because the "
      "reference fixes the training recipe; choose 'tpe' or 'random'"
    )
  if search.seed + search.initialisations > 2**32:
    raise ValueError(
      f'config.search.seed = {search.seed}: the sampler of initialisation k '
      'has the seed config.search.seed + k; give at most '
      f'{2**32 - search.initialisations}'
    )
  if search.sampler == 'reference' and search.generation not in (
    0,
    samplers.POPULATION,
  ):
    raise ValueError(
      f'config.search.generation = {search.generation}: the generations of '
      f"sampler 'reference' have {samplers.POPULATION} trials; leave it at 0, "
      'or choose another sampler'
    )


def _check_budget(one: Unlearner, planned: Budget) -> None:
  if planned.models > hp.MOST_MEMBERS:
    raise ValueError(
      f'the search of {methods.get(one.method).name} asks for '
      f'{planned.models:,} models ({planned.per_study:,} trials per '
      f'initialisation); choose at most {hp.MOST_MEMBERS:,} with fewer '
      'config.search.trials, .initialisations or .judges, or a smaller grid'
    )


def search_settings(settings: Settings) -> Settings:
  """Return the settings of the job that a search runs in."""
  search = settings.search
  count = search.initialisations + search.judges
  seed = int(files.digest('search', settings.seed, digits=8), 16)
  chosen = dataclasses.replace(settings.splits, seeds=1, seed=seed)
  if settings.splits.design == 'main':
    chosen = dataclasses.replace(settings.splits, seeds=count)
  return dataclasses.replace(
    settings,
    seed=seed,
    splits=chosen,
    unlearners=(),
    retrained=dataclasses.replace(
      settings.retrained,
      train=not search.training
      and (search.objective == 'reference' or settings.retrained.train),
    ),
  )


def search_design(settings: Settings, source: datasets.Source) -> splits.Design:
  """Return the first forget set of as many splits as are searched and judged.

  Raises:
    ValueError: the design has fewer splits.
  """
  design = job_lib.make_design(settings, source)
  if settings.splits.design == 'main':
    return design
  count = settings.search.initialisations + settings.search.judges
  first = np.flatnonzero(design.forget_set == 0)[:count]
  if len(first) < count:
    raise ValueError(
      f'config.search.initialisations + judges = {count}, but the design has '
      f'{len(first)} splits; set config.splits.num_splits={count} or more, or '
      'search fewer'
    )
  rows = ('retain', 'forget', 'unseen', 'split', 'forget_set', 'pair')
  return dataclasses.replace(
    design, **{name: getattr(design, name)[first] for name in rows}
  )


def method_space(settings: Settings, one: Unlearner) -> spaces.Space:
  """Return the space of one method of a job.

  Raises:
    ValueError: `config.search.space` or `.grid` does not fit the method.
  """
  method = methods.get(one.method)
  grid = _given(settings, method.name, 'grid')
  changes = _given(settings, method.name, 'space')
  if grid is not None:
    held = spaces.held(method.Hparams, changes or {})
    return spaces.of_grid(method.Hparams, {**one.hparams, **held}, grid)
  return spaces.of_method(
    method.Hparams,
    one.hparams,
    train_epochs=settings.train['num_epochs'],
    changes=changes,
    dead=settings.search.sampler == 'reference',
  )


def _given(
  settings: Settings, method: str, field: str
) -> dict[str, Any] | None:
  """Return the part of `config.search.space` or `.grid` for a method.

  Names without a method are those of unlearning methods; the training recipe
  has its own, `original.NAME`.

  Returns:
    None if nothing is given for what is searched.

  Raises:
    ValueError: a name is unknown, or belongs to the other kind of search.
  """
  where = f'config.search.{field}'
  every = {'space': settings.search_space, 'grid': settings.search_grid}[field]
  if method != RECIPE and RECIPE in every:
    raise ValueError(
      f'{where}.{RECIPE} is for the search of the training recipe; add '
      f'--training, or in Python search {RECIPE!r}; or remove it'
    )
  classes = {
    methods.get(one.method).name: methods.get(one.method).Hparams
    for one in targets(settings)
  }
  if method == RECIPE:
    _refuse_plain(every, where)
    every = {name: every[name] for name in every if name == RECIPE}
  if not every:
    return None
  return spaces.for_method(every, method, classes, where)


def _refuse_plain(given: Mapping[str, Any], where: str) -> None:
  """Refuse what looks like a space of the recipe and is one of the methods."""
  declared = hp.declared(methods.get(RECIPE).Hparams)
  for field in declared:
    if hp.meta(field)['search'] is not None and field.name in given:
      raise ValueError(
        f'{where}.{field.name} is that of unlearning methods; the recipe of '
        f'the original models has {where}.{RECIPE}.{field.name}'
      )


def budget(settings: Settings, space: spaces.Space) -> Budget:
  """Return how many models the search of one method trains."""
  search = settings.search
  each = search.trials
  if space.is_grid:
    each = space.num_combinations
  trials = each * search.initialisations
  if not search.judges:  # the default setting alone is trained again
    return Budget(each, trials, 0, search.initialisations)
  finalists = min(search.finalists, trials)
  judged = finalists + 1
  if not search.training and (
    search.objective == 'no_oracle' and settings.retrained.train
  ):
    judged += finalists + 2  # for the regret, with choice and default
  return Budget(each, trials, finalists, judged * search.judges)


def planned_work(
  sizes: Sizes, settings: Settings, one: Unlearner, space: spaces.Space
) -> float:
  """Return the work of the search of one method on sets of these sizes.

  Returns:
    Forward passes of one example: training, and the measurement of each model.
    Trials of a sampler count as the middle of the space, those of a grid each
    as what they are. Stored trials are counted too.
  """
  method, planned = methods.get(one.method), budget(settings, space)
  middle = typical(method, one.hparams, space)
  usual = job_lib.counted_cost(method, middle, sizes)
  if space.is_grid:
    each = [
      job_lib.counted_cost(method, setting, sizes)
      for setting in space.combinations()
    ]
    trained = sum(each) * settings.search.initialisations
  else:
    trained = usual * planned.trials
  measured = sizes.retain + sizes.forget + sizes.val
  return trained + usual * planned.judged + measured * planned.models


def typical(
  method: Method, usual: Mapping[str, Any], space: spaces.Space
) -> dict[str, Any]:
  """Return a setting of a space that costs as much as settings do on average.

  Args:
    method: the method.
    usual: values of what is not searched.
    space: its space.
  """
  epochs = {
    field.name
    for field in hp.declared(method.Hparams)
    if isinstance(hp.meta(field)['search'], hp.EpochBudget)
    or field.name == 'num_epochs'
  }
  middle = {
    name: spaces.mean(kind)
    for name, kind in space.searched.items()
    if name in epochs
  }
  return {**usual, **space.fixed, **middle}
