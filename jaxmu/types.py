"""Data, tasks and problems, and the notation of array shapes.

Shapes in docstrings and comments, such as f[P, N] or i32[B]:

  P  members of a population        N  examples
  C  classes                        B  examples of one batch
  R, F, V  sizes of the retain, forget and validation sets
  H, W     image height and width

A *member* is one model of a population. Everything here describes one member;
only `jaxmu.population` maps over several.
"""

import dataclasses
import math
from typing import Any, Generic, TypeVar

import jax
import numpy as np
from flax import struct

Array = jax.Array
# Structures that are used on the host as well as in programs.
ArrayT = TypeVar('ArrayT', jax.Array, np.ndarray)
Key = jax.Array  # a typed key of `jax.random.key`
Params = Any  # nested dict of arrays
Variables = dict[str, Any]  # {'params': Params, 'batch_stats': nested dict}


@struct.dataclass
class Dataset:
  """All images of a data set, on the device once, shared by all members.

  Indices run over the development part (the official training set) first and
  the official test set after it.
  """

  image: Array  # u8[N, H, W, 3], or packed, see `packed`
  label: Array  # i32[N]
  # Of the images if they are packed.
  shape: tuple[int, int, int] | None = struct.field(
    pytree_node=False, default=None
  )

  @property
  def image_shape(self) -> tuple[int, int, int]:
    """Height, width and channels of an image."""
    if self.shape:
      return self.shape
    _, height, width, channels = self.image.shape
    return height, width, channels

  def look_up(self, index: Array) -> Array:
    """Return images i32[B], u8[B, H, W, 3]."""
    images = self.image[index]
    if self.shape:
      pixels = images.reshape(*index.shape, -1)[..., : math.prod(self.shape)]
      images = pixels.reshape(*index.shape, *self.shape)
    return images

  def packed(self) -> 'Dataset':
    """Return the same images, each in rows of 128 bytes, u8[N, rows, 128].

    A TPU stores arrays in tiles 128 wide. Images that fill whole tiles are
    read without a copy of the set in another layout. Shapes stay shapes.
    """
    size = math.prod(self.image_shape)
    shape = self.image.shape[0], -(-size // _LANES), _LANES
    if self.shape:
      return self
    if isinstance(self.image, jax.ShapeDtypeStruct):
      image: Any = jax.ShapeDtypeStruct(shape, self.image.dtype)
    else:
      flat = self.image.reshape(shape[0], size)
      image = np.pad(flat, ((0, 0), (0, -size % _LANES))).reshape(shape)
    return Dataset(image, self.label, self.image_shape)


_LANES = 128  # bytes in the last axis of a TPU's tile


@dataclasses.dataclass(frozen=True)
class Transform:
  """How bytes become network input; hashable, so static under `jit`.

  Attributes:
    mean: per-channel mean of the pixels in [0, 1].
    std: per-channel standard deviation of the pixels in [0, 1].
    flip: mirror training images with probability one half.
    crop_padding: zero-pad training images by this many pixels and crop back at
      a random offset; 0 for no crop. Padding is black, before normalisation.
  """

  mean: tuple[float, ...]
  std: tuple[float, ...]
  flip: bool = False
  crop_padding: int = 0

  def augmented(self, how: str) -> 'Transform':
    """Return the transform with another augmentation.

    Args:
      how: one of `AUGMENTATIONS`; '' for that of the data set. Crops pad as
        much as the data set does, or by 4 pixels.

    Example:
      >>> Transform((0.5,), (0.2,), flip=True).augmented('crop')
      Transform(mean=(0.5,), std=(0.2,), flip=False, crop_padding=4)
    """
    if not how:
      return self
    padding = (self.crop_padding or 4) if 'crop' in how else 0
    return dataclasses.replace(self, flip='flip' in how, crop_padding=padding)


AUGMENTATIONS = ('', 'none', 'flip', 'crop', 'flip+crop')


@struct.dataclass
class Split(Generic[ArrayT]):
  """Which examples one member retains, forgets and validates on.

  There are no test indices, so that a method cannot use them.
  """

  retain: ArrayT  # i32[R]
  forget: ArrayT  # i32[F]
  val: ArrayT  # i32[V]


@struct.dataclass
class Task:
  """Everything that all members share: data, architecture, precision.

  Attributes:
    dataset: all images and labels.
    model: the architecture, see `jaxmu.models`.
    transform: how bytes become network input.
    precision: of the products of the network, see `jaxmu.precision`.
    cache_teacher: whether methods compute a teacher's logits of all examples
      once before training, which takes N x C floats per member, or in every
      step; it changes time and memory, not the algorithm.
  """

  dataset: Dataset
  model: Any = struct.field(pytree_node=False)
  transform: Transform = struct.field(pytree_node=False)
  precision: str = struct.field(pytree_node=False, default='float32')
  cache_teacher: bool = struct.field(pytree_node=False, default=True)


@struct.dataclass
class Problem:
  """Everything that a method may read.

  Attributes:
    task: data and architecture.
    split: which examples to retain, to forget and to validate on.
    start: the weights to start from: the trained original model for unlearning
      methods, freshly initialised variables for `original` and `retrain`.
  """

  task: Task
  split: Split[Array]
  start: Variables
