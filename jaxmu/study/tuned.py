"""Settings that a search chose, as files that jobs read.

A file holds the setting with everything that says where it comes from: method,
data, model, training recipe, budget, and the norms of the setting, of the
default and of the unchanged originals. `hparams='tuned'` in a job takes

  1. WORKDIR/search/METHOD/settings.json, of a search in this work directory;
  2. the file shipped in the package for the method, data and model.

`hparams='FILE.json'` takes a file. `config.train` takes both too, for a recipe
of the original models that `python -m jaxmu.search --training` found.
"""

import functools
import json
import pathlib
import warnings
from collections.abc import Mapping
from typing import Any

from jaxmu import files, methods
from jaxmu import hparams as hp
from jaxmu.method import Method

SHIPPED = pathlib.Path(__file__).parent.parent / 'tuned'
# The search whose settings serve all data of the digits scale, and all models.
DIGITS = 'digits_resnet18'
NAME = 'settings.json'
_NEEDED = ('method', 'data', 'model', 'hparams')


def folder(workdir: files.Path, method: str) -> pathlib.Path:
  """Return the folder of a search's files."""
  return files.workdir(workdir) / 'search' / method


def is_name(value: Any) -> bool:
  """Return whether a value stands for the content of a settings file.

  Example:
    >>> is_name('tuned'), is_name('work/settings.json'), is_name({'alpha': 1})
    (True, True, False)
  """
  return isinstance(value, str) and (
    value == 'tuned' or value.endswith('.json')
  )


def write(path: files.Path, content: Mapping[str, Any]) -> pathlib.Path:
  """Write a settings file atomically and return its path."""
  return files.write_text(path, json.dumps(content, indent=1) + '\n')


def read(path: files.Path, method: Any = None) -> dict[str, Any]:
  """Read a settings file and check its hyper-parameters.

  Args:
    path: of the file.
    method: the method that it must be of; None for the method it names.

  Raises:
    ValueError: it cannot be read, is of another method, or does not hold valid
      values of all hyper-parameters.
  """
  path = files.path(path)
  remedy = 'give a settings file of python -m jaxmu.search'
  try:
    content = files.read_json(path)
  except (OSError, ValueError) as error:
    raise ValueError(f'{path} cannot be read ({error}); {remedy}') from None
  for name in _NEEDED:
    if name not in content:
      raise ValueError(f'{path} has no {name!r}; {remedy}')
  hparams = content['hparams']
  if not isinstance(hparams, dict):
    raise ValueError(f'{path}: hparams = {hparams!r}; give names and values')
  chosen = methods.get(content['method'] if method is None else method)
  if content['method'] != chosen.name:
    raise ValueError(
      f'{path} holds settings of {content["method"]}; give those of '
      f'{chosen.name}'
    )
  hp.from_config(chosen.Hparams, hparams, f'{path}: ')
  for field in hp.declared(chosen.Hparams):
    if field.name not in hparams:  # a default would be no searched value
      raise ValueError(f'{path}: hparams has no {field.name!r}; add it')
  return content


@functools.cache
def small_scale(method: str) -> Mapping[str, Any]:
  """Return the hyper-parameters of a method for data of the digits scale.

  The defaults suit networks of width 64, tens of thousands of images and
  hundreds of epochs. The digits scale is a ResNet-18 of width 8 on 1,098
  retained images and 12 epochs; its settings are those of a search on other
  initialisations than any job of this scale uses.

  Args:
    method: its name; no plug-in has the name of a built-in method.

  Returns:
    All hyper-parameters by name; nothing for a method that is not built in.
  """
  path = SHIPPED / DIGITS / f'{method}.json'
  return read(path)['hparams'] if path.is_file() else {}


def find(
  text: str,
  *,
  method: Any,
  data: str,
  model: str,
  workdir: files.Path,
  expected: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
  """Return the hyper-parameters that `hparams=text` stands for.

  Warns if the search had other options of the model or another recipe.

  Args:
    text: 'tuned' or the path of a settings file.
    method: the method, as for `methods.get`.
    data: name of the data set.
    model: name of the model.
    workdir: of the job.
    expected: what the search should have had too: 'model_options' and, for an
      unlearning method, 'train', with their values by name.

  Raises:
    ValueError: there are none, or they are of another method.
  """
  if text == 'tuned':
    name = methods.get(method).name
    places = [
      folder(workdir, name) / NAME,
      SHIPPED / f'{data}_{model}' / f'{name}.json',
    ]
    files.refresh(places[0].parent)
    found = [place for place in places if place.is_file()]
    if not found:
      raise ValueError(
        f'there are no tuned settings of {name} for {model} on {data}; '
        'search them with python -m jaxmu.search and the same configuration'
      )
    path = found[0]
  else:
    path = files.path(text)
    files.refresh(path.parent)
  content = read(path, method)
  if content['data'] != data or content['model'] != model:
    raise ValueError(
      f'{path} holds settings for {content["model"]} on {content["data"]}; '
      f'the job has {model} on {data}. Copy its numbers to config.unlearn to '
      'use them there'
    )
  _warn_of_differences(path, content, expected)
  return content['hparams']


# Sections of a settings file, and where a configuration has them.
_FIELDS = {'model_options': 'config.model.options', 'train': 'config.train'}


def _warn_of_differences(
  path: pathlib.Path,
  content: Mapping[str, Any],
  expected: Mapping[str, Mapping[str, Any]],
) -> None:
  """Warn if a search was made with another model or recipe than a job."""
  differences = []
  for section, values in expected.items():
    searched = content.get(section)
    if not isinstance(searched, dict):  # a file that was written by hand
      continue
    own = {name: _as_json(value) for name, value in values.items()}
    for name in sorted({*searched, *own}):
      theirs, ours = (one.get(name, 'unset') for one in (searched, own))
      if theirs != ours:
        where = f'{_FIELDS[section]}.{name}'
        differences.append(f'{where} = {theirs} (the job: {ours})')
  if differences:
    warnings.warn(
      f'{path} was searched with {", ".join(differences)}; search again with '
      'the configuration of the job for a setting that suits it',
      stacklevel=3,
    )


def _as_json(value: Any) -> Any:
  """Return a value as a settings file holds it, with lists for tuples."""
  return json.loads(json.dumps(value, default=str))


def origin(
  method: Method, hparams: Mapping[str, Any], workdir: files.Path
) -> str:
  """Say where the hyper-parameters of a method come from, for a report.

  Args:
    method: the method.
    hparams: all hyper-parameters that a job uses.
    workdir: of the job.
  """
  places = {
    folder(workdir, method.name) / NAME: 'searched in this work directory',
    **{
      path: f'searched on {path.parent.name}, in the package'
      for path in sorted(SHIPPED.glob(f'*/{method.name}.json'))
    },
  }
  for path, text in places.items():
    try:
      content = read(path, method)
    except ValueError:  # none, or damaged
      continue
    if content['hparams'] == dict(hparams):
      return text
  if dict(hparams) == hp.defaults(method.Hparams):
    return 'default'
  return 'configuration'
