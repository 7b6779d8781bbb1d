"""A small convolutional network with BatchNorm."""

import flax.linen as nn


class SmallNet(nn.Module):
  """Two strided convolutions, mean pooling and a linear classifier."""

  num_classes: int
  width: int = 8

  @nn.compact
  def __call__(self, images, train: bool):
    x = images
    for width in (self.width, 2 * self.width):
      x = nn.Conv(width, (3, 3), strides=2)(x)
      x = nn.relu(nn.BatchNorm(use_running_average=not train)(x))
    return nn.Dense(self.num_classes)(x.mean((1, 2)))


MODEL = SmallNet
