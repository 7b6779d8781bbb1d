"""Put the result of a search where the package ships it.

    DATA_MODEL/METHOD.json      the chosen setting, see `jaxmu.study.tuned`
    DATA_MODEL/trials.csv.gz    every trial of every method
    DATA_MODEL/search.csv       what the search of each method found and cost

The same search gives the same bytes.
"""

import ast
import csv
import gzip
import io
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jaxmu import files, methods
from jaxmu import hparams as hp
from jaxmu.method import Sizes
from jaxmu.study import job as job_lib
from jaxmu.study import tuned

LOG = 'trials.csv.gz'
SUMMARY = 'search.csv'
TRIALS = 'trials.csv'  # of a method, in the folder of its search
# What must be equal for the budgets of methods to be equal.
BUDGET = ('trials', 'initialisations', 'finalists', 'judges')
# Columns with six digits; hyper-parameters are exact.
_SHORTENED = ('norm', 'retain', 'forget', 'val', 'indisc')


class Found(NamedTuple):
  """The finished search of one method.

  Attributes:
    content: of its settings file.
    trials: its trials as they are in the file, text by column.
  """

  content: dict[str, Any]
  trials: list[dict[str, str]]

  @property
  def method(self) -> str:
    """Name of the method."""
    return self.content['method']


def read(workdir: files.Path, names: Sequence[str]) -> list[Found]:
  """Read the searches of a work directory.

  Args:
    workdir: of the search.
    names: of the methods.

  Raises:
    ValueError: the search of a method is not finished, or methods had different
      budgets or samplers.
  """
  found = []
  for name in names:
    folder = tuned.folder(workdir, name)
    if not (folder / tuned.NAME).is_file():
      raise ValueError(
        f'{folder} has no {tuned.NAME}; finish the search of {name} with '
        'python -m jaxmu.search'
      )
    with (folder / TRIALS).open(newline='') as file:
      trials = list(csv.DictReader(file))
    found.append(Found(tuned.read(folder / tuned.NAME), trials))
  for key in ('sampler', 'objective', *BUDGET):
    values = {str(one.content['search'][key]) for one in found}
    if len(values) > 1:
      raise ValueError(
        f'the searches differ in config.search.{key}: {sorted(values)}; search '
        'all methods with the same command'
      )
  return found


def write(
  root: pathlib.Path, found: Sequence[Found], sizes: Sizes
) -> pathlib.Path:
  """Write settings, log and summary of a search; return their folder.

  Args:
    root: folder of all shipped settings.
    found: the searches of the methods.
    sizes: of the sets of one model, for counted work.
  """
  first = found[0].content
  folder = root / f'{first["data"]}_{first["model"]}'
  for one in found:
    hardware = dict(one.content.get('hardware', {}))
    hardware.pop('system', None)  # the version of the kernel says nothing
    content = {**one.content, 'hardware': hardware}
    tuned.write(folder / f'{one.method}.json', content)
  files.write_bytes(folder / LOG, compressed(log_text(found)))
  rows = [summary(one, sizes) for one in found]
  files.write_text(folder / SUMMARY, _csv(list(rows[0]), rows))
  return folder


def log_text(found: Sequence[Found]) -> str:
  """Return all trials as one table; hyper-parameters are the last columns."""
  trials = [trial for one in found for trial in one.trials]
  columns = list(dict.fromkeys(name for trial in trials for name in trial))
  rows = [
    {name: _shortened(name, trial.get(name, '')) for name in columns}
    for trial in trials
  ]
  return _csv(columns, rows)


def compressed(text: str) -> bytes:
  """Return gzip bytes that depend on the text alone."""
  content = io.BytesIO()
  with gzip.GzipFile('', 'wb', fileobj=content, mtime=0) as file:
    file.write(text.encode())
  return content.getvalue()


def read_log(folder: pathlib.Path) -> list[dict[str, str]]:
  """Read the trials of all methods, text by column."""
  with gzip.open(folder / LOG, 'rt', newline='') as file:
    return list(csv.DictReader(file))


def setting_of(method: str, trial: Mapping[str, str]) -> dict[str, Any]:
  """Return the hyper-parameters in a row of a table of trials.

  Example:
    >>> setting_of('ff', {'alpha': '1e-05', 'batch_size': '64', 'norm': '0.1'})
    {'alpha': 1e-05, 'batch_size': 64}
  """
  names = [field.name for field in hp.declared(methods.get(method).Hparams)]
  return {name: _value(trial[name]) for name in names if trial.get(name)}


def summary(one: Found, sizes: Sizes) -> dict[str, Any]:
  """Return what a search found and cost, as a row of a table.

  `forward_equivalents` is the counted work of all trials in forward passes of
  one image, whether they failed or not; `programs` the static choices among
  them, each of which is compiled once.
  """
  method = methods.get(one.method)
  settings = [setting_of(one.method, trial) for trial in one.trials]
  static = [f.name for f in hp.declared(method.Hparams) if hp.is_static(f)]
  work = sum(job_lib.counted_cost(method, s, sizes) for s in settings)
  norms, search = one.content['norms'], one.content['search']
  return {
    'method': one.method,
    **{
      f'norm_of_{name}': f'{norms[name]:.4f}'
      for name in ('chosen', 'default', 'original')
    },
    'trials': len(one.trials),
    'failed': search['failed'],
    'cannot_win': search['cannot_win'],
    'epochs': round(sum(s.get('num_epochs', 0) for s in settings)),
    'forward_equivalents': round(work),
    'seconds': f'{search["seconds"]:.0f}',
    'programs': len({json.dumps([s.get(n) for n in static]) for s in settings}),
  }


def _csv(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
  text = io.StringIO()
  writer = csv.DictWriter(text, columns, lineterminator='\n')
  writer.writeheader()
  writer.writerows(rows)
  return text.getvalue()


def _shortened(name: str, text: str) -> str:
  if not text or not (name in _SHORTENED or name.startswith('objective_')):
    return text
  return f'{float(text):.6g}'


def _value(text: str) -> Any:
  try:
    return ast.literal_eval(text)
  except (ValueError, SyntaxError):
    return text  # a name
