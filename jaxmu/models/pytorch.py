"""Read and write the files of `torch.save` without PyTorch.

Such a file is a pickle, a program for a stack machine that may call any Python
function. Here it is run with a closed list of functions that build tensors;
every other name becomes an inert object, so that a checkpoint may hold settings
and optimisers of classes that are not installed, and none of their code runs.

  archive/data.pkl     the pickle; tensors name their storage by a number
  archive/data/0       bytes of storage 0
  archive/byteorder    'little' or 'big'

Files from before PyTorch 1.6 are five pickles in a row, then the storages.

Arrays inside a checkpoint file are read when they are needed: weights are often
a small part of a file, which may also hold momentum and averages. Every reader
returns a tree (nested dicts and lists) whose leaves are `Stored`, `Unreadable`,
or other contents of the file.
"""

import collections
import functools
import io
import math
import pathlib
import pickle
import struct
import zipfile
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO, NamedTuple

import jax.numpy as jnp
import numpy as np

Tree = Any  # nested dicts and lists


class Stored(NamedTuple):
  """An array in a file.

  Attributes:
    shape: its shape.
    dtype: its dtype; bfloat16 is from `ml_dtypes`.
    load: reads it.
  """

  shape: tuple[int, ...]
  dtype: np.dtype
  load: Callable[[], np.ndarray]


class Unreadable(NamedTuple):
  """An array that cannot become a plain one.

  Attributes:
    reason: why, e.g. 'sparse'.
  """

  reason: str


def stored(array: np.ndarray) -> Stored:
  """Describe an array that is already in memory."""
  return Stored(array.shape, array.dtype, lambda: array)


# By the storage class that a pickle names.
_DTYPES = {
  'DoubleStorage': np.dtype('<f8'),
  'FloatStorage': np.dtype('<f4'),
  'HalfStorage': np.dtype('<f2'),
  'BFloat16Storage': np.dtype(jnp.bfloat16),
  'LongStorage': np.dtype('<i8'),
  'IntStorage': np.dtype('<i4'),
  'ShortStorage': np.dtype('<i2'),
  'CharStorage': np.dtype('i1'),
  'ByteStorage': np.dtype('u1'),
  'BoolStorage': np.dtype('?'),
  'ComplexFloatStorage': np.dtype('<c8'),
  'ComplexDoubleStorage': np.dtype('<c16'),
}
_STORAGES = {dtype: name for name, dtype in _DTYPES.items()}
_MOST_PICKLE = 2**28  # bytes; real ones hold names and sizes
_MAGIC = 0x1950A86A20F9469CFC6C  # of the files before PyTorch 1.6


def read_zip(path: pathlib.Path) -> Tree:
  """Read a file of `torch.save` that is a zip archive.

  Raises:
    ValueError: a TorchScript program, or a damaged file.
  """
  with zipfile.ZipFile(path) as archive:
    names = archive.namelist()
    (pickled,) = [n for n in names if n.count('/') == 1 and _is_pickle(n)]
    root = pickled.removesuffix('data.pkl')
    if f'{root}constants.pkl' in names:
      raise ValueError(
        'it is a TorchScript program; write torch.save(model.state_dict(), '
        'path) instead'
      )
    if archive.getinfo(pickled).file_size > _MOST_PICKLE:
      raise ValueError(f'its {pickled} is larger than {_MOST_PICKLE} bytes')
    order = 'little'
    if f'{root}byteorder' in names:
      order = archive.read(f'{root}byteorder').decode().strip()
    sizes = {info.filename: info.file_size for info in archive.infolist()}
    content = archive.read(pickled)

  def read(key: str, size: int) -> bytes:
    name = f'{root}data/{key}'
    if sizes.get(name, 0) < size:
      raise ValueError(f'{name} is missing or cut')
    with zipfile.ZipFile(path) as archive:
      return archive.read(name)

  return _Unpickler(io.BytesIO(content), read, order == 'big').load()


def _is_pickle(name: str) -> bool:
  return name.endswith('/data.pkl')


def read_legacy(path: pathlib.Path) -> Tree:
  """Read a file of `torch.save` from before PyTorch 1.6.

  Raises:
    ValueError: another pickle, or a damaged file.
  """
  places: dict[str, int] = {}

  def read(key: str, size: int) -> bytes:
    with path.open('rb') as file:
      file.seek(places[key])
      content = file.read(size)
    if len(content) < size:
      raise ValueError(f'storage {key} is cut')
    return content

  with path.open('rb') as file:
    load = lambda: _Unpickler(file, read, False).load()  # noqa: E731
    if load() != _MAGIC:
      raise ValueError(
        'it is a pickle, which is not run; write torch.save('
        'model.state_dict(), path) or a safetensors file'
      )
    _, system = load(), load()
    if not system.get('little_endian', True):
      raise ValueError('it was written on a big-endian machine')
    unpickler = _Unpickler(file, read, False)
    tree = unpickler.load()
    for key in load():
      (count,) = struct.unpack('<q', file.read(8))
      places[str(key)] = file.tell()
      file.seek(count * unpickler.item_sizes[str(key)], io.SEEK_CUR)
    if file.tell() != path.stat().st_size:
      raise ValueError('its size is not that of its storages')
  return tree


class _Inert:
  """Placeholder for an object of an unknown class; does nothing."""

  def __init__(self, *args: Any, **options: Any):
    pass

  def __call__(self, *args: Any, **options: Any) -> '_Inert':
    return _Inert()

  def __setstate__(self, state: Any) -> None:
    pass

  def __setitem__(self, key: Any, value: Any) -> None:
    pass

  def append(self, value: Any) -> None:
    """Do nothing."""

  def extend(self, values: Any) -> None:
    """Do nothing."""


class _Function(_Inert):
  """A function of the closed list; a pickle cannot change it."""

  __slots__ = ('_call',)

  def __init__(self, call: Any):
    object.__setattr__(self, '_call', call)

  def __call__(self, *args: Any, **options: Any) -> Any:
    return self._call(*args, **options)


class _Storage(_Inert):
  """The bytes behind one or more tensors; a pickle cannot change it."""

  def __init__(self, dtype: np.dtype | None, count: int, read: Any):
    self.dtype = dtype
    self.count = count
    self._read = read

  def values(self) -> np.ndarray:
    """Read all numbers."""
    assert self.dtype is not None
    content = self._read(self.count * self.dtype.itemsize)
    return np.frombuffer(content, self.dtype, self.count)


class _Unpickler(pickle.Unpickler):
  """Runs a pickle with only the functions that build tensors."""

  def __init__(self, file: BinaryIO, read: Any, swapped: bool):
    super().__init__(file, encoding='utf-8')
    self._read = read
    self._swapped = swapped
    self.item_sizes: dict[str, int] = {}  # of storages, by key

  def find_class(self, module: str, name: str) -> Any:
    """Return a function of the closed list, or an inert object."""
    if (module, name) == ('collections', 'OrderedDict'):
      return collections.OrderedDict
    if module == 'torch' and name.endswith('Storage'):
      return _StorageClass(name)
    if module == 'torch' and name == 'Size':
      return _Function(lambda *sizes: tuple(*sizes))
    if module in ('torch._utils', 'torch._tensor'):
      if name in _REBUILD:
        return _Function(_REBUILD[name])
      if name.startswith('_rebuild'):
        reason = name.removeprefix('_rebuild_').removesuffix('_tensor')
        reason = {'qtensor': 'quantised'}.get(reason, reason.replace('_', ' '))
        return _Function(lambda *args: Unreadable(reason))
    return type(name, (_Inert,), {})

  def persistent_load(self, pid: Any) -> _Storage:
    """Return the storage that a tensor names."""
    kind, cls, key, _, count, *view = pid
    known = isinstance(cls, _StorageClass) and isinstance(key, str)
    if kind != 'storage' or not known or not _is_count(count):
      raise ValueError('it names a storage in an unknown way')
    dtype = _DTYPES.get(cls.name)
    if any(part is not None for part in view):
      dtype = None
    if dtype is not None:
      self.item_sizes[key] = dtype.itemsize
      if self._swapped:
        dtype = dtype.newbyteorder('>')
    else:
      self.item_sizes[key] = 1
    return _Storage(dtype, count, functools.partial(self._read, key))


class _StorageClass(_Inert):
  """Name of a class of storages."""

  def __init__(self, name: str):
    self.name = name


def _is_count(value: Any) -> bool:
  return isinstance(value, int) and value >= 0


def _tensor(
  storage: Any, offset: Any, size: Any, stride: Any, *_: Any
) -> Stored | Unreadable:
  """Describe a view of a storage; see `torch._utils._rebuild_tensor_v2`."""
  sound = (
    isinstance(storage, _Storage)
    and isinstance(size, tuple)
    and isinstance(stride, tuple)
    and len(size) == len(stride)
    and all(map(_is_count, (offset, *size, *stride)))
  )
  if not sound:
    raise ValueError('it describes a tensor in an unknown way')
  if storage.dtype is None:
    return Unreadable('of a dtype that is not supported')
  last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
  if 0 not in size and last >= storage.count:
    raise ValueError('a tensor reaches beyond its storage')
  if math.prod(size) > storage.count:
    return Unreadable('an expanded view')
  dtype = storage.dtype

  def load() -> np.ndarray:
    steps = tuple(s * dtype.itemsize for s in stride)
    values = storage.values()[offset:]
    view = np.lib.stride_tricks.as_strided(values, size, steps)
    return np.array(view, dtype.newbyteorder('='))

  return Stored(size, dtype.newbyteorder('='), load)


def _of_type(function: Any, cls: Any, args: Any, state: Any) -> Any:
  """Describe a tensor of a subclass of Tensor."""
  del cls, state
  return function(*args) if isinstance(function, _Function) else _Inert()


_REBUILD = {
  '_rebuild_tensor': _tensor,
  '_rebuild_tensor_v2': _tensor,
  '_rebuild_parameter': lambda data, *_: data,
  '_rebuild_parameter_with_state': lambda data, *_: data,
  '_rebuild_from_type_v2': _of_type,
}


def to_bytes(tree: Mapping[str, Any]) -> bytes:
  """Return what `torch.save` would write for nested dicts of arrays.

  Args:
    tree: nested dicts with names as keys and NumPy arrays as leaves.

  Raises:
    ValueError: PyTorch has no such dtype.
  """
  storages: list[np.ndarray] = []
  pickled = b'\x80\x02' + _pickled(tree, storages) + b'.'
  content = io.BytesIO()
  with zipfile.ZipFile(content, 'w', zipfile.ZIP_STORED) as archive:
    records = {'data.pkl': pickled, 'byteorder': b'little'}
    for number, array in enumerate(storages):
      records[f'data/{number}'] = array.tobytes()
    records['version'] = b'3\n'
    for name, record in records.items():
      archive.writestr(_aligned(f'archive/{name}', content.tell()), record)
  return content.getvalue()


def _aligned(name: str, offset: int) -> zipfile.ZipInfo:
  """Let the bytes of a record begin at a multiple of 64, as `mmap` needs."""
  info = zipfile.ZipInfo(name)
  begin = offset + 30 + len(name) + 4  # headers of the entry and of its padding
  size = -begin % 64
  info.extra = struct.pack('<HH', 0x4246, size) + b'Z' * size
  return info


def _pickled(value: Any, storages: list[np.ndarray]) -> bytes:
  """Return the opcodes that push a dict of arrays or an array."""
  if isinstance(value, Mapping):
    items = b''.join(
      _text(name) + _pickled(part, storages) for name, part in value.items()
    )
    return b'}(' + items + b'u'
  array = np.ascontiguousarray(value).reshape(np.shape(value))
  dtype = array.dtype.newbyteorder('<') if array.dtype.kind != 'V' else None
  name = _STORAGES.get(array.dtype) or _STORAGES.get(dtype)  # type: ignore
  if name is None:
    raise ValueError(f'PyTorch has no dtype {array.dtype}')
  storages.append(array)
  stride = np.array(array.strides, int) // array.itemsize
  storage = (
    b'('
    + _text('storage')
    + _global('torch', name)
    + _text(str(len(storages) - 1))
    + _text('cpu')
    + _integer(array.size)
    + b'tQ'
  )
  hooks = _global('collections', 'OrderedDict') + b')R'
  arguments = storage + _integer(0) + _tuple(array.shape) + _tuple(stride)
  build = _global('torch._utils', '_rebuild_tensor_v2')
  return build + b'(' + arguments + b'\x89' + hooks + b'tR'


def _text(text: str) -> bytes:
  content = text.encode()
  return b'X' + struct.pack('<I', len(content)) + content


def _global(module: str, name: str) -> bytes:
  return f'c{module}\n{name}\n'.encode()


def _integer(value: int) -> bytes:
  if value < 2**31:
    return b'J' + struct.pack('<i', value)
  return b'\x8a\x08' + struct.pack('<q', value)


def _tuple(values: Any) -> bytes:
  return b'(' + b''.join(_integer(int(v)) for v in values) + b't'
