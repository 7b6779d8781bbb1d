"""Read folders of published results.

The record of a folder names everything that its numbers depend on. A reader
compares all files with their checksums first, so that a changed file is never
taken for a published one.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Collection, Mapping
from typing import Any

from jaxmu import files
from jaxmu.published import KINDS, ROOT
from jaxmu.report import checksums, results

FILE = 'record.json'
# Fields of every record, and of those of jobs and searches.
_NEEDED = ('name', 'kind', 'command', 'versions', 'date')
_OF_RUNS = (
  *('configuration', 'seeds', 'data', 'splits', 'hardware', 'compiler'),
  *('layout', 'seconds', 'planned_seconds', 'left_out', 'models'),
)
# Fields of computed numbers, see `jaxmu.published.computed`.
_OF_COMPUTED = ('function', 'study', 'sources', 'verdicts')
_TYPES = {
  **dict.fromkeys(('command', 'date', 'function', 'study'), str),
  **dict.fromkeys(('versions', 'sources', 'verdicts', 'meanings'), dict),
  'no_setting': list,
}


@dataclasses.dataclass(frozen=True, eq=False)
class Published:
  """A folder of published results.

  Attributes:
    name: its path below the root, with '/'.
    folder: where it is.
    record: the content of record.json.
  """

  name: str
  folder: pathlib.Path
  record: Mapping[str, Any]

  @property
  def kind(self) -> str:
    """One of `KINDS`."""
    return self.record['kind']

  @property
  def root(self) -> pathlib.Path:
    """The folder of all published results."""
    return self.folder.parents[self.name.count('/')]

  @functools.cached_property
  def numbers(self) -> list[results.Row]:
    """All numbers, run times included.

    Raises:
      ValueError: a file is damaged.
    """
    names = ('results.csv', 'timing.csv')
    return [
      row
      for name in names
      if (self.folder / name).is_file()
      for row in results.read_csv(self.folder / name)
    ]

  @property
  def observations(self) -> list[results.Observation]:
    """The numbers per cluster; none where there is no such file."""
    path = self.folder / results.PER_CLUSTER_FILE
    if not path.is_file():
      return []
    return results.read_csv(path, results.Observation)

  @functools.cached_property
  def chosen(self) -> dict[str, dict[str, Any]]:
    """The settings files of a search, by method."""
    paths = sorted((self.folder / 'settings').glob('*.json'))
    return {path.stem: files.read_json(path) for path in paths}

  @property
  def methods(self) -> list[str]:
    """Names or places of the unlearning methods in the configuration."""
    saved = self.record.get('configuration', {})
    return [one['method'] for one in saved.get('unlearners', ())]

  @property
  def bytes(self) -> int:
    """Size of all files."""
    paths = self.folder.rglob('*')
    return sum(path.stat().st_size for path in paths if path.is_file())


def find(root: files.Path = ROOT) -> dict[str, Published]:
  """Return all published results by name, ascending.

  Args:
    root: the folder to look in.

  Raises:
    ValueError: a record is damaged or incomplete.
  """
  root = pathlib.Path(root)
  paths = [
    path
    for path in sorted(root.rglob(FILE))
    if not any(part.startswith('.') for part in path.relative_to(root).parts)
  ]
  found = [read(path.parent, root) for path in paths]
  return {one.name: one for one in found}


def read(folder: pathlib.Path, root: files.Path = ROOT) -> Published:
  """Read the record of a folder.

  Args:
    folder: of published results.
    root: names are paths below it.

  Raises:
    OSError: it cannot be read.
    ValueError: the record is damaged or incomplete.
  """
  path = folder / FILE
  try:
    content = results.read_json(path)
  except ValueError:
    raise ValueError(
      f'published results {folder}: {FILE} is damaged or was changed; install '
      'jaxmu again'
    ) from None
  kind = content.get('kind')
  if kind not in KINDS:
    raise ValueError(
      f'{path}: kind = {kind!r}; expected one of {", ".join(KINDS)}'
    )
  own = _OF_COMPUTED if kind == 'computed' else _OF_RUNS
  lacking = [name for name in (*_NEEDED, *own) if name not in content]
  if lacking:
    raise ValueError(f'{path} has no {", ".join(lacking)}')
  for field, wanted in _TYPES.items():
    if field in content and not isinstance(content[field], wanted):
      raise ValueError(
        f'{path}: {field} = {content[field]!r} is no {wanted.__name__}; '
        'install jaxmu again'
      )
  name = folder.relative_to(root).as_posix()
  if content['name'] != name:
    raise ValueError(
      f'{path} is the record of {content["name"]!r}, and its folder is {name!r}'
    )
  return Published(name, folder, content)


def check(one: Published) -> None:
  """Compare all files with their checksums.

  Raises:
    ValueError: a file is missing, was changed, or has no checksum.
  """
  damaged = checksums.faults(one.folder)
  if damaged:
    raise ValueError(
      f'published results {one.name}: {"; ".join(damaged)}; install jaxmu again'
    )


def settings(
  one: Published, workdir: files.Path, chosen: Collection[str] | None = None
) -> Any:
  """Return the checked settings of the job or search of a folder.

  Args:
    one: published results of a run.
    workdir: where to run.
    chosen: names of the unlearning methods to keep; None for all. A job may do
      without any.

  Returns:
    `jaxmu.study.settings.Settings`. Devices and chunk are open.

  Raises:
    ValueError: the configuration does not fit this version.
  """
  # Imported late: reading published numbers needs no JAX.
  from jaxmu import hparams as hp
  from jaxmu import methods
  from jaxmu.study import settings as settings_lib

  config = settings_lib.config_of(one.record['configuration'])
  config['workdir'] = files.shown(pathlib.Path(workdir))
  whole = settings_lib.from_config(config)
  if chosen is None:
    return whole
  named = {methods.get(u.method).name: u for u in whole.unlearners}
  kept = tuple(u for name, u in named.items() if name in chosen)
  # Spaces of the other methods would be refused.
  known = {
    *chosen,
    *(f.name for u in kept for f in hp.declared(methods.get(u.method).Hparams)),
  }
  space, grid = (
    {name: value for name, value in given.items() if name in known}
    for given in (whole.search_space, whole.search_grid)
  )
  return dataclasses.replace(
    whole, unlearners=kept, search_space=space, search_grid=grid
  )
