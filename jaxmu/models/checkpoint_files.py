"""The kinds of checkpoint files: recognised by content, read and written.

torch        a zip archive or pickle of `torch.save`, see `pytorch`
safetensors  a JSON header, then the arrays
msgpack      `flax.serialization.to_bytes`
npz          `numpy.savez`, flat paths as names
orbax        a folder of Orbax
"""

import io
import json
import math
import pathlib
import struct
import zipfile
from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np

from jaxmu import files
from jaxmu.models import pytorch
from jaxmu.models.pytorch import Stored, Tree, Unreadable, stored

# The form written for each ending; reading depends on the content alone.
ENDINGS = {
  '.safetensors': 'safetensors',
  '.pth': 'torch',
  '.pt': 'torch',
  '.tar': 'torch',  # as in model_best.pth.tar
  '.ckpt': 'torch',
  '.bin': 'torch',
  '.msgpack': 'msgpack',
  '.flax': 'msgpack',
  '.npz': 'npz',
  '.orbax': 'orbax',
}
_SAFE_DTYPES = {
  'F64': np.dtype('<f8'),
  'F32': np.dtype('<f4'),
  'F16': np.dtype('<f2'),
  'BF16': np.dtype(jnp.bfloat16),
  'I64': np.dtype('<i8'),
  'I32': np.dtype('<i4'),
  'I16': np.dtype('<i2'),
  'I8': np.dtype('i1'),
  'U8': np.dtype('u1'),
  'BOOL': np.dtype('?'),
}
_PICKLE_PROTOCOLS = (b'\x02', b'\x03', b'\x04', b'\x05')
_MOST_HEADER = 100_000_000  # bytes, the limit that safetensors specifies
# The first bytes of other kinds of files.
_OTHERS = {
  b'\x89HDF': 'an HDF5 file (Keras)',
  b'\x1f\x8b': 'compressed (gzip); unpack it first',
  b'BZh': 'compressed (bzip2); unpack it first',
  b'\xfd7zXZ': 'compressed (xz); unpack it first',
  b'GGUF': 'a GGUF file',
  b'\x08': 'an ONNX or TensorFlow graph',
}


class Contents(NamedTuple):
  """What a file holds.

  Attributes:
    form: one of the kinds of the module's docstring.
    tree: nested dicts and lists; see `jaxmu.models.pytorch`.
    note: what the form keeps besides its arrays, to be passed to `write`.
  """

  form: str
  tree: Tree
  note: Any = None


def read(path: pathlib.Path) -> Contents:
  """Read a file or folder of any kind; arrays are read when needed.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: another kind of file, or a damaged one.
  """
  if path.is_dir():
    return _guarded(path, 'orbax', _read_orbax)
  if not path.is_file():
    raise FileNotFoundError(f'no file {str(path)!r}; give a checkpoint')
  with path.open('rb') as file:
    begin = file.read(512)
  if begin.startswith(b'PK\x03\x04'):
    return _read_zip(path)
  if _is_safetensors(begin, path.stat().st_size):
    return _guarded(path, 'safetensors', _read_safetensors)
  if begin[:1] == b'\x80' and begin[1:2] in _PICKLE_PROTOCOLS:
    return _guarded(path, 'torch', pytorch.read_legacy)
  is_map = begin and (begin[0] >> 4 == 8 or begin[0] in (0xDE, 0xDF))
  if is_map and not begin.startswith(tuple(_OTHERS)):
    return _guarded(path, 'msgpack', _read_msgpack)
  raise ValueError(f'{path} is {_other(begin)}; {_KNOWN}')


_KNOWN = (
  'checkpoints are files of torch.save or safetensors, Flax msgpack, .npz, or '
  'folders of Orbax'
)


def _other(begin: bytes) -> str:
  if not begin:
    return 'empty'
  if begin[257:262] == b'ustar':
    return 'a tar archive; unpack it first'
  for start, kind in _OTHERS.items():
    if begin.startswith(start):
      return kind
  return 'not a checkpoint of a known kind'


def _guarded(path: pathlib.Path, form: str, reader: Any) -> Contents:
  """Call a reader; turn any error into one line."""
  try:
    read = reader(path)
    _check_tree(read.tree if isinstance(read, Contents) else read)
  except Exception as error:  # damaged bytes raise many types
    first = str(error).strip().partition('\n')[0] or type(error).__name__
    raise ValueError(f'{path} cannot be read ({form}): {first}') from error
  return read if isinstance(read, Contents) else Contents(form, read)


_MOST_ENTRIES = 1_000_000
_DEEPEST = 100


def _check_tree(tree: Tree) -> None:
  """Refuse trees that contain themselves or repeat their parts too often."""
  rest, count = [(tree, 0)], 0
  while rest:
    node, depth = rest.pop()
    count += 1
    if depth > _DEEPEST or count > _MOST_ENTRIES:
      raise ValueError('its entries contain each other, or are too many')
    if isinstance(node, Mapping):
      rest += [(part, depth + 1) for part in node.values()]
    elif isinstance(node, list | tuple):
      rest += [(part, depth + 1) for part in node]


def _read_zip(path: pathlib.Path) -> Contents:
  try:
    with zipfile.ZipFile(path) as archive:
      names = archive.namelist()
  except (zipfile.BadZipFile, OSError) as error:
    raise ValueError(f'{path} is a damaged zip archive ({error})') from error
  if any(name.endswith('/data.pkl') for name in names):
    return _guarded(path, 'torch', pytorch.read_zip)
  if names and all(name.endswith('.npy') for name in names):
    return _guarded(path, 'npz', _read_npz)
  raise ValueError(
    f'{path} is a zip archive of {", ".join(names[:3]) or "nothing"}; {_KNOWN}'
  )


def _is_safetensors(begin: bytes, size: int) -> bool:
  if len(begin) < 10:
    return False
  (length,) = struct.unpack('<Q', begin[:8])
  return begin[8:9] == b'{' and length + 8 <= size


def _read_safetensors(path: pathlib.Path) -> Contents:
  size = path.stat().st_size
  with path.open('rb') as file:
    (length,) = struct.unpack('<Q', file.read(8))
    if length > _MOST_HEADER:
      raise ValueError(f'its header claims {length} bytes')
    header = json.loads(file.read(length))
  note = header.pop('__metadata__', None)
  end = 8 + length
  for low, high in sorted(e['data_offsets'] for e in header.values()):
    if 8 + length + low != end:
      raise ValueError('its arrays leave gaps or overlap')
    end = 8 + length + high
  if end != size:
    raise ValueError(f'it has {size} bytes, its header describes {end}')
  tree = {
    name: _safe_array(path, name, entry, 8 + length, size)
    for name, entry in header.items()
  }
  return Contents('safetensors', tree, note)


def _safe_array(
  path: pathlib.Path, name: str, entry: Any, start: int, size: int
) -> Stored | Unreadable:
  low, high = entry['data_offsets']
  shape = tuple(int(n) for n in entry['shape'])
  dtype = _SAFE_DTYPES.get(entry['dtype'])
  if dtype is None:
    return Unreadable(f'of dtype {entry["dtype"]}')
  if min((*shape, 0)) < 0 or low < 0 or start + high > size:
    raise ValueError(f'{name} reaches beyond the file')
  if high - low != math.prod(shape) * dtype.itemsize:
    raise ValueError(f'{name} has {high - low} bytes for shape {shape}')

  def load() -> np.ndarray:
    with path.open('rb') as file:
      file.seek(start + low)
      return np.frombuffer(file.read(high - low), dtype).reshape(shape)

  return Stored(shape, dtype, load)


def _read_msgpack(path: pathlib.Path) -> Tree:
  return _described(flax.serialization.msgpack_restore(path.read_bytes()))


def _described(tree: Tree) -> Tree:
  """Replace the arrays of a tree by their descriptions."""
  return jax.tree.map(
    lambda x: stored(x) if isinstance(x, np.ndarray) else x, tree
  )


def _read_npz(path: pathlib.Path) -> Tree:
  tree = {}
  with zipfile.ZipFile(path) as archive:
    for info in archive.infolist():
      with archive.open(info) as file:
        shape, dtype = files.read_npy_header(file)
        start = file.tell()
      name = info.filename.removesuffix('.npy')
      if dtype.hasobject:
        tree[name] = Unreadable('pickled objects')
      elif dtype.kind == 'V':
        tree[name] = Unreadable('of a dtype that NumPy does not know')
      elif info.file_size - start != math.prod(shape) * dtype.itemsize:
        raise ValueError(f'{info.filename} does not hold what its shape says')
      else:
        load = _npy_loader(path, info.filename)
        tree[name] = Stored(shape, dtype.newbyteorder('='), load)
  return tree


def _npy_loader(path: pathlib.Path, name: str) -> Any:
  def load() -> np.ndarray:
    with zipfile.ZipFile(path) as archive, archive.open(name) as file:
      array = np.lib.format.read_array(file, allow_pickle=False)
    return array.astype(array.dtype.newbyteorder('='))

  return load


def _read_orbax(path: pathlib.Path) -> Tree:
  import orbax.checkpoint as ocp  # slow to import

  folder = _orbax_folder(path)
  checkpointer = ocp.PyTreeCheckpointer()
  metadata: Any = checkpointer.metadata(folder)
  metadata = getattr(metadata, 'item_metadata', metadata)
  metadata = getattr(metadata, 'tree', metadata)
  args = jax.tree.map(
    lambda _: ocp.RestoreArgs(restore_type=np.ndarray), metadata
  )
  restored = checkpointer.restore(
    folder, args=ocp.args.PyTreeRestore(restore_args=args)
  )
  return _described(restored)


def _orbax_folder(path: pathlib.Path) -> pathlib.Path:
  """Return the folder that holds the arrays, itself or its only step."""
  if (path / '_METADATA').exists():
    return path.absolute()
  below = sorted(p for p in path.iterdir() if p.is_dir())
  with_arrays = [p for p in below if (p / '_METADATA').exists()]
  steps = [p for p in below if p.name.isdigit()]
  for folders in (with_arrays, steps):
    if len(folders) == 1:
      return _orbax_folder(folders[0])
    if folders:
      names = ', '.join(p.name for p in folders)
      raise ValueError(f'it holds {names}; name one of them')
  raise ValueError(f'it is not a folder of Orbax; {_KNOWN}')


def form_of(path: pathlib.Path) -> str:
  """Return the form that is written to a path.

  Raises:
    ValueError: the ending is unknown.
  """
  if path.suffix not in ENDINGS:
    raise ValueError(
      f'{str(path)!r} ends in {path.suffix!r}; known endings are '
      + ', '.join(ENDINGS)
    )
  return ENDINGS[path.suffix]


def write(path: pathlib.Path, contents: Contents) -> None:
  """Write nested dicts of NumPy arrays atomically.

  Args:
    path: the file, or folder of Orbax; one that exists is replaced.
    contents: leaves of the tree are arrays.
  """
  form, tree, note = contents
  if form == 'orbax':
    import orbax.checkpoint as ocp

    ocp.PyTreeCheckpointer().save(path.absolute(), tree, force=True)
    return
  if form == 'torch':
    content = pytorch.to_bytes(tree)
  elif form == 'safetensors':
    content = _safetensors(tree, note)
  elif form == 'msgpack':
    content = flax.serialization.msgpack_serialize(tree)
  else:
    buffer = io.BytesIO()
    np.savez(buffer, **tree)
    content = buffer.getvalue()
  files.write_bytes(path, content)


def _safetensors(tree: Mapping[str, np.ndarray], note: Any) -> bytes:
  names = {dtype: name for name, dtype in _SAFE_DTYPES.items()}
  header: dict[str, Any] = {'__metadata__': note or {'format': 'pt'}}
  parts, offset = [], 0
  # Wide dtypes first, so that every array begins at a multiple of its items.
  for name in sorted(tree, key=lambda n: (-tree[n].dtype.itemsize, n)):
    content = np.ascontiguousarray(tree[name]).tobytes()
    header[name] = {
      'dtype': names[tree[name].dtype],
      'shape': list(tree[name].shape),
      'data_offsets': [offset, offset + len(content)],
    }
    parts.append(content)
    offset += len(content)
  text = json.dumps(header, separators=(',', ':')).encode()
  text += b' ' * (-len(text) % 8)
  return struct.pack('<Q', len(text)) + text + b''.join(parts)
