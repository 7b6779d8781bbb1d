"""The data sets known by name, and the conversion of images to model input.

`CATALOG` holds sizes, transforms and label digests of `digits`, which comes
with scikit-learn, and of the five sets of the benchmark (arXiv 2410.01276).
Any other set works too, with constants computed from its development part.

`to_model_input` converts images to the form of the model input, u8[N, S, S, 3].
"""

import dataclasses

import numpy as np
from PIL import Image

from jaxmu.types import Transform


@dataclasses.dataclass(frozen=True)
class Entry:
  """Constants of one data set.

  Attributes:
    title: the name to print.
    num_classes: number of labels, C.
    native_shape: height, width and channels in the original archive.
    size: height and width of the model input.
    num_dev: examples of the development part (official training set).
    num_test: examples of the official test set.
    transform: normalisation, and augmentation while training from scratch.
    label_digest: first 16 hex digits of the sha256 of all labels as
      little-endian int32 in the official order; empty if not known.
  """

  title: str
  num_classes: int
  native_shape: tuple[int, int, int]
  size: int
  num_dev: int
  num_test: int
  transform: Transform
  label_digest: str = ''


CATALOG: dict[str, Entry] = {
  'cifar10': Entry(
    title='CIFAR-10',
    num_classes=10,
    native_shape=(32, 32, 3),
    size=32,
    num_dev=50_000,
    num_test=10_000,
    transform=Transform(
      mean=(0.4914, 0.4822, 0.4465),
      std=(0.2023, 0.1994, 0.2010),
      flip=True,
      crop_padding=4,
    ),
    label_digest='6eeb9b3104a818f6',
  ),
  'cifar100': Entry(
    title='CIFAR-100',
    num_classes=100,
    native_shape=(32, 32, 3),
    size=32,
    num_dev=50_000,
    num_test=10_000,
    transform=Transform(
      mean=(0.5071, 0.4865, 0.4409),
      std=(0.2673, 0.2564, 0.2762),
      flip=True,
      crop_padding=4,
    ),
    # Of the training labels published with CIFAR-100N (arXiv 2110.12088) and
    # the test labels published with arXiv 2103.14749. The same two sources
    # give the digest of CIFAR-10 above.
    label_digest='449a244c41bb0743',
  ),
  # No augmentation: a mirrored digit is no longer a digit, and a crop would
  # remove strokes of the 8 x 8 original.
  'digits': Entry(
    title='digits (scikit-learn)',
    num_classes=10,
    native_shape=(8, 8, 1),
    size=32,
    num_dev=1_437,
    num_test=360,
    transform=Transform(mean=(0.3056,) * 3, std=(0.3237,) * 3),
  ),
  'fashion_mnist': Entry(
    title='Fashion-MNIST',
    num_classes=10,
    native_shape=(28, 28, 1),
    size=32,
    num_dev=60_000,
    num_test=10_000,
    transform=Transform(mean=(0.2860,) * 3, std=(0.3530,) * 3, flip=True),
    label_digest='d4aa62207beab372',
  ),
  # The benchmark mirrors MNIST too, although a mirrored digit is not a digit.
  'mnist': Entry(
    title='MNIST',
    num_classes=10,
    native_shape=(28, 28, 1),
    size=32,
    num_dev=60_000,
    num_test=10_000,
    transform=Transform(mean=(0.1307,) * 3, std=(0.3081,) * 3, flip=True),
    label_digest='5a9dca1dee6594d3',
  ),
  # Labels are age bands: 0-19, 20-39, 40-59, 60-79, 80 and older.
  'utkface': Entry(
    title='UTKFace',
    num_classes=5,
    native_shape=(200, 200, 3),
    size=224,
    num_dev=18_967,
    num_test=4_741,
    transform=Transform(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
  ),
}


ORDER_SEED = 123


def read_digits() -> tuple[np.ndarray, np.ndarray]:
  """Return images u8[1797, 8, 8, 1] and labels i32[1797] in a fixed order.

  scikit-learn holds the images in the order of their writers. They are shuffled
  once by `np.random.default_rng(123).permutation(1797)`: the first 1,437 form
  the development part, the other 360 the test set. Ink values 0..16 become the
  bytes 0..255, rounded to nearest.
  """
  from sklearn import datasets  # slow to import, needed only by this set

  ink, label = datasets.load_digits(return_X_y=True)
  order = np.random.default_rng(ORDER_SEED).permutation(len(label))
  image = np.round(np.reshape(ink, (-1, 8, 8, 1)) * (255 / 16))
  return image[order].astype(np.uint8), np.asarray(label, np.int32)[order]


def to_model_input(image: np.ndarray, *, size: int) -> np.ndarray:
  """Resize to a square and repeat a single grey channel three times.

  The resize is Pillow's bilinear one on the 8-bit image, channel by channel
  for grey images and at once for colour images, as the benchmark does.

  Args:
    image: u8[N, H, W, C] with C = 1 or 3.
    size: height and width of the result, in pixels.

  Returns:
    u8[N, size, size, 3].

  Raises:
    ValueError: the array is not of this form.
  """
  check_images(image)
  if image.shape[1:3] != (size, size):
    image = np.stack([_resize(one, size) for one in image])
  if image.shape[-1] == 1:
    image = np.repeat(image, 3, axis=-1)
  return image


def check_images(image: np.ndarray, *, origin: str = '') -> None:
  """Raise ValueError unless `image` is u8[N, H, W, 1 or 3] with N > 0."""
  images = f'{origin}: images' if origin else 'images'
  if image.dtype != np.uint8:
    raise ValueError(
      f'{images} have dtype {image.dtype}, expected uint8 (bytes 0..255): '
      'convert floats in [0, 1] with np.round(255 * image).astype(np.uint8)'
    )
  if image.ndim != 4 or image.shape[-1] not in (1, 3):
    raise ValueError(
      f'{images} have shape {image.shape}, expected [N, height, width, '
      f'channels] with 1 (grey) or 3 (RGB) channels{_transposed(image)}'
    )
  if not all(image.shape):
    raise ValueError(f'{images} have shape {image.shape}: the set is empty')


def _transposed(image: np.ndarray) -> str:
  """Return the remedy for arrays with channels before height and width."""
  if image.ndim == 4 and image.shape[1] in (1, 3):
    return ': move the channels to the end with np.moveaxis(image, 1, -1)'
  return ''


def _resize(image: np.ndarray, size: int) -> np.ndarray:
  pixels = image[..., 0] if image.shape[-1] == 1 else image
  resized = Image.fromarray(pixels).resize(
    (size, size), Image.Resampling.BILINEAR
  )
  return np.asarray(resized).reshape(size, size, image.shape[-1])


def channel_moments(
  image: np.ndarray,
) -> tuple[tuple[float, ...], tuple[float, ...]]:
  """Return mean and standard deviation per channel of u8[N, H, W, C] / 255.

  Exact (from integer histograms) and rounded to four decimals, the precision
  at which such constants are published.

  Raises:
    ValueError: a channel hardly varies, so that it cannot be divided by its
      standard deviation.
  """
  moments = []
  for channel in range(image.shape[-1]):
    counts = np.zeros(256, np.int64)
    for start in range(0, len(image), 4096):
      block = image[start : start + 4096, ..., channel]
      counts += np.bincount(block.reshape(-1), minlength=256)
    value = np.arange(256) / 255
    mean = counts @ value / counts.sum()
    std = np.sqrt(counts @ (value - mean) ** 2 / counts.sum())
    moments.append((round(float(mean), 4), round(float(std), 4)))
    if not moments[-1][1]:
      raise ValueError(
        f'channel {channel} of the training images has mean '
        f'{moments[-1][0]} and standard deviation 0.0 (of values in [0, 1]): '
        'it cannot be normalised; remove it (a single grey channel is repeated '
        'three times) or add images in which it varies'
      )
  mean, std = zip(*moments, strict=True)
  return mean, std


# Up to this many training examples, the settings of the digits are used.
SMALL = 10_000


def scale_of(data: str, num_dev: int) -> str:
  """Return the name of the scale whose settings a data set takes.

  Args:
    data: name of the data set.
    num_dev: number of its training examples.

  Example:
    >>> scale_of('mnist', 60_000), scale_of('leaves', 320)
    ('mnist', 'digits')
  """
  if data in CATALOG:
    return data
  return 'digits' if num_dev <= SMALL else 'cifar10'
