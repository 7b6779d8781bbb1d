"""Jobs from Python, as `python -m jaxmu.main` runs them.

job = jaxmu.run('msg', data='digits', workdir='work')
print(job)
job.models('msg')
"""

import contextlib
import dataclasses
import functools
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxmu import methods, remote, terms
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
      record = json.loads(path.read_text())
      record['provenance']['configuration']
    except (OSError, ValueError, KeyError, TypeError) as error:
      raise ValueError(
        f'{path} cannot be read ({type(error).__name__}); run the job again: '
        'finished models are not trained again'
      ) from error
    return record

  @functools.cached_property
  def _job(self) -> job_lib.Job:
    saved = self._record['provenance']['configuration']
    config = config_of(saved)
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
  """Whether a folder holds a finished job."""
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


def config_of(saved: Mapping[str, Any]) -> dict[str, Any]:
  """Return the configuration of a job from the settings in its record."""
  first, *others = saved['unlearners']
  gathered = ('model', 'model_options', 'precision', 'unlearners')
  gathered += ('search_space', 'search_grid')
  return {
    **{name: value for name, value in saved.items() if name not in gathered},
    'model': {
      'name': saved['model'],
      'options': _tuples(saved['model_options']),
      'precision': saved['precision'],
    },
    'unlearn': {'method': first['method'], 'hparams': first['hparams']},
    'compare': {o['method']: o['hparams'] for o in others},
    'search': {
      **saved.get('search', {}),
      'space': saved.get('search_space', {}),
      'grid': saved.get('search_grid', {}),
    },
  }


def _tuples(options: Mapping[str, Any]) -> dict[str, Any]:
  """Return options of a model with tuples for the lists of JSON."""
  return {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}


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
    >>> job = jaxmu.run(  # doctest: +ELLIPSIS
    ...   'ga', model='tiny', workdir=tempfile.mkdtemp(), overrides=tiny)
    train original: ...
    >>> job['ga', 'ta'].n
    2
    >>> len(job.models('ga'))
    8
  """
  config = make_config(
    method,
    data=data,
    model=model,
    workdir=workdir,
    compare=compare,
    overrides={**_flat(sections), **(overrides or {})},
  )
  settings = settings_lib.from_config(config)
  setup_lib.set_up_devices()
  with compile_cache():
    job = run_lib.run(settings, command=_command(method, config))
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


def _command(method: str, config: Mapping[str, Any]) -> str:
  return (
    f'jaxmu.run({method!r}, data={config["data"]["name"]!r}, '
    f'model={config["model"]["name"]!r}, workdir={config["workdir"]!r}, ...), '
    'with the configuration below'
  )


@contextlib.contextmanager
def compile_cache() -> Any:
  """Keep compiled programs, as the commands do."""
  changes = execution.program_cache()
  before = {name: getattr(jax.config, name) for name in changes}
  for name, value in changes.items():
    jax.config.update(name, value)
  try:
    yield
  finally:
    for name, value in before.items():
      jax.config.update(name, value)
