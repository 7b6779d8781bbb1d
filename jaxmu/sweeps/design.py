"""The configuration of a sweep, its cells, and one job per cell and study.

A cell is a data set and a model. Each cell has up to four studies, with a job
in WORKDIR/CELL/STUDY each:

  search         the search of hyper-parameters for `main`
  main           the benchmark's main table
  ulira_search   the search for `ulira`
  ulira          the study of U-LiRA

`deep_unlearn` returns the configuration of the benchmark (arXiv 2410.01276). A
configuration is a dictionary:

  workdir        the folder of the sweep
  data, models   names; all combinations are cells. A prepared set of the user's
                 own takes the settings of `digits` or of `cifar10`, by its size
  methods        names or plug-ins
  studies        of 'search', 'main' and 'ulira'
  settings       where an earlier search has stored its settings: the folder of
                 a sweep or of published results, or the name of results in the
                 package, such as 'laptop'. What is there is not searched
  ulira_data, ulira_models, ulira_methods
                 those of the above that the study of U-LiRA has
  all, search, main, ulira, ulira_search
                 fields of jobs by dotted name: for all jobs, or for those of a
                 study. A search has also the fields of the study it is for.
  cells          if not empty, the combinations to take, by the names of their
                 folders, each with fields of its jobs in sections as above;
                 those of the sweep itself come after them
"""

import os
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jaxmu import files, methods, models, terms
from jaxmu.data import catalog, datasets
from jaxmu.report import checksums
from jaxmu.study import recipes, tuned
from jaxmu.study import settings as settings_lib
from jaxmu.study.settings import Settings

PUBLISHED = pathlib.Path(__file__).parent.parent / 'published'
STUDIES = ('search', 'main', 'ulira')
SCALES = ('digits', 'laptop', 'paper', 'reference')

# The study that a search is for.
BASE = {'search': 'main', 'ulira_search': 'ulira'}
SECTIONS = ('all', *BASE, 'main', 'ulira')
_LISTS = (
  *('data', 'models', 'methods', 'studies'),
  *('ulira_data', 'ulira_models', 'ulira_methods'),
)
FIELDS = ('workdir', *_LISTS, 'settings', *SECTIONS, 'cells')
# Fields of jobs that the sweep sets, and what to set in their place.
_SET_BY_SWEEP = {
  'workdir': '--workdir=DIR',
  'data.name': '--config.data=NAME,NAME',
  'model.name': '--config.models=NAME,NAME',
  'unlearn.method': '--config.methods=NAME,NAME',
  'compare': '--config.methods=NAME,NAME',
}

_MODELS = ('resnet18', 'vit11m')
_ULIRA_METHODS = ('msg', 'cfw', 'prmq', 'ct', 'kde', 'ft')

# A single table takes five initialisations to be ranked.
_DIGITS_MAIN = {
  'splits.design': 'main',
  'splits.pool': 0,
  'splits.seeds': 5,
  'splits.num_splits': 1,
  'splits.forget_sets': 1,
  'run.shard': 5,
}
_DIGITS_SEARCH = {
  'search.trials': 20,
  'search.initialisations': 2,
  'search.finalists': 5,
  'search.judges': 2,
}
_LAPTOP_SEARCH = {
  'search.trials': 12,
  'search.initialisations': 2,
  'search.finalists': 3,
  'search.judges': 2,
}
# 10,000 images to train on in the main study, 5,000 in that of U-LiRA.
_LAPTOP_IMAGES: dict[str, Any] = {
  'all': {
    'model.options': {'width': 16},
    'train.num_epochs': 60,
    'train.batch_size': 64,
  },
  'main': {'splits.pool': 11_765},
  'ulira': {'splits.pool': 10_000},
}
_ULIRA_SEARCH = {'search.initialisations': 32, 'search.trials': 200}
_REFERENCE = {
  'seed_mode': 'reference',
  'search.sampler': 'reference',
  'search.judges': 0,
}


def deep_unlearn(scale: str = '') -> dict[str, Any]:
  """Return the configuration of the benchmark as a sweep.

  Args:
    scale: 'digits' (the default) is small and needs no download. 'laptop' is
      the study of docs/results, which takes two processor cores some hours.
      'paper' has the benchmark's cells and budgets. 'reference' has its rules
      too: its sampler, no second judgement, its splits and its seeds.

  Raises:
    ValueError: the scale is unknown.

  Example:
    >>> config = deep_unlearn('paper')
    >>> len(config['data']), len(config['models']), len(config['methods'])
    (5, 2, 18)
  """
  scale = scale or 'digits'
  if scale not in SCALES:
    raise ValueError(
      f'unknown scale {scale!r} of deep_unlearn; '
      f'{terms.nearest(scale, SCALES)}choose one of {", ".join(SCALES)}'
    )
  if scale == 'laptop':
    return _laptop()
  small, reference = scale == 'digits', scale == 'reference'
  data = tuple(n for n in recipes.DATA if (n == 'digits') == small)
  return {
    'workdir': f'workdir/deep_unlearn_{scale}',
    'data': data,
    'models': _MODELS,
    'methods': _ULIRA_METHODS if small else recipes.PAPER_METHODS,
    'studies': STUDIES,
    'ulira_data': data if small else ('cifar10',),
    'ulira_models': ('resnet18',),
    'ulira_methods': _ULIRA_METHODS,
    'all': dict(_REFERENCE) if reference else {},
    'search': dict(_DIGITS_SEARCH) if small else {},
    'main': dict(_DIGITS_MAIN) if small else {},
    'ulira_search': dict(_DIGITS_SEARCH if small else _ULIRA_SEARCH),
    'ulira': {'splits.design': 'reference'} if reference else {},
  }


def _laptop() -> dict[str, Any]:
  """Return the study of docs/results/protocol.md."""
  return {
    'workdir': 'workdir/deep_unlearn_laptop',
    'data': ('digits', 'fashion_mnist', 'cifar10'),
    'models': _MODELS,
    'methods': recipes.PAPER_METHODS,
    'studies': STUDIES,
    'ulira_data': ('digits', 'cifar10'),
    'ulira_models': ('resnet18',),
    'ulira_methods': (*_ULIRA_METHODS, 'neggrad_plus', 'salun'),
    'all': {'run.shard': 10},
    'search': dict(_LAPTOP_SEARCH),
    'main': {
      'splits.design': 'main',
      'splits.seeds': 10,
      'splits.num_splits': 1,
      'splits.forget_sets': 1,
      'curve.every': 5,
    },
    'ulira_search': dict(_LAPTOP_SEARCH),
    'ulira': {
      'splits.design': 'audit',
      'splits.num_splits': 32,
      'splits.forget_sets': 2,
      'splits.seeds': 1,
      'run.shard': 16,
    },
    'cells': {
      'digits_resnet18': {'main': {'splits.pool': 0}},
      'digits_vit11m': {'main': {'splits.pool': 0}},
      'fashion_mnist_resnet18': _LAPTOP_IMAGES,
      'cifar10_resnet18': {
        **_LAPTOP_IMAGES,
        # With shifts, 100 epochs fit 92% of the training images.
        'all': {**_LAPTOP_IMAGES['all'], 'data.augment': 'flip'},
      },
    },
  }


class Cell(NamedTuple):
  """A data set and a model."""

  data: str
  model: str

  @property
  def name(self) -> str:
    """The name of the cell's folder."""
    return f'{self.data}_{re.sub(r"[^0-9A-Za-z_-]+", "_", self.model)}'


class Earlier(NamedTuple):
  """What an earlier search has found for a method.

  Attributes:
    path: the settings file.
    hparams: all hyper-parameters by name.
  """

  path: pathlib.Path
  hparams: Mapping[str, Any]


class Study(NamedTuple):
  """One study of a cell.

  Attributes:
    cell: the cell.
    kind: 'search', 'main', 'ulira_search' or 'ulira'.
    config: fields of its job, with default hyper-parameters.
    settings: the same, checked.
    search: folder of the job that searches its hyper-parameters; None for
      default ones.
    earlier: what an earlier search has found, by method; these methods are not
      searched. It was read once, so that a sweep has one setting throughout.
  """

  cell: Cell
  kind: str
  config: dict[str, Any]
  settings: Settings
  search: pathlib.Path | None
  earlier: Mapping[str, Earlier]

  @property
  def name(self) -> str:
    """CELL/STUDY."""
    return f'{self.cell.name}/{self.kind}'

  @property
  def searches(self) -> bool:
    """Whether its job is a search."""
    return self.kind in BASE

  @property
  def methods(self) -> tuple[str, ...]:
    """The names of its methods."""
    return tuple(methods.get(u.method).name for u in self.settings.unlearners)

  def unlearner(self, method: str) -> settings_lib.Unlearner:
    """Return a method with its hyper-parameters in the settings."""
    return self.settings.unlearners[self.methods.index(method)]

  def settings_file(self, method: str) -> pathlib.Path | None:
    """Return the file with a method's searched setting; None without search."""
    if method in self.earlier:
      return self.earlier[method].path
    if self.search is None:
      return None
    return tuned.folder(self.search, method) / tuned.NAME

  def ready(self, chosen: Sequence[str]) -> Settings:
    """Return the settings of some methods, with the setting of the search.

    Args:
      chosen: names of methods, at least one; of each, the search is finished.

    Raises:
      ValueError: the setting of a method cannot be read.
    """
    given: list[tuple[str, Any]] = []
    for one in self.settings.unlearners:
      name = methods.get(one.method).name
      if name not in chosen:
        continue
      if name in self.earlier:
        hparams: Any = dict(self.earlier[name].hparams)
      else:
        path = self.settings_file(name)
        hparams = str(path) if path else dict(one.hparams)
      given.append((one.method, hparams))
    (method, hparams), *others = given
    return settings_lib.from_config(
      {
        **self.config,
        'unlearn': {'method': method, 'hparams': hparams},
        'compare': dict(others),
      }
    )


def search_of(kind: str) -> str:
  """Return the study that searches the settings of another one.

  Example:
    >>> search_of('ulira')
    'ulira_search'
  """
  (search,) = [name for name, base in BASE.items() if base == kind]
  return search


class Sweep(NamedTuple):
  """A checked sweep: its folder and its studies, a cell at a time."""

  workdir: pathlib.Path
  studies: tuple[Study, ...]

  @property
  def cells(self) -> list[Cell]:
    """The cells, in order."""
    return list(dict.fromkeys(study.cell for study in self.studies))


def from_config(config: Mapping[str, Any]) -> Sweep:
  """Check a configuration and return the sweep.

  Only data sets that are not in the catalogue are opened.

  Args:
    config: as `deep_unlearn` returns it; fields may be missing.

  Raises:
    ValueError: a name is unknown, a field of a job is wrong, or nothing is
      left to do; the message names the value and the remedy.
  """
  config = complete(config)
  workdir = files.workdir(str(config['workdir']))
  tables = [kind for kind in ('main', 'ulira') if kind in config['studies']]
  searched = 'search' in config['studies']
  kinds = [
    kind
    for own, base in BASE.items()
    for kind in (own, base)
    if (base in tables if kind == base else searched)
    and base in (tables or ['main'])
  ]
  studies = [
    _study(config, workdir, Cell(data, model), kind)
    for data in config['data']
    for model in config['models']
    for kind in kinds
    if _included(config, data, model, kind)
  ]
  if config['settings'] and not any(study.earlier for study in studies):
    raise ValueError(
      f'config.settings = {config["settings"]!r} has no setting for this '
      'sweep; give the folder of a sweep with the same cells, or of published '
      'results'
    )
  if not studies:
    raise ValueError(
      f'the sweep has no study: the study of U-LiRA has the data '
      f'{", ".join(config["ulira_data"])}, the models '
      f'{", ".join(config["ulira_models"])} and the methods '
      f'{", ".join(config["ulira_methods"])}; choose some of these, or '
      '--config.studies=search,main'
    )
  return Sweep(workdir, tuple(studies))


def complete(config: Mapping[str, Any]) -> dict[str, Any]:
  """Return a configuration with all fields, its lists as tuples.

  Raises:
    ValueError: a field, a study, a data set, a method or a model is unknown.
  """
  if not isinstance(config, Mapping):
    raise ValueError(
      f'a sweep is a {type(config).__name__}; return a dictionary as '
      'jaxmu.sweeps.design.deep_unlearn does'
    )
  if 'unlearn' in config:
    raise ValueError(
      'this is the configuration of a job, not of a sweep; run it with '
      'python -m jaxmu.main'
    )
  for name in config:
    if name not in FIELDS:
      raise ValueError(
        f'config.{name} is no field of a sweep; {terms.choices(name, FIELDS)}'
      )
  full = {
    **deep_unlearn(),
    **dict.fromkeys((*SECTIONS, 'cells'), {}),
    'settings': '',
    **config,
  }
  for name in _LISTS:
    full[name] = _names(name, full[name])
  for name in SECTIONS:
    full[name] = _section(name, full[name])
  full['cells'] = _checked_cells(full)
  _check(full, 'studies', STUDIES)
  # Those of the cells are checked with the settings of their jobs.
  for name in {*full['ulira_methods']} - {*full['methods']}:
    methods.get(name)
  for name in {*full['ulira_models']} - {*full['models']}:
    models.MODELS.resolve(name)
  for name in (*full['data'], *full['ulira_data']):
    _scale(full, name)
  if not full['workdir']:
    raise ValueError('config.workdir is empty; name a folder to write to')
  if isinstance(full['settings'], os.PathLike):
    full['settings'] = os.fspath(full['settings'])
  _check_settings(full['settings'], str(full['workdir']))
  return full


def _settings_folder(text: str) -> pathlib.Path:
  """Return the folder of `config.settings`; the package has some by name."""
  folder = files.path(text)
  return folder if folder.is_dir() else PUBLISHED / folder


def _check_settings(folder: Any, workdir: str) -> None:
  if not isinstance(folder, str) or (
    folder and not _settings_folder(folder).is_dir()
  ):
    raise ValueError(
      f'config.settings = {folder!r} is no folder; give that of a sweep or of '
      "published results, or the name of results in the package, as 'laptop', "
      'or leave it out to search all methods'
    )
  own = files.workdir(workdir).resolve()
  if folder and files.path(folder).resolve() == own:
    raise ValueError(
      f'config.settings = {folder!r} is the folder of this sweep, which uses '
      'what it has found anyway; leave it out'
    )


def _scale(config: Mapping[str, Any], data: str) -> str:
  """Return the scale whose settings the jobs of a data set take.

  Raises:
    ValueError: there is no such data set.
  """
  if data in recipes.DATA:
    return data
  folder = config['all'].get('data.folder') or None
  known = sorted({*recipes.DATA, *datasets.available(folder)})
  if data not in known:
    raise ValueError(
      f'config.data: unknown {data!r}; {terms.nearest(data, known)}choose from '
      f'{", ".join(known)} (looked in '
      f'{datasets.find_data_dir(folder)}; see --config.all.data.folder), or '
      f'prepare it: python -m jaxmu.prepare {data} --from_images=DIR'
    )
  entry = datasets.entry(data, folder)
  return catalog.scale_of(data, entry.num_dev)


def _names(field: str, value: Any) -> tuple[str, ...]:
  if isinstance(value, str):
    value = [part.strip() for part in value.split(',') if part.strip()]
  if not isinstance(value, list | tuple) or not all(
    isinstance(one, str) for one in value
  ):
    raise ValueError(
      f'config.{field} = {value!r}; give names, separated by commas'
    )
  if not value:
    raise ValueError(f'config.{field} is empty; give at least one name')
  twice = [one for one in value if list(value).count(one) > 1]
  if twice:
    raise ValueError(f'config.{field} has {twice[0]!r} twice; give it once')
  return tuple(value)


def _section(name: str, fields: Any) -> dict[str, Any]:
  """Return the fields of a section, with names that a sweep may have."""
  if not isinstance(fields, Mapping):
    raise ValueError(
      f'config.{name} = {fields!r}; give fields of jobs by name, as '
      f'--config.{name}.splits.seeds=5'
    )
  _check_fields(name, fields)
  return dict(fields)


def _checked_cells(config: Mapping[str, Any]) -> dict[str, Any]:
  cells = config['cells']
  if not isinstance(cells, Mapping):
    raise ValueError(
      f'config.cells = {cells!r}; its fields are set in a file. Choose cells '
      'by --config.data=NAME,NAME, --config.models=NAME,NAME or --only=CELL'
    )
  data = dict.fromkeys((*config['data'], *recipes.DATA))
  nets = dict.fromkeys((*config['models'], *models.MODELS))
  known = [Cell(one, net).name for one in data for net in nets]
  checked = {}
  for name, sections in cells.items():
    if name not in known:
      raise ValueError(
        f'config.cells: no cell {name!r}; {terms.nearest(str(name), known)}'
        'a cell is DATA_MODEL, such as digits_resnet18'
      )
    if not isinstance(sections, Mapping) or not {*sections} <= {*SECTIONS}:
      raise ValueError(
        f'config.cells.{name} = {sections!r}; give fields of jobs in sections, '
        f'which are {", ".join(SECTIONS)}'
      )
    checked[name] = {
      section: _section(f'cells.{name}.{section}', fields)
      for section, fields in sections.items()
    }
  return checked


def _check_fields(section: str, fields: Mapping[str, Any]) -> None:
  for name in fields:
    if not isinstance(name, str):
      raise ValueError(
        f'config.{section}: {name!r} is no field of a job; give dotted names, '
        "such as 'splits.seeds'"
      )
    instead = _SET_BY_SWEEP.get(name.removeprefix('config.'))
    if instead:
      raise ValueError(
        f'config.{section}.{name} is set by the sweep for each job; give '
        f'{instead}'
      )


def _check(config: Mapping[str, Any], field: str, known: Sequence[str]) -> None:
  for name in config[field]:
    if name not in known:
      raise ValueError(
        f'config.{field}: unknown {name!r}; {terms.nearest(name, known)}'
        f'choose from {", ".join(known)}'
      )


def _included(
  config: Mapping[str, Any], data: str, model: str, kind: str
) -> bool:
  """Return whether a cell has a study; only some cells have U-LiRA's."""
  if config['cells'] and Cell(data, model).name not in config['cells']:
    return False
  if BASE.get(kind, kind) == 'ulira' and not (
    data in config['ulira_data'] and model in config['ulira_models']
  ):
    return False
  return bool(_study_methods(config, Cell(data, model), kind))


def _study_methods(
  config: Mapping[str, Any], cell: Cell, kind: str
) -> list[str]:
  """Return the methods of a study; a search has those without a setting."""
  named = list(config['methods'])
  if BASE.get(kind, kind) == 'ulira':
    named = [one for one in named if one in config['ulira_methods']]
  if kind in BASE and config['settings']:
    there = _earlier(config, cell, kind)
    named = [one for one in named if methods.get(one).name not in there]
  return named


def _earlier(
  config: Mapping[str, Any], cell: Cell, kind: str
) -> dict[str, pathlib.Path]:
  """Return the files of `config.settings` for a study, by method.

  Raises:
    ValueError: a file is damaged, or not that of a search of this cell.
  """
  if not config['settings']:
    return {}
  search = search_of(BASE.get(kind, kind))
  folder = _settings_folder(config['settings']) / cell.name / search
  found = {}
  changed = checksums.changed(folder)
  for method in dict.fromkeys(methods.get(m).name for m in config['methods']):
    name = f'settings/{method}.json'
    published = folder / name
    for path in (published, tuned.folder(folder, method) / tuned.NAME):
      if not path.is_file():
        continue
      if path == published and name in changed:
        raise ValueError(
          f'{path} was changed after it was published; copy it again, or '
          f'remove {folder / checksums.FILE} if the change is meant'
        )
      content = tuned.read(path, method)
      if (content['data'], content['model']) != cell:
        raise ValueError(
          f'{path} holds settings for {content["model"]} on '
          f'{content["data"]}, not for {cell.model} on {cell.data}; remove it '
          'to search the method, or give another folder as config.settings'
        )
      found[method] = path
  return found


def job_config(config: Mapping[str, Any], cell: Cell, kind: str) -> dict:
  """Return the fields of the job of a cell and study.

  Args:
    config: as `complete` returns it.
    cell: the cell.
    kind: of the study.

  Raises:
    ValueError: a name, or a field of the section of the study, is unknown.
  """
  base = BASE.get(kind, kind)
  first, *others = _study_methods(config, cell, kind)
  job = recipes.job_config(
    first,
    model=cell.model,
    scale=_scale(config, cell.data) + ('-ulira' if base == 'ulira' else ''),
    compare=others,
  )
  if cell.data not in recipes.DATA:  # their sizes are not those of the scale
    job['data']['name'] = cell.data
    job['splits']['pool'] = 0
  folder = files.workdir(config['workdir']) / cell.name / kind
  job['workdir'] = files.shown(folder)
  own = config['cells'].get(cell.name, {})
  for prefix, sections in (f'cells.{cell.name}.', own), ('', config):
    for section in dict.fromkeys(('all', base, kind)):
      for name, value in sections.get(section, {}).items():
        place, key = recipes.locate(
          job, name, f'config.{prefix}{section}.{name}'
        )
        place[key] = value
  return job


def _study(
  config: Mapping[str, Any], workdir: pathlib.Path, cell: Cell, kind: str
) -> Study:
  job = job_config(config, cell, kind)
  try:
    settings = settings_lib.from_config(job)
  except ValueError as error:
    raise ValueError(f'{cell.name}/{kind}: {error}') from None
  search = None
  if kind not in BASE and 'search' in config['studies']:
    search = workdir / cell.name / search_of(kind)
  study = Study(cell, kind, job, settings, search, {})
  if kind in BASE or not config['settings']:
    return study
  earlier = _earlier(config, cell, kind)
  lacking = [] if search else [m for m in study.methods if m not in earlier]
  if lacking:
    raise ValueError(
      f'{study.name}: config.settings = {config["settings"]!r} has no setting '
      f'of {", ".join(lacking)}; add search to config.studies'
    )
  expected = {
    'model_options': settings.model_options,
    'train': settings.train,
  }
  read = {
    method: tuned.find(
      str(path),
      method=study.unlearner(method).method,
      data=cell.data,
      model=cell.model,
      workdir=settings.workdir,
      expected=expected,
    )
    for method, path in earlier.items()
    if method in study.methods
  }
  return study._replace(
    earlier={name: Earlier(earlier[name], read[name]) for name in read}
  )
