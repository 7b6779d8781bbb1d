"""Small archives in the original formats, for tests of their readers."""

import dataclasses
import gzip
import hashlib
import io
import pathlib
import pickle
import tarfile

import numpy as np
from PIL import Image

from jaxmu.data import archives

MNIST_FILES = ('train', 't10k')


def write_idx(path: pathlib.Path, array: np.ndarray) -> None:
  """Write a gzipped idx file of bytes."""
  header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, '>i4').tobytes()
  with gzip.open(path, 'wb') as file:
    file.write(header + array.astype(np.uint8).tobytes())


def write_mnist(folder: pathlib.Path, *, num_train=30, num_test=10, seed=0):
  """Write four idx files; return [(image, label) of train, of test]."""
  folder.mkdir(parents=True, exist_ok=True)
  generator = np.random.default_rng(seed)
  parts = []
  for prefix, count in zip(MNIST_FILES, (num_train, num_test), strict=True):
    image = generator.integers(0, 256, (count, 28, 28), dtype=np.uint8)
    label = generator.integers(0, 10, count, dtype=np.uint8)
    write_idx(folder / f'{prefix}-images-idx3-ubyte.gz', image)
    write_idx(folder / f'{prefix}-labels-idx1-ubyte.gz', label)
    parts.append((image[..., None], label))
  return parts


def write_cifar(path: pathlib.Path, *, num_classes=10, python=False, seed=0):
  """Write a CIFAR archive; return [(image, label) of train, of test]."""
  path.parent.mkdir(parents=True, exist_ok=True)
  generator = np.random.default_rng(seed)
  names = ['train', 'test']
  if num_classes == 10:
    names = [f'data_batch_{k}' for k in range(1, 6)] + ['test_batch']
  blocks = []
  with tarfile.open(path, 'w:gz') as tar:
    for name in names:
      image = generator.integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
      label = generator.integers(0, num_classes, 4, dtype=np.uint8)
      rows = image.transpose(0, 3, 1, 2).reshape(4, -1)
      blocks.append((image, label))
      if python:
        key = b'fine_labels' if num_classes == 100 else b'labels'
        batch = {b'data': rows, key: label.tolist(), b'batch_label': b'x'}
        content = pickle.dumps(batch, protocol=2)
        name = f'cifar-{num_classes}-batches-py/{name}'
      else:
        columns = [label[:, None], rows]
        if num_classes == 100:  # the coarse label stands before the fine one
          columns.insert(0, 99 - label[:, None])
        content = np.concatenate(columns, axis=1).tobytes()
        name = f'cifar-{num_classes}-binary/{name}.bin'
      member = tarfile.TarInfo(name)
      member.size = len(content)
      tar.addfile(member, io.BytesIO(content))
  train = tuple(
    np.concatenate(arrays) for arrays in zip(*blocks[:-1], strict=True)
  )
  return [train, blocks[-1]]


def jpeg(seed: int, size: int = 20, mode: str = 'RGB') -> bytes:
  """Return a noisy picture as JPEG."""
  shape = (size, size, 3) if mode == 'RGB' else (size, size)
  pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
  buffer = io.BytesIO()
  Image.fromarray(pixels).save(buffer, 'jpeg')
  return buffer.getvalue()


def utkface_names(ages: list[int]) -> list[str]:
  return [
    f'{age}_{k % 2}_{k % 5}_2017011617452{k:04d}.jpg.chip.jpg'
    for k, age in enumerate(ages)
  ]


def register(monkeypatch, name: str, folder: pathlib.Path, base_url=None):
  """Make the archives in `folder` the official ones of data set `name`."""
  changed = []
  for remote in archives.REMOTES[name]:
    content = (folder / remote.filename).read_bytes()
    url = f'{base_url}/{remote.filename}' if base_url else remote.url
    checksum = hashlib.sha256(content).hexdigest()
    changed.append(
      dataclasses.replace(remote, url=url, size=len(content), sha256=checksum)
    )
  monkeypatch.setitem(archives.REMOTES, name, tuple(changed))
