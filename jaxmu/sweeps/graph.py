"""The units of a sweep and what each of them needs.

A unit is the work that is stored together: the shards of a population, their
predictions, the generations of a search, a report, the leaderboard. It stands
for a range of parts, so that a graph with a million shards is small; it is made
from settings alone, without opening a data set.

  originals, retrained   models that are trained from scratch
  search                 the search of one method: its trials, and the models
                         that judge the best of them
  unlearned              the models of one method
  predictions            the outputs of a population for all examples
  report                 the table and page of one cell and study
  table                  the leaderboard over all cells
"""

from collections.abc import Iterator
from typing import NamedTuple

from jaxmu import terms
from jaxmu.study.settings import Settings
from jaxmu.sweeps.design import Study, Sweep
from jaxmu.tuning import driver, opening, samplers

BASELINES = {'originals': 'original', 'retrained': 'retrain'}
TRAINS = (*BASELINES, 'search', 'unlearned')
LEADERBOARD = 'leaderboard'


class Unit(NamedTuple):
  """A unit of work.

  Attributes:
    name: CELL/STUDY/KIND or CELL/STUDY/KIND/POPULATION.
    kind: see the module's docstring.
    cell: name of the cell; '' for the leaderboard.
    study: kind of the study.
    label: the population or method; '' where there is none.
    models: how many it trains, or predicts with.
    parts: shards, or generations and the judgement of a search.
    needs: units without which it cannot be made.
    uses: units that it uses if they succeeded.
  """

  name: str
  kind: str
  cell: str = ''
  study: str = ''
  label: str = ''
  models: int = 0
  parts: int = 1
  needs: tuple[str, ...] = ()
  uses: tuple[str, ...] = ()

  @property
  def tasks(self) -> int:
    """How many parts can be made apart; a search is made as a whole."""
    return 1 if self.kind == 'search' else self.parts

  @property
  def owner(self) -> str:
    """Name of the study it belongs to, CELL/STUDY."""
    return f'{self.cell}/{self.study}'


class Graph:
  """Units by name, each after those that it needs or uses."""

  def __init__(self, units: Iterator[Unit] | list[Unit]):
    self.units = {unit.name: unit for unit in units}

  def __iter__(self) -> Iterator[Unit]:
    return iter(self.units.values())

  def __len__(self) -> int:
    return len(self.units)

  @property
  def parts(self) -> int:
    """Number of parts of all units."""
    return sum(unit.parts for unit in self)

  def select(self, name: str) -> 'Graph':
    """Return the units of a name, with all that they need or use.

    Args:
      name: of a unit, or the beginning of names up to a '/', such as
        CELL/STUDY.

    Raises:
      ValueError: there is no such unit.
    """
    wanted = {
      one for one in self.units if one == name or one.startswith(f'{name}/')
    }
    if not wanted:
      known = {part for one in self.units for part in _beginnings(one)}
      raise ValueError(
        f'no unit {name!r} in the sweep; {terms.nearest(name, known)}'
        '--plan lists the cells and studies'
      )
    for unit in reversed(list(self)):
      if unit.name in wanted:
        wanted.update(unit.needs, unit.uses)
    return Graph([unit for unit in self if unit.name in wanted])


def _beginnings(name: str) -> list[str]:
  parts = name.split('/')
  return ['/'.join(parts[:n]) for n in range(1, len(parts) + 1)]


def build(sweep: Sweep) -> Graph:
  """Return the graph of a sweep.

  Raises:
    ValueError: a space of a search does not fit its method.
  """
  units: list[Unit] = []
  reports = []
  for study in sweep.studies:
    made = _search(study) if study.searches else _job(study, units)
    units += made
    reports += [unit.name for unit in made if unit.kind == 'report']
  if reports:
    table = Unit(LEADERBOARD, 'table', uses=tuple(reports))
    units.append(table)
  return Graph(units)


def _unit(study: Study, kind: str, label: str = '', **fields) -> Unit:
  name = '/'.join(part for part in (study.name, kind, label) if part)
  return Unit(name, kind, study.cell.name, study.kind, label, **fields)


def members(settings: Settings) -> tuple[int, int]:
  """Return how many originals a job has, and models of each other population.

  Example:
    >>> from jaxmu.study import recipes, settings
    >>> members(settings.from_config(recipes.job_config('ft')))
    (16, 32)
  """
  splits = settings.splits
  if splits.design == 'main':
    return splits.seeds, splits.seeds
  originals = splits.seeds * splits.num_splits
  return originals, originals * splits.forget_sets


def _baselines(study: Study, settings: Settings, sizes: dict) -> list[Unit]:
  kinds = ['originals'] + ['retrained'] * settings.retrained.train
  return [
    _unit(
      study,
      kind,
      models=sizes[kind],
      parts=-(-sizes[kind] // settings.run.shard),
    )
    for kind in kinds
  ]


def _search(study: Study) -> list[Unit]:
  settings = study.settings
  search = settings.search
  count = search.initialisations + search.judges
  units = _baselines(
    study,
    opening.search_settings(settings),
    {'originals': count, 'retrained': count},
  )
  needs = tuple(unit.name for unit in units)
  for one, name in zip(settings.unlearners, study.methods, strict=True):
    space = opening.method_space(settings, one)
    planned = opening.budget(settings, space)
    generations = 1
    if not space.is_grid:
      size = driver.generation_size(settings)
      generations = len(samplers.generations(planned.per_study, size))
    units.append(
      _unit(
        study,
        'search',
        name,
        models=planned.models,
        parts=generations + 1,
        needs=needs,
      )
    )
  return units


def _job(study: Study, before: list[Unit]) -> list[Unit]:
  settings = study.settings
  originals, others = members(settings)
  sizes = {'originals': originals, 'retrained': others}
  units = _baselines(study, settings, sizes)
  start = units[0].name
  searched = {
    unit.label: unit.name
    for unit in before
    if unit.kind == 'search'
    and study.search is not None
    and (unit.cell, unit.study) == (study.cell.name, study.search.name)
  }
  units += [
    _unit(
      study,
      'unlearned',
      name,
      models=others,
      parts=-(-others // settings.run.shard),
      needs=(start, *([searched[name]] if name in searched else [])),
    )
    for name in study.methods
  ]
  predictions = [
    _unit(
      study,
      'predictions',
      BASELINES.get(unit.kind, unit.label),
      models=unit.models,
      parts=unit.parts,
      needs=(unit.name,),
    )
    for unit in units
  ]
  names = [unit.name for unit in predictions]
  cut = len(units) - len(study.methods)
  report = _unit(
    study, 'report', needs=tuple(names[:cut]), uses=tuple(names[cut:])
  )
  return [*units, *predictions, report]
