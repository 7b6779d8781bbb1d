"""Prepare sets with tensorflow-datasets, from archives or its downloads.

A set is prepared in a draft and moved to its place when it is complete.
Finished downloads stay in `<data_dir>/downloads/<name>` and are used again.

Imported only to prepare a set: tfds is slow to import.
"""

import contextlib
import functools
import pathlib
import re
import shutil
from collections.abc import Callable, Iterator

import tensorflow_datasets as tfds
from tensorflow_datasets.core.download import download_manager, resource
from tensorflow_datasets.core.download import util as download_util

from jaxmu.data import builders, drafts, locks, plain, remotes
from jaxmu.data.catalog import CATALOG


def prepare(
  name: str,
  *,
  data_dir: pathlib.Path,
  manual_dir: pathlib.Path | None = None,
  any_size: bool = False,
  overwrite: bool = False,
) -> tuple[pathlib.Path, tuple[str, ...]]:
  """Prepare one of `builders.BUILDERS` below `data_dir`, once.

  Nothing half-prepared is left behind by a failure; what a killed run left is
  removed by the next one.

  Args:
    name: a key of `BUILDERS`.
    data_dir: where data sets live.
    manual_dir: folder that may hold the archives; what it lacks is downloaded.
    any_size: accept another number of examples than the official one.
    overwrite: replace what was prepared before, and a plain set of this name.

  Returns:
    The folder of the prepared set, and the names of files left out.

  Raises:
    ValueError: an archive is missing, damaged, or not the official one.
  """

  def make(data_dir: pathlib.Path):
    builder = builders.BUILDERS[name](
      data_dir=data_dir, file_format='array_record'
    )
    builder.any_size = any_size
    builder.manual_dir = manual_dir
    return builder

  folder, builder = _install(
    name, make, data_dir=data_dir, manual_dir=manual_dir, overwrite=overwrite
  )
  return folder, builder.skipped


def prepare_other(
  name: str,
  *,
  data_dir: pathlib.Path,
  manual_dir: pathlib.Path | None = None,
  overwrite: bool = False,
) -> pathlib.Path:
  """Prepare a set of tfds' own catalogue in a form read without TensorFlow.

  Args and the state left behind are those of `prepare`.

  Returns:
    The folder of the prepared set.

  Raises:
    ValueError: tfds has no such set, or cannot prepare it here; the message
      gives the command for a machine that can.
  """
  make = functools.partial(tfds.builder, name, file_format='array_record')
  try:
    folder, _ = _install(
      name, make, data_dir=data_dir, manual_dir=manual_dir, overwrite=overwrite
    )
  except tfds.core.DatasetNotFoundError as error:
    raise ValueError(
      f'{name!r} is not a data set of tensorflow-datasets; with jaxmu come '
      f'{", ".join(sorted(CATALOG))}'
    ) from error
  return folder


def _install(
  name: str,
  make: Callable,
  *,
  data_dir: pathlib.Path,
  manual_dir: pathlib.Path | None,
  overwrite: bool,
):
  """Let `make(data_dir=...)` prepare in a draft; return the folder and it."""
  if manual_dir is not None and not manual_dir.is_dir():
    raise ValueError(
      f'--manual_dir={manual_dir} is not a folder: name the one that holds the '
      'archives, or leave the flag out to download them'
    )
  with _alone(name, data_dir), drafts.draft(data_dir) as draft:
    builder = make(data_dir=draft)
    prepared = pathlib.Path(builder.data_path)
    folder = data_dir / prepared.relative_to(draft)
    if overwrite or not folder.exists():
      _run(builder, draft, downloads=data_dir / 'downloads', manual=manual_dir)
      drafts.publish(prepared, folder)
      if overwrite:
        plain.remove(data_dir / name)
  return folder, builder


def _run(
  builder,
  draft: pathlib.Path,
  *,
  downloads: pathlib.Path,
  manual: pathlib.Path | None,
) -> None:
  """Download and prepare, with errors that name the remedy."""
  name, official = builder.name, builder.name in builders.BUILDERS
  if builder.MANUAL_DOWNLOAD_INSTRUCTIONS and manual is None:
    raise ValueError(
      f'{name} is not downloaded by tensorflow-datasets: put its files into a '
      'folder and name that with --manual_dir. '
      f'{builder.MANUAL_DOWNLOAD_INSTRUCTIONS}'
    )
  missing = _missing(builder, downloads / name, manual)
  try:
    # A set of tfds may list more archives than its chosen configuration needs.
    if official or len(missing) == len(builder.url_infos or ()):
      remotes.check_reachable(missing)
    builder.download_and_prepare(
      download_dir=downloads,
      download_config=tfds.download.DownloadConfig(
        extract_dir=draft / 'extracted',
        manual_dir=manual,
        try_download_gcs=False,
        force_checksums_validation=official,
      ),
    )
  except download_manager.NonMatchingChecksumError as error:
    raise ValueError(
      f'{str(error).partition("To debug")[0]}The archive is damaged, cut short '
      'or another one: remove it and run the same command again'
    ) from error
  except (download_util.DownloadError, OSError) as error:
    title = CATALOG[name].title if name in CATALOG else name
    raise ValueError(
      f'{title} could not be fetched or written ({error}). Run the same '
      f'command again{_by_hand(list(missing.values()), manual)}'
    ) from error
  except Exception as error:  # whatever a foreign builder raises
    if official:
      raise
    relative = pathlib.Path(builder.data_path).relative_to(draft)
    raise ValueError(
      f'{name} could not be prepared here ({type(error).__name__}: {error}). '
      'Many builders of tfds need TensorFlow: where it is installed, run\n'
      f'  tfds build {"/".join(relative.parts[:-1])} '
      '--file_format=array_record\n'
      f'and copy the folder to {downloads.parent / relative}'
    ) from error


def _missing(
  builder, downloads: pathlib.Path, manual: pathlib.Path | None
) -> dict[str, str]:
  """Return file names by address of the archives that are not at hand."""
  if manual and builder.name in remotes.PYTHON_ARCHIVES:
    if (manual / remotes.PYTHON_ARCHIVES[builder.name][0]).exists():
      return {}
  missing = {}
  for url, info in (builder.url_infos or {}).items():
    filename = info.filename or url.rpartition('/')[2]
    cached = downloads / resource.get_dl_fname(url, info.checksum)
    if cached.exists() or (manual and (manual / filename).exists()):
      continue
    missing[url] = filename
  return missing


def _by_hand(filenames: list[str], manual: pathlib.Path | None) -> str:
  if not filenames:
    return ''
  shown = ' '.join(filenames[:8]) + (' ...' if len(filenames) > 8 else '')
  if manual:
    return f', or put what --manual_dir={manual} lacks into it: {shown}'
  return f', or fetch {shown} elsewhere and name the folder with --manual_dir'


@contextlib.contextmanager
def _alone(name: str, data_dir: pathlib.Path) -> Iterator[None]:
  """Let one process at a time prepare a set, and clean up before and after."""
  downloads = data_dir / 'downloads' / re.split('[/:]', name)[0]

  def sweep():
    for stale in downloads.glob('*.tmp.*'):
      shutil.rmtree(stale, ignore_errors=True)
    for folder in (downloads, downloads.parent):
      with contextlib.suppress(OSError):  # absent, or still of use
        folder.rmdir()

  data_dir.mkdir(parents=True, exist_ok=True)
  with locks.hold(data_dir / f'.{re.sub(r"[^a-z0-9_]", "-", name)}.lock'):
    sweep()
    try:
      yield
    finally:
      sweep()
