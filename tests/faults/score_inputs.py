"""Files of scores for `jaxmu.attack`."""

import functools
import io
import pathlib
import pickle
import zipfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from tests.faults import forks, inputs, tiny_job

KIND = 'score files'
P, N = 8, 24
Arrays = dict[str, np.ndarray]


def good(
  models: int = P, examples: int = N, logits: bool = False, views: int = 0
) -> Arrays:
  """Return scores of models in complementary pairs, with noise alone."""
  rng = np.random.default_rng(0)
  state = np.zeros((models, examples), np.int64)
  order = np.arange(examples)
  for model in range(models):
    if model % 2 == 0:
      order = rng.permutation(examples)
    half = examples // 2
    kept = order[:half] if model % 2 == 0 else order[half:]
    state[model] = 2
    state[model, kept] = 0
    state[model, kept[: max(examples // 6, 1)]] = 1
  arrays: Arrays = {'state': state, 'split': np.arange(models)}
  shape = (models, examples, *((views,) if views else ()))
  for prefix in ('', 'retrained_', 'original_'):
    if logits:
      content = rng.normal(size=(*shape, 3)).astype(np.float32)
      arrays[f'{prefix}logits'] = content
    else:
      arrays[f'{prefix}log_odds'] = rng.normal(size=shape).astype(np.float32)
  if logits:
    arrays['labels'] = rng.integers(0, 3, examples)
  return arrays


def _npz(arrays: Mapping[str, Any], packed: bool = False) -> bytes:
  buffer = io.BytesIO()
  (np.savez_compressed if packed else np.savez)(buffer, **arrays)
  return buffer.getvalue()


def _npy(array: np.ndarray) -> bytes:
  buffer = io.BytesIO()
  np.save(buffer, array, allow_pickle=True)
  return buffer.getvalue()


def _zip(entries: Mapping[str, bytes]) -> bytes:
  buffer = io.BytesIO()
  with zipfile.ZipFile(buffer, 'w') as archive:
    for name, content in entries.items():
      archive.writestr(name, content)
  return buffer.getvalue()


VALUES = {'nan': np.nan, 'inf': np.inf, '-inf': -np.inf, 'huge': 3e38}
PLACES: dict[str, Any] = {
  'all': ...,
  'one': (0, 0),
  'a model': (0,),
  'an example': (slice(None), 0),
}


def _values() -> Iterator[tuple[str, bytes, str]]:
  """Scores that are not finite, and numbers out of range."""
  for key in ('log_odds', 'retrained_log_odds', 'original_log_odds'):
    for (what, value), (where, place) in (
      (v, p) for v in VALUES.items() for p in PLACES.items()
    ):
      arrays = good()
      arrays[key][place] = value
      yield f'{key} {what} {where}', _npz(arrays), inputs.EITHER
    arrays = good()
    arrays[key][...] = 0
    yield f'{key} constant', _npz(arrays), inputs.EITHER
  for value in (4, -1, 127, 255, 10**9):
    arrays = good()
    arrays['state'][0, 0] = value
    yield f'state {value}', _npz(arrays), inputs.REFUSED
  for value in range(4):
    arrays = good()
    arrays['state'][...] = value
    yield f'state all {value}', _npz(arrays), inputs.EITHER
  for name, split in {
    'one': np.zeros(P, int),
    'three': np.arange(P) % 3,
    'huge': np.arange(P) * 10**17,
    'negative': -np.arange(P) - 1,
  }.items():
    yield f'split {name}', _npz({**good(), 'split': split}), inputs.EITHER


# Arrays of another type or shape.
FORMS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
  'a scalar': lambda a: np.array(1, a.dtype),
  'empty': lambda a: a[:0],
  'empty 2': lambda a: np.zeros((0, 0), a.dtype),
  'no examples': lambda a: np.zeros((P, 0), a.dtype),
  'transposed': lambda a: a.T,
  'flat': lambda a: a.reshape(-1),
  'one axis more': lambda a: a[..., None],
  'two axes more': lambda a: a[..., None, None],
  'short': lambda a: a[:-1],
  'twice': lambda a: np.concatenate([a, a]),
  'text': lambda a: a.astype(str),
  'bytes': lambda a: a.astype('S8'),
  'objects': lambda a: a.astype(object),
  'bool': lambda a: a.astype(bool),
  'complex': lambda a: a.astype(complex),
  'float64': lambda a: a.astype('f8'),
  'float16': lambda a: a.astype('f2'),
  'int8': lambda a: np.clip(a, -100, 100).astype('i1'),
  'uint64': lambda a: np.abs(a).astype('u8'),
  'largest int': lambda a: np.full(a.shape, 2**63 - 1),
  'largest uint': lambda a: np.full(a.shape, 2**64 - 1, 'u8'),
  'minus one': lambda a: np.full(a.shape, -1),
  'times': lambda a: a.astype('i8').astype('M8[s]'),
  'records': lambda a: np.zeros(a.shape, [('a', 'f4')]),
  'big-endian': lambda a: a.astype('>f8'),
  'long double': lambda a: a.astype(np.longdouble),
  'void': lambda a: np.zeros(a.shape, 'V8'),
  'Fortran order': np.asfortranarray,
}


def _forms() -> Iterator[tuple[str, bytes, str]]:
  for key in ('log_odds', 'state', 'split', 'retrained_log_odds'):
    for name, form in FORMS.items():
      arrays = good()
      arrays[key] = form(arrays[key])
      yield f'{key} {name}', _npz(arrays), inputs.EITHER
    arrays = good()
    del arrays[key]
    yield f'no {key}', _npz(arrays), inputs.EITHER
  with_logits = good(logits=True)
  other: dict[str, Arrays] = {
    'no labels': {'labels': None},
    'a label too large': {'labels': with_logits['labels'] + 3},
    'a label below 0': {'labels': with_logits['labels'] - 3},
    'labels float': {'labels': with_logits['labels'] + 0.5},
    'labels short': {'labels': with_logits['labels'][:-1]},
    'labels 2-d': {'labels': with_logits['labels'][None]},
    'labels text': {'labels': with_logits['labels'].astype(str)},
    'labels huge': {'labels': np.full(N, 2**63 - 1)},
    'other classes': {'retrained_logits': np.zeros((P, N, 5), np.float32)},
    'no classes': {'logits': np.zeros((P, N, 0), np.float32)},
    'no views': {'logits': np.zeros((P, N, 0, 3), np.float32)},
    'softmax outputs': {'logits': np.full((P, N, 3), 1 / 3, np.float32)},
    'both forms': {'log_odds': np.zeros((P, N), np.float32)},
  }  # type: ignore
  for name, changes in other.items():
    arrays = {
      k: v for k, v in {**with_logits, **changes}.items() if v is not None
    }
    yield f'logits, {name}', _npz(arrays), inputs.REFUSED
  for key in ('unknown', '../../x', 'a/b', '', 'é', 'file'):
    entries = {f'{k}.npy': _npy(v) for k, v in good().items()}
    yield (
      f'array {key!r}',
      _zip({**entries, f'{key}.npy': _npy(np.ones(2))}),
      (inputs.EITHER),
    )
  for models, examples in ((4, 2), (4, 24), (5, 24), (2, 24), (1, 24), (8, 8)):
    name = f'{models} models, {examples} examples'
    yield name, _npz(good(models, examples)), inputs.EITHER


def _header(text: str, content: bytes = b'') -> bytes:
  line = text.encode().ljust(118) + b'\n'
  size = len(line).to_bytes(2, 'little')
  return b'\x93NUMPY\x01\x00' + size + line + content


def _described(shape: str, dtype: str = "'<f4'") -> str:
  return f"{{'descr': {dtype}, 'fortran_order': False, 'shape': {shape}, }}"


HEADERS = {
  'terabytes': _described('(1000000000000, 1000)'),
  'gigabytes': _described('(300000, 3000)'),
  'overflow': _described('(4611686018427387904, 4)'),
  'below 0': _described('(-8, 24)'),
  'objects': _described('(8, 24)', "'|O'"),
  'no type': _described('(8, 24)', "'zzz'"),
  'code': "open('EVIL', 'w')",
  'deep': '(' * 5000,
  'a number': '3',
  'text shape': _described("'abc'"),
  'list type': _described('(8, 24)', "[('a', '<f4')]"),
  'float shape': _described('(8.0, 24)'),
  'no bytes': _described('(8, 24)', "'<f0'"),
  'void': _described('(1000000000000,)', "'|V0'"),
}


_BOMB = 'a bomb of 77 MB'


def _files() -> Iterator[tuple[str, bytes, str]]:
  """What is no file of arrays, or a crafted one."""
  for name, content in {
    'empty': b'',
    'text': b'hello',
    'json': b'{}',
    'gzip': b'\x1f\x8b\x08\x00',
    'zeros': bytes(1000),
    'zip start': b'PK\x03\x04',
    'empty zip': b'PK\x05\x06' + bytes(18),
    'one array': _npy(np.zeros((3, 3))),
    'pickle': pickle.dumps(inputs.Evil()),
    'pickled array': _npy(np.array([inputs.Evil()], object)),
    'many names': _zip({f'k{i}.npy': b'' for i in range(5000)}),
  }.items():
    yield name, content, inputs.REFUSED
  entries = {f'{k}.npy': _npy(v) for k, v in good().items()}
  for name, content in {
    'text': b'hi',
    'nothing': b'',
    'a pickle': _npy(np.array([[inputs.Evil()]], object)),
    'version 9': b'\x93NUMPY\x09\x00' + entries['log_odds.npy'][8:],
    **{k: _header(v, bytes(768)) for k, v in HEADERS.items()},
  }.items():
    yield (
      f'log_odds holds {name}',
      _zip({**entries, 'log_odds.npy': content}),
      (inputs.REFUSED),
    )
  whole = _zip(entries)
  start = whole.find(b'PK\x01\x02')
  for name, place, value in (('encrypted', 8, 1), ('unknown packing', 10, 99)):
    changed = bytearray(whole)
    changed[start + place] = value
    yield name, bytes(changed), inputs.REFUSED
  buffer = io.BytesIO()
  with zipfile.ZipFile(buffer, 'w', zipfile.ZIP_DEFLATED) as archive:
    for name, content in entries.items():
      if name != 'log_odds.npy':
        archive.writestr(name, content)
    with archive.open('log_odds.npy', 'w', force_zip64=True) as file:
      file.write(_header(_described('(8, 24, 100000)')))
      for _ in range(8 * 24):
        file.write(bytes(400_000))
  yield _BOMB, buffer.getvalue(), inputs.REFUSED


@functools.cache
def _whole(packed: bool) -> bytes:
  return _npz(good(), packed)


def _same(ended: forks.Ended, folder: pathlib.Path) -> str:
  """Check that the arrays of an accepted file are the undamaged ones."""
  fault = _possible(ended, folder)
  with np.load(folder / 'scores.npz') as arrays:
    differ = [k for k, v in good().items() if not np.array_equal(arrays[k], v)]
  return fault or (f'other arrays: {differ}' if differ else '')


def _possible(ended: forks.Ended, folder: pathlib.Path) -> str:
  return inputs.possible_numbers(folder / 'out' / 'results.csv')


def _call(content: bytes, *flags: str):
  def call(home: tiny_job.Home, folder: pathlib.Path) -> forks.Call:
    path = folder / 'scores.npz'
    path.write_bytes(content)
    words = (f'--scores={path}', f'--out={folder / "out"}', *flags)
    return home.call('jaxmu.attack', *words, cwd=str(folder), seconds=120)

  return call


def cases(count: int) -> list[inputs.Case]:
  """Return all crafted files, and then as many damaged ones as are left."""
  found = []
  for number, (name, content, expected) in enumerate(
    (*_files(), *_forms(), *_values())
  ):
    flags = () if number % 8 == 0 else ('--attacks=loss', '--fprs=0.1')
    if name == _BOMB:
      flags = ('--max_gb=0.05',)
    found.append(
      inputs.Case(KIND, name, _call(content, *flags), expected, _possible)
    )
  for number in range(count - len(found)):
    whole = _whole(packed=number % 2 == 1)
    damage = inputs.cut if number % 4 == 3 else inputs.flipped
    content = damage(whole, KIND, number)
    found.append(
      inputs.Case(
        KIND,
        f'damaged {number}',
        _call(content, '--attacks=loss', '--fprs=0.1'),
        inputs.EITHER,
        _same,
      )
    )
  return found[:count]
