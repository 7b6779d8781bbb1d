"""What is known in advance about the named data sets: sizes and transforms.

`digits` comes inside scikit-learn; the other five are those of the benchmark
(arXiv 2410.01276). Any other set works too, with constants computed from its
own development part: see `jaxmu.data.sources.load`.
"""

import dataclasses

from jaxmu.core.types import Transform


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
  ),
  # A mirrored digit is another sign, and a crop would cut strokes off the
  # 8 x 8 original: no augmentation.
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
  # The benchmark mirrors MNIST too, although a mirrored digit is another sign.
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
