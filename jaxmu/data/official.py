"""Prepare official sets, and sets of tensorflow-datasets (tfds), as files.

The builders of tfds encode images with TensorFlow and store them in shuffled
order. Those here write array_record files in the official order, without
TensorFlow. Archives come from the user's folder or from tfds' download
manager; both are compared with the published checksums.

A set is prepared in a draft folder and moved to its place when it is complete.
Finished downloads stay in `<data_dir>/downloads/<name>` and are used again.
`jaxmu.data.formats` opens what was prepared.

This module is imported only to prepare a set, because tfds is slow to import.
"""

import contextlib
import functools
import io
import pathlib
import re
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download import (
  checksums,
  download_manager,
  resource,
)
from tensorflow_datasets.core.download import util as download_util

from jaxmu import files
from jaxmu.data import archives, formats, pictures
from jaxmu.data.catalog import CATALOG


def prepare(
  name: str,
  *,
  data_dir: pathlib.Path,
  manual_dir: pathlib.Path | None = None,
  any_size: bool = False,
  overwrite: bool = False,
) -> tuple[pathlib.Path, tuple[str, ...]]:
  """Prepare one of `BUILDERS` below `data_dir`, unless it exists.

  A failure leaves no incomplete data; the next run removes the files of a
  killed run.

  Args:
    name: a key of `BUILDERS`.
    data_dir: folder of data sets.
    manual_dir: folder that may hold the archives; what it lacks is downloaded.
    any_size: accept another number of examples than the official one.
    overwrite: replace what was prepared before, and a plain set of this name.

  Returns:
    The folder of the prepared set, and the names of files left out.

  Raises:
    ValueError: an archive is missing, damaged, or not the official one.
  """

  def make(data_dir: pathlib.Path) -> Any:
    builder = BUILDERS[name](data_dir=data_dir, file_format='array_record')
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

  Arguments and the behaviour after a failure are as for `prepare`.

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
      f'{name!r} is not a data set of tensorflow-datasets; jaxmu has '
      f'{", ".join(sorted(CATALOG))}'
    ) from error
  return folder


def _install(
  name: str,
  make: Callable[..., Any],
  *,
  data_dir: pathlib.Path,
  manual_dir: pathlib.Path | None,
  overwrite: bool,
) -> tuple[pathlib.Path, Any]:
  """Prepare with `make(data_dir=...)`; return the folder and the builder."""
  if manual_dir is not None and not manual_dir.is_dir():
    raise ValueError(
      f'--manual_dir={manual_dir} is not a folder: name the one that holds the '
      'archives, or leave the flag out to download them'
    )
  with _exclusive(name, data_dir), files.atomic_folder(data_dir) as draft:
    builder = make(data_dir=draft)
    prepared = pathlib.Path(builder.data_path)
    folder = data_dir / prepared.relative_to(draft)
    if overwrite or not folder.exists():
      _run(builder, draft, downloads=data_dir / 'downloads', manual=manual_dir)
      formats.write_checksums(prepared)
      files.publish_folder(prepared, folder)
      if overwrite:
        formats.remove_plain(data_dir / name)
  return folder, builder


def _run(
  builder: Any,
  draft: pathlib.Path,
  *,
  downloads: pathlib.Path,
  manual: pathlib.Path | None,
) -> None:
  """Download and prepare, with errors that name the remedy."""
  name, official = builder.name, builder.name in BUILDERS
  if builder.MANUAL_DOWNLOAD_INSTRUCTIONS and manual is None:
    raise ValueError(
      f'{name} is not downloaded by tensorflow-datasets: put its files into a '
      'folder and name that with --manual_dir. '
      f'{builder.MANUAL_DOWNLOAD_INSTRUCTIONS}'
    )
  missing = _missing(builder, downloads / name, manual)
  try:
    # A set of tfds may list more archives than its configuration needs.
    if official or len(missing) == len(builder.url_infos or ()):
      archives.check_reachable(missing)
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
  except Exception as error:  # a third-party builder may raise anything
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
  builder: Any, downloads: pathlib.Path, manual: pathlib.Path | None
) -> dict[str, str]:
  """Return file names, by address, of the archives that are not here."""
  if manual and builder.name in archives.PYTHON_ARCHIVES:
    if (manual / archives.PYTHON_ARCHIVES[builder.name][0]).exists():
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
def _exclusive(name: str, data_dir: pathlib.Path) -> Iterator[None]:
  """Keep other processes from preparing a set; clean up before and after."""
  downloads = data_dir / 'downloads' / re.split('[/:]', name)[0]

  def clean_up() -> None:
    for stale in downloads.glob('*.tmp.*'):
      shutil.rmtree(stale, ignore_errors=True)
    for folder in (downloads, downloads.parent):
      with contextlib.suppress(OSError):  # absent, or not empty
        folder.rmdir()

  data_dir.mkdir(parents=True, exist_ok=True)
  with files.lock(data_dir / f'.{re.sub(r"[^a-z0-9_]", "-", name)}.lock'):
    clean_up()
    try:
      yield
    finally:
      clean_up()


class _Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """Features, checksums and counts that all sets share.

  Attributes:
    any_size: accept another number of examples than the official one.
    manual_dir: folder that may hold the archives.
    skipped: names of files that were left out, for the report.
  """

  VERSION = tfds.core.Version('1.0.0')
  any_size = False
  manual_dir: pathlib.Path | None = None
  skipped: tuple[str, ...] = ()

  @property
  def url_infos(self) -> dict[str, checksums.UrlInfo]:  # pyright: ignore
    """Checksums for tfds' download manager, which looks them up by address."""
    return {
      remote.url: checksums.UrlInfo(
        size=checksums.utils.Size(remote.size),
        checksum=remote.sha256,
        filename=remote.filename,
      )
      for remote in archives.REMOTES.get(self.name, ())
    }

  def _info(self) -> tfds.core.DatasetInfo:
    entry = CATALOG[self.name]
    return tfds.core.DatasetInfo(
      builder=self,
      description=f'{entry.title} in the official order.',
      features=tfds.features.FeaturesDict(
        {
          'image': self._image_feature(),
          'label': tfds.features.ClassLabel(num_classes=entry.num_classes),
        }
      ),
      supervised_keys=('image', 'label'),
      disable_shuffling=True,  # an index means nothing in a shuffled set
    )

  def _image_feature(self) -> tfds.features.FeatureConnector:
    return tfds.features.Tensor(
      shape=CATALOG[self.name].native_shape, dtype=np.uint8, encoding='bytes'
    )

  def _fetch(self, dl_manager) -> list[pathlib.Path]:
    """Return the archives, from the user's folder or downloaded."""
    urls = [remote.url for remote in archives.REMOTES[self.name]]
    return [pathlib.Path(path) for path in dl_manager.download(urls)]

  def _records(self, split: str, examples: Iterator[tuple[object, int]]):
    """Number and check the examples of one split for tfds' writer."""
    entry = CATALOG[self.name]
    expected = {'train': entry.num_dev, 'test': entry.num_test}[split]
    count = 0
    for image, label in examples:
      if not 0 <= label < entry.num_classes:
        raise ValueError(
          f'{self.name}: example {count} of {split} has label {label}, '
          f'expected 0..{entry.num_classes - 1}: the archive is damaged'
        )
      yield count, {'image': image, 'label': label}
      count += 1
    if count == 0:  # tfds would only say that an assertion failed
      raise ValueError(
        f'{self.name}: there are no examples in {split}, expected {expected}'
      )
    if count != expected and not self.any_size:
      raise ValueError(
        f'{self.name}: {count} examples in {split}, expected {expected}: get '
        'the official archive, or accept this one with --any_size'
      )


class _Idx(_Builder, skip_registration=True):
  """Four gzipped idx files."""

  def _split_generators(self, dl_manager):
    train_image, train_label, test_image, test_label = self._fetch(dl_manager)
    return {
      'train': self._generate_examples('train', train_image, train_label),
      'test': self._generate_examples('test', test_image, test_label),
    }

  def _generate_examples(self, split, image_path, label_path):
    examples = archives.mnist_examples(image_path, label_path)
    return self._records(split, examples)


class Mnist(_Idx, skip_registration=True):
  """MNIST: 60,000 + 10,000 handwritten digits, 28 x 28 grey."""


class FashionMnist(_Idx, skip_registration=True):
  """Fashion-MNIST: 60,000 + 10,000 pictures of clothes, 28 x 28 grey."""


class _Cifar(_Builder, skip_registration=True):
  """One tar archive, binary or Python."""

  train_files: tuple[str, ...] = ()
  test_files: tuple[str, ...] = ()

  def _split_generators(self, dl_manager):
    path = self._python_archive() or self._fetch(dl_manager)[0]
    return {
      'train': self._generate_examples('train', path, self.train_files),
      'test': self._generate_examples('test', path, self.test_files),
    }

  def _generate_examples(self, split, path, files):
    examples = archives.cifar_examples(
      path, files=files, num_classes=CATALOG[self.name].num_classes
    )
    return self._records(split, examples)

  def _python_archive(self) -> pathlib.Path | None:
    """Return the Python archive if the user's folder holds it."""
    filename, md5 = archives.PYTHON_ARCHIVES[self.name]
    folder = self.manual_dir
    if folder is None or not (folder / filename).exists():
      return None
    actual = files.md5(folder / filename)
    if actual != md5:
      raise ValueError(
        f'{folder / filename} has the md5 checksum {actual}, expected {md5}: '
        'it is damaged or cut short, fetch it again'
      )
    return folder / filename


class Cifar10(_Cifar, skip_registration=True):
  """CIFAR-10: 50,000 + 10,000 photographs, 32 x 32 colour."""

  train_files = tuple(f'data_batch_{k}' for k in range(1, 6))
  test_files = ('test_batch',)


class Cifar100(_Cifar, skip_registration=True):
  """CIFAR-100 with its fine labels: 50,000 + 10,000 photographs."""

  train_files = ('train',)
  test_files = ('test',)


class Utkface(_Builder, skip_registration=True):
  """UTKFace, aligned and cropped: 23,708 faces in five bands of age.

  Files are sorted by name, then divided by `default_rng(123).permutation`: the
  first fifth is the test part, the rest the development part.
  """

  SOURCES = ('UTKFace', 'UTKFace.tar.gz', 'UTKFace.tar', 'UTKFace.zip')

  def _image_feature(self) -> tfds.features.FeatureConnector:
    # The original JPEG bytes are kept and decoded when the set is opened.
    return tfds.features.Image(shape=(None, None, 3))

  def _split_generators(self, dl_manager):
    folder = self.manual_dir
    present = [s for s in self.SOURCES if folder and (folder / s).exists()]
    if not present:
      raise ValueError(
        f'UTKFace has no address to download from. Put one of '
        f'{", ".join(self.SOURCES)} (aligned and cropped faces, '
        f'23,708 .jpg files) into {folder or "a folder"} and name that with '
        '--manual_dir; docs/data.md says where to get it'
      )
    assert folder is not None
    faces = archives.utkface_files(folder / present[0])
    bands = {name: archives.utkface_age_band(name) for name in faces}
    self.skipped = tuple(n for n, band in bands.items() if band is None)
    names = [name for name, band in bands.items() if band is not None]
    self._check_count(folder / present[0], len(names))
    order = np.random.default_rng(123).permutation(len(names))
    num_test = int(0.2 * len(names))
    parts = {'train': order[num_test:], 'test': order[:num_test]}
    return {
      split: self._generate_examples(
        split, [(names[i], faces[names[i]], bands[names[i]]) for i in part]
      )
      for split, part in parts.items()
    }

  def _check_count(self, path: pathlib.Path, count: int) -> None:
    """Refuse any other number of faces, and name the files left out."""
    expected = CATALOG[self.name].num_dev + CATALOG[self.name].num_test
    # With fewer than five faces, the test part would be empty.
    if count == expected or (self.any_size and count >= 5):
      return
    left_out = ''
    if self.skipped:
      left_out = (
        f' and {len(self.skipped)} without an age in their names, which are '
        f'left out: {", ".join(self.skipped[:10])}'
        f'{", ..." if len(self.skipped) > 10 else ""}'
      )
    remedy = 'at least 5 are needed'
    if count >= 5:
      remedy = 'complete them, or allow it with --any_size'
    raise ValueError(
      f'{path} holds {count} .jpg files of the form <age>_..., expected '
      f'{expected}{left_out}: {remedy}'
    )

  def _generate_examples(self, split, items):
    examples = (
      (io.BytesIO(pictures.encoded_rgb(name, content)), band)
      for name, content, band in items
    )
    return self._records(split, examples)


BUILDERS = {
  'cifar10': Cifar10,
  'cifar100': Cifar100,
  'fashion_mnist': FashionMnist,
  'mnist': Mnist,
  'utkface': Utkface,
}
