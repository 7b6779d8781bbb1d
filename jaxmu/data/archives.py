"""Readers of the original archives of the benchmark: idx, CIFAR and UTKFace.

They yield examples in the official order, which split indices refer to. Errors
name the file. Every compressed stream is read to its end, so that its checksum
is verified.

`REMOTES` holds the addresses and published checksums of the archives.
"""

import bz2
import collections
import contextlib
import dataclasses
import gzip
import io
import lzma
import pathlib
import pickle
import re
import socket
import tarfile
import urllib.parse
import urllib.request
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from jaxmu import terms

Example = tuple[np.ndarray, int]  # u8[H, W, C], label

_IDX_UBYTE = 0x08
_CIFAR_SIDE = 32
_LARGEST_PICTURE = 50_000_000  # bytes
# What the readers raise on archives that are cut short or damaged.
BROKEN = (
  EOFError,
  zlib.error,
  lzma.LZMAError,
  OSError,
  tarfile.TarError,
  zipfile.BadZipFile,
  NotImplementedError,  # from zipfile: unknown compression
  RuntimeError,  # from zipfile: encrypted members
)
_COMPRESSED = {b'\x1f\x8b': gzip.open, b'BZ': bz2.open, b'\xfd7': lzma.open}


@contextlib.contextmanager
def _reading(path: pathlib.Path) -> Iterator[None]:
  """Turn the errors of reading a damaged archive into one line."""
  try:
    yield
  except BROKEN as error:
    raise ValueError(
      f'{path} cannot be read ({error}): it is damaged or cut short, fetch it '
      'again'
    ) from error


def read_idx(path: pathlib.Path) -> np.ndarray:
  """Read one gzipped idx file of bytes, the format of MNIST.

  Returns:
    u8 array of the shape that the file states.

  Raises:
    ValueError: the file is truncated, damaged or not an idx file of bytes.
  """
  with _reading(path), gzip.open(path, 'rb') as file:
    data = file.read()
  if len(data) < 4 or data[:2] != b'\0\0' or data[2] != _IDX_UBYTE:
    raise ValueError(
      f'{path} is not an idx file of bytes: it begins with {data[:4].hex()}'
    )
  rank = data[3]
  shape = tuple(np.frombuffer(data[4 : 4 + 4 * rank], '>i4').tolist())
  body = np.frombuffer(data[4 + 4 * rank :], np.uint8)
  if len(shape) != rank or body.size != np.prod(shape, dtype=int):
    raise ValueError(
      f'{path} states the shape {shape} but holds {body.size} bytes: it is '
      'damaged or cut short, fetch it again'
    )
  return body.reshape(shape)


def mnist_examples(
  image_path: pathlib.Path, label_path: pathlib.Path
) -> Iterator[Example]:
  """Yield (u8[28, 28, 1], label) from a pair of idx files."""
  image, label = read_idx(image_path), read_idx(label_path)
  if image.ndim != 3 or label.shape != image.shape[:1]:
    raise ValueError(
      f'{image_path} has shape {image.shape} and {label_path} {label.shape}: '
      'they do not belong together'
    )
  for one, its_label in zip(image, label, strict=True):
    yield one[..., None], int(its_label)


def cifar_examples(
  path: pathlib.Path, *, files: tuple[str, ...], num_classes: int
) -> Iterator[Example]:
  """Yield (u8[32, 32, 3], label) from the batches of a CIFAR archive.

  Both official archives are supported: the binary one, and the Python one,
  whose pickles are read without executing any code in them.

  Args:
    path: a `.tar.gz` of CIFAR-10 or CIFAR-100.
    files: names of the batches in order, without `.bin`.
    num_classes: 10 or 100. With 100 the fine label is taken.
  """
  batches = _cifar_batches(path, files)
  read = {'.bin': _cifar_binary, '': _cifar_python}
  for name in files:
    if name not in batches:
      raise ValueError(f'{path} has no batch {name}: it is a different archive')
    suffix, data = batches.pop(name)
    try:
      image, label = read[suffix](data, num_classes)
    # The reader of pickles raises many kinds of exception.
    except Exception as error:
      raise ValueError(
        f'{path}: batch {name} is damaged ({error}): fetch the archive again'
      ) from error
    for one, its_label in zip(image, label, strict=True):
      yield one, int(its_label)


def _cifar_batches(
  path: pathlib.Path, files: tuple[str, ...]
) -> dict[str, tuple[str, bytes]]:
  """Return the suffix ('.bin' or '') and the bytes of each named batch."""
  batches = {}
  with _open_tar(path) as tar:
    for member in tar:
      place = pathlib.PurePath(member.name)
      stem = place.name.removesuffix('.bin')
      file = tar.extractfile(member) if member.isfile() else None
      if file is None or stem not in files:
        continue
      suffix = place.name.removeprefix(stem)
      if suffix or stem not in batches:  # binary batches come first
        batches[stem] = suffix, file.read()
  return batches


@contextlib.contextmanager
def _open_tar(path: pathlib.Path) -> Iterator[tarfile.TarFile]:
  """Open a tar to be read once, front to back, and read it to its end.

  `tarfile` stops at the end marker of the tar, before the checksum of the
  compressed stream.

  Raises:
    ValueError: the file is damaged, including the part that the caller reads.
  """
  with _reading(path):
    with path.open('rb') as file:
      opener = _COMPRESSED.get(file.read(2), open)
    with (
      opener(path, 'rb') as stream,
      tarfile.open(fileobj=stream, mode='r|') as tar,
    ):
      yield tar
      rest = tar.fileobj
      assert rest is not None
      while block := rest.read(1 << 20):
        # `tarfile` treats a damaged header as the end.
        if block.strip(b'\0'):
          raise tarfile.ReadError('a header in it is damaged')


def _cifar_binary(
  data: bytes, num_classes: int
) -> tuple[np.ndarray, np.ndarray]:
  """Records of one label byte (CIFAR-100: coarse, fine) and 3,072 pixels."""
  num_labels = 2 if num_classes == 100 else 1
  pixels = 3 * _CIFAR_SIDE**2
  if not data or len(data) % (num_labels + pixels):
    raise ValueError(
      f'{len(data)} bytes are not a multiple of {num_labels + pixels}'
    )
  table = np.frombuffer(data, np.uint8).reshape(-1, num_labels + pixels)
  return _cifar_planes(table[:, num_labels:]), table[:, num_labels - 1]


def _cifar_python(
  data: bytes, num_classes: int
) -> tuple[np.ndarray, np.ndarray]:
  """A pickled dict of `data` u8[N, 3072] and a list of labels."""
  batch = _ArraysOnly(io.BytesIO(data), encoding='bytes').load()
  if not isinstance(batch, dict):
    raise ValueError(f'it holds {type(batch).__name__} instead of a dict')
  rows = np.asarray(batch[b'data'])
  label = np.asarray(batch[b'fine_labels' if num_classes == 100 else b'labels'])
  if rows.dtype != np.uint8 or rows.shape != (len(label), 3 * _CIFAR_SIDE**2):
    raise ValueError(f'its data are {rows.dtype}{list(rows.shape)}')
  if label.ndim != 1 or label.dtype.kind not in 'iu':
    raise ValueError(f'its labels are {label.dtype}{list(label.shape)}')
  return _cifar_planes(rows), label


def _cifar_planes(rows: np.ndarray) -> np.ndarray:
  """Turn rows of red, green and blue planes into u8[N, 32, 32, 3]."""
  planes = rows.reshape(-1, 3, _CIFAR_SIDE, _CIFAR_SIDE)
  return planes.transpose(0, 2, 3, 1)


class _ArraysOnly(pickle.Unpickler):
  """Unpickles plain containers and NumPy arrays, nothing else."""

  def find_class(self, module: str, name: str) -> Any:
    if (module, name) == ('numpy', 'ndarray'):
      return np.ndarray
    if (module, name) == ('numpy', 'dtype'):
      return np.dtype
    if name == '_reconstruct' and module in (
      'numpy.core.multiarray',
      'numpy._core.multiarray',
    ):
      # The function that NumPy's own pickles name, reached without its private
      # modules.
      return np.empty(0).__reduce__()[0]
    if (module, name) == ('_codecs', 'encode'):
      return lambda text, encoding: text.encode(encoding)
    raise pickle.UnpicklingError(f'it refers to {module}.{name}')


def utkface_age_band(name: str) -> int | None:
  """Return the label of a UTKFace file, or None if its name is malformed.

  `39_1_20170116174525125.jpg.chip.jpg` shows a person of 39: the age is the
  integer before the first underscore of the name, which is cut at its first
  dot. Labels are bands of 20 years, 80 and older together.
  """
  age = name.partition('.')[0].partition('_')[0]
  return min(int(age) // 20, 4) if re.fullmatch('[0-9]{1,3}', age) else None


def utkface_files(path: pathlib.Path) -> dict[str, bytes | pathlib.Path]:
  """List the `.jpg` files of a folder, tar or zip, sorted by file name.

  Unlike the reference, which takes them in the order of the file system, so
  that an index means different images on different machines.

  Returns:
    Maps each file name to its path in a folder or its bytes from an archive.

  Raises:
    ValueError: the archive is damaged, or a file name occurs twice (some
      distributions carry the same faces in two folders).
  """
  with _reading(path):
    entries = list(_utkface_entries(path))
  names = [name for name, _ in entries]
  if len(set(names)) < len(names):
    twice = sorted(n for n, k in collections.Counter(names).items() if k > 1)
    raise ValueError(
      f'{path} repeats {terms.count(len(twice), "file name")}, first '
      f'{twice[0]}: keep one copy of the folder `UTKFace`, without '
      '`crop_part1` and the like'
    )
  return dict(sorted(entries))


def _utkface_entries(
  path: pathlib.Path,
) -> Iterator[tuple[str, bytes | pathlib.Path]]:
  if path.is_dir():
    for file in path.rglob('*.jpg'):
      yield file.name, file
  elif path.suffix == '.zip':
    with zipfile.ZipFile(path) as archive:
      # All members are read, so that a damaged name does not hide a picture.
      for info in archive.infolist():
        name = info.filename
        _check_size(name, info.file_size)
        content = archive.read(name)
        if name.endswith('.jpg'):
          yield pathlib.PurePath(name).name, content
  else:
    with _open_tar(path) as archive:
      for member in archive:
        file = archive.extractfile(member) if member.isfile() else None
        if file is not None and member.name.endswith('.jpg'):
          _check_size(member.name, member.size)
          yield pathlib.PurePath(member.name).name, file.read()


def _check_size(name: str, size: int) -> None:
  """Refuse a file that would fill the memory when it is unpacked."""
  if size > _LARGEST_PICTURE:
    raise ValueError(
      f'{name} unpacks to {size / 1e6:,.0f} MB, which is no picture of a face: '
      'remove it from the archive'
    )


_MNIST_URL = 'https://storage.googleapis.com/cvdf-datasets/mnist/'
_FASHION_URL = 'http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/'
_CIFAR_URL = 'https://www.cs.toronto.edu/~kriz/'


@dataclasses.dataclass(frozen=True)
class Remote:
  """An original archive: its address, size in bytes and sha256."""

  url: str
  size: int
  sha256: str

  @property
  def filename(self) -> str:
    return self.url.rpartition('/')[2]


REMOTES: dict[str, tuple[Remote, ...]] = {
  'mnist': (
    Remote(
      _MNIST_URL + 'train-images-idx3-ubyte.gz',
      9_912_422,
      '440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609',
    ),
    Remote(
      _MNIST_URL + 'train-labels-idx1-ubyte.gz',
      28_881,
      '3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c',
    ),
    Remote(
      _MNIST_URL + 't10k-images-idx3-ubyte.gz',
      1_648_877,
      '8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6',
    ),
    Remote(
      _MNIST_URL + 't10k-labels-idx1-ubyte.gz',
      4_542,
      'f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6',
    ),
  ),
  'fashion_mnist': (
    Remote(
      _FASHION_URL + 'train-images-idx3-ubyte.gz',
      26_421_880,
      '3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84',
    ),
    Remote(
      _FASHION_URL + 'train-labels-idx1-ubyte.gz',
      29_515,
      'a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845',
    ),
    Remote(
      _FASHION_URL + 't10k-images-idx3-ubyte.gz',
      4_422_102,
      '346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073',
    ),
    Remote(
      _FASHION_URL + 't10k-labels-idx1-ubyte.gz',
      5_148,
      '67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5',
    ),
  ),
  'cifar10': (
    Remote(
      _CIFAR_URL + 'cifar-10-binary.tar.gz',
      170_052_171,
      'c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd',
    ),
  ),
  'cifar100': (
    Remote(
      _CIFAR_URL + 'cifar-100-binary.tar.gz',
      168_513_733,
      '58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec',
    ),
  ),
}

# Accepted from the user's folder in place of the binary archive: name and md5
# (the publisher gives no other checksum).
PYTHON_ARCHIVES: dict[str, tuple[str, str]] = {
  'cifar10': ('cifar-10-python.tar.gz', 'c58f30108f718f92721af3b95e74349a'),
  'cifar100': ('cifar-100-python.tar.gz', 'eb9058c3a382ffc7106e4002c42a8d85'),
}


def check_reachable(urls: Iterable[str], *, timeout: float = 10.0) -> None:
  """Raise OSError at once if no host of these addresses can be reached.

  tfds would retry for minutes. Nothing is checked behind a proxy, or if an
  address has no host.
  """
  parts = [urllib.parse.urlsplit(url) for url in urls]
  ports = {'http': 80, 'https': 443, 'ftp': 21}
  hosts = {(p.hostname, p.port or ports.get(p.scheme)) for p in parts}
  if urllib.request.getproxies() or not hosts:
    return
  errors = []
  for host, port in sorted(hosts, key=str):
    if not host or not port:
      return
    try:
      socket.create_connection((host, port), timeout).close()
    except OSError as error:
      errors.append(f'{host}: {error}')
    else:
      return
  raise OSError('; '.join(errors))
