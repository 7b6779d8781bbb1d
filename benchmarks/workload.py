"""The input of both backends: a model, a population, a method, data.

Images and labels are random, which does not affect the cost of a training step.
Neither backend's package is imported here.
"""

import dataclasses
from typing import Any

import numpy as np

MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
# Small, because training amplifies float32 rounding and losses are compared.
RATE = 1e-3


@dataclasses.dataclass(frozen=True)
class Workload:
  """One population to be trained or unlearned for an epoch.

  Attributes:
    model: name in `jaxmu.models`.
    options: of the model.
    members: size P of the population.
    batch: examples of a step.
    retain, forget, val: sizes of the index sets.
    method: name in `jaxmu.methods`.
    hparams: changes to its defaults, except the batch size.
    classes: number of classes.
    side: height and width of the images.
    precision: of the products, see `jaxmu.precision`.
    augment: whether jaxmu crops and mirrors images; PyTorch's backend does not.
  """

  model: str
  options: dict[str, Any]
  members: int
  batch: int
  retain: int
  forget: int = 1
  val: int = 1
  method: str = 'retrain'
  hparams: dict[str, Any] = dataclasses.field(default_factory=dict)
  classes: int = 10
  side: int = 32
  precision: str = 'float32'
  augment: bool = False

  @property
  def label(self) -> str:
    """Name of the model with its width."""
    width = self.options.get('width')
    return f'{self.model} width {width}' if width else self.model

  @property
  def examples(self) -> int:
    """Examples of the data set."""
    return self.retain + self.forget + self.val

  def data(self) -> tuple[np.ndarray, np.ndarray]:
    """Return images u8[N, H, W, 3] and labels i32[N]."""
    rng = np.random.default_rng(0)
    shape = (self.examples, self.side, self.side, 3)
    image = rng.integers(0, 256, shape, np.uint8)
    return image, rng.integers(0, self.classes, self.examples, np.int32)

  def sets(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return retain, forget and validation sets, i32[P, ...]."""
    ends = self.retain, self.retain + self.forget
    rng = np.random.default_rng(1)
    orders = [rng.permutation(self.examples) for _ in range(self.members)]
    return tuple(np.split(np.array(orders, np.int32), ends, axis=1))
