"""Inputs of the recorded runs, made from text tags.

Nothing random is stored: weights, images, labels and draws of a recorded run
are functions of a tag, through NumPy's `RandomState` seeded with the CRC-32 of
the tag. Arrays are float64 and in PyTorch's layout (kernels OIHW, linear maps
(out, in)). Examples have global numbers: the retain set first, then the forget
set, then the validation set.
"""

import functools
import json
import pathlib
import zlib
from typing import Any

import numpy as np

from jaxmu.models import pytorch_names
from jaxmu.types import Dataset, Split, Transform

CLASSES = 10
MEAN = (0.4914, 0.4822, 0.4465)
STD = (0.2023, 0.1994, 0.2010)
SIZES = {'retain': 70, 'forget': 21, 'val': 24, 'probe': 8}
FIRST = {'retain': 0, 'forget': 70, 'val': 91, 'probe': 115}


def generator(tag: str) -> np.random.RandomState:
  """Return the generator of a tag."""
  return np.random.RandomState(zlib.crc32(tag.encode()) & 0xFFFFFFFF)


def normal(tag: str, shape: tuple[int, ...]) -> np.ndarray:
  """Return the standard normal draw of a tag, f64[shape]."""
  return generator(tag).standard_normal(shape)


def uniform(tag: str, shape: tuple[int, ...]) -> np.ndarray:
  """Return the draw of a tag from [0, 1), f64[shape]."""
  return generator(tag).random_sample(shape)


def state_dict(
  model: Any, variables: Any, tag: str, *, convolution_gain: float = 2.0
) -> dict[str, np.ndarray]:
  """Return the weights of the network `tag` by PyTorch name.

  Args:
    model: gives names and kinds of the tensors.
    variables: any variables of the model; gives their shapes.
    tag: 'M0' or 'M1' for the starting models, '<set>/noisy' for a teacher.
    convolution_gain: 2 for ResNet-18, 1 for TinyViT.
  """
  shapes = {
    name: value.shape
    for name, value in pytorch_names.to_torch(model, variables).items()
  }
  return {
    leaf.torch: _weight(
      f'{tag}/{leaf.torch}', leaf, shapes[leaf.torch], convolution_gain
    )
    for leaf in pytorch_names.leaves(model)
  }


def _weight(tag, leaf, shape, gain):
  draw = normal(tag, shape)
  end = leaf.torch.rsplit('.', 1)[-1]
  if end == 'running_var':
    return np.abs(1 + 0.1 * draw)
  if end != 'weight':
    return 0.1 * draw
  if leaf.kind in ('conv', 'depthwise'):
    return draw * np.sqrt(gain / np.prod(shape[1:]))
  if leaf.kind == 'linear':
    return draw / np.sqrt(shape[1])
  last = 0.3 if leaf.torch.endswith('bn2.weight') else 1.0
  return last * (1 + 0.1 * draw)


def noisy_state_dict(
  model: Any, variables: Any, set_name: str
) -> dict[str, np.ndarray]:
  """Return the bad teacher of a set: fresh weights, BatchNorm at rest."""
  state = state_dict(model, variables, f'{set_name}/noisy')
  for leaf in pytorch_names.leaves(model):
    if leaf.kind == 'batch_norm':
      ones = leaf.torch.endswith(('.weight', '.running_var'))
      state[leaf.torch] = np.full_like(state[leaf.torch], float(ones))
  return state


def labels(seed: int, part: str) -> np.ndarray:
  """Return the labels of 'retain', 'forget', 'val' or 'probe', i32[n].

  Classes 8 and 9 do not occur in the forget set; all occur in the retain set.
  """
  random = generator(f'labels/{seed}/{part}')
  if part == 'forget':
    return random.randint(0, 8, SIZES[part]).astype(np.int32)
  label = random.randint(0, CLASSES, SIZES[part])
  if part == 'retain':
    label[:20] = np.arange(20) % CLASSES
  return label.astype(np.int32)


def images(seed: int, part: str) -> np.ndarray:
  """Return images u8[n, 32, 32, 3]: a 4x4 pattern per class, plus noise."""
  random = generator(f'images/{seed}/{part}')
  found = []
  for label in labels(seed, part):
    pattern = generator(f'classmean/{seed}/{label}').randint(70, 186, (4, 4, 3))
    pattern = pattern.repeat(8, axis=0).repeat(8, axis=1)
    noise = random.randint(-60, 61, (32, 32, 3))
    found.append(np.clip(pattern + noise, 0, 255))
  return np.stack(found).astype(np.uint8)


def dataset(seed: int) -> Dataset:
  """Return all examples by global number, the probe images last."""
  return Dataset(
    np.concatenate([images(seed, part) for part in SIZES]),
    np.concatenate([labels(seed, part) for part in SIZES]),
  )


def split() -> Split:
  """Return the global numbers of the three sets."""
  ranges = {
    part: np.arange(FIRST[part], FIRST[part] + SIZES[part], dtype=np.int32)
    for part in ('retain', 'forget', 'val')
  }
  return Split(**ranges)


def transform() -> Transform:
  """Return the normalisation; recorded runs are not augmented."""
  return Transform(MEAN, STD)


def fingerprint(tensor: np.ndarray) -> np.ndarray:
  """Sum up a tensor in PyTorch's layout, f64[10].

  Norm, projection on sin(1), sin(2), ..., and the first eight entries.
  """
  flat = np.asarray(tensor, np.float64).reshape(-1)
  head = np.zeros(8)
  head[: flat.size] = flat[:8]
  return np.array([np.sqrt(flat @ flat), flat @ _wave()[: flat.size], *head])


@functools.cache
def _wave() -> np.ndarray:
  return np.sin(np.arange(1, 3_000_001, dtype=np.float64))


def mask_checksum(mask: np.ndarray) -> np.ndarray:
  """Sum up a mask in PyTorch's layout: count and two sums of flat indices."""
  prime = 2**31 - 1
  index = np.flatnonzero(np.asarray(mask).reshape(-1)).astype(np.int64)
  squares = (index % prime) * (index % 46337) % prime
  return np.array([index.size, index.sum() % prime, squares.sum() % prime])


def index(folder: pathlib.Path) -> dict[str, dict[str, Any]]:
  """Return the metadata of every recorded run of a set."""
  return json.loads((folder / 'index.json').read_text())


def load(
  folder: pathlib.Path, name: str
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
  """Return metadata and arrays of one recorded run."""
  with np.load(folder / f'{name}.npz') as stored:
    return index(folder)[name], {key: stored[key] for key in stored.files}
