"""Any flipped bit is reported, or shown to change nothing."""

import io
import json
import tarfile
import warnings
import zipfile

import numpy as np
import pytest

from jaxmu.data import archives, datasets, formats
from tests.data import standins

FLIPS = 150


def _flip_bits(path, read, *, seed=0):
  """Flip single bits of a file; return those that are silent.

  `read(path)` returns arrays and bytes, or raises ValueError with the file's
  name.
  """
  whole, expected = path.read_bytes(), read(path)
  generator = np.random.default_rng(seed)
  places = generator.integers(0, 8 * len(whole), FLIPS).tolist()
  # The ends hold headers and checksums.
  places += [8 * k + k % 8 for k in range(min(40, len(whole)))]
  places += [8 * (len(whole) - 1 - k) + k % 8 for k in range(40)]
  silent, named = [], 0
  for place in places:
    damaged = bytearray(whole)
    damaged[place // 8] ^= 1 << place % 8
    path.write_bytes(bytes(damaged))
    try:
      if not _equal(read(path), expected):
        silent.append(place)
    except ValueError as error:
      assert path.name in str(error), place
      assert '\n' not in str(error)
      named += 1
  path.write_bytes(whole)
  assert named > FLIPS / 2, 'hardly a flip did anything: a vacuous test'
  return silent


def _equal(one, other):
  return len(one) == len(other) and all(
    np.array_equal(a, b) for a, b in zip(one, other, strict=True)
  )


def _idx(folder):
  path = folder / 'x-idx3-ubyte.gz'
  standins.write_idx(path, _bytes((4, 28, 28)))
  return path, lambda path: [archives.read_idx(path)]


def _cifar(folder, *, python, num_classes):
  path = folder / 'cifar.tar.gz'
  standins.write_cifar(path, python=python, num_classes=num_classes)
  files = ('train',) if num_classes == 100 else ('data_batch_1', 'data_batch_2')

  def read(path):
    examples = archives.cifar_examples(
      path, files=files, num_classes=num_classes
    )
    return [part for example in examples for part in example]

  return path, read


def _faces(folder, *, form):
  path = folder / f'UTKFace.{form}'
  contents = [
    (name, standins.jpeg(k))
    for k, name in enumerate(standins.utkface_names([3, 25, 47, 61]))
  ]
  if form == 'zip':
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
      for name, content in contents:
        archive.writestr(f'UTKFace/{name}', content)
  else:
    with tarfile.open(path, 'w:gz') as tar:
      for name, content in contents:
        member = tarfile.TarInfo(f'UTKFace/{name}')
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))

  def read(path):
    files = archives.utkface_files(path)
    return [part for item in files.items() for part in item]

  return path, read


def _npz(folder, *, write):
  path = folder / 'train.npz'
  write(path, image=_bytes((6, 5, 5, 3)), label=np.arange(6) % 3)
  return path, lambda path: list(formats.read_npz(path))


def _bytes(shape):
  return np.random.default_rng(1).integers(0, 256, shape, np.uint8)


@pytest.mark.parametrize(
  'make, options',
  [
    (_idx, {}),
    (_cifar, {'python': False, 'num_classes': 10}),
    (_cifar, {'python': True, 'num_classes': 10}),
    (_cifar, {'python': False, 'num_classes': 100}),
    (_faces, {'form': 'tar.gz'}),
    (_faces, {'form': 'zip'}),
    (_npz, {'write': np.savez}),
    (_npz, {'write': np.savez_compressed}),
  ],
)
def test_no_flipped_bit_of_an_archive_is_silent(tmp_path, make, options):
  path, read = make(tmp_path, **options)
  assert not _flip_bits(path, read)


def test_arrays_that_state_another_length_are_named(tmp_path):
  path = tmp_path / 'train.npz'
  for shape in ((2, 5, 5, 3), (10**12, 5, 5, 3)):
    content = io.BytesIO()
    np.save(content, np.zeros((6, 5, 5, 3), np.uint8))
    changed = content.getvalue().replace(b'(6, 5, 5, 3)', str(shape).encode())
    with zipfile.ZipFile(path, 'w') as archive:
      archive.writestr('image.npy', changed[: len(content.getvalue())])
      archive.writestr('label.npy', content.getvalue())
    with pytest.raises(ValueError, match=r'train.npz.*image.npy'):
      formats.read_npz(path)


def test_header_damaged_inside_a_plain_tar_is_named(tmp_path):
  path = tmp_path / 'UTKFace.tar'
  with tarfile.open(path, 'w') as tar:
    for k, name in enumerate(standins.utkface_names([3, 25, 47])):
      content = standins.jpeg(k)
      member = tarfile.TarInfo(name)
      member.size = len(content)
      tar.addfile(member, io.BytesIO(content))
  content = bytearray(path.read_bytes())
  second = content.index(b'25_1')
  content[second] ^= 1
  path.write_bytes(bytes(content))
  with pytest.raises(ValueError, match='UTKFace.tar cannot be read'):
    archives.utkface_files(path)


def test_batches_that_are_no_tables_are_named(tmp_path):
  import pickle

  path = tmp_path / 'cifar.tar.gz'
  rows = np.zeros((2, 3072), np.uint8)
  wrong = {
    'a list': [1, 2],
    'no data': {b'labels': [0, 1]},
    'short rows': {b'data': rows[:, :9], b'labels': [0, 1]},
    'floats': {b'data': rows.astype(float), b'labels': [0, 1]},
    'one label': {b'data': rows, b'labels': [0]},
    'text labels': {b'data': rows, b'labels': ['a', 'b']},
  }
  silent = []
  for what, batch in wrong.items():
    content = pickle.dumps(batch, protocol=2)
    with tarfile.open(path, 'w:gz') as tar:
      member = tarfile.TarInfo('cifar-10-batches-py/test_batch')
      member.size = len(content)
      tar.addfile(member, io.BytesIO(content))
    try:
      list(archives.cifar_examples(path, files=('test_batch',), num_classes=10))
      silent.append(what)
    except ValueError as error:
      assert 'batch test_batch is damaged' in str(error), what
  assert not silent


def _cached(folder):
  image = _bytes((8, 6, 6, 3))
  label = np.arange(8) % 2
  source = formats.Raw(
    num_dev=6,
    num_test=2,
    blocks=lambda: iter([(image, label)]),
    size=6,
    num_classes=2,
    origin='here',
  )
  return datasets.convert(folder / 'mine-0', source), folder / 'mine-0'


def _read_cached(folder):
  """Return the contents of a cache folder, or raise its warning as an error."""
  with warnings.catch_warnings():
    warnings.simplefilter('error', UserWarning)
    try:
      arrays = datasets.open_cached(folder)
    except UserWarning as warning:
      raise ValueError(str(warning)) from None
  return [*vars(arrays).values()]


@pytest.mark.parametrize('name', ['record.json', 'image.npy', 'label.npy'])
def test_no_flipped_bit_of_the_cache_is_silent(tmp_path, name):
  _, folder = _cached(tmp_path)

  def read(path):
    try:
      return _read_cached(path.parent)
    except ValueError as error:
      assert str(folder) in str(error)
      raise ValueError(name) from error

  assert not _flip_bits(folder / name, read)


def test_no_other_record_of_the_cache_is_used(tmp_path):
  good, folder = _cached(tmp_path)
  path = folder / 'record.json'
  record = json.loads(path.read_text())
  edited = {
    'mean': [9.0] * 3,
    'std': [1.0] * 3,
    'num_dev': 5,
    'num_classes': 7,
    'origin': 'there',
    'shape': [4, 12, 6, 3],
    'fingerprint': '0' * 64,
    'folder': 'mine-1',
    'copies': 'an image occurs twice',
    'sha256': '0' * 64,
  }
  assert set(edited) == set(record)
  texts = [json.dumps({**record, key: new}) for key, new in edited.items()]
  texts += [
    json.dumps({k: v for k, v in record.items() if k != key}) for key in record
  ]
  texts += ['', '[]', 'null', '3', '"x"', '{}', 'NaN', '[' * 100_000]
  texts += [path.read_text()[: len(path.read_text()) // 2], '\0' * 100]
  silent = []
  for text in texts:
    path.write_text(text)
    with warnings.catch_warnings(record=True) as caught:
      warnings.simplefilter('always')
      if datasets.open_cached(folder) is not None or str(folder) not in str(
        caught[0].message
      ):
        silent.append(text[:60])
  assert not silent
  with pytest.warns(UserWarning, match='converted again'):
    again, _ = _cached(tmp_path)
  assert (again.mean, again.std) == (good.mean, good.std)
  assert json.loads(path.read_text()) == record


def test_cache_of_another_set_in_this_place_is_damage(tmp_path):
  _, folder = _cached(tmp_path)
  folder.rename(tmp_path / 'mine-1')
  with pytest.warns(UserWarning, match='belongs to mine-0'):
    assert datasets.open_cached(tmp_path / 'mine-1') is None
