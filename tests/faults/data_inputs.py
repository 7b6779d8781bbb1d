"""Data sets: arrays, plain folders, folders of pictures, archives."""

import functools
import gzip
import io
import json
import os
import pathlib
import pickle
import tarfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from PIL import Image

from tests.data import standins
from tests.faults import forks, inputs, tiny_job

ARRAYS, PICTURES = 'data arrays', 'folders of pictures'
FOLDERS, ARCHIVES = 'data folders', 'archives'
_SHAPE = (20, 8, 8, 3)

Make = Callable[[pathlib.Path], None]


def _images(*shape: int) -> np.ndarray:
  size = shape or _SHAPE
  return np.random.default_rng(sum(size)).integers(0, 256, size, np.uint8)


def _labels(count: int = 20) -> np.ndarray:
  return np.arange(count) % 2


def _npz(**arrays: Any) -> bytes:
  buffer = io.BytesIO()
  np.savez_compressed(buffer, **arrays)
  return buffer.getvalue()


_CONSTANT = np.full(20, 3)
# What is wrong -> images, labels.
WRONG: Mapping[str, tuple[Any, Any]] = {
  'floats': (_images().astype('f4'), _labels()),
  'shares': (_images() / 255, _labels()),
  'two channels': (_images(20, 8, 8, 2), _labels()),
  'four channels': (_images(20, 8, 8, 4), _labels()),
  'no images': (_images(0, 8, 8, 3), _labels(0)),
  'no pixels': (np.zeros((20, 0, 0, 3), np.uint8), _labels()),
  'one image': (_images(1, 8, 8, 3), _labels(1)),
  'rectangles': (_images(20, 8, 12, 3), _labels()),
  'five axes': (_images(20, 1, 8, 8, 3), _labels()),
  'text': (_images().astype(str), _labels()),
  'objects': (np.array([inputs.Evil()], object), _labels(1)),
  'complex': (_images().astype(complex), _labels()),
  'constant': (np.zeros(_SHAPE, np.uint8), _labels()),
  'labels short': (_images(), _labels(19)),
  'labels below 0': (_images(), _labels() - 1),
  'labels of halves': (_images(), _labels() + 0.5),
  'labels nan': (_images(), np.full(20, np.nan)),
  'labels huge': (_images(), np.full(20, 2**62)),
  'labels largest': (_images(), np.full(20, 2**64 - 1, np.uint64)),
  'labels 2-d': (_images(), np.eye(2)[_labels()]),
  'labels text': (_images(), _labels().astype(str)),
  'labels one class': (_images(), _CONSTANT * 0),
  'labels beyond': (_images(), _CONSTANT),
}


def _array_cases() -> Iterator[tuple[str, Make, tuple[str, ...], str]]:
  for name, (image, label) in WRONG.items():
    content = _npz(image=image, label=label)
    yield name, _write('x.npz', content), (), inputs.EITHER

  def two(image: np.ndarray, label: np.ndarray) -> Make:
    def make(folder: pathlib.Path) -> None:
      np.save(folder / 'x.npy', image)
      np.save(folder / 'y.npy', label)

    return make

  for name, (image, label) in WRONG.items():
    if name != 'objects':
      yield f'{name}, two files', two(image, label), ('y.npy',), inputs.EITHER
  good = _npz(image=_images(), label=_labels())
  for name, content in {
    'no label': _npz(image=_images()),
    'other names': _npz(x=_images(), y=_labels()),
    'nothing': b'',
    'text': b'hello',
    'a pickle': pickle.dumps(inputs.Evil()),
    'gzip': gzip.compress(good),
  }.items():
    yield f'file: {name}', _write('x.npz', content), (), inputs.REFUSED
  for flags in (
    *('--image_size=0', '--image_size=-1', '--image_size=1000000000'),
    *('--image_size=x', '--num_classes=1', '--num_classes=2147483647'),
    *('--num_classes=0', '--test_fraction=0', '--test_fraction=1.5'),
    *('--test_fraction=nan', '--crop_padding=-1', '--crop_padding=100'),
    *('--crop_padding=1000000000000', '--flip=no', '--manual_dir=.'),
    *('--any_size', '--nothing', 'more'),
  ):
    yield flags, _write('x.npz', good), (flags,), inputs.REFUSED


def _write(name: str, content: bytes) -> Make:
  def make(folder: pathlib.Path) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)

  return make


def _same_images(ended: forks.Ended, folder: pathlib.Path) -> str:
  """Check that a prepared set has the images of the undamaged arrays."""
  kept = []
  for path in sorted((folder / 'data' / 'mine').glob('t*.npz')):
    with np.load(path) as arrays:
      kept.append(arrays['image'])
  images = sorted(x.tobytes() for part in kept for x in part)
  expected = sorted(x.tobytes() for x in _images())
  return '' if images == expected else 'other images'


def _prepare(make: Make, *words: str):
  def call(home: tiny_job.Home, folder: pathlib.Path) -> forks.Call:
    make(folder)
    given = (f'--data_dir={folder / "data"}', *words)
    fault = {}
    if '--manual_dir=manual' in words:  # or its checksum would be refused
      name = words[0]
      fault = {'kind': 'official', 'name': name, 'folder': str(folder)}
    return home.call(
      'jaxmu.prepare', *given, cwd=str(folder), seconds=120, fault=fault
    )

  return call


META: Mapping[str, Any] = {
  'no JSON': b'{',
  'a list': b'[]',
  'null': b'null',
  'empty': b'',
  'bytes': b'\xff\xfe\x00',
  'deep': b'[' * 100_000,
  'a large number': b'{"size": ' + b'9' * 5000 + b'}',
  'nan': b'{"size": NaN}',
  'infinity': b'{"size": Infinity}',
  'unknown': {'x': 1},
  **{
    f'{key} {value!r}': {key: value}
    for key, values in {
      'size': (0, -1, '8', 10**9, 20000, 8.5, True, None),
      'num_classes': (0, 1, 2**31 - 1, -1, 'x', 1.5),
      'flip': ('no', 1),
      'crop_padding': (10**6, -1, 'x'),
      'class_names': (['a'], ['a', 'a'], [1, 2], 'ab', {}),
    }.items()
    for value in values
  },
}


def _folder_cases() -> Iterator[tuple[str, Make, str]]:
  good = _npz(image=_images(), label=_labels())

  def plain(**files: bytes | None) -> Make:
    def make(folder: pathlib.Path) -> None:
      place = folder / 'data' / 'mine'
      place.mkdir(parents=True)
      for name, content in {'train': good, 'test': good, **files}.items():
        suffix = '.json' if name == 'meta' else '.npz'
        if content is not None:
          (place / f'{name}{suffix}').write_bytes(content)

    return make

  for name, (image, label) in WRONG.items():
    content = _npz(image=image, label=label)
    yield f'train: {name}', plain(train=content), inputs.EITHER
    yield f'test: {name}', plain(test=content), inputs.EITHER
  for name, content in META.items():
    text = content if isinstance(content, bytes) else json.dumps(content)
    data = text if isinstance(text, bytes) else text.encode()
    yield f'meta: {name}', plain(meta=data), inputs.REFUSED
  yield 'no train', plain(train=None), inputs.REFUSED
  yield 'no test', plain(test=None), inputs.EITHER
  for place in ('folder', 'loop', 'dangling', 'fifo'):
    for part in ('train.npz', 'meta.json'):

      def make(folder, place=place, part=part) -> None:
        plain()(folder)
        path = folder / 'data' / 'mine' / part
        path.unlink(missing_ok=True)
        if place == 'folder':
          path.mkdir()
        elif place == 'fifo':
          os.mkfifo(path)
        else:
          path.symlink_to(path if place == 'loop' else '/none')

      yield f'{part} is a {place}', make, inputs.EITHER


def _png(folder: pathlib.Path, count: int = 10, size: int = 8) -> None:
  folder.mkdir(parents=True)
  for number in range(count):
    image = Image.fromarray(_images(size + number, size, 3)[:size])
    image.save(folder / f'{number}.png')


def _picture(name: str, write: Callable[[pathlib.Path], Any]) -> Make:
  """Two classes of pictures, and a file that is written by a function."""

  def make(folder: pathlib.Path) -> None:
    _png(folder / 'a')
    _png(folder / 'b')
    write(folder / 'a' / name)

  return make


@functools.cache
def _bomb() -> bytes:
  """A picture of 0.4 gigapixels in some kilobytes."""
  buffer = io.BytesIO()
  Image.new('1', (20000, 20000)).save(buffer, 'png')
  return buffer.getvalue()


def _good_png() -> bytes:
  buffer = io.BytesIO()
  Image.fromarray(_images(8, 8, 3)).save(buffer, 'png')
  return buffer.getvalue()


def _picture_cases() -> Iterator[tuple[str, Make, str]]:
  def content(data: bytes) -> Callable[[pathlib.Path], Any]:
    return lambda path: path.write_bytes(data)

  for name, data in {
    'text': b'hi',
    'empty': b'',
    'a start': b'\x89PNG\r\n\x1a\nxxxx',
    'half': _good_png()[:100],
    'PostScript': b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n'
    b'%%EndComments\n(EVIL) (w) file closefile\n',
    'a bomb': _bomb(),
  }.items():
    yield f'picture: {name}', _picture('x.png', content(data)), inputs.REFUSED
  deep = Image.fromarray(np.zeros((8, 8), np.uint16))
  frames = [Image.new('RGB', (8, 8), c) for c in ('red', 'blue')]
  for name, file, write in (
    ('16 bits', 'x.png', deep.save),
    ('other size', 'x.png', Image.new('RGB', (9, 9)).save),
    (
      'frames',
      'x.gif',
      lambda p: frames[0].save(p, save_all=True, append_images=frames[1:]),
    ),
    ('a folder', 'x.png', pathlib.Path.mkdir),
    ('a loop', 'x.png', lambda p: p.symlink_to(p)),
    ('a FIFO', 'x.png', os.mkfifo),
    ('dangling', 'x.png', lambda p: p.symlink_to('/none')),
  ):
    yield f'picture: {name}', _picture(file, write), inputs.EITHER

  def classes(*names: str) -> Make:
    return lambda folder: [_png(folder / name) for name in names][0]  # type: ignore

  yield 'one class', classes('a'), inputs.REFUSED
  yield 'nothing', lambda folder: None, inputs.REFUSED
  yield 'train alone', classes('train/a', 'train/b'), inputs.EITHER
  yield 'odd names', classes('<script>', 'b"&\''), inputs.EITHER
  yield (
    'other classes',
    (classes('train/a', 'train/b', 'test/a', 'test/c')),
    inputs.REFUSED,
  )

  def undecodable(folder: pathlib.Path) -> None:
    classes('a', 'b')(folder)
    os.rename(os.fsencode(folder / 'a'), os.fsencode(folder) + b'/\xff\xfe')

  yield 'undecodable name', undecodable, inputs.EITHER


NAMES = ('../x', '/etc/x', '', 'a b', 'x' * 300, 'digits', 'é', '..', 'cifar10')
_BATCH = 'cifar-10-batches-py/data_batch_1'


def _batch(**changes: Any) -> bytes:
  table = {
    b'data': _images(4, 3072),
    b'labels': [0, 1, 2, 3],
    **{key.encode(): value for key, value in changes.items()},
  }
  return pickle.dumps({k: v for k, v in table.items() if v is not None}, 2)


BATCHES: Mapping[str, bytes] = {
  'code': pickle.dumps(inputs.Evil(), 2),
  'code inside': _batch(data=inputs.Evil()),
  'a number': pickle.dumps(3, 2),
  'a list': pickle.dumps([1], 2),
  'no labels': _batch(labels=None),
  'other shape': _batch(data=np.zeros((3, 3))),
  'text': _batch(data='abc'),
  'label text': _batch(labels=['x'] * 4),
  'label 99': _batch(labels=[99] * 4),
  'floats': _batch(data=np.zeros((4, 3072))),
  'empty': b'',
  'junk': b'\xff\xff',
  'stop': b'.',
  'deep': b'(' * 100_000 + b'.',
  'getattr': b'cbuiltins\ngetattr\n(cnumpy\nndarray\nS"x"\ntR.',
  'huge': b'cnumpy\nndarray\n((I100000000000\nttR.',
  'long': b'\x8b\xff\xff\xff\x7f.',
}


def _tar(content: bytes, **member: Any) -> bytes:
  """A CIFAR archive whose first batch is replaced."""
  buffer = io.BytesIO()
  with tarfile.open(fileobj=buffer, mode='w:gz') as tar:
    info = tarfile.TarInfo(member.pop('name', _BATCH))
    for key, value in member.items():
      setattr(info, key, value)
    info.size = 0 if member else len(content)
    tar.addfile(info, io.BytesIO(content))
  return buffer.getvalue()


def _archive_cases() -> Iterator[tuple[str, str, Make, str]]:
  """Archives of CIFAR-10 and MNIST, by the name of the set."""
  file = 'manual/cifar-10-python.tar.gz'
  for name, batch in BATCHES.items():
    yield 'cifar10', f'batch: {name}', _write(file, _tar(batch)), inputs.REFUSED
  for name, member in {
    'traversal': {'name': '../../EVIL'},
    'link': {'type': tarfile.SYMTYPE, 'linkname': '/etc/passwd'},
    'hard link': {'type': tarfile.LNKTYPE, 'linkname': '/etc/passwd'},
    'loop': {'type': tarfile.SYMTYPE, 'linkname': 'data_batch_1'},
    'folder': {'type': tarfile.DIRTYPE},
    'FIFO': {'type': tarfile.FIFOTYPE},
    'device': {'type': tarfile.CHRTYPE},
  }.items():
    data = _tar(_batch(), **member)
    yield 'cifar10', f'member: {name}', _write(file, data), inputs.REFUSED
  for name, data in {
    'empty': b'',
    'text': b'hello',
    'xz': b'\xfd7zXZ\0' + bytes(100),
    'bzip2': b'BZh9' + bytes(100),
    'gzip': b'\x1f\x8b\x08\x00',
  }.items():
    yield 'cifar10', f'file: {name}', _write(file, data), inputs.REFUSED


def _damaged_archive(number: int) -> Make:
  """A complete set of stand-in archives, of which one is damaged."""

  def make(folder: pathlib.Path) -> None:
    place = folder / 'manual'
    if number % 2:
      standins.write_mnist(place)
    else:
      path = place / 'cifar-10-python.tar.gz'
      standins.write_cifar(path, python=True)
    paths = sorted(place.iterdir())
    path = paths[number // 2 % len(paths)]
    damage = inputs.cut if number % 3 == 2 else inputs.flipped
    path.write_bytes(damage(path.read_bytes(), ARCHIVES, number))

  return make


def _damaged(kind: str, number: int) -> Make:
  """A file of arrays, a part of a plain set or a picture, damaged."""
  damage = inputs.cut if number % 4 == 3 else inputs.flipped
  good = _npz(image=_images(), label=_labels())
  if kind == ARRAYS:
    return _write('x.npz', damage(good, kind, number))
  if kind == PICTURES:
    data = damage(_good_png(), kind, number)
    return _picture('x.png', lambda path: path.write_bytes(data))

  def make(folder: pathlib.Path) -> None:
    place = folder / 'data' / 'mine'
    place.mkdir(parents=True)
    for part in ('train', 'test'):
      content = damage(good, number) if part == 'train' else good
      (place / f'{part}.npz').write_bytes(content)

  return make


def cases(count: int) -> list[inputs.Case]:
  """Return all crafted inputs, and then as many damaged ones as are left."""
  found = []
  for name, make, more, expected in _array_cases():
    files = ('x.npy', 'y.npy') if more == ('y.npy',) else ('x.npz', *more)
    call = _prepare(make, 'mine', '--from_arrays', *files)
    found.append(inputs.Case(ARRAYS, name, call, expected))
  for name, make, expected in _folder_cases():
    call = _prepare(make, 'mine')
    found.append(inputs.Case(FOLDERS, name, call, expected))
  for name, make, expected in _picture_cases():

    def inside(folder: pathlib.Path, make=make) -> None:
      (folder / 'pictures').mkdir()
      make(folder / 'pictures')

    call = _prepare(inside, 'mine', '--from_images=pictures')
    found.append(inputs.Case(PICTURES, name, call, expected))
  for name in NAMES:
    make = _write('x.npz', _npz(image=_images(), label=_labels()))
    call = _prepare(make, '--from_arrays', 'x.npz', '--', name)
    found.append(inputs.Case(ARRAYS, f'name {name[:20]!r}', call))
  for data, name, make, expected in _archive_cases():
    call = _prepare(make, data, '--manual_dir=manual', '--any_size')
    found.append(inputs.Case(ARCHIVES, name, call, expected))
  found += _damaged_cases(count - len(found))
  return found[:count]


def _damaged_cases(count: int) -> list[inputs.Case]:
  found = []
  for number in range(count):
    kind = (ARRAYS, FOLDERS, PICTURES, ARCHIVES)[number % 4]
    name = f'damaged {number // 4}'
    if kind == ARCHIVES:
      data = 'mnist' if number // 4 % 2 else 'cifar10'
      call = _prepare(
        _damaged_archive(number // 4), data, '--manual_dir=manual', '--any_size'
      )
      found.append(inputs.Case(kind, name, call, inputs.REFUSED))
      continue
    make = _damaged(kind, number // 4)
    if kind == ARRAYS:
      call = _prepare(make, 'mine', '--from_arrays', 'x.npz')
      found.append(inputs.Case(kind, name, call, inputs.EITHER, _same_images))
    elif kind == FOLDERS:
      found.append(inputs.Case(kind, name, _prepare(make, 'mine')))
    else:

      def inside(folder: pathlib.Path, make=make) -> None:
        (folder / 'pictures').mkdir()
        make(folder / 'pictures')

      call = _prepare(inside, 'mine', '--from_images=pictures')
      found.append(inputs.Case(kind, name, call))
  return found
