"""Jobs, searches and sweeps from Python, as the commands run them.

job = jaxmu.run('msg', data='digits', workdir='work')
print(job)
job.models('msg')

found = jaxmu.search('msg', trials=100)
print(found)                               # the best trials
jaxmu.run('msg', unlearn={'hparams': found.setting})    # a job that uses it
jaxmu.search('original', trials=30)        # the training recipe

board = jaxmu.sweep(methods=('ft', 'msg'), studies=('search', 'main'))
print(board)                    # main numbers of every cell
board.to_pandas()               # all of them
"""

import contextlib
import dataclasses
import functools
import math
import os
import pathlib
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxmu import files, methods, remote, terms
from jaxmu.api import inputs, printing
from jaxmu.api import setup as setup_lib
from jaxmu.api.populations import Models
from jaxmu.report import results
from jaxmu.report.results import Row
from jaxmu.study import execution, recipes, stages
from jaxmu.study import job as job_lib
from jaxmu.study import run as run_lib
from jaxmu.study import settings as settings_lib

_RECORD = 'results.json'
_TRIALS_SHOWN = 10
_METRICS_SHOWN = (
  'ret_dev',
  'indisc_test',
  'ulira_auc',
  'excess_ulira_auc',
  'rte',
)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class JobResult(printing.Numbers):
  """The work directory of a finished job; made by `run` and `load`.

  Attributes:
    folder: the work directory.
  """

  folder: pathlib.Path

  @property
  def report(self) -> pathlib.Path:
    """The HTML report."""
    return self.folder / 'report.html'

  @functools.cached_property
  def rows(self) -> list[Row]:
    """Every number of the report, run times included."""
    names = [n for n in ('results.csv', 'timing.csv') if self._has(n)]
    return [row for n in names for row in results.read_csv(self.folder / n)]

  @property
  def failed(self) -> Mapping[str, Any]:
    """(failed models, all models) of methods with failed models."""
    return self._record['failed']

  @property
  def missing(self) -> results.Missing:
    """Why numbers are not available, by (method, metric)."""
    return {(m, name): why for m, name, why in self._record['missing']}

  def __repr__(self) -> str:
    return f'{self.table(everything=False)}\n{self.report}'

  @property
  def methods(self) -> list[str]:
    """Names of the populations: 'original', 'retrain', unlearning methods."""
    names = self._record['provenance']['results']
    first = [n for n in (results.ORIGINAL, results.REFERENCE) if n in names]
    return first + [n for n in names if n not in first]

  def scores(self, method: str) -> pathlib.Path:
    """Return the file of scores of an unlearning method, for `jaxmu.audit`.

    It holds those of the original and the retrained models as well.

    Raises:
      ValueError: the job has no such method.
    """
    unlearning = [m for m in self.methods if m not in methods.BASELINES]
    if method not in unlearning:
      inside = ''
      if method in methods.BASELINES:
        inside = 'those scores are in the file of every method; '
      raise ValueError(
        f'{self.folder} has no file of scores of {method!r}; {inside}'
        f'{terms.choices(method, unlearning)}'
      )
    return self.folder / 'scores' / f'{method}.npz'

  def models(self, name: str) -> Models:
    """Read the models of a population.

    Args:
      name: 'original', 'retrain' or an unlearning method of the job.

    Raises:
      ValueError: the job has no such population, or its models are gone.
    """
    job = self._job
    if name not in job.populations:
      raise ValueError(
        f'{self.folder} has no models of {name!r}; '
        f'{terms.choices(name, job.populations)}'
      )
    original = None
    if name != 'original':
      original = self.models('original')
    return _read_population(job, job.populations[name], self._setup, original)

  def _has(self, name: str) -> bool:
    return (self.folder / name).is_file()

  @functools.cached_property
  def _record(self) -> dict[str, Any]:
    path = self.folder / _RECORD
    try:
      record = results.read_json(path)
      record['provenance']['configuration']
    except (OSError, ValueError, LookupError, TypeError) as error:
      raise ValueError(
        f'{path} cannot be read ({type(error).__name__}); run the job again: '
        'finished models are not trained again'
      ) from error
    return record

  @functools.cached_property
  def _job(self) -> job_lib.Job:
    saved = self._record['provenance']['configuration']
    config = settings_lib.config_of(saved)
    config['workdir'] = str(self.folder)
    setup_lib.set_up_devices()
    return job_lib.open_job(settings_lib.from_config(config))

  @functools.cached_property
  def _setup(self) -> setup_lib.Setup:
    job = self._job
    chosen = job.settings
    return setup_lib.Setup(
      data=inputs.load_data(job.source),
      design=inputs.as_design(job.design),
      model=job.task.model,
      model_name=chosen.model,
      model_options=chosen.model_options,
      precision=chosen.precision,
      seed=chosen.seed,
      seeds=chosen.splits.seeds,
      seed_mode=chosen.seed_mode,
    )


def is_workdir(folder: pathlib.Path) -> bool:
  """Return whether a folder holds a finished job."""
  there = (folder / 'store').is_dir() or bool(remote.url(folder))
  return (folder / _RECORD).is_file() and there


def _read_population(
  job: job_lib.Job,
  one: job_lib.Population,
  setup: setup_lib.Setup,
  original: Models | None,
) -> Models:
  missing = one.models.missing(verify=False)
  if missing:
    raise ValueError(
      f'the models of {one.name} are no longer in {job.folder}; run the job '
      'again'
    )
  size = one.members.size
  source = None
  if original is not None:
    source = job_lib.originals_of(one.members, original.members)
  return Models(
    name=one.name,
    method=one.method,
    setup=setup,
    members=one.members,
    hparams=[dict(one.hparams)] * size,
    variant=[''] * size,
    variables=stages.read_models(job, one, np.arange(size)),
    infos={'loss': one.models.arrays('loss')},
    failed=stages.failed_epochs(one.models),
    original=original,
    source=source,
  )


def run(
  method: str,
  *,
  data: str = 'digits',
  model: str = 'resnet18',
  workdir: str | os.PathLike | None = None,
  compare: Sequence[str] = (),
  overrides: Mapping[str, Any] | None = None,
  **sections: Any,
) -> JobResult:
  """Run a whole job: train, retrain, unlearn, attack and report.

  This is what `python -m jaxmu.main` does. A second call with the same settings
  trains nothing again; a call after an interruption continues where it stopped.

  Args:
    method: unlearning method: a name, import path or file.
    data: name of a data set, as for `load_data`.
    model: the architecture: a name, import path or file.
    workdir: folder of models, scores and the report; default
      `workdir/<method>_<model>_<data>`.
    compare: further methods for the same table.
    overrides: fields of the configuration by dotted name, such as
      {'train.num_epochs': 5}; `jaxmu.study.recipes.job_config` returns all.
    **sections: the same, nested: train={'num_epochs': 5}, seed=3.

  Returns:
    The numbers, read from the work directory.

  Raises:
    ValueError: an unknown name or a value out of range, before any training;
      the message gives the nearest names.

  Example:
    >>> import jaxmu, tempfile
    >>> tiny = {
    ...   'model.options': {}, 'splits.num_splits': 4, 'splits.pool': 400,
    ...   'train.num_epochs': 1, 'unlearn.hparams.num_epochs': 1,
    ...   'timing.repeats': 1}
    >>> folder = tempfile.mkdtemp() + '/job'
    >>> job = jaxmu.run(  # doctest: +ELLIPSIS
    ...   'ga', model='tiny', workdir=folder, overrides=tiny)
    train original: ...
    >>> job['ga', 'ta'].n
    2
    >>> len(job.models('ga'))
    8
  """
  given = {**_flat(sections), **(overrides or {})}
  config = make_config(
    method,
    data=data,
    model=model,
    workdir=workdir,
    compare=compare,
    overrides=given,
  )
  settings = settings_lib.from_config(config)
  setup_lib.set_up_devices()
  line = _command(
    method,
    data=data,
    model=model,
    workdir=config['workdir'],
    compare=list(compare),
    overrides=given,
  )
  with compile_cache():
    job = run_lib.run(settings, command=line)
  return JobResult(job.folder)


def make_config(
  method: str,
  *,
  data: str = 'digits',
  model: str = 'resnet18',
  workdir: str | os.PathLike | None = None,
  compare: Sequence[str] = (),
  overrides: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
  """Return the configuration of a job; see `run`."""
  if not isinstance(data, str):
    raise ValueError(
      f'data is a {type(data).__name__}; a job reads its data by name, so '
      'prepare them once with `python -m jaxmu.prepare`, or use jaxmu.train'
    )
  if isinstance(compare, str):
    raise ValueError(
      f'compare = {compare!r}; give a list such as [{compare!r}]'
    )
  for one in (method, model, *compare):
    if not isinstance(one, str):
      raise ValueError(
        f'{one!r} is an object; a job names its methods and its model, so that '
        'it can be run again: give an import path or a file such as '
        "'my_method.py'"
      )
  source = inputs.load_data(data)
  chosen = methods.get(method)
  config = recipes.job_config(
    method, model=model, scale=setup_lib.scale_of(source), compare=compare
  )
  if data not in recipes.DATA:
    config['data']['name'] = data
    config['splits']['pool'] = 0  # all but the validation examples
  config['workdir'] = str(workdir or f'workdir/{chosen.name}_{model}_{data}')
  for path, value in (overrides or {}).items():
    _override(config, path, value)
  return config


# Sections whose fields are names that a user chooses.
_OPEN = ('model.options', 'compare')


def _flat(sections: Mapping[str, Any], prefix: str = '') -> dict[str, Any]:
  flat = {}
  for name, value in sections.items():
    path = f'{prefix}{name}'
    # An empty section is kept, so that its name is checked.
    if isinstance(value, Mapping) and value and path not in _OPEN:
      flat |= _flat(value, f'{path}.')
    else:
      flat[path] = value
  return flat


def _override(config: dict[str, Any], path: str, value: Any) -> None:
  """Set one field; raise a ValueError for unknown names."""
  section, key = recipes.locate(config, path)
  # A section without a change is named, but not replaced.
  if not (isinstance(section.get(key), dict) and value == {}):
    section[key] = value


def _command(method: str, **given: Any) -> str:
  """Return a command line that calls `run` with these arguments."""
  words = [
    f'{name}={_plain(value)!r}' for name, value in given.items() if value
  ]
  call = ', '.join([repr(method), *words])
  return shlex.join(['python', '-c', f'import jaxmu; jaxmu.run({call})'])


def _plain(value: Any) -> Any:
  """Return a value without NumPy's types, so that its text is Python."""
  if isinstance(value, Mapping):
    return {name: _plain(one) for name, one in value.items()}
  if isinstance(value, list | tuple):
    return type(value)(map(_plain, value))
  return value.tolist() if hasattr(value, 'tolist') else value


@contextlib.contextmanager
def compile_cache() -> Iterator[None]:
  """Keep compiled programs, as the commands do."""
  changes = execution.open_program_cache()
  before = {name: getattr(jax.config, name) for name in changes}
  for name, value in changes.items():
    jax.config.update(name, value)
  try:
    yield
  finally:
    for name, value in before.items():
      jax.config.update(name, value)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class SearchResult(printing.Tabular):
  """The search of one method; made by `search`.

  Attributes:
    searched: everything that was found, see `jaxmu.tuning.driver.Searched`.
  """

  searched: Any

  @property
  def method(self) -> str:
    """The name of the method."""
    return self.searched.method

  @property
  def setting(self) -> Mapping[str, Any]:
    """The chosen hyper-parameters, all of them."""
    return self.searched.choice.setting

  @property
  def norms(self) -> Mapping[str, float]:
    """Mean norms of the chosen setting, the default and the originals.

    Of a training recipe: validation errors, without the originals.
    """
    return self.searched.judged

  @property
  def regret(self) -> float | None:
    """What a search without retrained models loses; None if not measured."""
    lost = self.searched.content.get('regret')
    return lost['regret'] if lost else None

  @property
  def trials(self) -> Sequence[Any]:
    """Every trial, see `jaxmu.tuning.records.TrialRow`."""
    return self.searched.rows

  @property
  def folder(self) -> pathlib.Path:
    """Where `trials.csv`, `settings.json` and the report are."""
    return self.searched.folder

  def plot(self, what: str = 'history') -> Any:
    """Draw a picture; a `matplotlib.figure.Figure`.

    Args:
      what: 'history' (norms of all trials, and the best so far), 'front' (pairs
        of objectives), 'parallel' (hyper-parameters) or 'importances'.

    Raises:
      ValueError: there is no such picture, or too few trials for it.
    """
    from jaxmu.tuning import page

    one = self.searched
    there = page.drawings(one.rows, one.choice, one.space, one.judged)
    if what not in there:
      raise ValueError(
        f'no picture {what!r} of this search; there are: {", ".join(there)}'
      )
    return there[what]()

  def save(self, path: str | os.PathLike) -> pathlib.Path:
    """Write trials.csv, settings.json, report.html and plots to a folder.

    A job reads the settings as `unlearn={'hparams': 'FOLDER/settings.json'}`.

    Args:
      path: folder to write; made if it does not exist.

    Raises:
      OSError: it cannot be written.
    """
    folder = files.path(path)
    self.searched.write(folder)
    return folder

  def columns(self) -> dict[str, list[Any]]:
    """Return one line per trial, the smallest norm first."""
    rows = sorted(self.trials, key=lambda row: row.norm)
    facts = ('norm', 'retain', 'forget', 'val', 'indisc', 'state')
    names = list(dict.fromkeys(n for row in rows for n in row.setting))
    varied = [
      n for n in names if len({str(r.setting.get(n)) for r in rows}) > 1
    ]
    return {
      'initialisation': [row.initialisation for row in rows],
      'trial': [row.number for row in rows],
      **{fact: [getattr(row, fact) for row in rows] for fact in facts},
      **{name: [row.setting.get(name) for row in rows] for name in varied},
    }

  def __repr__(self) -> str:
    first = {k: values[:_TRIALS_SHOWN] for k, values in self.columns().items()}
    from jaxmu.tuning import records

    what = records.title(len(self.trials[0].objectives))
    norms = ', '.join(
      f'{name} {value:.4f}' for name, value in self.norms.items()
    )
    setting = ', '.join(f'{k}={v}' for k, v in self.setting.items())
    return '\n'.join(
      [
        f'{self.method}: {len(self.trials)} trials; {what}: {norms}',
        f'chosen: {setting}',
        printing.grid(first),
      ]
    )


def search(
  method: str,
  *,
  data: str = 'digits',
  model: str = 'resnet18',
  workdir: str | os.PathLike | None = None,
  overrides: Mapping[str, Any] | None = None,
  space: Mapping[str, Any] | None = None,
  grid: Mapping[str, Sequence[Any]] | None = None,
  **search_fields: Any,
) -> SearchResult:
  """Search the hyper-parameters of a method.

  All trials of a generation train as one population; see `jaxmu.tuning`. A
  second call with the same arguments trains nothing again; a call after an
  interruption continues with the same trials.

  Args:
    method: a name, import path or file; 'original' for the recipe of the
      original models, which a job then reads as `train='tuned'`.
    data: name of a data set, as for `load_data`.
    model: the architecture: a name, import path or file.
    workdir: folder of models and results; default
      `workdir/<method>_<model>_<data>`, as for `run`.
    overrides: fields of the configuration by dotted name, as for `run`.
    space: spaces that replace those of the method, by hyper-parameter:
      'log(1e-4, 1e-1)', 'uniform(0, 1)', a list of values, or a number to hold
      it fixed.
    grid: values to try in all combinations instead of sampling.
    **search_fields: `trials`, `initialisations`, `sampler`, `objective`,
      `generation`, `finalists`, `judges`, `seed`; see
      `jaxmu.study.settings.Search`.

  Raises:
    ValueError: an unknown name or a value out of range, before any training.

  Example:
    >>> import jaxmu, tempfile
    >>> tiny = {
    ...   'model.options': {}, 'splits.pool': 400, 'splits.num_splits': 4,
    ...   'train.num_epochs': 1, 'run.shard': 4}
    >>> folder = tempfile.mkdtemp() + '/job'
    >>> found = jaxmu.search(  # doctest: +ELLIPSIS
    ...   'ga', model='tiny', workdir=folder, overrides=tiny,
    ...   space={'batch_size': 64}, trials=3, initialisations=2, judges=1)
    train original: ...
    >>> len(found.trials), sorted(found.norms)
    (6, ['chosen', 'default', 'original'])
  """
  from jaxmu.tuning import driver, opening

  fields = {f'search.{name}': value for name, value in search_fields.items()}
  recipe = method == opening.RECIPE
  if 'training' in search_fields:
    raise ValueError(
      f'training = {search_fields["training"]!r}; the training recipe is '
      f'searched with jaxmu.search({opening.RECIPE!r})'
    )
  if recipe:
    fields['search.training'] = True
    workdir = workdir or f'workdir/{method}_{model}_{data}'
  config = make_config(
    'ft' if recipe else method,  # a job has a method, which is not searched
    data=data,
    model=model,
    workdir=workdir,
    overrides={**(overrides or {}), **fields},
  )
  for name, given in (('space', space), ('grid', grid)):
    if not isinstance(given or {}, Mapping):
      raise ValueError(
        f'{name} = {given!r}; give hyper-parameters by name, as {name}='
        "{'learning_rate': [0.01, 0.1]}"
      )
    if given:
      config['search'][name].update({method: given} if recipe else given)
  settings = settings_lib.from_config(config)
  setup_lib.set_up_devices()
  with compile_cache():
    return SearchResult(*driver.run(settings))


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class SweepResult(printing.Tabular):
  """The reports of all cells of a sweep; made by `sweep`.

  Attributes:
    folder: where they are, with `leaderboard.html` and the other leaderboards.
    lines: every number, see `jaxmu.sweeps.leaderboard.Line`.
    failed: why units failed, by name; empty if all succeeded.
  """

  folder: pathlib.Path
  lines: Any
  failed: Mapping[str, str]

  def columns(self) -> dict[str, list[Any]]:
    """Return one line per number; `deviation` is over initialisations."""
    return _line_columns(self.lines)

  def __repr__(self) -> str:
    shown = [line for line in self.lines if line.row.metric in _METRICS_SHOWN]
    page = files.shown(self.folder / 'leaderboard.html')
    lines = [printing.grid(_line_columns(shown)), page]
    lines += [f'{name} failed: {why}' for name, why in self.failed.items()]
    return '\n'.join(lines)


def _line_columns(lines: Any) -> dict[str, list[Any]]:
  fields = ('method', 'metric', 'value', 'low', 'high', 'retrained')
  return {
    **{n: [getattr(line, n) for line in lines] for n in ('data', 'model')},
    'study': [line.study for line in lines],
    **{n: [getattr(line.row, n) for line in lines] for n in fields},
    'deviation': [
      None if math.isnan(line.deviation) else line.deviation for line in lines
    ],
  }


def sweep(
  scale: str = 'digits',
  *,
  workdir: str | os.PathLike | None = None,
  **fields: Any,
) -> SweepResult:
  """Search, train, unlearn, attack and rank in all cells of a benchmark.

  A second call trains nothing again; a call after an interruption continues.

  Args:
    scale: 'digits', 'laptop', 'paper' or 'reference'; see
      `jaxmu.sweeps.design.deep_unlearn`.
    workdir: folder of models and results; default
      `workdir/deep_unlearn_<scale>`.
    **fields: other values for fields of the sweep: `data`, `models`, `methods`,
      `studies`, `settings` (a folder with settings of an earlier search),
      `ulira_data`, `ulira_models`, `ulira_methods`, and fields of jobs by
      dotted name in `all`, `search`, `main`, `ulira`, `ulira_search`.

  Raises:
    ValueError: an unknown name or a wrong value, before any training; or no
      cell has a report, because all failed.

  Example:
    >>> import jaxmu, tempfile
    >>> board = jaxmu.sweep(  # doctest: +ELLIPSIS
    ...   workdir=tempfile.mkdtemp(), models=('tiny',), methods=('ga',),
    ...   studies=('main',), all={'train.num_epochs': 1, 'timing.repeats': 1},
    ...   main={'splits.num_splits': 4, 'splits.pool': 400})
    <BLANKLINE>
    digits_tiny/main
    ...
    >>> sorted(set(board.columns()['method']))
    ['ga', 'original', 'retrain']
  """
  # Imported late: other functions need no search and no attack.
  from jaxmu.sweeps import design, graph, leaderboard, work

  config = {**design.deep_unlearn(scale), **fields}
  if workdir is not None:
    config['workdir'] = str(workdir)
  chosen = design.from_config(config)
  setup_lib.set_up_devices()
  with compile_cache():
    failed = work.perform_all(chosen, graph.build(chosen), '')
  board = leaderboard.collect(chosen)
  reasons = {name: why for name, (why, _) in failed.items()}
  return SweepResult(chosen.workdir, board.lines, reasons)
