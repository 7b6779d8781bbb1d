"""Search hyper-parameters from Python, as `python -m jaxmu.search` does.

found = jaxmu.search('msg', trials=100)
print(found)                               # the best trials
jaxmu.run('msg', unlearn={'hparams': found.setting})    # a job that uses it
jaxmu.search('original', trials=30)        # the training recipe
"""

import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from jaxmu import files
from jaxmu.api import jobs, printing
from jaxmu.api import setup as setup_lib
from jaxmu.study import settings as settings_lib

_SHOWN = 10


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
    first = {k: values[:_SHOWN] for k, values in self.columns().items()}
    from jaxmu.tuning import objectives

    what = objectives.title(len(self.trials[0].objectives))
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
    >>> found = jaxmu.search(  # doctest: +ELLIPSIS
    ...   'ga', model='tiny', workdir=tempfile.mkdtemp(), overrides=tiny,
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
  config = jobs.make_config(
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
  with jobs.compile_cache():
    (found,) = driver.run(settings)
  return SearchResult(found)
