"""The formulations that a compiler's cost model finds fastest on accelerators.

`python benchmarks/aot.py` compiles layers for TPUs that are not there, writes
all estimates to `benchmarks/aot.csv`, and the fastest formulations into this
file. Nothing was measured. A layer that is not listed follows the most similar
one.
"""

import math
from typing import NamedTuple


class Layer(NamedTuple):
  """One kind of convolution.

  Attributes:
    side: height of the images.
    channels: of the images; 1 for each filter of a depthwise convolution.
    features: channels of the result.
    taps: height of the kernel.
    stride: step of the window.
  """

  side: int
  channels: int
  features: int
  taps: int
  stride: int


def layer(
  x_shape: tuple[int, ...], kernel_shape: tuple[int, ...], stride: int
) -> Layer:
  """Return the kind of a convolution of (B, H, W, C) with (h, w, C, K)."""
  taps, _, channels, features = kernel_shape
  return Layer(x_shape[1], channels, features, taps, stride)


def formulation(layer: Layer, known: dict[Layer, str]) -> str:
  """Return the formulation of the most similar layer.

  Kernels of the same size are the most similar, then images of one pixel, where
  a convolution is a product; sizes and channels are compared by their ratios.

  Args:
    layer: the layer.
    known: formulations by layer.
  """

  def distance(other: Layer) -> tuple[float, bool, float]:
    ratios = [abs(math.log(a / b)) for a, b in zip(layer, other, strict=True)]
    return ratios[3], (layer.side == 1) != (other.side == 1), sum(ratios)

  return known[min(known, key=distance)]


# The tables are written by benchmarks/aot.py.
TPU: dict[Layer, str] = {
  Layer(1, 512, 512, 3, 1): 'patches',
  Layer(2, 256, 256, 3, 1): 'library',
  Layer(2, 256, 512, 1, 2): 'library',
  Layer(2, 256, 512, 3, 2): 'patches',
  Layer(4, 128, 128, 3, 1): 'library',
  Layer(4, 128, 256, 1, 2): 'patches',
  Layer(4, 128, 256, 3, 2): 'library',
  Layer(8, 64, 64, 3, 1): 'library',
  Layer(8, 64, 128, 1, 2): 'patches',
  Layer(8, 64, 128, 3, 2): 'library',
  Layer(32, 3, 64, 7, 2): 'library',
}
TPU_DEPTHWISE: dict[Layer, str] = {}
